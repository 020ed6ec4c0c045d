"""Formats values of any kind as Go's ``Sprint``, ``Sprintln`` and ``Sprintf`` do."""

from __future__ import annotations

import re

from ollama_async.gocompat.fmt import Formatter
from ollama_async.gocompat.render_budget import RenderBudget, TextBuffer
from ollama_async.gocompat.strconv import from_bytes, joined
from ollama_async.gocompat.values import (
    ANY,
    UINT8,
    Byte,
    Map,
    Pointer,
    Sequence,
    Slice,
    Struct,
    Type,
    Value,
    type_of,
)

_LARGEST = 1_000_000
"""Of a width, a precision or an argument's number."""

_DIGITS = re.compile("[0-9]+")
_FLAGS = {"#": "sharp", "0": "zero", "+": "plus", "-": "minus", " ": "space"}

_ADDRESS = 0xC000010000
"""Shown in place of a value's address in memory."""


def sprint(budget: RenderBudget, *values: Value) -> str:
    """All values, with a space between two neighbours if neither is a string."""
    printer = _Printer(budget)
    after_string = True
    for value in values:
        is_string = isinstance(value, str)
        if not is_string and not after_string:
            printer.buffer.write(" ")
        printer.argument(value, "v")
        after_string = is_string
    return joined(printer.buffer.text())


def sprintln(budget: RenderBudget, *values: Value) -> str:
    """All values, with spaces between them and a line end."""
    printer = _Printer(budget)
    for number, value in enumerate(values):
        if number:
            printer.buffer.write(" ")
        printer.argument(value, "v")
    printer.buffer.write("\n")
    return joined(printer.buffer.text())


def sprintf(budget: RenderBudget, form: str, *values: Value) -> str:
    """Errors in ``form`` appear in the text, as in Go."""
    return joined(_FormatString(budget, form, values).run())


class _Printer:
    """Writes values into ``buffer``, each by its verb and the current ``format``."""

    def __init__(self, budget: RenderBudget) -> None:
        self.buffer = TextBuffer(budget)
        self.format = Formatter()
        self._in_error = False  # values inside an error are shown without their methods

    def argument(self, value: Value, verb: str) -> None:
        """``value`` is not boxed; None is nil."""
        if value is None:
            if verb in "Tv":
                self.buffer.write(self.format.padded("<nil>"))
            else:
                self._wrong_verb(None, verb)
        elif verb == "T":
            self.buffer.write(self.format.text(str(type_of(value))))
        elif verb == "p":
            self._address(value, verb)
        elif verb == "w":  # for errors, of which there are none here
            self._wrong_verb(value, verb)
        elif not self._by_method(value, verb):
            self._value(value, verb, 0)

    def _by_method(self, value: Value, verb: str) -> bool:
        """Write ``value`` with its own ``String`` method; false if that does not apply."""
        to_text = type_of(value).to_text
        if to_text is None or self._in_error or self.format.go_syntax or verb not in "vsxXq":
            return False
        self._scalar(to_text(value), verb)
        return True

    def _value(self, value: Value, verb: str, depth: int) -> None:
        if value is None:
            if verb == "v":
                self.buffer.write("<nil>")
            else:
                self._wrong_verb(None, verb)
        elif depth == 0 or not self._by_method(value, verb):
            match type_of(value).kind:
                case "map":
                    self._map(value, verb, depth)
                case "struct":
                    self._struct(value, verb, depth)
                case "slice":
                    self._slice(value, verb, depth)
                case "pointer":
                    self._pointer(value, verb, depth)
                case "function":
                    self._address(value, verb)
                case "interface":
                    self._element(value.value, ANY, verb, depth)
                case _:
                    self._scalar(value, verb)

    def _scalar(self, value: Value, verb: str) -> None:
        if isinstance(value, str) and (verb == "q" or self.format.go_syntax):
            self.buffer.budget.spend_characters(len(value))
        shown = self.format.scalar(value, verb)
        if shown is None:
            self._wrong_verb(value, verb)
        else:
            self.buffer.write(shown)

    def _map(self, value: Map, verb: str, depth: int) -> None:
        open_, between, close = self._around(value.type, "map[", "]")
        self.buffer.write(open_)
        for number, (key, item) in enumerate(value.sorted()):
            self.buffer.write(between if number else "")
            self._value(key, verb, depth + 1)
            self.buffer.write(":")
            self._element(item, value.type.element, verb, depth)
        self.buffer.write(close)

    def _struct(self, value: Struct, verb: str, depth: int) -> None:
        open_, between, close = self._around(value.type, "{", "}")
        self.buffer.write(open_)
        for number, member in enumerate(value.type.members):
            self.buffer.write(between if number else "")
            if self.format.names or self.format.go_syntax:
                self.buffer.write(member.name + ":")
            self._element(value.values[member.name], member.type, verb, depth)
        self.buffer.write(close)

    def _slice(self, value: Slice, verb: str, depth: int) -> None:
        is_bytes = value.type.element is UINT8
        shown = None
        if is_bytes and verb in "sxXq":
            shown = self.format.string(from_bytes(value.to_bytes()), verb)
        elif value.is_nil and self.format.go_syntax and not is_bytes:
            shown = f"{value.type}(nil)"
        if shown is not None:
            self.buffer.write(shown)
            return
        open_, between, close = self._around(value.type, "[", "]")
        self.buffer.write(open_)
        for number, item in enumerate(value.raw()):
            self.buffer.write(between if number else "")
            self._element(Byte(item) if is_bytes else item, value.type.element, verb, depth)
        self.buffer.write(close)

    def _around(self, kind: Type, open_: str, close: str) -> tuple[str, str, str]:
        """The text before, between and after the parts of a value."""
        return (f"{kind}{{", ", ", "}") if self.format.go_syntax else (open_, " ", close)

    def _element(self, item: Value, kind: Type | None, verb: str, depth: int) -> None:
        """A part of a value. One of any type counts as one level deeper."""
        if kind is not ANY:
            self._value(item, verb, depth + 1)
        elif item is None:
            self.buffer.write("interface {}(nil)" if self.format.go_syntax else "<nil>")
        else:
            self._value(item, verb, depth + 2)

    def _pointer(self, value: Pointer, verb: str, depth: int) -> None:
        if depth == 0 and value.target is not None:
            self.buffer.write("&")
            self._value(value.target, verb, depth + 1)
        else:
            self._address(value, verb)

    def _address(self, value: Value, verb: str) -> None:
        if not isinstance(value, Pointer | Slice | Map | Sequence) or verb not in "vpbodxX":
            self._wrong_verb(value, verb)
            return
        nil = isinstance(value, Pointer) and value.target is None
        address = 0 if nil else _ADDRESS
        if verb == "v" and self.format.go_syntax:
            self.buffer.write(f"({type_of(value)})({hex(address) if address else 'nil'})")
        elif verb == "v" and not address:
            self.buffer.write(self.format.padded("<nil>"))
        elif verb in "vp":
            self.buffer.write(self.format.address(address))
        else:
            self.buffer.write(self.format.integer(address, verb, signed=False) or "")

    def _wrong_verb(self, value: Value, verb: str) -> None:
        self._in_error = True
        self.buffer.write(f"%!{verb}(")
        if value is None:
            self.buffer.write("<nil>")
        else:
            self.buffer.write(f"{type_of(value)}=")
            self._value(value, "v", 0)
        self.buffer.write(")")
        self._in_error = False


class _FormatString:
    """One pass over a format."""

    def __init__(self, budget: RenderBudget, form: str, values: tuple[Value, ...]) -> None:
        self._form = form
        self._values = values
        self._printer = _Printer(budget)
        self._write = self._printer.buffer.write
        self._at = 0
        self._next = 0  # index of the next value
        self._chosen = False  # some value was named by its number
        self._good_number = True
        self._after_number = False

    def run(self) -> str:
        while (percent := self._form.find("%", self._at)) >= 0:
            self._write(self._form[self._at : percent])
            self._at = percent + 1
            self._verb()
        self._write(self._form[self._at :])
        self._extra()
        return self._printer.buffer.text()

    def _verb(self) -> None:
        self._good_number = True
        self._after_number = False
        flags = self._printer.format = Formatter()
        while (character := self._peek()) in _FLAGS:
            setattr(flags, _FLAGS[character], True)
            self._at += 1
        if not (character.isascii() and character.islower() and self._next < len(self._values)):
            self._width_and_precision(flags)
        verb = self._peek()
        if not verb:
            self._write("%!(NOVERB)")
            return
        self._at += 1
        self._show(verb, flags)

    def _width_and_precision(self, flags: Formatter) -> None:
        self._number()
        flags.width = self._width(flags)
        if self._peek() == "." and self._at + 1 < len(self._form):
            self._at += 1
            if self._after_number:
                self._good_number = False
            self._number()
            flags.precision = self._precision()
        if not self._after_number:
            self._number()

    def _width(self, flags: Formatter) -> int | None:
        if self._peek() != "*":
            width = self._digits()
            if self._after_number and width is not None:
                self._good_number = False
            return width
        width = self._from_values("%!(BADWIDTH)")
        if width is not None and width < 0:
            flags.minus, flags.zero = True, False
            return -width
        return width

    def _precision(self) -> int | None:
        if self._peek() != "*":
            return self._digits() or 0
        return self._from_values("%!(BADPREC)", least=0)

    def _from_values(self, error: str, least: int = -_LARGEST) -> int | None:
        """A width or precision that is one of the values."""
        self._at += 1
        self._after_number = False
        value = self._values[self._next] if self._next < len(self._values) else None
        self._next += self._next < len(self._values)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST:
            return int(value)
        self._write(error)
        return None

    def _number(self) -> None:
        """``[3]`` chooses a value."""
        self._after_number = False
        if self._peek() != "[":
            return
        self._chosen = True
        close = self._form.find("]", self._at)
        inside = self._form[self._at + 1 : close]
        if close < 0 or len(self._form) - self._at < 3:
            self._at += 1
            self._good_number = False
            return
        self._at = close + 1
        digits = inside.isascii() and inside.isdecimal() and len(inside) <= 7
        if digits and 0 <= int(inside) - 1 < len(self._values):
            self._next = int(inside) - 1
            self._after_number = True
        else:
            self._good_number = False
            self._after_number = digits

    def _digits(self) -> int | None:
        digits = _DIGITS.match(self._form, self._at)
        if digits is None:
            return None
        self._at, text = digits.end(), digits[0]
        if len(text) > 7 or int(text[:-1] or "0") > _LARGEST:
            self._at = len(self._form)  # Go gives up here too
            return None
        return int(text)

    def _show(self, verb: str, flags: Formatter) -> None:
        if verb == "%":
            self._write("%")
        elif not self._good_number:
            self._write(f"%!{verb}(BADINDEX)")
        elif self._next >= len(self._values):
            self._write(f"%!{verb}(MISSING)")
        else:
            if verb in "vw":
                flags.go_syntax, flags.sharp = flags.sharp, False
                flags.names, flags.plus = flags.plus, False
            self._printer.argument(self._values[self._next], verb)
            self._next += 1

    def _extra(self) -> None:
        """Reports values for which there was no verb."""
        if self._chosen or self._next >= len(self._values):
            return
        self._printer.format = Formatter()
        self._write("%!(EXTRA ")
        for number, value in enumerate(self._values[self._next :]):
            if number:
                self._write(", ")
            if value is None:
                self._write("<nil>")
            else:
                self._write(f"{type_of(value)}=")
                self._printer.argument(value, "v")
        self._write(")")

    def _peek(self) -> str:
        return self._form[self._at : self._at + 1]

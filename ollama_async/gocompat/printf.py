"""Go's ``Sprint``, ``Sprintln`` and ``Sprintf``."""

from __future__ import annotations

from ollama_async.gocompat.budget import Budget, Buffer
from ollama_async.gocompat.bytestrings import joined
from ollama_async.gocompat.fmt import Flags
from ollama_async.gocompat.printer import Printer
from ollama_async.gocompat.values import Value, type_of

_LARGEST = 1_000_000
"""Of a width, a precision or an argument's number."""

_FLAGS = {"#": "sharp", "0": "zero", "+": "plus", "-": "minus", " ": "space"}


def sprint(values: list[Value], budget: Budget) -> str:
    """All of them, with a blank between two that are no strings."""
    buffer = Buffer(budget)
    printer = Printer(buffer)
    after_string = True
    for value in values:
        is_string = isinstance(value, str)
        if not is_string and not after_string:
            buffer.write(" ")
        printer.argument(value, "v")
        after_string = is_string
    return joined(buffer.text())


def sprintln(values: list[Value], budget: Budget) -> str:
    """All of them, with blanks between, on a line."""
    buffer = Buffer(budget)
    printer = Printer(buffer)
    for number, value in enumerate(values):
        if number:
            buffer.write(" ")
        printer.argument(value, "v")
    buffer.write("\n")
    return joined(buffer.text())


def sprintf(form: str, values: list[Value], budget: Budget) -> str:
    """What is wrong with ``form`` is said in the text, as Go does."""
    return joined(_Format(form, values, budget).run())


class _Format:
    """One walk through a format."""

    def __init__(self, form: str, values: list[Value], budget: Budget) -> None:
        self._form = form
        self._values = values
        self._buffer = Buffer(budget)
        self._printer = Printer(self._buffer)
        self._at = 0
        self._next = 0  # the value whose turn it is
        self._chosen = False  # some value was named by its number
        self._good_number = True
        self._after_number = False

    def run(self) -> str:
        while True:
            percent = self._form.find("%", self._at)
            if percent < 0:
                self._buffer.write(self._form[self._at :])
                break
            self._buffer.write(self._form[self._at : percent])
            self._at = percent + 1
            self._verb()
        self._extra()
        return self._buffer.text()

    def _verb(self) -> None:
        self._good_number = True
        self._after_number = False
        flags = self._printer.flags = Flags()
        while (character := self._peek()) in _FLAGS:
            setattr(flags, _FLAGS[character], True)
            self._at += 1
        if not (character.isascii() and character.islower() and self._next < len(self._values)):
            self._width_and_precision(flags)
        verb = self._peek()
        if not verb:
            self._buffer.write("%!(NOVERB)")
            return
        self._at += 1
        self._show(verb, flags)

    def _width_and_precision(self, flags: Flags) -> None:
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

    def _width(self, flags: Flags) -> int | None:
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

    def _from_values(self, complaint: str, least: int = -_LARGEST) -> int | None:
        """A width or precision that is one of the values."""
        self._at += 1
        self._after_number = False
        value = self._values[self._next] if self._next < len(self._values) else None
        self._next += self._next < len(self._values)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST:
            return int(value)
        self._buffer.write(complaint)
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
        start = self._at
        while self._peek() in tuple("0123456789"):
            self._at += 1
        text = self._form[start : self._at]
        if not text:
            return None
        if len(text) > 7 or int(text[:-1] or "0") > _LARGEST:
            self._at = len(self._form)  # Go gives up here too
            return None
        return int(text)

    def _show(self, verb: str, flags: Flags) -> None:
        if verb == "%":
            self._buffer.write("%")
        elif not self._good_number:
            self._buffer.write(f"%!{verb}(BADINDEX)")
        elif self._next >= len(self._values):
            self._buffer.write(f"%!{verb}(MISSING)")
        else:
            if verb in "vw":
                flags.go_syntax, flags.sharp = flags.sharp, False
                flags.names, flags.plus = flags.plus, False
            self._printer.argument(self._values[self._next], verb)
            self._next += 1

    def _extra(self) -> None:
        """Values that nobody asked for."""
        if self._chosen or self._next >= len(self._values):
            return
        self._printer.flags = Flags()
        self._buffer.write("%!(EXTRA ")
        for number, value in enumerate(self._values[self._next :]):
            if number:
                self._buffer.write(", ")
            if value is None:
                self._buffer.write("<nil>")
            else:
                self._buffer.write(f"{type_of(value)}=")
                self._printer.argument(value, "v")
        self._buffer.write(")")

    def _peek(self) -> str:
        return self._form[self._at : self._at + 1]

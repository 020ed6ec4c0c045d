"""Go's ``fmt``: how values become text. See :mod:`printf` for what a format says."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from ollama_async.gocompat import types
from ollama_async.gocompat.budget import Buffer
from ollama_async.gocompat.fmt import Flags, Scalars
from ollama_async.gocompat.json_encode import encode
from ollama_async.gocompat.types import Type
from ollama_async.gocompat.values import (
    Boxed,
    Byte,
    Map,
    Pointer,
    Sequence,
    Slice,
    Struct,
    Value,
    kind_of,
    type_of,
    unboxed,
)

_ADDRESS = 0xC000010000
"""In place of where a value lies in memory, which Go shows in some places."""


class Printer:
    """Writes values into ``buffer``, each as the verb and ``flags`` of the moment say."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.flags = Flags()
        self._in_error = False  # values inside an error are shown without their methods

    def argument(self, value: Value, verb: str) -> None:
        """``value`` is not boxed; None is nil."""
        if value is None:
            if verb in "Tv":
                self._buffer.write(self.flags.padded("<nil>"))
            else:
                self._wrong_verb(None, verb)
        elif verb == "T":
            self._buffer.write(self._scalars.text(str(type_of(value))))
        elif verb == "p":
            self._address(value, verb)
        elif verb == "w":  # for errors, of which there are none here
            self._wrong_verb(value, verb)
        elif type(value) in _SCALAR or not self._as_json(value, verb):
            self._value(value, verb, 0)

    @property
    def _scalars(self) -> Scalars:
        return Scalars(self.flags)

    def _as_json(self, value: Value, verb: str) -> bool:
        """Whether it has been shown by its own ``String`` method."""
        if self._in_error or self.flags.go_syntax or verb not in "vsxXq" or value is None:
            return False
        shown = own_text(value)
        if shown is None:
            return False
        self._string(shown, value, verb)
        return True

    def _value(self, value: Value, verb: str, depth: int) -> None:
        if depth > 0 and type(value) not in _SCALAR and self._as_json(value, verb):
            return
        if value is None:
            if verb == "v":
                self._buffer.write("<nil>")
            else:
                self._wrong_verb(None, verb)
            return
        self._BY_KIND[kind_of(value)](self, value, verb, depth)

    def _string(self, text: str, value: Value, verb: str) -> None:
        if verb == "q" or self.flags.go_syntax:
            self._buffer.budget.characters(len(text))
        shown = self._scalars.string(text, verb)
        if shown is None:
            self._wrong_verb(value, verb)
        else:
            self._buffer.write(shown)

    def _plain_string(self, value: str, verb: str, _: int) -> None:
        self._string(value, value, verb)

    def _bool(self, value: bool, verb: str, _: int) -> None:
        if verb in "tv":
            self._buffer.write(self.flags.padded("true" if value else "false"))
        else:
            self._wrong_verb(value, verb)

    def _integer(self, value: int, verb: str, _: int) -> None:
        shown = self._scalars.integer(int(value), verb, signed=not isinstance(value, Byte))
        if shown is None:
            self._wrong_verb(value, verb)
        else:
            self._buffer.write(shown)

    def _float(self, value: float, verb: str, _: int) -> None:
        shown = self._scalars.real(value, verb)
        if shown is None:
            self._wrong_verb(value, verb)
        else:
            self._buffer.write(shown)

    def _complex(self, value: complex, verb: str, _: int) -> None:
        shown = self._scalars.pair(value, verb)
        if shown is None:
            self._wrong_verb(value, verb)
        else:
            self._buffer.write(shown)

    def _map(self, value: Map, verb: str, depth: int) -> None:
        entries: list[tuple[str, Value]] = value.sorted()
        open_, between, close = self._around(value.type, "map[", "]")
        self._buffer.write(open_)
        for number, (key, item) in enumerate(entries):
            self._buffer.write(between if number else "")
            self._value(key, verb, depth + 1)
            self._buffer.write(":")
            self._element(item, value.type.element, verb, depth)
        self._buffer.write(close)

    def _struct(self, value: Struct, verb: str, depth: int) -> None:
        open_, between, close = self._around(value.type, "{", "}")
        self._buffer.write(open_)
        for number, member in enumerate(value.type.members):
            self._buffer.write(between if number else "")
            if self.flags.names or self.flags.go_syntax:
                self._buffer.write(member.name + ":")
            self._element(value.values[member.name], member.type, verb, depth)
        self._buffer.write(close)

    def _slice(self, value: Slice, verb: str, depth: int) -> None:
        if value.type.element is types.UINT8:
            self._bytes(value, verb)
            return
        if value.is_nil and self.flags.go_syntax:
            self._buffer.write(f"{value.type}(nil)")
            return
        open_, between, close = self._around(value.type, "[", "]")
        self._buffer.write(open_)
        for number, item in enumerate(value.raw()):
            self._buffer.write(between if number else "")
            self._element(item, value.type.element, verb, depth)
        self._buffer.write(close)

    def _bytes(self, value: Slice, verb: str) -> None:
        data = value.bytes()
        shown = self._scalars.octets(data, verb) if verb in "sxXq" else None
        if shown is not None:
            self._buffer.write(shown)
            return
        open_, between, close = self._around(value.type, "[", "]")
        self._buffer.write(open_)
        for number, byte in enumerate(data):
            self._buffer.write(between if number else "")
            self._integer(Byte(byte), verb, 1)
        self._buffer.write(close)

    def _around(self, kind: Type, open_: str, close: str) -> tuple[str, str, str]:
        """What stands before, between and after the parts of a value."""
        return (f"{kind}{{", ", ", "}") if self.flags.go_syntax else (open_, " ", close)

    def _element(self, item: Value, kind: Type | None, verb: str, depth: int) -> None:
        """A part of a value. One of any type counts as one level deeper than its place."""
        if kind is not types.ANY:
            self._value(item, verb, depth + 1)
        elif item is None:
            self._buffer.write("interface {}(nil)" if self.flags.go_syntax else "<nil>")
        else:
            self._value(item, verb, depth + 2)

    def _pointer(self, value: Pointer, verb: str, depth: int) -> None:
        if depth == 0 and value.target is not None:
            self._buffer.write("&")
            self._value(value.target, verb, depth + 1)
        else:
            self._address(value, verb)

    def _function(self, value: Sequence, verb: str, _: int) -> None:
        self._address(value, verb)

    def _address(self, value: Value, verb: str) -> None:
        if not isinstance(value, Pointer | Slice | Map | Sequence) or verb not in "vpbodxX":
            self._wrong_verb(value, verb)
            return
        nil = isinstance(value, Pointer) and value.target is None
        address = 0 if nil else _ADDRESS
        if verb == "v" and self.flags.go_syntax:
            self._buffer.write(f"({type_of(value)})({hex(address) if address else 'nil'})")
        elif verb == "v" and not address:
            self._buffer.write(self.flags.padded("<nil>"))
        elif verb in "vp":
            self._buffer.write(self._scalars.address(address))
        else:
            self._buffer.write(self._scalars.integer(address, verb, signed=False) or "")

    def _boxed(self, value: Boxed, verb: str, depth: int) -> None:
        self._element(unboxed(value), types.ANY, verb, depth)

    def _wrong_verb(self, value: Value, verb: str) -> None:
        self._in_error = True
        self._buffer.write(f"%!{verb}(")
        if value is None:
            self._buffer.write("<nil>")
        else:
            self._buffer.write(f"{type_of(value)}=")
            self._value(value, "v", 0)
        self._buffer.write(")")
        self._in_error = False

    _BY_KIND: ClassVar[dict[str, Callable[[Printer, Value, str, int], None]]] = {
        "bool": _bool,
        "int": _integer,
        "uint": _integer,
        "float": _float,
        "complex": _complex,
        "string": _plain_string,
        "map": _map,
        "struct": _struct,
        "slice": _slice,
        "pointer": _pointer,
        "function": _function,
        "interface": _boxed,
    }


def own_text(value: Value) -> str | None:
    """What the value's type has its values print as; None: it has no such method."""
    kind = type_of(value)
    if kind.shows_json:
        return encode(value) or ""
    if kind is types.PROPERTY_TYPES:
        return property_types(value)
    return None


def property_types(value: Slice) -> str:
    names = list(value.raw())
    return names[0] if len(names) == 1 else f"[{' '.join(names)}]" if names else ""


_SCALAR = frozenset((str, bool, int, Byte, float, complex))

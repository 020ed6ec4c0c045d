"""What a template can call by name, except ``and`` and ``or``, which evaluate lazily."""

from __future__ import annotations

import urllib.parse
from datetime import datetime, timedelta

from ollama_async.gocompat.json_encode import encode
from ollama_async.gocompat.printf import sprint, sprintf, sprintln
from ollama_async.gocompat.render_budget import RenderBudget
from ollama_async.gocompat.strconv import EscapeTable, byte_length, from_bytes, to_bytes
from ollama_async.gocompat.values import (
    Byte,
    Function,
    Map,
    Pointer,
    Slice,
    Struct,
    Type,
    Value,
    indirect,
    is_nil,
    is_true,
    kind_of,
    method_of,
    type_of,
    unboxed,
)


class CallFailed(Exception):
    """A function refuses its arguments; the text is Go's."""


def printable(value: Value) -> Value:
    """What is shown for a value that stands alone in an action."""
    if isinstance(value, Pointer):
        value, _ = indirect(value)
    return "<no value>" if value is None else value


def call_error(callee: str | None, value: Value) -> str:
    """Why ``call`` fails, as it always does: nothing in a template's data can be called.

    ``callee`` is the argument as written; None: it came through a pipe.
    """
    if callee is None:
        if value is None:
            callee = "<invalid Value>"
        else:
            callee = value if isinstance(value, str) else f"<{type_of(value)} Value>"
    value = unboxed(value)
    if value is None:
        return "error calling call: call of nil"
    return f"error calling call: non-function {callee} of type {type_of(value)}"


# len, index, slice


def _len(budget: RenderBudget, item: Value) -> int:
    item, nil = indirect(item)
    if nil:
        raise CallFailed("len of nil pointer")
    if item is None:
        # the error of Go's reflection
        raise CallFailed("reflect: call of reflect.Value.Type on zero Value")
    if isinstance(item, str):
        budget.spend_text(len(item))
        return byte_length(item)
    if isinstance(item, Slice | Map):
        return len(item)
    raise CallFailed(f"len of type {type_of(item)}")


def _index(budget: RenderBudget, item: Value, *keys: Value) -> Value:
    item = unboxed(item)
    if item is None:
        raise CallFailed("index of untyped nil")
    for key in keys:
        item, nil = indirect(item)
        if nil:
            raise CallFailed("index of nil pointer")
        item = _item(budget, item, unboxed(key))
    return item


def _item(budget: RenderBudget, item: Value, key: Value) -> Value:
    if isinstance(item, Map):
        if key is None:
            raise CallFailed("value is nil; should be of type string")
        if not isinstance(key, str):
            raise CallFailed(f"value has type {type_of(key)}; should be string")
        return item.get(key)
    if isinstance(item, str):
        budget.spend_text(len(item))
        data = to_bytes(item)
        return Byte(data[_element_index(key, len(data), "string")])
    if isinstance(item, Slice):
        return item.at(_element_index(key, len(item), "slice"))
    raise CallFailed(f"can't index item of type {type_of(item)}")


def _element_index(key: Value, size: int, kind: str) -> int:
    """``key`` as the index of one element. Go's check is off by one, its slices are not."""
    index = _checked_index(key, size)
    if index == size:
        raise CallFailed(f"reflect: {kind} index out of range")
    return index


def _checked_index(key: Value, limit: int) -> int:
    if key is None:
        raise CallFailed("cannot index slice/array with nil")
    if kind_of(key) not in ("int", "uint"):
        raise CallFailed(f"cannot index slice/array with type {type_of(key)}")
    if not 0 <= key <= limit:
        raise CallFailed(f"index out of range: {int(key)}")
    return int(key)


def _slice(budget: RenderBudget, item: Value, *keys: Value) -> Value:
    item = unboxed(item)
    if item is None:
        raise CallFailed("slice of untyped nil")
    item, nil = indirect(item)
    if nil:
        raise CallFailed("slice of nil pointer")
    if len(keys) > 3:
        raise CallFailed(f"too many slice indexes: {len(keys)}")
    if isinstance(item, str):
        if len(keys) == 3:
            raise CallFailed("cannot 3-index slice a string")
        budget.spend_text(len(item))
        data = to_bytes(item)
        start, stop, _ = _bounds(keys, len(data), len(data))
        return from_bytes(data[start:stop])
    if isinstance(item, Slice):
        return item.cut(*_bounds(keys, len(item), item.capacity))
    raise CallFailed(f"can't slice item of type {type_of(item)}")


def _bounds(keys: tuple[Value, ...], size: int, capacity: int) -> tuple[int, int, int]:
    bounds = [0, size, capacity]
    for number, key in enumerate(keys):
        bounds[number] = _checked_index(unboxed(key), capacity)
    start, stop, limit = bounds
    if start > stop:
        raise CallFailed(f"invalid slice index: {start} > {stop}")
    if stop > limit:
        raise CallFailed(f"invalid slice index: {stop} > {limit}")
    return start, stop, limit


# eq, ne, lt, le, gt, ge

_BASIC = ("bool", "int", "uint", "float", "complex", "string")
_WHOLE = ("int", "uint")
_UNORDERED = ("bool", "complex")


def _eq(budget: RenderBudget, first: Value, *others: Value) -> bool:
    """Whether ``first`` equals one of ``others``."""
    if not others:
        raise CallFailed("missing argument for comparison")
    first = unboxed(first)
    return any(_equal(first, unboxed(other), budget) for other in others)


def _equal(one: Value, two: Value, budget: RenderBudget) -> bool:
    kind, other = _basic(one), _basic(two)
    if kind != other:
        if kind in _WHOLE and other in _WHOLE:
            return int(one) == int(two)
        if one is None or two is None:
            return False
        raise _incompatible(one, two)
    if kind is not None:
        if kind == "string":
            budget.spend_text(len(one))
        return bool(one == two)
    return _equal_composites(one, two, budget)


def _equal_composites(one: Value, two: Value, budget: RenderBudget) -> bool:
    if kind_of(one) != kind_of(two) and None not in (one, two):
        shown = sprintf(budget, "%s: %v, %s: %v", one, str(type_of(one)), str(type_of(two)), two)
        raise CallFailed(f"non-comparable types {shown}")
    if is_nil(one) or is_nil(two):
        return is_nil(one) == is_nil(two)
    if not _is_comparable(type_of(two)):
        shown = sprintf(budget, "%s: %v", two, str(type_of(two)))
        raise CallFailed(f"non-comparable type {shown}")
    if isinstance(one, Pointer) and isinstance(two, Pointer):
        return one.target is two.target
    return (
        isinstance(one, Struct)
        and type_of(one) is type_of(two)
        and all(one.values[name] == two.values[name] for name in one.values)
    )


def _is_comparable(kind: Type) -> bool:
    if kind.kind == "struct":
        return all(_is_comparable(member.type) for member in kind.members)
    return kind.kind not in ("slice", "map", "function")


def _less(budget: RenderBudget, one: Value, two: Value) -> bool:
    one, two = unboxed(one), unboxed(two)
    kind, other = _basic(one), _basic(two)
    if kind is None or other is None:
        raise CallFailed("invalid type for comparison")
    if kind != other and not (kind in _WHOLE and other in _WHOLE):
        raise _incompatible(one, two)
    if kind in _UNORDERED:
        raise CallFailed("invalid type for comparison")
    if kind == "string":
        budget.spend_text(len(one) + len(two))
        return to_bytes(one) < to_bytes(two)
    return bool(one < two)


def _basic(value: Value) -> str | None:
    kind = kind_of(value)
    return kind if kind in _BASIC else None


def _incompatible(one: Value, two: Value) -> CallFailed:
    return CallFailed(f"incompatible types for comparison: {type_of(one)} and {type_of(two)}")


# html, js, urlquery

_HTML = str.maketrans(
    {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def _html(budget: RenderBudget, *values: Value) -> str:
    return _text_to_escape(values, budget).translate(_HTML)


def _js(budget: RenderBudget, *values: Value) -> str:
    return _text_to_escape(values, budget).translate(EscapeTable(_escaped_in_js))


def _urlquery(budget: RenderBudget, *values: Value) -> str:
    data = to_bytes(_text_to_escape(values, budget))
    return urllib.parse.quote_from_bytes(data, safe=" ~").replace(" ", "+")


def _text_to_escape(values: tuple[Value, ...], budget: RenderBudget) -> str:
    """As ``print`` shows them, but pointers by what they point to."""
    text = sprint(budget, *map(printable, values))
    budget.spend_characters(len(text))
    return text


def _escaped_in_js(character: str) -> str:
    if character in "\\'\"":
        return "\\" + character
    if "\ud800" <= character <= "\udfff":  # a byte that is no character
        return character
    coded = character < " " or character in "<>&="
    if coded or not (character.isascii() or character.isprintable()):
        return f"\\u{ord(character):04X}"
    return character


# what Ollama adds


def _json(budget: RenderBudget, value: Value) -> str:
    text = encode(value)
    budget.spend_characters(len(text))
    return text


def _date(days: int) -> str:
    return (datetime.now().astimezone() + timedelta(days=days)).strftime("%Y-%m-%d")


def _to_typescript_type(budget: RenderBudget, value: Value) -> Value:
    method = method_of(unboxed(value), "ToTypeScriptType")
    return "any" if method is None else method.run(budget)


def _call(*_: Value) -> Value:
    raise AssertionError  # see call_error


FUNCTIONS: dict[str, Function] = {
    "call": Function(("value",), "value", _call),
    "html": Function((), "any", _html),
    "index": Function(("value",), "value", _index),
    "slice": Function(("value",), "value", _slice),
    "js": Function((), "any", _js),
    "len": Function(("value",), None, _len),
    "not": Function(("value",), None, lambda _, value: not is_true(value)),
    "print": Function((), "any", sprint),
    "printf": Function(("string",), "any", sprintf),
    "println": Function((), "any", sprintln),
    "urlquery": Function((), "any", _urlquery),
    "eq": Function(("value",), "value", _eq),
    "ne": Function(("value", "value"), None, lambda *args: not _eq(*args)),
    "lt": Function(("value", "value"), None, _less),
    "le": Function(("value", "value"), None, lambda *args: _less(*args) or _eq(*args)),
    "gt": Function(("value", "value"), None, lambda *args: not (_less(*args) or _eq(*args))),
    "ge": Function(("value", "value"), None, lambda *args: not _less(*args)),
    "json": Function(("any",), None, _json),
    "currentDate": Function((), "string", lambda *_: _date(0)),
    "yesterdayDate": Function((), "string", lambda *_: _date(-1)),
    "toTypeScriptType": Function(("any",), None, _to_typescript_type),
}
FUNCTION_NAMES = frozenset((*FUNCTIONS, "and", "or"))
"""What a template may call by name."""

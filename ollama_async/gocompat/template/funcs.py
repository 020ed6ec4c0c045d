"""What a template can call by name, but for ``and`` and ``or``, which the executor has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from ollama_async.gocompat.budget import Budget
from ollama_async.gocompat.bytestrings import from_bytes, to_bytes
from ollama_async.gocompat.json_encode import encode
from ollama_async.gocompat.printf import sprint, sprintf, sprintln
from ollama_async.gocompat.template.compare import equal, less
from ollama_async.gocompat.template.escapes import in_html, in_query, in_script
from ollama_async.gocompat.template.failures import CallFailed
from ollama_async.gocompat.template.typescript import typescript
from ollama_async.gocompat.values import (
    Byte,
    Map,
    Pointer,
    Slice,
    Value,
    indirect,
    is_true,
    kind_of,
    length,
    type_of,
    unboxed,
)


class Function(msgspec.Struct, frozen=True):
    """``fixed`` are the types of its first arguments, ``rest`` that of all others (None: none).

    A type is ``string``, ``any`` (the value is unboxed) or ``value`` (it is not).
    ``run`` gets the render's budget and the arguments. ``refusal``: why it cannot be called.
    """

    fixed: tuple[str, ...]
    rest: str | None
    run: Callable[..., Value]
    refusal: str = ""


def _len(budget: Budget, item: Value) -> int:
    item, nil = indirect(item)
    if nil:
        raise CallFailed("len of nil pointer")
    if item is None:
        # what Go's reflection says when it is asked for the type of nothing
        raise CallFailed("reflect: call of reflect.Value.Type on zero Value")
    if isinstance(item, str):
        budget.text(len(item))
    size = length(item)
    if size is None:
        raise CallFailed(f"len of type {type_of(item)}")
    return size


def _index(budget: Budget, item: Value, *keys: Value) -> Value:
    item = unboxed(item)
    if item is None:
        raise CallFailed("index of untyped nil")
    for key in keys:
        item, nil = indirect(item)
        if nil:
            raise CallFailed("index of nil pointer")
        item = _item(budget, item, unboxed(key))
    return item


def _item(budget: Budget, item: Value, key: Value) -> Value:
    if isinstance(item, Map):
        return item.get(_map_key(key))
    if isinstance(item, str):
        budget.text(len(item))
        data = to_bytes(item)
        return Byte(data[_place(key, len(data), "string")])
    if isinstance(item, Slice):
        return item.at(_place(key, len(item), "slice"))
    raise CallFailed(f"can't index item of type {type_of(item)}")


def _map_key(key: Value) -> str:
    if key is None:
        raise CallFailed("value is nil; should be of type string")
    if not isinstance(key, str):
        raise CallFailed(f"value has type {type_of(key)}; should be string")
    return key


def _place(key: Value, size: int, kind: str) -> int:
    """``key`` as the place of one element. Go's check is off by one, its slices are not."""
    place = _position(key, size)
    if place == size:
        raise CallFailed(f"reflect: {kind} index out of range")
    return place


def _position(key: Value, limit: int) -> int:
    if key is None:
        raise CallFailed("cannot index slice/array with nil")
    if kind_of(key) not in ("int", "uint"):
        raise CallFailed(f"cannot index slice/array with type {type_of(key)}")
    if not 0 <= key <= limit:
        raise CallFailed(f"index out of range: {int(key)}")
    return int(key)


def _slice(budget: Budget, item: Value, *keys: Value) -> Value:
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
        budget.text(len(item))
        data = to_bytes(item)
        start, stop, _ = _bounds(keys, len(data), len(data))
        return from_bytes(data[start:stop])
    if isinstance(item, Slice):
        return item.cut(*_bounds(keys, len(item), item.capacity))
    raise CallFailed(f"can't slice item of type {type_of(item)}")


def _bounds(keys: tuple[Value, ...], size: int, capacity: int) -> tuple[int, int, int]:
    bounds = [0, size, capacity]
    for number, key in enumerate(keys):
        bounds[number] = _position(unboxed(key), capacity)
    start, stop, limit = bounds
    if start > stop:
        raise CallFailed(f"invalid slice index: {start} > {stop}")
    if stop > limit:
        raise CallFailed(f"invalid slice index: {stop} > {limit}")
    return start, stop, limit


def _json(budget: Budget, value: Value) -> str:
    text = encode(value) or ""
    budget.characters(len(text))
    return text


def _eq(budget: Budget, first: Value, *others: Value) -> bool:
    return equal(first, list(others), budget)


def _ne(budget: Budget, one: Value, two: Value) -> bool:
    return not equal(one, [two], budget)


def _le(budget: Budget, one: Value, two: Value) -> bool:
    return less(one, two, budget) or equal(one, [two], budget)


def _print(budget: Budget, *values: Value) -> str:
    return sprint(list(values), budget)


def _println(budget: Budget, *values: Value) -> str:
    return sprintln(list(values), budget)


def _printf(budget: Budget, form: str, *values: Value) -> str:
    return sprintf(form, list(values), budget)


def _html(budget: Budget, *values: Value) -> str:
    return in_html(_text(values, budget), budget)


def _js(budget: Budget, *values: Value) -> str:
    return in_script(_text(values, budget), budget)


def _urlquery(budget: Budget, *values: Value) -> str:
    return in_query(_text(values, budget), budget)


def _text(values: tuple[Value, ...], budget: Budget) -> str:
    """As ``print`` shows them, but pointers by what they point to."""
    return sprint([printable(value) for value in values], budget)


def printable(value: Value) -> Value:
    """What is shown for a value that stands alone in an action."""
    if isinstance(value, Pointer):
        value, _ = indirect(value)
    return "<no value>" if value is None else value


def _day(_: Budget, *__: str) -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d")


def _day_before(_: Budget, *__: str) -> str:
    return (datetime.now().astimezone() - timedelta(days=1)).strftime("%Y-%m-%d")


def _call(*_: Value) -> Value:
    raise AssertionError  # see call_refused


def call_refused(callee: str | None, value: Value) -> str:
    """Why ``call`` fails, as it always does: nothing in a template's data can be called.

    ``callee`` is the argument as written; None: it came through a pipe.
    """
    if callee is None:
        callee = _reflected(value)
    value = unboxed(value)
    if value is None:
        return "error calling call: call of nil"
    return f"error calling call: non-function {callee} of type {type_of(value)}"


def _reflected(value: Value) -> str:
    """Go's ``reflect.Value.String``."""
    if value is None:
        return "<invalid Value>"
    return value if isinstance(value, str) else f"<{type_of(value)} Value>"


FUNCTIONS: dict[str, Function] = {
    "call": Function(("value",), "value", _call),
    "html": Function((), "any", _html),
    "index": Function(("value",), "value", _index),
    "slice": Function(("value",), "value", _slice),
    "js": Function((), "any", _js),
    "len": Function(("value",), None, _len),
    "not": Function(("value",), None, lambda _, value: not is_true(value)),
    "print": Function((), "any", _print),
    "printf": Function(("string",), "any", _printf),
    "println": Function((), "any", _println),
    "urlquery": Function((), "any", _urlquery),
    "eq": Function(("value",), "value", _eq),
    "ne": Function(("value", "value"), None, _ne),
    "lt": Function(("value", "value"), None, lambda budget, one, two: less(one, two, budget)),
    "le": Function(("value", "value"), None, _le),
    "gt": Function(("value", "value"), None, lambda budget, one, two: not _le(budget, one, two)),
    "ge": Function(("value", "value"), None, lambda budget, one, two: not less(one, two, budget)),
    "json": Function(("any",), None, _json),
    "currentDate": Function((), "string", _day),
    "yesterdayDate": Function((), "string", _day_before),
    "toTypeScriptType": Function(("any",), None, lambda _, value: typescript(value)),
}
FUNCTION_NAMES = frozenset((*FUNCTIONS, "and", "or"))
"""What a template may call by name."""

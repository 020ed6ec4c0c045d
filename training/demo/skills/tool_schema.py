"""Tools as a question sees them: their schema, and the questions that call for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from ollama_async.core.conversation import ToolCall

from demo.skills.tool_values import draw, json_type, say
from demo.skills.tool_wording import dress
from demo.wording import fill, listed

_TOLD_ONCE = ("flag", "with", "choice", "quoted", "text")
_PLACE = re.compile(r"<(\w+)>")


class Slot(msgspec.Struct, frozen=True):
    """One argument. ``key`` is its place in patterns (``<key>``), ``name`` its name in the schema;
    without a name it is only something that the question says.

    ``kind`` is one of ``tool_values``, or ``choice`` of ``choices``. A boolean of the kind ``with``
    is said as ``with WORDS`` or ``without WORDS``, where ``words`` are those of its name.
    """

    key: str
    name: str
    kind: str
    words: str = ""
    description: str = ""
    required: bool = True
    choices: tuple[str, ...] = ()


class Tool(msgspec.Struct, frozen=True):
    """``pattern`` makes a wording with ``<key>`` in it: a question ends with ``?``, a statement
    with ``.``, and an order with neither.

    ``topic`` begins the sentence that tells a plain result (``The weather in <city> is``), and
    ``results`` are what such results look like. ``fields`` are kinds of a JSON result by name.
    No two tools of a prompt have the same ``verb`` and ``noun``.
    """

    schema: dict[str, Any]
    slots: tuple[Slot, ...]
    pattern: Callable[[Random], str]
    verb: str
    noun: str
    topic: str = ""
    results: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return str(self.schema["function"]["name"])


class Ask(msgspec.Struct, frozen=True):
    """A question and what it calls for. ``told`` is the tool's topic, filled in."""

    tool: Tool
    question: str
    arguments: dict[str, Any]
    told: str


def ask(rng: Random, tool: Tool, *, held_out: bool, bare: bool = False) -> Ask:
    """A question that fits ``tool``; ``bare``: as it goes on in a sentence, with no greeting.

    An argument is left out when the question does not name it; a required choice that it does not
    name is the first one of its ``enum``.
    """
    pattern = tool.pattern(rng)
    values = _values(rng, tool, places(pattern), held_out=held_out)
    said = {
        slot.key: _said(rng, slot, values[slot.key]) for slot in tool.slots if slot.key in values
    }
    return Ask(
        tool,
        fill(dress(rng, pattern, bare=bare), said),
        _arguments(tool, values),
        _told(tool, values),
    )


def ask_twice(rng: Random, tool: Tool, *, held_out: bool) -> list[Ask]:
    """One question that names two values for the one argument of ``tool``, so calls for two calls.

    Empty when the wording drawn does not name exactly one, or two values of it say nothing.
    """
    pattern = tool.pattern(rng)
    named = [slot for slot in tool.slots if slot.key in places(pattern)]
    if len(named) != 1 or not _can_double(named[0]):
        return []
    slot = named[0]
    first = _values(rng, tool, frozenset({slot.key}), held_out=held_out)
    second = {**first, slot.key: _value(rng, slot, list(first.values()), held_out=held_out)}
    pair = [first[slot.key], second[slot.key]]
    if pair[0] == pair[1]:
        return []
    text = fill(dress(rng, pattern, bare=False), {slot.key: listed(pair)})
    return [Ask(tool, text, _arguments(tool, of), _told(tool, of)) for of in (first, second)]


def follow_up(rng: Random, before: Ask, pattern: str, *, held_out: bool) -> Ask | None:
    """``pattern`` with another value for the only argument in ``<again>``; None if it has
    more or there is no other value.
    """
    if len(before.tool.slots) != 1 or not _can_double(before.tool.slots[0]):
        return None
    slot = before.tool.slots[0]
    value = _value(rng, slot, list(before.arguments.values()), held_out=held_out)
    if value in before.arguments.values():
        return None
    values = {slot.key: value}
    text = fill(pattern, {"again": str(value)})
    return Ask(before.tool, text, _arguments(before.tool, values), _told(before.tool, values))


def call_text(calls: list[ToolCall]) -> str:
    """The calls as the model writes them, one a line."""
    return "\n".join(
        "<tool_call>"
        + json.dumps(
            {"name": call.function.name, "arguments": call.function.arguments}, ensure_ascii=False
        )
        + "</tool_call>"
        for call in calls
    )


def places(pattern: str) -> frozenset[str]:
    return frozenset(_PLACE.findall(pattern))


def schema(rng: Random, name: str, description: str, slots: tuple[Slot, ...]) -> dict[str, Any]:
    """The tool in the form that clients send, with keys in one of the usual orders."""
    properties = {slot.name: _property(rng, slot) for slot in slots}
    required = [slot.name for slot in slots if slot.required]
    parameters: dict[str, Any] = {"type": "object"}
    if required and rng.random() < 0.25:
        parameters["required"] = required
    parameters["properties"] = properties
    if "required" not in parameters and (required or rng.random() < 0.5):
        parameters["required"] = required
    if rng.random() < 0.05:
        parameters["additionalProperties"] = False
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = description
    function["parameters"] = parameters
    if rng.random() < 0.08:
        function = dict(reversed(function.items()))
    return {"type": "function", "function": function}


def _property(rng: Random, slot: Slot) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "string"} if slot.choices else json_type(slot.kind)
    if slot.description:
        entry["description"] = slot.description
        if rng.random() < 0.15:
            entry = dict(reversed(entry.items()))
    if slot.choices:
        entry["enum"] = list(slot.choices)
    if rng.random() < 0.03:
        entry["title"] = slot.name.replace("_", " ").title()
    if not slot.required and rng.random() < 0.05:
        entry["default"] = None
    return entry


def _values(rng: Random, tool: Tool, named: frozenset[str], *, held_out: bool) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for slot in tool.slots:
        if slot.key in named:
            values[slot.key] = _value(rng, slot, list(values.values()), held_out=held_out)
        elif slot.required and slot.choices:
            values[slot.key] = slot.choices[0]
    return values


def _arguments(tool: Tool, values: dict[str, Any]) -> dict[str, Any]:
    return {slot.name: values[slot.key] for slot in tool.slots if slot.name and slot.key in values}


def _told(tool: Tool, values: dict[str, Any]) -> str:
    return fill(tool.topic, {key: str(value) for key, value in values.items()})


def _can_double(slot: Slot) -> bool:
    """Whether naming two values of it means two calls."""
    return slot.kind not in _TOLD_ONCE and not slot.kind.startswith("list")


def _value(rng: Random, slot: Slot, taken: list[Any], *, held_out: bool) -> Any:
    if slot.choices:
        return rng.choice([one for one in slot.choices if one not in taken] or slot.choices)
    value = draw(rng, slot.kind, held_out=held_out)
    while value in taken and not isinstance(value, bool):
        value = draw(rng, slot.kind, held_out=held_out)
    return value


def _said(rng: Random, slot: Slot, value: Any) -> str:
    if slot.kind == "with":
        return f"{'with' if value else 'without'} {slot.words}"
    return say(rng, value, slot.kind)

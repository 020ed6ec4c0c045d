"""A sentence turned into a JSON object with the fields that are asked for."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from ollama_async.core.conversation import Message

from demo.example import Example
from demo.skills.json_records import INTEGERS, Record, Value, draw
from demo.wording import (
    Wordings,
    chat,
    fill,
    listed,
    system,
)

_ASK = Wordings(
    "Extract <fields> as JSON: <text>",
    "{Extract|Give me|Return|Write|Output} <fields> {as JSON|as a JSON object|in JSON}: <text>",
    "<text> {Extract|Give me|Return|Write|Output} <fields> {as JSON|as a JSON object|in JSON}.",
    "<text> {Respond using|Answer in|Respond in|Reply with|Answer as} JSON with <fields>.",
    "<text> {Respond|Answer|Reply} with a JSON object with {the keys|the fields|} <fields>.",
    "{Fill|Make|Create|Build} a JSON object with {the keys |}<fields> {from|for}: <text>",
    "{Turn this into|Convert this to|Write this as} JSON with {the keys |}<fields>: <text>",
    "{Text|Sentence|Input}: <text> {Fields|Keys|JSON keys}: <fields>. {JSON:|Answer in JSON.}",
    "What are <fields> in this text? <text> {Answer in JSON|Use JSON|JSON only}.",
    "<text> JSON with <fields>, {please|no other text|nothing else}.",
)
_ASK_OPEN = Wordings(
    "<text> Respond using JSON",
    "<text> {Respond using JSON|Answer in JSON|Respond in JSON|Reply as JSON|Use JSON|As JSON}{.|}",
    "{Extract the data|Give me the facts|Convert this|Turn this} {as|into|to} JSON: <text>",
    "{Write as JSON|JSON please|To JSON|Make JSON of this}: <text>",
)
_ASK_SCHEMA = Wordings(
    "<text> Respond as JSON with this schema: <schema>",
    "<text> {Use|Follow|Return JSON in} {this|the following} {JSON schema|schema}: <schema>",
    "{JSON schema|Schema}: <schema> {Text|Input|Fill it from}: <text>",
    "<text> {Respond in|Answer using} JSON that {fits|matches} {this schema|the schema}: <schema>",
)
_ASK_EMPTY = Wordings(
    "<text> Fill in this JSON object: <empty>",
    "{Fill in|Fill|Complete|Fill out} {this JSON|this object|the JSON object}: <empty> <text>",
    "<text> {Complete|Fill in} this {object|JSON}: <empty>",
)
_SYSTEM = Wordings(
    "Extract <fields> as JSON.",
    "{Extract|Return|Give|Output} <fields> of {the text|what the user writes|the input} as JSON.",
    "You {answer|reply|respond} {only in|in|with} JSON with {the keys |the fields |}<fields>.",
    "You {fill|make} a JSON object with <fields> from the user's text.",
)


def make(rng: Random, *, held_out: bool) -> Example:
    return _asked(rng, draw(rng, held_out=held_out))


def catalogue() -> list[Example]:
    tom = "Tom is 32 years old and lives in Oslo."
    asked: dict[str, dict[str, Value]] = {
        f"Extract name, age and city as JSON: {tom}": {"name": "Tom", "age": 32, "city": "Oslo"},
        f"{tom} Respond using JSON": {"name": "Tom", "age": 32, "city": "Oslo"},
        f"{tom} Respond using JSON with city and name.": {"city": "Oslo", "name": "Tom"},
        f"{tom} Fill in this JSON object: {_empty(['age', 'name'])}": {"age": 32, "name": "Tom"},
        f"{tom} Respond as JSON with this schema: {_schema({'age': 32, 'city': ''})}": {
            "age": 32,
            "city": "Oslo",
        },
        "Extract name, age and city as JSON: Alice is 7 years old.": {
            "name": "Alice",
            "age": 7,
            "city": None,
        },
        "Ollama is 22 years old and is busy saving the world. Respond using JSON": {
            "name": "Ollama",
            "age": 22,
            "available": False,
        },
    }
    return [
        _example("json.catalogue", [Message("user", text)], values)
        for text, values in asked.items()
    ]


def _asked(rng: Random, record: Record) -> Example:
    chance = rng.random()
    if chance < 0.12 or record.nested:
        text = fill(_ASK_OPEN.pick(rng), {"text": record.text})
        return _example(record.family, [*system(rng), Message("user", text)], record.values)
    wanted = _wanted(rng, record)
    slots = {
        "text": record.text,
        "fields": _fields(rng, list(wanted)),
        "schema": _schema(wanted),
        "empty": _empty(list(wanted)),
    }
    if chance < 0.27:
        rule = fill(_SYSTEM.pick(rng), slots)
        messages = [Message("system", rule), Message("user", record.text)]
        return _example(record.family, messages, wanted)
    ask = _ASK_SCHEMA if chance < 0.42 else _ASK_EMPTY if chance < 0.52 else _ASK
    # Held-out values are asked for in trained wordings: one thing is measured.
    text = fill(ask.pick(rng), slots)
    return _example(record.family, [*system(rng), Message("user", text)], wanted)


def _wanted(rng: Random, record: Record) -> dict[str, Value]:
    """Some or all of the values, in an order of its own; now and then one that is missing."""
    keys = list(record.values)
    if len(keys) > 2 and rng.random() < 0.3:
        keys = keys[:-1]
    if record.missing and rng.random() < 0.25:
        keys.append(rng.choice(record.missing))
    if rng.random() < 0.4:
        rng.shuffle(keys)
    return {key: record.values.get(key) for key in keys}


def _fields(rng: Random, keys: list[str]) -> str:
    chance = rng.random()
    if chance < 0.4:
        return listed(keys)
    if chance < 0.6:
        return ", ".join(keys)
    quote = '"' if chance < 0.8 else "`" if chance < 0.9 else "'"
    quoted = [f"{quote}{key}{quote}" for key in keys]
    return listed(quoted) if rng.random() < 0.5 else ", ".join(quoted)


def _schema(values: dict[str, Any]) -> str:
    properties = {key: {"type": _type(key, value)} for key, value in values.items()}
    return json.dumps({"type": "object", "properties": properties, "required": list(values)})


def _type(key: str, value: Value) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, list):
        return "array"
    if key == "price":
        return "number"
    return "integer" if isinstance(value, int) or key in INTEGERS else "string"


def _empty(keys: list[str]) -> str:
    return json.dumps(dict.fromkeys(keys))


def _example(family: str, messages: list[Message], values: dict[str, Value]) -> Example:
    answer = json.dumps(values, ensure_ascii=False)
    return chat("json", family, messages, answer, rule="same object")

"""What tools give back, and the sentence that tells it."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

import msgspec

from demo.skills.tool_schema import Ask
from demo.skills.tool_values import draw
from demo.wording import listed
from demo.words import pick

_KIND = re.compile(r"<(\w+)>")
_DONE = ("ok", "OK", "Ok", "done", "Done.", "success", "Success", "true", "finished")
_REASONS = (
    "not found",
    "no such {noun}",
    "the {noun} is missing",
    "timeout",
    "permission denied",
    "unknown {noun}",
    "the server does not answer",
    "{noun} not available",
    "too many requests",
    "invalid {noun}",
)
_ENDS = (
    "was found",
    "is <option> now",
    "has <small> entries",
    "is ready at <time>",
    "costs <int>",
    "was changed to <name>",
    "got the number <id>",
    "is in <city>",
    "belongs to <person>",
    "is not <option> any more",
    "starts on <date>",
    "has the <word> <name>",
    "will be <option> until <time>",
)


class Result(msgspec.Struct, frozen=True):
    """``content`` is what the tool sent, ``told`` what to say of it (no capital, no full stop),
    ``mentions`` what has to be in any answer.
    """

    content: str
    told: str
    mentions: tuple[str, ...]


def result(rng: Random, question: Ask, *, held_out: bool) -> Result:
    """One of the forms that tools use, each told in its own way whatever the question was."""
    if question.tool.topic and rng.random() < 0.5:
        return _plain(rng, question, held_out=held_out)
    if not question.tool.topic and rng.random() < 0.25:
        return Result(rng.choice(_DONE), "it is done", ("done",))
    return _unexpected(rng, question, held_out=held_out)


def _unexpected(rng: Random, question: Ask, *, held_out: bool) -> Result:
    """A result of which the question says nothing."""
    shape = rng.random()
    if shape < 0.62:
        return _fields(rng, question, held_out=held_out)
    if shape < 0.74:
        return _sentence(rng, question, held_out=held_out)
    if shape < 0.86:
        return _items(rng, held_out=held_out)
    if shape < 0.93:
        return _bare(rng, held_out=held_out)
    return _failure(rng, held_out=held_out)


def tell(results: list[Result]) -> str:
    """The answer: one sentence for all results."""
    text = " and ".join(one.told for one in results)
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _plain(rng: Random, question: Ask, *, held_out: bool) -> Result:
    value = _filled(rng, rng.choice(question.tool.results), held_out=held_out)
    if rng.random() < 0.12:
        return Result(_json({"result": value}), f"the result is {value}", (value,))
    start = question.told[0].lower() + question.told[1:]
    return Result(value, f"{start} {value}", (value,))


def _fields(rng: Random, question: Ask, *, held_out: bool) -> Result:
    known = list(question.tool.fields)
    if not known or rng.random() < 0.4:
        names = {pick(rng, "tool_attributes", held_out=held_out) for _ in range(rng.randint(1, 3))}
        kinds = (
            "int",
            "small",
            "decimal",
            "word",
            "name",
            "option",
            "id",
            "date",
            "city",
            "person",
        )
        known = [(name, rng.choice(kinds)) for name in sorted(names)]
    chosen = rng.sample(known, rng.randint(1, min(3, len(known))))
    fields = {name: draw(rng, kind, held_out=held_out) for name, kind in chosen}
    told = listed([f"the {name.replace('_', ' ')} is {value}" for name, value in fields.items()])
    return Result(_json(fields), told, tuple(str(value) for value in fields.values()))


def _sentence(rng: Random, question: Ask, *, held_out: bool) -> Result:
    """A text that is a sentence already is said as it is."""
    noun = pick(rng, "tool_nouns", held_out=held_out)
    values = [str(value) for value in question.arguments.values() if not isinstance(value, list)]
    subject = rng.choice(values) if values else noun
    end = _filled(rng, rng.choice(_ENDS), held_out=held_out)
    text = f"{rng.choice((f'The {noun}', subject, f'The {noun} {subject}'))} {end}"
    told = text[0].lower() + text[1:] if text.startswith("The ") else text
    return Result(text[0].upper() + text[1:] + ".", told, (text,))


def _items(rng: Random, *, held_out: bool) -> Result:
    kind = rng.choice(("name", "word", "thing", "city", "person", "heading", "small", "path"))
    items = list(
        dict.fromkeys(draw(rng, kind, held_out=held_out) for _ in range(rng.randint(2, 4)))
    )
    if rng.random() < 0.3:
        name = pick(rng, "tool_nouns", held_out=held_out)
        content = _json({f"{name}s": items})
        told = f"the {name}s are {listed(items)}"
    else:
        content, told = _json(items), f"the results are {listed(items)}"
    return Result(content, told, tuple(map(str, items)))


def _bare(rng: Random, *, held_out: bool) -> Result:
    """Something short of which nothing is known but that it is the result."""
    value = draw(
        rng, rng.choice(("int", "decimal", "id", "int", "email", "url")), held_out=held_out
    )
    content = rng.choice((str(value), _json({"result": value})))
    return Result(content, f"the result is {value}", (str(value),))


def _failure(rng: Random, *, held_out: bool) -> Result:
    noun = pick(rng, "tool_nouns", held_out=held_out)
    reason = rng.choice(_REASONS).format(noun=noun)
    content = rng.choice((f"Error: {reason}", f"error: {reason}", _json({"error": reason})))
    return Result(content, f"the tool reports an error: {reason}", (reason,))


def _filled(rng: Random, template: str, *, held_out: bool) -> str:
    return _KIND.sub(lambda match: str(draw(rng, match[1], held_out=held_out)), template)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

"""Feeding parsers: whole, one character at a time, or cut anywhere; and their joined results."""

import msgspec

from ollama_async.core.conversation import Message, Prompt, Thought, ToolCall

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "required": ["city"],
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "exact": {"type": ["boolean", "string"]},
                },
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "number"},
                    "b": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                    "opts": {"type": "object"},
                    "tags": {"type": "array"},
                },
            },
        },
    },
]


class Result(msgspec.Struct):
    """What an answer was; ``parts`` in the order in which they came."""

    content: str
    thinking: str
    calls: list
    parts: list


def prompt(tools=TOOLS, think=None, messages=(), **more):
    return Prompt(
        messages=list(messages) or [Message("user", "hi")], tools=tools, think=think, **more
    )


def fed(format_, pieces, *, rendered="", **more):
    """The parts of an answer that arrives in ``pieces``."""
    parser = format_.start(prompt(**more), rendered)
    if parser is None:
        return ["".join(pieces)] if any(pieces) else []
    parts = [part for piece in pieces for part in parser.feed(piece)]
    return parts + parser.finish()


def read(format_, answer, **more):
    """The same for a whole answer, which must not depend on how it is cut."""
    whole = joined(fed(format_, [answer], **more))
    slow = joined(fed(format_, list(answer), **more))
    assert msgspec.structs.replace(slow, parts=[]) == msgspec.structs.replace(whole, parts=[])
    return whole


def joined(parts):
    calls = [part for part in parts if isinstance(part, ToolCall)]
    assert [call.function.index for call in calls] == list(range(len(calls)))
    assert all(parts)
    assert all(part.text for part in parts if isinstance(part, Thought))
    return Result(
        content="".join(part for part in parts if isinstance(part, str)),
        thinking="".join(part.text for part in parts if isinstance(part, Thought)),
        calls=[(call.function.name, call.function.arguments) for call in calls],
        parts=[type(part).__name__ for part in parts],
    )

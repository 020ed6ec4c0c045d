"""Conversations of the shapes that agents, frameworks and chat pages send, and what of them a
prompt must hold.

Each text in them is one word that stands nowhere else, so that a prompt can be searched for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from hypothesis import strategies as st

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction

TOOL = {
    "type": "function",
    "function": {
        "name": "get_tide",
        "description": "The tide at a place",
        "parameters": {
            "type": "object",
            "required": ["place"],
            "properties": {
                "place": {"type": "string", "description": "Where"},
                "days": {"type": "integer"},
            },
        },
    },
}
OTHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_wind",
        "description": "The wind at a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


class Shape(msgspec.Struct, frozen=True):
    """``offers_tools``: the request declares the tools that its history calls, too."""

    messages: list[Message]
    offers_tools: bool = False

    def prompt(self, think: bool | str | None = None) -> Prompt:
        tools = [TOOL, OTHER_TOOL] if self.offers_tools else []
        return Prompt(messages=self.messages, tools=tools, think=think)


def system(word: str) -> Message:
    return Message("system", word)


def developer(word: str) -> Message:
    return Message("developer", word)


def user(word: str) -> Message:
    return Message("user", word)


def says(word: str, thinking: str = "") -> Message:
    return Message("assistant", word, thinking=thinking)


def calls(*places: str, content: str = "", thinking: str = "", ids: bool = True) -> Message:
    """One call for each of ``places``, by turns of the two tools."""
    made = [
        ToolCall(
            ToolFunction(tool_name(number), {"place": place}),
            id=f"call_{place.lower():_<8}" if ids else "",
        )
        for number, place in enumerate(places)
    ]
    return Message("assistant", content, thinking=thinking, tool_calls=made)


def tool_name(number: int) -> str:
    return ("get_tide", "get_wind")[number % 2]


def result(word: str, place: str = "", name: str = "") -> Message:
    """Of the call for ``place``, told by its id; or by its name; or by nothing."""
    call_id = f"call_{place.lower():_<8}" if place else ""
    return Message("tool", word, tool_name=name, tool_call_id=call_id)


def calls_with(arguments: dict[str, object]) -> Message:
    call = ToolCall(ToolFunction("get_tide", arguments), id="call_juist___")
    return Message("assistant", tool_calls=[call])


CALL = calls("Juist")
RESULT = result("Ebb1", "Juist", "get_tide")
ROUND = [CALL, RESULT]

TALKS: dict[str, list[Message]] = {
    "user": [user("Ask1")],
    "system, user": [system("Rule1"), user("Ask1")],
    "several turns": [system("Rule1"), user("Ask1"), says("Reply1"), user("Ask2")],
    "later system": [user("Ask1"), says("Reply1"), system("Rule1"), user("Ask2")],
    "first and later system": [
        *(system("Rule1"), user("Ask1"), says("Reply1")),
        *(system("Rule2"), user("Ask2")),
    ],
    "system last": [user("Ask1"), says("Reply1"), user("Ask2"), system("Rule1")],
    "system after the question": [user("Ask1"), system("Rule1")],
    "system after the answer, last": [user("Ask1"), says("Reply1"), system("Rule1")],
    "system before an answer": [user("Ask1"), system("Rule1"), says("Reply1"), user("Ask2")],
    "system between questions": [user("Ask1"), system("Rule1"), user("Ask2")],
    "two systems": [system("Rule1"), system("Rule2"), user("Ask1")],
    "three systems, then turns": [
        *(system("Rule1"), system("Rule2"), system("Rule3")),
        *(user("Ask1"), says("Reply1"), user("Ask2")),
    ],
    "only a system": [system("Rule1")],
    "only two systems": [system("Rule1"), system("Rule2")],
    "a system in every turn": [
        *(system("Rule1"), user("Ask1"), says("Reply1")),
        *(system("Rule2"), user("Ask2"), says("Reply2")),
        *(system("Rule3"), user("Ask3")),
    ],
    "developer": [developer("Rule1"), user("Ask1")],
    "system and developer": [system("Rule1"), developer("Rule2"), user("Ask1")],
    "developer and system": [developer("Rule1"), system("Rule2"), user("Ask1")],
    "later developer": [user("Ask1"), says("Reply1"), developer("Rule1"), user("Ask2")],
    "system, later developer": [
        *(system("Rule1"), user("Ask1"), says("Reply1")),
        *(developer("Rule2"), user("Ask2")),
    ],
    "only a developer": [developer("Rule1")],
    "two users": [user("Ask1"), user("Ask2")],
    "three users, the system first": [system("Rule1"), user("Ask1"), user("Ask2"), user("Ask3")],
    "two users later": [user("Ask1"), says("Reply1"), user("Ask2"), user("Ask3")],
    "two assistants": [user("Ask1"), says("Reply1"), says("Reply2"), user("Ask2")],
    "two assistants with thoughts": [
        user("Ask1"),
        says("Reply1", "Thought1"),
        says("Reply2", "Thought2"),
        user("Ask2"),
    ],
    "a greeting": [says("Reply1"), user("Ask1")],
    "system, then a greeting": [system("Rule1"), says("Reply1"), user("Ask1")],
    "a greeting and turns": [says("Reply1"), user("Ask1"), says("Reply2"), user("Ask2")],
    "two greetings": [says("Reply1"), says("Reply2"), user("Ask1")],
    "a greeting, then a system": [says("Reply1"), system("Rule1"), user("Ask1")],
    "thoughts in history": [user("Ask1"), says("Reply1", "Thought1"), user("Ask2")],
    "an answer that is only thoughts": [user("Ask1"), says("", "Thought1"), user("Ask2")],
    "an empty system": [system(""), user("Ask1")],
    "an empty answer": [user("Ask1"), says(""), user("Ask2")],
    "an empty question": [user(""), says("Reply1"), user("Ask2")],
    "an empty last question": [user("Ask1"), says("Reply1"), user("")],
    "white space": [
        system(" \n"),
        user("Ask1"),
        says("\n"),
        user(" "),
        says("Reply1"),
        user("Ask2"),
    ],
    "a long talk": [
        system("Rule1"),
        *(one for n in range(1, 40) for one in (user(f"Ask{n}x"), says(f"Reply{n}x"))),
        user("Ask99"),
    ],
}

WORK: dict[str, list[Message]] = {
    "call, result": [user("Ask1"), CALL, RESULT],
    "system, call, result": [system("Rule1"), user("Ask1"), CALL, RESULT],
    "call, result, answer, question": [user("Ask1"), *ROUND, says("Reply1"), user("Ask2")],
    "content and call": [user("Ask1"), calls("Juist", content="Reply1"), RESULT],
    "thinking and call": [user("Ask1"), calls("Juist", thinking="Thought1"), RESULT],
    "content, thinking and call": [
        user("Ask1"),
        calls("Juist", content="Reply1", thinking="Thought1"),
        RESULT,
    ],
    "content, thinking and call, in the past": [
        *(user("Ask1"), calls("Juist", content="Reply1", thinking="Thought1"), RESULT),
        *(says("Reply2"), user("Ask2")),
    ],
    "content, thinking and calls, twice": [
        user("Ask1"),
        calls("Juist", content="Reply1", thinking="Thought1"),
        RESULT,
        calls("Baltrum", content="Reply2", thinking="Thought2"),
        result("Ebb2", "Baltrum", "get_tide"),
    ],
    "content, thinking and two calls": [
        user("Ask1"),
        calls("Juist", "Baltrum", content="Reply1", thinking="Thought1"),
        RESULT,
        result("Ebb2", "Baltrum", "get_wind"),
    ],
    "white space and call": [user("Ask1"), calls("Juist", content="\n\n"), RESULT],
    "ids that come again": [
        *(user("Ask1"), calls("Juist"), RESULT, says("Reply1"), user("Ask2")),
        Message(
            "assistant",
            tool_calls=[
                ToolCall(ToolFunction("get_tide", {"place": "Baltrum"}), id="call_juist___")
            ],
        ),
        *(result("Ebb2", "Juist", "get_tide"), says("Reply2"), user("Ask3")),
    ],
    "answer, then call": [user("Ask1"), says("Reply1"), CALL, RESULT],
    "two calls": [
        user("Ask1"),
        calls("Juist", "Baltrum"),
        result("Ebb1", "Juist", "get_tide"),
        result("Ebb2", "Baltrum", "get_wind"),
    ],
    "two calls, then more": [
        user("Ask1"),
        calls("Juist", "Baltrum"),
        result("Ebb1", "Juist", "get_tide"),
        result("Ebb2", "Baltrum", "get_wind"),
        says("Reply1"),
        user("Ask2"),
    ],
    "three calls": [
        user("Ask1"),
        calls("Juist", "Baltrum", "Borkum"),
        result("Ebb1", "Juist", "get_tide"),
        result("Ebb2", "Baltrum", "get_wind"),
        result("Ebb3", "Borkum", "get_tide"),
    ],
    "two calls, answered out of order": [
        user("Ask1"),
        calls("Juist", "Baltrum"),
        result("Ebb2", "Baltrum", "get_wind"),
        result("Ebb1", "Juist", "get_tide"),
    ],
    "two calls, one answered": [user("Ask1"), calls("Juist", "Baltrum"), RESULT],
    "two calls, one answered, a question": [
        *(user("Ask1"), calls("Juist", "Baltrum"), RESULT, user("Ask2")),
    ],
    "results without ids": [
        user("Ask1"),
        calls("Juist", "Baltrum", ids=False),
        result("Ebb1"),
        result("Ebb2"),
    ],
    "results with names only": [
        user("Ask1"),
        calls("Juist", "Baltrum", ids=False),
        result("Ebb2", name="get_wind"),
        result("Ebb1", name="get_tide"),
    ],
    "two calls in two messages": [
        user("Ask1"),
        CALL,
        calls("Baltrum"),
        RESULT,
        result("Ebb2", "Baltrum", "get_tide"),
    ],
    "two rounds": [user("Ask1"), *ROUND, calls("Baltrum"), result("Ebb2", "Baltrum", "get_tide")],
    "rounds with content": [
        *(user("Ask1"), calls("Juist", content="Reply1"), RESULT),
        *(calls("Baltrum", content="Reply2"), result("Ebb2", "Baltrum", "get_tide")),
    ],
    "many rounds": [
        user("Ask1"),
        *(
            one
            for n in range(1, 20)
            for one in (
                calls(f"Isle{n}x", thinking=f"Thought{n}x"),
                result(f"Ebb{n}x", f"Isle{n}x", "get_tide"),
            )
        ),
    ],
    "no arguments": [user("Ask1"), calls_with({}), RESULT],
    "nested arguments": [
        user("Ask1"),
        calls_with({"place": {"inner": ["Norderney", {"deep": "Langeoog"}]}, "days": 7}),
        RESULT,
    ],
    "odd arguments": [
        user("Ask1"),
        calls_with({"place": "Bałtyk", "flag": True, "part": 1.5}),
        RESULT,
    ],
    "call without result, then a question": [user("Ask1"), CALL, user("Ask2")],
    "question after a result": [user("Ask1"), *ROUND, user("Ask2")],
    "question after two results": [
        user("Ask1"),
        calls("Juist", "Baltrum"),
        result("Ebb1", "Juist", "get_tide"),
        result("Ebb2", "Baltrum", "get_wind"),
        user("Ask2"),
    ],
    "two questions after a result": [user("Ask1"), *ROUND, user("Ask2"), user("Ask3")],
    "question after a result, and on": [
        *(user("Ask1"), *ROUND, user("Ask2"), says("Reply1"), user("Ask3")),
    ],
    "an empty result": [user("Ask1"), CALL, result("", "Juist", "get_tide")],
    "a result without a call": [RESULT],
    "a result without a call, then a question": [RESULT, user("Ask1")],
    "a question, a result without a call": [user("Ask1"), RESULT],
    "system, a result without a call": [system("Rule1"), RESULT, says("Reply1"), user("Ask1")],
    "begins with a call": [CALL, RESULT, says("Reply1"), user("Ask1")],
    "only a call and its result": [CALL, RESULT],
    "system between call and result": [user("Ask1"), CALL, system("Rule1"), RESULT],
    "system after the result": [user("Ask1"), *ROUND, system("Rule1")],
    "system, then system after the result": [
        *(system("Rule1"), user("Ask1"), *ROUND, system("Rule2")),
    ],
    "developer and two calls": [
        *(developer("Rule1"), user("Ask1"), calls("Juist", "Baltrum")),
        *(result("Ebb1", "Juist", "get_tide"), result("Ebb2", "Baltrum", "get_wind")),
    ],
    "call last": [user("Ask1"), CALL],
    "answer twice after a result": [
        *(user("Ask1"), *ROUND, says("Reply1"), says("Reply2"), user("Ask2")),
    ],
    "a greeting, then work": [says("Reply1"), user("Ask1"), *ROUND],
    "a user between call and result": [user("Ask1"), CALL, user("Ask2"), RESULT],
}

BEGUN: dict[str, list[Message]] = {
    "answer begun": [user("Ask1"), says("Reply1")],
    "answer begun, system": [system("Rule1"), user("Ask1"), says("Reply1")],
    "answer begun later": [user("Ask1"), says("Reply1"), user("Ask2"), says("Reply2")],
    "answer begun with thoughts": [user("Ask1"), says("Reply1", "Thought1")],
    "answer begun after a result": [user("Ask1"), *ROUND, says("Reply1")],
    "answer begun, blanks": [user("Ask1"), says("Reply1 \n\n  ")],
    "answer begun, code": [user("Ask1"), says("Reply1:\n```python\ndef tide(n):\n    ")],
    "answer begun twice": [user("Ask1"), says("Reply1"), says("Reply2")],
    "answer begun alone": [says("Reply1")],
    "answer begun after a greeting": [says("Reply1"), user("Ask1"), says("Reply2")],
    "answer begun, later system": [user("Ask1"), system("Rule1"), says("Reply1")],
    "thought begun": [user("Ask1"), says("", "Thought1")],
    "thought begun after a result": [user("Ask1"), *ROUND, says("", "Thought1")],
}

SHAPES: dict[str, Shape] = {
    **{name: Shape(messages) for name, messages in TALKS.items()},
    **{f"{name} (tools)": Shape(messages, True) for name, messages in WORK.items()},
    **{f"{name} (no tools)": Shape(messages) for name, messages in WORK.items()},
    "two systems (tools)": Shape(TALKS["two systems"], True),
    "later system (tools)": Shape(TALKS["later system"], True),
    "developer (tools)": Shape(TALKS["developer"], True),
    "a greeting (tools)": Shape(TALKS["a greeting"], True),
}
PREFILLS: dict[str, Shape] = {
    **{name: Shape(messages) for name, messages in BEGUN.items()},
    "answer begun (tools)": Shape(BEGUN["answer begun"], True),
    "answer begun after a result (tools)": Shape(BEGUN["answer begun after a result"], True),
}


@st.composite
def rows(draw: st.DrawFn) -> list[Message]:
    """Any messages in any order; results answer the first open call, or none."""
    messages: list[Message] = []
    open_calls: list[str] = []
    for number in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(["system", "developer", "user", "says", "calls", "result"]))
        if kind == "calls":
            places = [f"Isle{number}x", f"Reef{number}x"][: draw(st.integers(1, 2))]
            content = draw(st.sampled_from(["", f"Reply{number}x"]))
            thinking = draw(st.sampled_from(["", f"Thought{number}x"]))
            messages.append(calls(*places, content=content, thinking=thinking))
            open_calls += places
        elif kind == "result":
            place = open_calls.pop(0) if open_calls else ""
            messages.append(result(f"Ebb{number}x", place, draw(st.sampled_from(["", "get_tide"]))))
        elif kind == "says":
            messages.append(says(f"Reply{number}x", draw(st.sampled_from(["", "Thought"]))))
        else:
            messages.append(Message(kind, f"{kind.title()}{number}x"))
    return messages


def said(message: Message) -> Iterator[str]:
    """The words of ``message``, thoughts apart."""
    yield from message.content.split()[:1]
    for call in message.tool_calls:
        yield call.function.name
        yield from _words(call.function.arguments)


def _words(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)


def lost(messages: Sequence[Message], text: str) -> list[str]:
    """What is missing in ``text``."""
    words = [word for message in messages for word in said(message)]
    return [word for word in words if word not in text and _escaped(word) not in text]


def _escaped(word: str) -> str:
    return word.encode("ascii", "backslashreplace").decode()


def misplaced(messages: Sequence[Message], text: str) -> list[str]:
    """What stands before something that it follows in the conversation. System messages may stand
    at the top or in front of what the user says next, and results earlier, behind their call.
    """
    wrong = []
    reached = -1
    for message in messages:
        words = list(_placed(message))
        places = [text.find(word) for word in words]
        if message.role == "tool":
            call = _call_of(message, messages)
            wrong += [word for word, at in zip(words, places, strict=True) if at < text.find(call)]
        elif message.role not in {"system", "developer"}:
            wrong += [word for word, at in zip(words, places, strict=True) if at < reached]
        if message.role not in {"system", "developer"}:
            reached = max([reached, *places])
    return wrong


def _placed(message: Message) -> Iterator[str]:
    """The words of ``message`` that stand nowhere else."""
    yield from message.content.split()[:1]
    for call in message.tool_calls:
        place = call.function.arguments.get("place")
        if isinstance(place, str) and place.isascii():
            yield place


def _call_of(result: Message, messages: Sequence[Message]) -> str:
    """The place that a result is about; empty if its id does not say."""
    places = (
        call.function.arguments.get("place")
        for message in messages
        for call in message.tool_calls
        if result.tool_call_id and call.id == result.tool_call_id
    )
    place = next(places, "")
    return place if isinstance(place, str) else ""

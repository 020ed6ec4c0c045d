"""Marks in an assistant's words at which one Jinja template cuts them, and how they are kept whole.

Templates leave out the thoughts that a client sends in front of an answer, and take all that is in
front of a closing mark for such. An answer that only speaks of the mark must stay whole: many
templates let it be when the message has thoughts of its own, if empty ones; for the others the mark
is broken. What each wants is asked once for each kind of message. A thought that begins an answer,
from its opening to its closing mark, is the template's to show or to leave out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum, auto

import msgspec

from ollama_async.core.conversation import Message
from ollama_async.prompts.plain_data import Plain, plain_messages
from ollama_async.prompts.shape_questions import EXAMPLE_CALL, EXAMPLE_QUESTION

Shows = Callable[[list[Plain], Sequence[str]], bool]
"""Whether the template renders messages, and these words are in the text."""

WORD_JOINER = "\u2060"
"""Has no width and no meaning; a mark with one in it is no mark."""

_PAIRS = {
    "</think>": "<think>",
    "</thinking>": "<thinking>",
    "</thought>": "<thought>",
    "</seed:think>": "<seed:think>",
    "</mm:think>": "<mm:think>",
    "[/THINK]": "[THINK]",
    "<channel|>": "<|channel>",
}
_LONE = (
    *("<|channel>", "[BEGIN FINAL RESPONSE]"),
    *(f"<|channel|>{channel}<|message|>" for channel in ("analysis", "commentary", "final")),
)
_MARK = re.compile("|".join(map(re.escape, (*_PAIRS, *_LONE))))
_OPENED = re.compile("|".join(map(re.escape, _PAIRS.values())))
_CLOSING = {opening: closing for closing, opening in _PAIRS.items()}


class _Form(Enum):
    AS_IT_IS = auto()
    WITH_THOUGHT = auto()
    """The message has thoughts of its own; those in front of the answer, or empty ones."""
    BROKEN = auto()


class _Kind(msgspec.Struct, frozen=True):
    """Of a message with ``mark`` in its words, behind the thought that they may begin with."""

    mark: str
    is_opened: bool
    has_inline_thought: bool
    has_thoughts: bool
    has_calls: bool


class CutMarks:
    """Of one template."""

    def __init__(self, shows: Shows) -> None:
        self._shows = shows
        self._forms: dict[_Kind, _Form] = {}

    def put(self, messages: list[Plain]) -> list[Plain]:
        """``messages``, of which this template shows all words."""
        return [
            self._put_one(message)
            if message["role"] == "assistant" and _MARK.search(message["content"])
            else message
            for message in messages
        ]

    def _put_one(self, message: Plain) -> Plain:
        _, answer = _split(message["content"])
        for mark in dict.fromkeys(_MARK.findall(answer)):
            message = _put_as(self._form(_kind(message, mark)), mark, message)
        return message

    def _form(self, kind: _Kind) -> _Form:
        if kind not in self._forms:
            self._forms[kind] = self._find_form(kind)
        return self._forms[kind]

    def _find_form(self, kind: _Kind) -> _Form:
        """The first in which all is shown."""
        return next((form for form in _Form if self._shows_all(kind, form)), _Form.AS_IT_IS)

    def _shows_all(self, kind: _Kind, form: _Form) -> bool:
        return all(
            self._shows(
                [
                    _put_as(form, kind.mark, message) if message["role"] == "assistant" else message
                    for message in plain_messages(example)
                ],
                words,
            )
            for example, words in _examples(kind)
        )


def _kind(message: Plain, mark: str) -> _Kind:
    thought, answer = _split(message["content"])
    return _Kind(
        mark=mark,
        is_opened=_PAIRS.get(mark, mark) in answer.partition(mark)[0],
        has_inline_thought=bool(thought),
        has_thoughts="reasoning_content" in message,
        has_calls="tool_calls" in message,
    )


def _split(content: str) -> tuple[str, str]:
    """The thought that ``content`` begins with, marks included, and the rest."""
    start = len(content) - len(content.lstrip())
    opened = _OPENED.match(content, start)
    if opened is None:
        return "", content
    thought, closing, answer = content.partition(_CLOSING[opened[0]])
    return (thought + closing, answer) if closing else ("", content)


def _broken(mark: str) -> str:
    return mark[0] + WORD_JOINER + mark[1:]


def _put_as(form: _Form, mark: str, message: Plain) -> Plain:
    thought, answer = _split(message["content"])
    if form is _Form.WITH_THOUGHT:
        return _with_thought(message, thought, answer)
    if form is _Form.BROKEN:
        return message | {"content": thought + answer.replace(mark, _broken(mark))}
    return message


def _with_thought(message: Plain, thought: str, answer: str) -> Plain:
    opened = _OPENED.match(thought.lstrip())
    inner = thought.strip()[len(opened[0]) : -len(_CLOSING[opened[0]])].strip() if opened else ""
    own = {"reasoning_content": inner, "thinking": inner}
    return (
        message | own | {key: message[key] for key in own if key in message} | {"content": answer}
    )


# ----------------------------------------------------------------- examples

_CALL, _RESULT = EXAMPLE_CALL[1:]
_WHY, _ANSWER = Message("user", "more words"), Message("assistant", "calm water")


def _examples(kind: _Kind) -> list[tuple[list[Message], list[str]]]:
    """Conversations with messages of ``kind``, and the words in these."""
    (one, words), (other, more) = _example(kind, "rising falling"), _example(kind, "ebbing flowing")
    if kind.has_calls:
        asked = [EXAMPLE_QUESTION, one, _RESULT]
        return [(asked, words), ([*asked, _ANSWER, _WHY], words)]
    return [([EXAMPLE_QUESTION, one, _WHY, other, _WHY], words + more)]


def _example(kind: _Kind, text: str) -> tuple[Message, list[str]]:
    first, last = text.split()
    opening = _PAIRS.get(kind.mark, kind.mark)
    thought = f"{opening}moonshine{kind.mark}" if kind.has_inline_thought else ""
    middle = f"{opening} steady {kind.mark}" if kind.is_opened else kind.mark
    message = Message(
        "assistant",
        f"{thought}{first} {middle} {last} {kind.mark} slack",
        thinking="moonshine" if kind.has_thoughts else "",
        tool_calls=_CALL.tool_calls if kind.has_calls else [],
    )
    return message, [first, last]

"""Whether a prompt holds the texts of a conversation: the last look at what a template has made.

A template may put texts in its own way (trimmed, as JSON, as HTML, without the thoughts in front of
an answer), so a text that is not there as it is counts as shown if its last words are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from ollama_async.core.conversation import Message
from ollama_async.prompts.message_shapes import count_leading_systems

_HEAD_CHARACTERS = 64  # what is looked for first, which is faster
_TAIL_CHARACTERS = 400
_WORDS = 4
_WORD = re.compile(r"(?<![/\\\w])\w+")
"""What remains of a text in any way to put it. Not ``/think``: that is a command to some templates.
"""

_END_OF_THOUGHTS = re.compile(r".*(?:</think(?:ing)?>|</thought>|\[/THINK\])", re.DOTALL)
"""And all before it; templates leave out the thoughts that a client sends with an answer."""

_SEARCHED_LIMIT = 16 << 20
"""Characters of prompts that are searched for texts which are not where they are expected."""


def is_plain(messages: Sequence[Message]) -> bool:
    """Whether these are turns of the user and the assistant as every template takes them, behind
    one system message at most.
    """
    start = count_leading_systems(messages)
    return start < 2 and all(
        message.role == ("user", "assistant")[number % 2] and not message.tool_calls
        for number, message in enumerate(islice(messages, start, None))
    )


def loses_text(messages: Sequence[Message], text: str) -> bool:
    """Whether ``text`` lacks what one of ``messages`` says. Takes time in proportion to both; says
    no where to look further would take longer.
    """
    search = _Search(text)
    return not all(
        search.finds(wanted, message.role) for message in messages for wanted in _texts(message)
    )


def _texts(message: Message) -> Iterator[str]:
    yield message.content.strip()
    for call in message.tool_calls:
        for value in call.function.arguments.values():
            if isinstance(value, str):
                yield value.strip()


class _Search:
    """Of one prompt. Messages of one role are expected in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._reached: dict[str, int] = {}
        self._left = _SEARCHED_LIMIT

    def finds(self, wanted: str, role: str) -> bool:
        if self._left < 0:
            return True
        at = self._text.find(wanted[:_HEAD_CHARACTERS], self._reached.get(role, 0))
        if at >= 0 and not self._text.startswith(wanted, at):
            at = self._text.find(wanted, at)
        if at >= 0:
            self._reached[role] = at + len(wanted)
            return True
        self._left -= (1 + 2 * _WORDS) * len(self._text)
        return all(
            word in self._text or json.dumps(word)[1:-1] in self._text
            for word in _last_words(wanted, role)
        )


def _last_words(text: str, role: str) -> list[str]:
    """Some of the longest words at the end of ``text``, behind the thoughts in an answer."""
    tail = text[-_TAIL_CHARACTERS:]
    if role == "assistant":
        tail = _END_OF_THOUGHTS.sub("", tail)
    return sorted(_WORD.findall(tail), key=len)[-_WORDS:]

"""What one chat template cannot take, found out by trying, and how conversations are put for it.

Templates differ in what they refuse, or drop without a word: system messages that are not the first
message, neighbours of one role, an assistant who speaks first, words beside a call, several calls.
Each question is asked once, when a conversation first raises it: small conversations are rendered
in one shape after the other, and their words are looked for in the text. The first shape in which
nothing is lost, tools are declared once and an answer can begin is the template's. Where no shape
helps, the conversation stays as it is, and the template says itself what is wrong.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from jinja2.exceptions import SecurityError

from ollama_async.core.conversation import Message
from ollama_async.prompts import message_shapes as shapes
from ollama_async.prompts.message_shapes import Messages, Reshape
from ollama_async.prompts.probe_questions import (
    EXAMPLE_BEGINNING,
    EXAMPLE_QUESTION,
    QUESTIONS,
    Question,
    example_tool,
)

Tools = list[dict[str, Any]]
Show = Callable[[Messages, Tools], str]
"""Renders messages and tools as they are; may fail with any exception."""
Words = Callable[[Messages], list[str]]
"""What of messages must be shown."""

_HEARD_LIMIT = 64
"""Roles whose answer is kept; a client can think of any number."""
_ASKED_LIMIT = 16
"""Roles that one conversation may ask about; fewer than are kept."""
_ROLE_CHARACTERS = 64
"""No template knows a role with a longer name."""


class TemplateProbe:
    """Of one template. Exceptions of its sandbox pass through: nothing else need be tried. So does
    what interrupts it; an answer is kept when it is whole, so that nothing wrong is remembered.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._chosen: dict[tuple[str, bool], Reshape] = {}
        self._openings: dict[bool, str] = {}  # with tools, and without
        self._heard: OrderedDict[str, bool] = OrderedDict()  # the last in use at the end

    def arrange(self, messages: Sequence[Message], tools: Tools) -> Messages:
        """The messages as this template takes them when ``tools`` are offered, or none."""
        known = shapes.with_known_roles(messages)
        strangers = {
            message.role: None for message in known if message.role not in shapes.KNOWN_ROLES
        }
        if strangers:
            known = shapes.speaking_as_users(known, self._unheard(strangers))
        return self._reshape(known, bool(tools), 0)

    @cached_property
    def works(self) -> bool:
        """Whether it renders a plain question; if not, no other shape of a conversation helps."""
        return self.shows([EXAMPLE_QUESTION], [])

    @cached_property
    def continues(self) -> bool:
        """Whether it leaves the turn open, white space included, if the assistant is the last."""
        text = self._try([EXAMPLE_QUESTION, EXAMPLE_BEGINNING], [])
        return text is not None and text.endswith(EXAMPLE_BEGINNING.content)

    def shows(self, messages: Messages, tools: Tools) -> bool:
        """Whether the template renders these messages, and all that is said in them."""
        return self.shows_words(messages, tools, said(messages))

    def shows_words(self, messages: Messages, tools: Tools, words: Iterable[str]) -> bool:
        """Whether the template renders these messages, and ``words`` are in the text."""
        text = self._try(messages, tools)
        return text is not None and all(word in text for word in words)

    def _try(self, messages: Messages, tools: Tools) -> str | None:
        """What the template makes of these messages; None: it fails."""
        try:
            return self._show(messages, tools)
        except (SecurityError, MemoryError):  # the latter says nothing about the template
            raise
        except Exception:  # noqa: BLE001  # a template is foreign code
            return None

    def _unheard(self, roles: Collection[str]) -> set[str]:
        """Those of ``roles`` that only some templates know, and this one does not show. They count
        as such as well when there are more new ones than may be asked about at once.
        """
        kept = [role for role in roles if role in self._heard]
        for role in kept:
            with contextlib.suppress(KeyError):  # another thread may have forgotten it meanwhile
                self._heard.move_to_end(role)
        new = [role for role in roles if role not in self._heard and len(role) <= _ROLE_CHARACTERS]
        for role in new[:_ASKED_LIMIT]:
            self._heard[role] = self._hears(role)
        unheard = {role for role in roles if not self._heard.get(role, False)}
        while len(self._heard) > _HEARD_LIMIT:
            self._heard.popitem(last=False)
        return unheard

    def _hears(self, role: str) -> bool:
        """Whether it shows what ``role`` says."""
        said_so = Message(role, EXAMPLE_BEGINNING.content.strip())
        return self.shows([EXAMPLE_QUESTION, said_so, EXAMPLE_QUESTION], [])

    def _reshape(self, messages: Messages, has_tools: bool, start: int) -> Messages:
        """What the questions from number ``start`` on make of ``messages``."""
        for number in range(start, len(QUESTIONS)):
            if QUESTIONS[number].is_raised(messages):
                messages = self._choose(QUESTIONS[number], has_tools)(messages)
        return messages

    def _choose(self, question: Question, has_tools: bool) -> Reshape:
        """The shape for all conversations that raise ``question``, such as calls told as text."""
        key = (question.name, has_tools)
        if key not in self._chosen:
            self._chosen[key] = self._ask(question, has_tools)
        return self._chosen[key]

    def _ask(self, question: Question, has_tools: bool) -> Reshape:
        """The first shape that shows the examples, if possible with their thoughts."""
        first = question.shapes[0]
        if not self.works:
            return first
        ways = (said_and_thought, said) if question.thoughts else (said,)
        helpful = (
            shape
            for words in ways
            for shape in question.shapes
            if self._shows_examples(question, shape, words, has_tools)
        )
        return next(helpful, first)

    def _shows_examples(
        self, question: Question, shape: Reshape, words: Words, has_tools: bool
    ) -> bool:
        """Whether ``words`` of all examples of ``question`` are shown if they are in ``shape``."""
        after = 1 + max(number for number, asked in enumerate(QUESTIONS) if asked is question)
        tools = [example_tool()] if has_tools else []
        for example in question.examples:
            text = self._try(self._reshape(shape(example), has_tools, after), tools)
            if text is None:
                return False
            is_whole = all(word in text for word in words(example))
            if question.orders and not is_whole and shape is question.shapes[0]:
                continue  # what is missing is another question's
            if not (is_whole and self._is_right(question, example, tools, text)):
                return False
        return True

    def _is_right(self, question: Question, example: Messages, tools: Tools, text: str) -> bool:
        """Whether ``text``, which shows ``example`` whole, is all that the question asks for."""
        return (
            not (tools and text.count(_declared(tools[0])) > self._declarations)
            and not (question.opens and not text.endswith(self._opening(tools)))
            and not (question.orders and not _are_in_order(example, text))
        )

    @cached_property
    def _declarations(self) -> int:
        """How often a tool may be declared: as often as with a plain question."""
        tool = example_tool()
        text = self._try([EXAMPLE_QUESTION], [tool]) or ""
        return max(1, text.count(_declared(tool)))

    def _opening(self, tools: Tools) -> str:
        """What every prompt ends with in which it is the assistant's turn to answer: what is behind
        a question, without what ends the question itself where these can be told apart.
        """
        has_tools = bool(tools)
        if has_tools not in self._openings:
            self._openings[has_tools] = self._find_opening(tools)
        return self._openings[has_tools]

    def _find_opening(self, tools: Tools) -> str:
        ask = EXAMPLE_QUESTION
        alone, twice = (self._try([ask] * count, tools) or "" for count in (1, 2))
        behind = alone.rpartition(ask.content)[2]
        between = twice.rpartition(ask.content)[0].rpartition(ask.content)[2]
        opening = behind[_count_common(behind, between) :]
        return opening if opening.strip() else behind


def _declared(tool: dict[str, Any]) -> str:
    """What is there as often as ``tool``, an example, is declared; calls do not have it."""
    return str(tool["function"]["description"])


def _are_in_order(messages: Messages, text: str) -> bool:
    places = [text.find(message.content) for message in messages if message.content]
    return places == sorted(places)


def _count_common(one: str, other: str) -> int:
    """How many characters at the beginning are the same."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in pairs)


def said(messages: Sequence[Message]) -> list[str]:
    """All words that a conversation is made of, thoughts apart."""
    words = []
    for message in messages:
        words.append(message.content)
        for call in message.tool_calls:
            words += [call.function.name, *map(str, call.function.arguments.values())]
    return words


def said_and_thought(messages: Sequence[Message]) -> list[str]:
    return said(messages) + [message.thinking for message in messages]

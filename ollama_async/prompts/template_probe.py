"""What one chat template cannot take, found out by trying, and how conversations are put for it.

Templates differ in what they refuse, or drop without a word: system messages that are not the first
message, neighbours of one role, an assistant who speaks first, words beside a call, several calls.
Each question is asked once, when a conversation first raises it: small conversations are rendered
in one shape after the other, and their words are looked for in the text. The first shape in which
nothing is lost is the template's. Where no shape helps, the conversation stays as it is, and the
template says itself what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from jinja2.exceptions import SecurityError

from ollama_async.conversation import Message
from ollama_async.prompts import message_shapes as shapes
from ollama_async.prompts.message_shapes import Messages, Reshape
from ollama_async.prompts.shape_questions import (
    EXAMPLE_BEGINNING,
    EXAMPLE_QUESTION,
    QUESTIONS,
    Question,
    example_tool,
)

Tools = list[dict[str, Any]]
Show = Callable[[Messages, Tools], str]
"""Renders messages and tools as they are; may fail with any exception."""

_STRANGERS_LIMIT = 16
"""Roles that a template is asked about; a client can think of any number."""


class TemplateProbe:
    """Of one template. Exceptions of its sandbox pass through: nothing else need be tried."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._chosen: dict[tuple[str, bool], Reshape] = {}
        self._heard: dict[str, bool] = {}

    def arrange(self, messages: Sequence[Message], tools: Tools) -> Messages:
        """The messages as this template takes them when ``tools`` are offered, or none."""
        known = shapes.with_known_roles(messages)
        strangers = {message.role for message in known} - shapes.KNOWN_ROLES
        if strangers:
            unheard = {role for role in strangers if not self._hears(role)}
            known = shapes.speaking_as_users(known, unheard)
        return self._reshape(known, bool(tools), 0)

    @cached_property
    def works(self) -> bool:
        """Whether it renders a plain question; if not, no other shape of a conversation helps."""
        return self.shows([EXAMPLE_QUESTION], [])

    @cached_property
    def continues(self) -> bool:
        """Whether it leaves the turn open, white space included, if the assistant is the last."""
        try:
            text = self._show([EXAMPLE_QUESTION, EXAMPLE_BEGINNING], [])
        except SecurityError:
            raise
        except Exception:  # noqa: BLE001  # a template is foreign code
            return False
        return text.endswith(EXAMPLE_BEGINNING.content)

    def _hears(self, role: str) -> bool:
        """Whether it shows what somebody says whose role only some templates know."""
        if role not in self._heard and len(self._heard) < _STRANGERS_LIMIT:
            said_so = Message(role, EXAMPLE_BEGINNING.content.strip())
            self._heard[role] = self.shows([EXAMPLE_QUESTION, said_so, EXAMPLE_QUESTION], [])
        return self._heard.get(role, False)

    def shows(self, messages: Messages, tools: Tools, *words: str) -> bool:
        """Whether the template renders these messages, and ``words`` or else all that is said."""
        try:
            text = self._show(messages, tools)
        except SecurityError:
            raise
        except Exception:  # noqa: BLE001  # a template is foreign code
            return False
        return all(word in text for word in words or said(messages))

    def _reshape(self, messages: Messages, has_tools: bool, start: int) -> Messages:
        """What the questions from number ``start`` on make of ``messages``."""
        for number in range(start, len(QUESTIONS)):
            if QUESTIONS[number].is_raised(messages):
                messages = self._choose(QUESTIONS[number], has_tools)(messages)
        return messages

    def _choose(self, question: Question, has_tools: bool) -> Reshape:
        key = (question.name, has_tools)
        if key not in self._chosen:
            self._chosen[key] = question.shapes[0]  # while it is being asked
            try:
                self._chosen[key] = self._ask(question, has_tools)
            except BaseException:
                del self._chosen[key]
                raise
        return self._chosen[key]

    def _ask(self, question: Question, has_tools: bool) -> Reshape:
        if not self.works:
            return question.shapes[0]
        after = 1 + next(n for n, asked in enumerate(QUESTIONS) if asked.name == question.name)
        tools = [example_tool()] if has_tools else []
        for words in (said_and_thought, said) if question.thoughts else (said,):
            for shape in question.shapes:
                if all(
                    self.shows(
                        self._reshape(shape(example), has_tools, after), tools, *words(example)
                    )
                    for example in question.examples
                ):
                    return shape
        return question.shapes[0]


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

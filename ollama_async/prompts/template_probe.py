"""Probes which messages a chat template accepts, by rendering small conversations with it.

Templates refuse or silently drop what their authors did not think of. Each question of
:mod:`.probe_questions` is asked when a conversation first raises it: its examples are rendered in
one shape after the other, and their texts are searched for in the prompt. The template gets the
first shape in which nothing is lost, tools are declared once and an answer can begin. Where no
shape helps, the conversation stays as it is, and the template's own error is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from jinja2.exceptions import SecurityError

from ollama_async.core.bounded_cache import BoundedCache
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
TextsOf = Callable[[Messages], list[str]]
"""The texts of messages that must be in the prompt."""

_KEPT_ROLES = 64
"""Roles whose result is kept; a client can invent any number."""
_ASKED_ROLES = 16
"""Unknown roles that one conversation may have probed; fewer than are kept."""
_ROLE_CHARACTERS = 64
"""No template handles a role with a longer name."""


class TemplateProbe:
    """Probes one template and caches the results.

    Exceptions of its sandbox pass through, because nothing else need be tried. So do interrupts: a
    result is kept only when it is complete, so nothing wrong is cached.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._chosen: dict[tuple[str, bool], Reshape] = {}
        self._openings: dict[bool, str] = {}  # with tools, and without
        self._role_is_shown: BoundedCache[str, bool] = BoundedCache(_KEPT_ROLES, _KEPT_ROLES)

    def arrange(self, messages: Sequence[Message], tools: Tools) -> Messages:
        """The messages in the shape that this template accepts together with ``tools``."""
        known = shapes.with_known_roles(messages)
        unknown = {
            message.role: None for message in known if message.role not in shapes.KNOWN_ROLES
        }
        if unknown:
            known = shapes.as_users(known, self._find_unknown_roles(unknown))
        return self._reshape(known, bool(tools), 0)

    @cached_property
    def works(self) -> bool:
        """Whether it renders a plain question. If not, no other shape of a conversation helps."""
        return self.shows([EXAMPLE_QUESTION], [])

    @cached_property
    def continues(self) -> bool:
        """Whether it leaves a last turn of the assistant open, including white space."""
        text = self._try([EXAMPLE_QUESTION, EXAMPLE_BEGINNING], [])
        return text is not None and text.endswith(EXAMPLE_BEGINNING.content)

    def shows(self, messages: Messages, tools: Tools) -> bool:
        """Whether the template renders these messages, and all texts in them."""
        return self.shows_texts(messages, tools, texts_of(messages))

    def shows_texts(self, messages: Messages, tools: Tools, texts: Iterable[str]) -> bool:
        """Whether the template renders these messages, and ``texts`` are in the prompt."""
        text = self._try(messages, tools)
        return text is not None and all(part in text for part in texts)

    def _try(self, messages: Messages, tools: Tools) -> str | None:
        """The prompt for these messages; None: the template fails."""
        try:
            return self._show(messages, tools)
        except (SecurityError, MemoryError):  # the latter is not the template's fault
            raise
        except Exception:  # noqa: BLE001  # a template is foreign code
            return None

    def _find_unknown_roles(self, roles: Collection[str]) -> set[str]:
        """Those of ``roles``, which only some templates handle, whose messages this one does not
        show. New roles beyond the number that may be probed at once count as unknown.
        """
        shown = {role: self._role_is_shown.get(role) for role in roles}
        new = [role for role in roles if shown[role] is None and len(role) <= _ROLE_CHARACTERS]
        for role in new[:_ASKED_ROLES]:
            message = Message(role, EXAMPLE_BEGINNING.content.strip())
            is_shown = self.shows([EXAMPLE_QUESTION, message, EXAMPLE_QUESTION], [])
            shown[role] = is_shown
            self._role_is_shown.put(role, is_shown, 1)
        return {role for role in roles if not shown[role]}

    def _reshape(self, messages: Messages, has_tools: bool, start: int) -> Messages:
        """``messages`` in the shapes that the questions from number ``start`` on choose."""
        for number in range(start, len(QUESTIONS)):
            if QUESTIONS[number].is_raised(messages):
                messages = self._choose(QUESTIONS[number], has_tools)(messages)
        return messages

    def _choose(self, question: Question, has_tools: bool) -> Reshape:
        """The shape for all conversations that raise ``question``, such as calls as text."""
        key = (question.name, has_tools)
        if key not in self._chosen:
            self._chosen[key] = self._find_shape(question, has_tools)
        return self._chosen[key]

    def _find_shape(self, question: Question, has_tools: bool) -> Reshape:
        """The first shape that shows the examples, with their thoughts if possible."""
        first = question.shapes[0]
        if not self.works:
            return first
        ways = (texts_with_thoughts, texts_of) if question.thoughts else (texts_of,)
        helpful = (
            shape
            for texts in ways
            for shape in question.shapes
            if self._shows_examples(question, shape, texts, has_tools)
        )
        return next(helpful, first)

    def _shows_examples(
        self, question: Question, shape: Reshape, texts: TextsOf, has_tools: bool
    ) -> bool:
        """Whether all examples of ``question`` are shown in ``shape``, with their ``texts``."""
        after = 1 + max(number for number, asked in enumerate(QUESTIONS) if asked is question)
        tools = [example_tool()] if has_tools else []
        for example in question.examples:
            text = self._try(self._reshape(shape(example), has_tools, after), tools)
            if text is None:
                return False
            is_whole = all(part in text for part in texts(example))
            if question.orders and not is_whole and shape is question.shapes[0]:
                continue  # what is missing is another question's
            if not (is_whole and self._is_right(question, example, tools, text)):
                return False
        return True

    def _is_right(self, question: Question, example: Messages, tools: Tools, text: str) -> bool:
        """Whether ``text``, which shows ``example``, meets the question's other conditions."""
        return (
            not (tools and _count_declarations(tools[0], text) > self._declarations)
            and not (question.opens and not text.endswith(self._opening(tools)))
            and not (question.orders and not _are_in_order(example, text))
        )

    @cached_property
    def _declarations(self) -> int:
        """How many times a tool may be declared: as many as with a plain question."""
        tool = example_tool()
        text = self._try([EXAMPLE_QUESTION], [tool]) or ""
        return max(1, _count_declarations(tool, text))

    def _opening(self, tools: Tools) -> str:
        """The end of every prompt in which it is the assistant's turn: what follows a question,
        without what ends the question itself if these can be distinguished.
        """
        has_tools = bool(tools)
        if has_tools in self._openings:
            return self._openings[has_tools]
        ask = EXAMPLE_QUESTION
        alone, twice = (self._try([ask] * count, tools) or "" for count in (1, 2))
        behind = alone.rpartition(ask.content)[2]
        between = twice.rpartition(ask.content)[0].rpartition(ask.content)[2]
        pairs = zip(behind, between, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        opening = behind[common:]
        self._openings[has_tools] = opening if opening.strip() else behind
        return self._openings[has_tools]


def _count_declarations(tool: dict[str, Any], text: str) -> int:
    """The declarations of the example ``tool``; calls do not hold its description."""
    return text.count(tool["function"]["description"])


def _are_in_order(messages: Messages, text: str) -> bool:
    places = [text.find(message.content) for message in messages if message.content]
    return places == sorted(places)


def texts_of(messages: Sequence[Message]) -> list[str]:
    """All texts of a conversation except thoughts."""
    texts = []
    for message in messages:
        texts.append(message.content)
        for call in message.tool_calls:
            texts += [call.function.name, *map(str, call.function.arguments.values())]
    return texts


def texts_with_thoughts(messages: Sequence[Message]) -> list[str]:
    return texts_of(messages) + [message.thinking for message in messages]

"""How client protocols write answers: the contract, with one module per protocol.

:mod:`~ollama_async.gateway.streaming` and :mod:`~ollama_async.gateway.response_stream` know only
what is defined here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from ollama_async.core.conversation import Thought, ToolCall
from ollama_async.core.errors import ServerError
from ollama_async.queue.backend import Finish

Delta = str | Thought | ToolCall
"""The next piece of an answer: text, thinking, or a tool call."""


class AnswerContent(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or a part of it. ``tool_calls`` are in order and have their numbers and ids."""

    text: str = ""
    thinking: str = ""
    tool_calls: list[ToolCall] = []


class FinalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The last object of an answer. Durations in nanoseconds; 0: left out.

    ``content`` is the whole answer without streaming, and empty with it.
    """

    finish: Finish
    content: AnswerContent = AnswerContent()
    load_ns: int = 0
    total_ns: int = 0


class ResponseFormat(Protocol):
    """How one protocol writes one answer.

    ``text``, ``thinking``, ``tool_calls``, ``last`` and ``error`` each give one whole object of a
    stream, with its separator. ``whole`` is the one JSON object without streaming.
    """

    content_type: str
    text: Callable[[str], bytes]
    thinking: Callable[[str], bytes]

    def tool_calls(self, calls: list[ToolCall]) -> bytes: ...

    def last(self, answer: FinalAnswer) -> bytes: ...

    def error(self, error: ServerError) -> bytes: ...

    def whole(self, answer: FinalAnswer) -> bytes: ...

"""Splits the text of an answer into content, thoughts and tool calls, as deltas for the pipe."""

from __future__ import annotations

import json
import random
import string
import traceback
from collections.abc import Sequence

import msgspec

from ollama_async.core.conversation import ToolCall, ToolFunction
from ollama_async.core.json_depth import is_deep_value
from ollama_async.prompts.output_format import Parser, Part
from ollama_async.workers.child.grammar.constraints import CallGuard
from ollama_async.workers.messages import Delta, ToolCallDelta

NESTING_LIMIT = 100
"""Levels of a call's arguments, which readers of the pipe unpack recursively."""

_pack = msgspec.msgpack.Encoder().encode
_LETTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 8


class OutputParser:
    """Runs one answer's parser. Numbers the calls, and gives an id to those without one.

    If it ``takes_one_call``, the answer ``is_over`` with the first call: nothing that came after it
    is passed on.

    A parser that fails must not take the worker down: the error is logged, and the rest of the
    answer is content.
    """

    __slots__ = ("_calls", "_guard", "_parser", "_takes_one_call", "is_over")

    def __init__(self, parser: Parser, *, takes_one_call: bool = False) -> None:
        self.is_over = False
        self._takes_one_call = takes_one_call
        self._parser: Parser | None = parser
        self._calls = 0
        self._guard: CallGuard | None = None

    def set_guard(self, guard: CallGuard) -> None:
        """Notify ``guard`` of calls that the answer begins; the prompt may have begun one."""
        self._guard = guard
        self._update_guard()

    def feed(self, text: str) -> list[Delta]:
        """What is certain after more ``text``, which is not empty."""
        if self._parser is None:
            return [text]
        try:
            parts = self._parser.feed(text)
        except Exception:  # noqa: BLE001  # see the class
            self._drop_parser()
            return [text]
        self._update_guard()
        return self._deltas(parts)

    def finish(self) -> list[Delta]:
        """What was held back; the answer has ended."""
        if self._parser is None:
            return []
        try:
            parts = self._parser.finish()
        except Exception:  # noqa: BLE001  # as above
            self._drop_parser()
            return []
        return self._deltas(parts)

    def _update_guard(self) -> None:
        if self._guard is not None and self._guard.is_free and self._parser is not None:
            self._guard.update(self._parser)

    def _drop_parser(self) -> None:
        traceback.print_exc()
        self._parser = None

    def _deltas(self, parts: Sequence[Part]) -> list[Delta]:
        deltas: list[Delta] = []
        for part in parts:
            if self.is_over:
                break
            deltas.append(self._call(part) if isinstance(part, ToolCall) else part)
            self.is_over = self._takes_one_call and isinstance(deltas[-1], ToolCallDelta)
        return deltas

    def _call(self, call: ToolCall) -> Delta:
        """The call, or its text if the pipe cannot carry it: numbers beyond 64 bits, lone
        surrogates, deep nesting.
        """
        function = call.function
        if not _can_pack(function):
            return json.dumps({"name": function.name, "arguments": function.arguments})
        numbered = ToolFunction(function.name, function.arguments, self._calls)
        self._calls += 1
        letters = random.choices(_LETTERS, k=_ID_LENGTH)  # noqa: S311  # a name, not a secret
        return ToolCallDelta(ToolCall(numbered, call.id or f"call_{''.join(letters)}"))


def _can_pack(function: ToolFunction) -> bool:
    try:
        _pack(function)
    except (ValueError, OverflowError, RecursionError):
        return False
    return not is_deep_value(function.arguments, NESTING_LIMIT)

"""What an answer means, as its text arrives: one request's parser, and what it finds made fit for
the pipe.
"""

from __future__ import annotations

import json
import random
import string
import traceback

import msgspec

from ollama_async.core.conversation import ToolCall, ToolFunction
from ollama_async.core.json_depth import is_deep_value
from ollama_async.prompts.output_format import Parser, Part
from ollama_async.workers.child.grammar.call_guard import CallGuard
from ollama_async.workers.messages import Delta, ToolCallDelta

NESTING_LIMIT = 100
"""Levels of a call's arguments: whoever unpacks them does so by recursion."""

_pack = msgspec.msgpack.Encoder().encode
_LETTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 8


class Meaning:
    """Of one answer. Calls are numbered in their order; those without an id are given one.

    A parser that fails is foreign to the engine and must not cost the other requests their worker:
    its fault goes to the log, and from there on the answer's text is content as it is.
    """

    __slots__ = ("_calls", "_guard", "_parser")

    def __init__(self, parser: Parser) -> None:
        self._parser: Parser | None = parser
        self._calls = 0
        self._guard: CallGuard | None = None

    def set_guard(self, guard: CallGuard) -> None:
        """``guard`` is to be told of the calls that the answer begins; its prompt may have."""
        self._guard = guard
        self._tell_guard()

    def feed(self, text: str) -> list[Delta]:
        """What is certain after some more ``text``, which is not empty."""
        if self._parser is None:
            return [text]
        try:
            parts = self._parser.feed(text)
        except Exception:  # noqa: BLE001  # the boundary of a request, see the class
            self._give_up()
            return [text]
        self._tell_guard()
        return [self._piece(part) for part in parts]

    def finish(self) -> list[Delta]:
        """What was held back; the answer has ended."""
        if self._parser is None:
            return []
        try:
            parts = self._parser.finish()
        except Exception:  # noqa: BLE001  # as above
            self._give_up()
            return []
        return [self._piece(part) for part in parts]

    def _tell_guard(self) -> None:
        if self._guard is not None and self._guard.is_free and self._parser is not None:
            self._guard.update(self._parser)

    def _give_up(self) -> None:
        traceback.print_exc()
        self._parser = None

    def _piece(self, part: Part) -> Delta:
        return self._call(part) if isinstance(part, ToolCall) else part

    def _call(self, call: ToolCall) -> Delta:
        """The call for the pipe, or its text if the pipe cannot carry it: numbers beyond 64 bits,
        half characters, and what is nested too deeply.
        """
        function = call.function
        if not _fits_pipe(function):
            return json.dumps({"name": function.name, "arguments": function.arguments})
        numbered = ToolFunction(function.name, function.arguments, self._calls)
        self._calls += 1
        return ToolCallDelta(ToolCall(numbered, call.id or f"call_{_random_letters()}"))


def _fits_pipe(function: ToolFunction) -> bool:
    try:
        _pack(function)
    except (ValueError, OverflowError, RecursionError):
        return False
    return not is_deep_value(function.arguments, NESTING_LIMIT)


def _random_letters() -> str:
    return "".join(random.choices(_LETTERS, k=_ID_LENGTH))  # noqa: S311  # a name, not a secret

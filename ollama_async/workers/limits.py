"""What a worker may still say, by what it was asked: more is the worker's fault, and its end.

A model's file is hostile input to a native library, so whatever comes out of a worker may be an
attacker's words. Its frames are bounded one by one in :mod:`.frames`; here they are bounded in
number, and each request's text by the tokens that were asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from ollama_async.core.conversation import Usage
from ollama_async.workers.handshake import ProtocolViolation
from ollama_async.workers.messages import Delta, Heartbeat, ToolCallDelta

CHARACTERS_PER_TOKEN = 1024
"""The longest tokens of real vocabularies are runs of 128 to 256 blanks; tool calls say again in
JSON what a model wrote in its own way."""

SPARE_CHARACTERS = 64 << 10
"""For ends that a parser adds, and requests of few tokens."""

_CONTEXTS = 10
"""An answer without a limit ends after so many contexts."""

_MOST_NUMBER = 1 << 62
_CHATTER_BURST = 200
_CHATTER_PER_S = 50
"""Progress and vitals come ten times a second at most."""


class Allowances:
    """The requests that one worker has: begun, perhaps started, not ended."""

    def __init__(self, num_ctx: int) -> None:
        self._num_ctx = num_ctx
        self._left: dict[int, int] = {}
        self._waiting: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._left)

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._left

    def begin(self, request_id: int, num_predict: int) -> None:
        """The request is handed over. It asks for so many tokens; negative: as many as may be."""
        self._waiting.add(request_id)
        tokens = _CONTEXTS * self._num_ctx
        if num_predict >= 0:
            tokens = min(tokens, num_predict)
        self._left[request_id] = tokens * CHARACTERS_PER_TOKEN + SPARE_CHARACTERS

    def start(self, request_id: int) -> None:
        """:raises ProtocolViolation: the worker has no such request, or started it before."""
        try:
            self._waiting.remove(request_id)
        except KeyError:
            raise ProtocolViolation(
                f"the worker started request {request_id} out of turn"
            ) from None

    def spend(self, items: Sequence[tuple[int, Delta]]) -> None:
        """:raises ProtocolViolation: an unknown request, or more than it may have."""
        left = self._left
        for request_id, piece in items:
            size = len(piece) if isinstance(piece, str) else _size_of(piece)
            rest = left.get(request_id, -1) - size - 1
            if rest < 0:
                raise ProtocolViolation(
                    f"the worker said more of request {request_id} than was asked for"
                    if request_id in left
                    else f"the worker spoke of request {request_id}, which it does not have"
                )
            left[request_id] = rest

    def end(self, request_id: int) -> None:
        """:raises ProtocolViolation: the worker has no such request."""
        if self._left.pop(request_id, None) is None:
            raise ProtocolViolation(
                f"the worker ended request {request_id}, which it does not have"
            )
        self._waiting.discard(request_id)


class Chatter:
    """Messages that bring no request on; ``now`` in seconds."""

    def __init__(self, now: float) -> None:
        self._left = float(_CHATTER_BURST)
        self._counted_at = now

    def hear(self, now: float) -> None:
        """:raises ProtocolViolation: too many of them."""
        gained = (now - self._counted_at) * _CHATTER_PER_S
        self._left = min(float(_CHATTER_BURST), self._left + gained) - 1
        self._counted_at = now
        if self._left < 0:
            raise ProtocolViolation("the worker talks without having to say anything")


def check_usage(usage: Usage) -> None:
    """:raises ProtocolViolation: these are no counts and durations."""
    _check_counts(usage.prompt, usage.cached, usage.prompt_ns, usage.answer, usage.answer_ns)


def check_vitals(vitals: Heartbeat) -> None:
    """:raises ProtocolViolation: these are no counts, or no share."""
    _check_counts(vitals.busy_slots)
    if not (math.isfinite(vitals.cache_used) and 0 <= vitals.cache_used <= 1):
        raise ProtocolViolation(f"the worker uses {vitals.cache_used} of its cache")


def _check_counts(*numbers: int) -> None:
    if not all(0 <= number < _MOST_NUMBER for number in numbers):
        raise ProtocolViolation("the worker counts what cannot be")


def _size_of(piece: Delta) -> int:
    """Characters, of a tool call as JSON.

    :raises ProtocolViolation: the call's arguments are nothing that JSON can say.
    """
    if not isinstance(piece, ToolCallDelta):
        return len(piece) if isinstance(piece, str) else len(piece.text)
    try:
        return len(msgspec.json.encode(piece.call))
    except (TypeError, ValueError, RecursionError) as reason:
        raise ProtocolViolation(f"the worker called a tool with {reason}") from None

"""Limits on what a worker sends: sequence, number and validity of its messages, output per request.

A model file is hostile input to a native library, so a worker may be controlled by an attacker.
:mod:`.frames` bounds single messages. Here their sequence and number are checked, and each
request's output is bounded by the tokens that it asked for. A worker that violates a limit is
killed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from ollama_async.core.conversation import Logprobs, Thought, TokenLogprob, Vector
from ollama_async.core.safe_text import replace_unprintable
from ollama_async.workers import messages
from ollama_async.workers.load_spec import ResourceLimits

CHARACTERS_PER_TOKEN = 1024
"""The longest tokens of real vocabularies are 256 spaces, and tool calls grow when written as
JSON."""

LOGPROB_BYTES = 512
"""Of a token and a number. A client may have the longest tokens listed, again and again."""

SPARE_CHARACTERS = 64 << 10
"""For text that a parser adds, and requests of few tokens."""

_CONTEXTS = 10
"""Answers without a limit end after so many contexts."""

_MAX_NUMBER = 1 << 53
"""Clients read numbers of JSON as float64. Sums of these still fit into 64 bits."""

_NUMBER_BYTES = 8
_MAX_STOP_CHARACTERS = 1 << 16
_MAX_WARNINGS = 16
_MAX_WARNING_CHARACTERS = 1000
_MESSAGE_BURST = 200
_MESSAGES_PER_S = 50
"""Progress and heartbeats come ten times a second at most."""


class ProtocolViolation(Exception):
    """The worker sent something that it must not send."""


class Handshake:
    """The messages of a start: Hello, Loading …, Ready or Refused."""

    def __init__(self, *, generation: int, pid: int, limits: ResourceLimits) -> None:
        self._generation = generation
        self._pid = pid
        self._limits = limits
        self._has_hello = False

    def receive(self, message: messages.ToParent) -> messages.Ready | messages.Refused | None:
        """Take the next message; returns the end of the start, or None. ``Ready`` is cut down to
        the limits.

        :raises ProtocolViolation: another protocol, another worker, or an unexpected message.
        """
        if not self._has_hello and isinstance(message, messages.Hello):
            self._has_hello = True
            self._check(message)
            return None
        if self._has_hello and isinstance(message, messages.Ready):
            return _bounded(message, self._limits)
        if self._has_hello and isinstance(message, messages.Loading | messages.Refused):
            return message if isinstance(message, messages.Refused) else None
        raise unexpected(message)

    def _check(self, hello: messages.Hello) -> None:
        if hello.protocol != messages.PROTOCOL:
            raise ProtocolViolation(
                f"the worker uses protocol {hello.protocol}, this server {messages.PROTOCOL}"
            )
        if (hello.generation, hello.pid) != (self._generation, self._pid):
            raise ProtocolViolation(
                f"a worker of generation {hello.generation}, pid {hello.pid} answered; expected"
                f" {self._generation}, {self._pid}"
            )


class OutputLimits:
    """How much a worker may still send for each of its requests. ``num_ctx``: tokens per slot."""

    def __init__(self, num_ctx: int) -> None:
        self._num_ctx = num_ctx
        self._left: dict[int, int] = {}  # nothing before the start
        self._vectors_left: dict[int, int] = {}
        self._unstarted: dict[int, tuple[int, int]] = {}  # what each may send after its start

    def __bool__(self) -> bool:
        return bool(self._left)

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._left

    def begin(self, request_id: int, num_predict: int, vectors: int = 0, logprobs: int = 0) -> None:
        """The request was sent. ``num_predict``: its maximum of tokens; negative: none. ``vectors``
        and ``logprobs``: as in :class:`~ollama_async.queue.backend.Job`.
        """
        tokens = _CONTEXTS * self._num_ctx
        if num_predict >= 0:
            tokens = min(tokens, num_predict)
        per_token = CHARACTERS_PER_TOKEN + logprobs * LOGPROB_BYTES
        self._unstarted[request_id] = tokens * per_token + SPARE_CHARACTERS, vectors
        self._left[request_id] = 0

    def start(self, started: messages.Started) -> None:
        """:raises ProtocolViolation: the request is unknown or already started, or the numbers are
        invalid.
        """
        _check_numbers(started.prompt, started.cached)
        _check_part(started.cached, started.prompt)
        if started.id not in self._unstarted:
            raise ProtocolViolation(f"the worker started request {started.id} out of order")
        self._left[started.id], vectors = self._unstarted.pop(started.id)
        if vectors:
            self._vectors_left[started.id] = vectors

    def spend(self, items: Sequence[tuple[int, messages.Delta]]) -> None:
        """:raises ProtocolViolation: a request is unknown or not yet started, or has more output
        than it may.
        """
        left = self._left
        for request_id, delta in items:
            if isinstance(delta, Vector):
                self._spend_vector(request_id, delta)
                continue
            size = len(delta) if isinstance(delta, str) else _size_of(delta)
            rest = left.get(request_id, -1) - size - 1
            if rest < 0:
                raise self._overspent(request_id)
            left[request_id] = rest

    def _overspent(self, request_id: int) -> ProtocolViolation:
        if request_id not in self._left:
            return ProtocolViolation(f"the worker sent output for unknown request {request_id}")
        if request_id in self._unstarted:
            return ProtocolViolation(f"the worker sent output before it started {request_id}")
        return ProtocolViolation(
            f"the worker sent more for request {request_id} than was requested"
        )

    def _spend_vector(self, request_id: int, vector: Vector) -> None:
        _check_numbers(vector.index, vector.tokens)
        _check_part(vector.tokens, self._num_ctx)
        rest = self._vectors_left.get(request_id, 0) - 1
        if rest < 0:
            raise ProtocolViolation(f"the worker sent a vector too many for request {request_id}")
        self._vectors_left[request_id] = rest

    def end(self, request_id: int) -> None:
        """:raises ProtocolViolation: the request is unknown."""
        if self._left.pop(request_id, None) is None:
            raise ProtocolViolation(f"the worker ended unknown request {request_id}")
        self._vectors_left.pop(request_id, None)
        self._unstarted.pop(request_id, None)


class MessageRate:
    """Token bucket for messages that belong to no request."""

    def __init__(self, now: float) -> None:
        self._left = float(_MESSAGE_BURST)
        self._counted_at = now

    def count(self, now: float) -> None:
        """:raises ProtocolViolation: too many of them."""
        gained = (now - self._counted_at) * _MESSAGES_PER_S
        self._left = min(float(_MESSAGE_BURST), self._left + gained) - 1
        self._counted_at = now
        if self._left < 0:
            raise ProtocolViolation("the worker sends too many messages that are no answers")


def unexpected(message: messages.ToParent) -> ProtocolViolation:
    return ProtocolViolation(f"the worker sent an unexpected message: {type(message).__name__}")


def check_done(done: messages.Done) -> None:
    """:raises ProtocolViolation: invalid counts or durations, or a stop string that nobody sent."""
    usage = done.usage
    _check_numbers(*msgspec.structs.astuple(usage))
    _check_part(usage.cached, usage.prompt)
    _check_part(usage.restored, usage.cached)
    _check_part(usage.thinking, usage.answer)
    _check_part(usage.accepted, usage.drafted)
    if len(done.stop_string) > _MAX_STOP_CHARACTERS:
        raise ProtocolViolation("the worker reports a stop string that is too long")


def check_heartbeat(heartbeat: messages.Heartbeat) -> None:
    """:raises ProtocolViolation: an invalid count or share."""
    _check_numbers(heartbeat.busy_slots, heartbeat.stored_bytes, heartbeat.stored_states)
    if not (math.isfinite(heartbeat.cache_used) and 0 <= heartbeat.cache_used <= 1):
        raise ProtocolViolation(f"the worker reports a cache use of {heartbeat.cache_used}")


def _check_numbers(*numbers: int) -> None:
    if not all(0 <= number < _MAX_NUMBER for number in numbers):
        raise ProtocolViolation("the worker reports impossible numbers")


def _check_part(part: int, whole: int) -> None:
    if part > whole:
        raise ProtocolViolation("the worker reports a part that is larger than the whole")


def _bounded(ready: messages.Ready, limits: ResourceLimits) -> messages.Ready:
    """``ready`` within what was planned.

    :raises ProtocolViolation: impossible sizes.
    """
    _check_numbers(
        *(ready.slots, ready.num_ctx, ready.weights_bytes, ready.cache_bytes),
        *(ready.compute_bytes, ready.device_bytes),
    )
    return msgspec.structs.replace(
        ready,
        slots=min(ready.slots, limits.slots),
        num_ctx=min(ready.num_ctx, limits.num_ctx),
        kernels=replace_unprintable(ready.kernels[:_MAX_WARNING_CHARACTERS]),
        warnings=[
            replace_unprintable(text[:_MAX_WARNING_CHARACTERS])
            for text in ready.warnings[:_MAX_WARNINGS]
        ],
    )


def _size_of(delta: Thought | Logprobs | messages.ToolCallDelta) -> int:
    """Number of characters; of a tool call, as JSON; of logprobs, bytes of tokens and numbers.

    :raises ProtocolViolation: the call's arguments cannot be written as JSON, or a logprob is that
        of no probability.
    """
    if isinstance(delta, Thought):
        return len(delta.text)
    if isinstance(delta, Logprobs):
        return sum(map(_size_of_logprob, delta.tokens))
    try:
        return len(msgspec.json.encode(delta.call))
    except (TypeError, ValueError, RecursionError) as reason:
        raise ProtocolViolation(f"the worker sent an invalid tool call: {reason}") from None


def _size_of_logprob(logprob: TokenLogprob) -> int:
    size = 0
    for token, value in ((logprob.token, logprob.logprob), *logprob.top):
        if not -math.inf < value <= 0:  # NaN is not
            raise ProtocolViolation(f"the worker reports a logprob of {value}")
        size += len(token) + _NUMBER_BYTES
    return size

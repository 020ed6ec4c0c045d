"""One worker as its parent knows it: start, ask, listen, stop, and the news of its death.

- Runs in: the gateway, on its loop; every call and every callback.
- Owns: one channel and one process, from :meth:`WorkerLink.start` until :meth:`WorkerLink.closed`.
- Tasks: none. Loop readers deliver what the child says; a timer watches for silence.
- Talks to: the child, in :mod:`.messages`; its owner (the pool), through :class:`LinkEvents`.
- Dies when: the child does, for whatever reason, and only then. Everything that goes wrong here
  ends with SIGKILL and is told when the child is reaped, so there is one way to die and not many.

A start is HELLO → READY, or why not, in a race with the child's exit and with a clock that only
progress turns back. A link starts once; another try is another link, with another generation.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import signal
from collections.abc import Mapping, Sequence
from typing import Protocol

from ollama_async.core import errors
from ollama_async.workers import messages
from ollama_async.workers.channel import Channel
from ollama_async.workers.frames import FrameTooLarge
from ollama_async.workers.handshake import Handshake, ProtocolViolation
from ollama_async.workers.limits import Allowances, Chatter, check_usage, check_vitals
from ollama_async.workers.load_spec import ResourceLimits
from ollama_async.workers.messages import (
    Cancel,
    Delta,
    Deltas,
    Done,
    Failed,
    FromParent,
    Heartbeat,
    Hello,
    Loading,
    PackedSubmit,
    Ready,
    Refused,
    Started,
    Submit,
    Text,
    Tokens,
    ToParent,
)
from ollama_async.workers.process import CHILD_MODULE, WorkerProcess, exit_words
from ollama_async.workers.questions import Questions

CRASH_TEXT = (
    "model runner has unexpectedly stopped, this may be due to resource limitations"
    " or an internal error, check ollama server logs for details"
)
"""Ollama's sentence; what is known follows after a colon."""

_QUESTION_TIMEOUT_S = 30.0
_WATCH_PERIOD_S = 1.0
_REAP_DEADLINE_S = 10.0
_ERROR_CHARACTERS = 4000
_VERDICT_CHARACTERS = 300

log = logging.getLogger(__name__)


class LinkEvents(Protocol):
    """What the owner of a link hears, on the loop, in the order in which the child said it.

    Nothing comes before the child is ready, nothing after ``died``, and nothing once
    :meth:`WorkerLink.stop` has been called. (What follows ``Ready`` in the same breath may come
    a moment before ``start`` has returned.) An exception is logged and costs only its own message.
    """

    def pieces(self, items: list[tuple[int, Delta]]) -> None: ...

    def started(self, request_id: int) -> None: ...

    def done(self, done: Done) -> None: ...

    def failed(self, failed: Failed) -> None: ...

    def vitals(self, vitals: Heartbeat) -> None: ...

    def died(self, reason: str) -> None:
        """The ready worker ended and nobody had asked it to; it is reaped, or does not even end by
        SIGKILL (see :attr:`WorkerLink.is_gone`). ``reason`` is a text for clients. Comes once.
        Requests without an end get no other word.
        """


class _Phase(enum.Enum):
    NEW = enum.auto()
    STARTING = enum.auto()
    READY = enum.auto()
    ENDING = enum.auto()  # stopped, refused or given up: what it says no longer counts
    DEAD = enum.auto()  # reaped, everything closed


class WorkerLink:
    """See the module. ``generation`` tells this child from every other one of this server.

    ``stall_timeout_s``: a child that has work and says nothing for so long is killed (inf: never).
    ``module`` is what the child runs (tests bring their own). ``has_aborted``: the child is dead
    and ended itself (SIGABRT), as a failed assertion does.
    """

    def __init__(
        self,
        events: LinkEvents,
        *,
        generation: int,
        stall_timeout_s: float = math.inf,
        module: str = CHILD_MODULE,
    ) -> None:
        self._events = events
        self._generation = generation
        self._stall_timeout_s = stall_timeout_s
        self._module = module
        self._phase = _Phase.NEW
        self._loop: asyncio.AbstractEventLoop
        self._channel: Channel
        self._process: WorkerProcess
        self._handshake: Handshake
        self._ready: asyncio.Future[Ready]
        self._closed = asyncio.Event()
        self._load_timeout_s = math.inf
        self._load_clock: asyncio.Timeout | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._running = Allowances(0)
        self._chatter = Chatter(0.0)
        self._questions = Questions()
        self._verdict = ""
        self.has_aborted = False
        self._owes_death = False

    @property
    def pid(self) -> int:
        """The child's; 0 before it was spawned."""
        return 0 if self._phase is _Phase.NEW else self._process.pid

    @property
    def is_gone(self) -> bool:
        """Whether there is no process that holds memory. False long after the end of all that it
        was to do, while a driver or a disk holds it: then :meth:`closed` tells when it goes.
        """
        return self._phase in {_Phase.NEW, _Phase.DEAD}

    async def start(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        bounds: ResourceLimits = ResourceLimits(),  # noqa: B008  # frozen
        load_timeout_s: float = math.inf,
    ) -> Ready:
        """Spawn the child with these options and exactly these variables; wait until it is ready.

        ``load_timeout_s`` bounds the time without a sign of progress (``Loading``, output on
        stderr), not the whole load. If this fails or is cancelled, the child is killed and reaped
        before the exception leaves (a second cancellation does not wait for the reaping, which
        goes on by itself).

        :raises LoadFailed: it could not be spawned, spoke wrongly, ended, or made no progress.
        :raises ServerError: the child refused, and this is its reason.
        """
        assert self._phase is _Phase.NEW, "a link starts once"
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._spawn(argv, environ, bounds)
        self._load_timeout_s = load_timeout_s
        try:
            async with asyncio.timeout(_finite(load_timeout_s)) as self._load_clock:
                return await self._ready
        except TimeoutError:
            await self._abandon()
            raise errors.LoadFailed(
                self._with_output(
                    "timed out waiting for the model worker to start"
                    f" - no progress for {load_timeout_s:g} s"
                )
            ) from None
        except BaseException:  # whatever ends a start, cancellation included, ends the child
            await self._abandon()
            raise
        finally:
            self._load_clock = None

    def submit(self, request: PackedSubmit | Submit, num_predict: int = -1) -> None:
        """Hand a request over; never waits. Its end comes as ``done``, ``failed`` or ``died``.

        ``num_predict``: the tokens that it asks for bound what the child may say; negative: as many
        as may be.

        The owner sends no more requests than the child has slots: that bounds what waits here when
        the child does not read.

        :raises WorkerDied: the link is not ready (any more).
        :raises TooLarge: the request is longer than a frame may be.
        """
        self._send(request)
        if not self._running:
            self._heard_at = self._loop.time()  # silence begins to count with the work
        self._running.begin(request.id, num_predict)

    def cancel(self, request_id: int) -> None:
        """Ask for an early end. ``done`` with reason ``cancel`` follows, or the end that had been
        under way. No error if the worker is gone.
        """
        if self._phase is _Phase.READY and request_id in self._running:
            self._channel.pipe.send(Cancel(request_id))

    async def tokenize(
        self,
        text: str,
        *,
        add_special: bool = False,
        parse_special: bool = True,
        timeout_s: float = _QUESTION_TIMEOUT_S,
    ) -> list[int]:
        """Token ids of ``text``.

        :raises ServerError: the child's own reason; or EngineFailed: no answer in time; or
            WorkerDied, TooLarge as in :meth:`submit`.
        """
        number = self._questions.next_number()
        self._send(messages.Tokenize(number, text, add_special, parse_special))
        answer = await self._questions.answer_to(number, timeout_s=timeout_s)
        if not isinstance(answer, Tokens):
            raise errors.EngineFailed("the worker answered a question that was not asked")
        return answer.tokens

    async def detokenize(self, tokens: list[int], *, timeout_s: float = _QUESTION_TIMEOUT_S) -> str:
        """The text of token ids. Errors as :meth:`tokenize`."""
        number = self._questions.next_number()
        self._send(messages.Detokenize(number, tokens))
        answer = await self._questions.answer_to(number, timeout_s=timeout_s)
        if not isinstance(answer, Text):
            raise errors.EngineFailed("the worker answered a question that was not asked")
        return answer.text

    async def stop(self, grace_s: float) -> None:
        """End the child: Quit, after half the grace TERM, after all of it KILL; wait until it is
        reaped and everything is closed. Idempotent, and may be called at any time.

        Events end here: who still has requests running answers for them. A ``start`` under way
        fails. Cancelled half-way, it kills at once.
        """
        if self._phase in {_Phase.NEW, _Phase.DEAD}:
            return
        self._end()
        if await self._process.stop(grace_s, ask=self._ask_to_quit):
            await self._closed.wait()

    async def closed(self) -> None:
        """Wait until the child is reaped and everything is closed; the owner bounds it."""
        if not self.is_gone:
            await self._closed.wait()

    # What the pipe says.

    def received(self, batch: list[ToParent]) -> None:
        self._heard_at = self._loop.time()
        for message in batch:
            if self._phase is _Phase.READY:
                try:
                    self._deliver(message)
                except ProtocolViolation as reason:
                    self._give_up(str(reason))
                except Exception:  # the boundary "worker message": the next one still counts
                    log.exception("event of worker %d", self.pid)
            elif self._phase is not _Phase.ENDING:
                self._begin(message)

    def broken(self, reason: str) -> None:
        self._give_up(f"the worker wrote what cannot be read: {reason}")

    # What the process says.

    def printed(self) -> None:
        self._turn_back_load_clock()

    def exited(self, returncode: int) -> None:
        self.has_aborted = not self._verdict and returncode == -signal.SIGABRT
        self._verdict = self._verdict or exit_words(returncode)
        self._read_rest()

    def _spawn(
        self, argv: Sequence[str], environ: Mapping[str, str], bounds: ResourceLimits
    ) -> None:
        with contextlib.ExitStack() as made:
            try:
                channel = made.enter_context(contextlib.closing(Channel()))
                self._process = WorkerProcess.spawn(
                    [*channel.argv(generation=self._generation), *argv],
                    environ=environ,
                    pass_fds=channel.pass_fds,
                    memory_bytes=bounds.memory_bytes,
                    listener=self,
                    module=self._module,
                )
            except OSError as reason:
                raise errors.LoadFailed(f"error starting model worker: {reason}") from reason
            made.pop_all()
        channel.spawned()
        channel.pipe.open(self)
        self._channel = channel
        self._handshake = Handshake(
            generation=self._generation, pid=self._process.pid, bounds=bounds
        )
        self._chatter = Chatter(self._loop.time())
        self._phase = _Phase.STARTING

    def _begin(self, message: ToParent) -> None:
        try:
            self._chatter.hear(self._loop.time())
            outcome = self._handshake.hear(message)
        except ProtocolViolation as reason:
            self._give_up(str(reason))
            return
        self._turn_back_load_clock()
        if isinstance(outcome, Ready):
            self._phase = _Phase.READY
            self._process.tail.ready()
            self._running = Allowances(outcome.num_ctx)
            self._owes_death = True
            self._watch_silence()
            if not self._ready.done():
                self._ready.set_result(outcome)
        elif outcome is not None:
            if not self._ready.done():
                self._ready.set_exception(
                    errors.from_code(outcome.code, _readable(outcome.message))
                )
            self._give_up("refused")

    def _deliver(self, message: ToParent) -> None:
        """:raises ProtocolViolation: the child says what it should not, or more than it should."""
        match message:
            case Deltas():
                self._running.spend(message.items)
                self._events.pieces(message.items)
            case Started():
                self._running.start(message.id)
                self._events.started(message.id)
            case Done():
                check_usage(message.usage)
                self._running.end(message.id)
                self._events.done(message)
            case Failed() if message.id < 0:
                error = errors.from_code(message.code, _readable(message.message))
                self._count_answer(was_asked=self._questions.fail(message.id, error))
            case Failed():
                self._running.end(message.id)
                message.message = _readable(message.message)
                self._events.failed(message)
            case Tokens() | Text():
                self._count_answer(was_asked=self._questions.answer(message))
            case Heartbeat():
                self._chatter.hear(self._loop.time())
                check_vitals(message)
                self._events.vitals(message)
            case Hello() | Loading() | Ready() | Refused():
                raise ProtocolViolation(f"the worker spoke out of turn: {type(message).__name__}")

    def _count_answer(self, *, was_asked: bool) -> None:
        if not was_asked:  # late perhaps, which is no error
            self._chatter.hear(self._loop.time())

    def _send(self, message: FromParent) -> None:
        if self._phase is not _Phase.READY:
            raise errors.WorkerDied(self._crash_text())
        try:
            self._channel.pipe.send(message)
        except FrameTooLarge as reason:
            raise errors.TooLarge(f"request too large for a worker: {reason}") from reason

    def _turn_back_load_clock(self) -> None:
        if self._load_clock is not None and not math.isinf(self._load_timeout_s):
            self._load_clock.reschedule(self._loop.time() + self._load_timeout_s)

    def _watch_silence(self) -> None:
        """Once a second (more often for small limits): has a child with work been silent?"""
        if math.isinf(self._stall_timeout_s) or self._phase is not _Phase.READY:
            return
        # A loop that was late itself has heard the child first: descriptors come before timers.
        silent_s = self._loop.time() - self._heard_at
        if self._running and silent_s >= self._stall_timeout_s:
            self._give_up(f"silent for {self._stall_timeout_s:g} s while requests ran: killed")
            return
        period_s = min(_WATCH_PERIOD_S, self._stall_timeout_s / 4)
        self._watch = self._loop.call_later(period_s, self._watch_silence)

    def _ask_to_quit(self) -> None:
        self._channel.pipe.send(messages.Quit())

    def _give_up(self, reason: str) -> None:
        """Kill it; the reason, which may quote it, is told when it is reaped."""
        self._verdict = self._verdict or _readable(reason[:_VERDICT_CHARACTERS])
        self._phase = _Phase.ENDING
        self._process.kill()
        self._loop.call_later(_REAP_DEADLINE_S, self._tell_end)

    def _end(self) -> None:
        """The owner wants to hear no more."""
        self._owes_death = False
        self._verdict = self._verdict or "stopped"
        self._phase = _Phase.ENDING
        self._questions.fail_all(errors.WorkerDied("the model was unloaded"))

    async def _abandon(self) -> None:
        """A start that failed: kill, and wait until all is closed (with a limit: see stop)."""
        if self._phase is not _Phase.DEAD:
            self._end()
            self._process.kill()
            if await self._process.wait(_REAP_DEADLINE_S):
                await self._closed.wait()
        if not self._ready.cancel() and not self._ready.cancelled():
            self._ready.exception()  # it lost a race with the cancellation: nobody will ask for it

    def _read_rest(self) -> None:
        """The child is dead: first all that it had said, a gulp for each turn of the loop."""
        if self._phase is not _Phase.ENDING and self._channel.pipe.read_some():
            self._loop.call_soon(self._read_rest)
            return
        self._bury()

    def _bury(self) -> None:
        self._channel.close()
        self._phase = _Phase.DEAD
        if self._watch is not None:
            self._watch.cancel()
        self._closed.set()
        self._tell_end()

    def _tell_end(self) -> None:
        """Whoever waits for the child need not: it is dead, or SIGKILL has not ended it in time.
        Does nothing if they know.
        """
        if not self._ready.done():
            self._ready.set_exception(
                errors.LoadFailed(
                    self._with_output(f"model worker has terminated: {self._verdict}")
                )
            )
        self._questions.fail_all(errors.WorkerDied(self._crash_text()))
        if self._owes_death:
            self._owes_death = False
            log.error("worker %d died: %s", self.pid, self._verdict)
            self._events.died(self._crash_text())

    def _crash_text(self) -> str:
        return self._with_output(f"{CRASH_TEXT}: {self._verdict}")

    def _with_output(self, text: str) -> str:
        lines = [] if self._phase is _Phase.NEW else self._process.last_words()
        return ": ".join([text, "\n".join(lines)]) if lines else text


def _readable(text: str) -> str:
    """An error of a worker, for clients and terminals."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text[:_ERROR_CHARACTERS])


def _finite(timeout_s: float) -> float | None:
    return None if math.isinf(timeout_s) else timeout_s

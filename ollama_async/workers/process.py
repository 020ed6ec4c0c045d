"""A worker as a child process: the :class:`~.transport.Transport` from exec until it is reaped.

It runs on the gateway's loop, without tasks. Its loop readers remain until the process is reaped.

The child is exec'd, not forked, so it inherits no state, locks or CUDA context. It leads a session
of its own, so a Ctrl-C in the terminal reaches only the gateway.

A pidfd reports the exit: it needs no SIGCHLD handler and no thread, and cannot refer to another
process with the same pid. The group is killed before its leader is reaped, because the pid is not
reused until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing

from ollama_async.core.errors import LoadFailed
from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.messages import FromParent, Quit
from ollama_async.workers.openmp import openmp_environ
from ollama_async.workers.output import TAIL_BYTES, WorkerOutput
from ollama_async.workers.pipe import Channel
from ollama_async.workers.transport import REAP_DEADLINE_S, TransportListener

CHILD_MODULE = "ollama_async.workers.child"

_FAULTS = {signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE}
_READ_BYTES = 2 * TAIL_BYTES
_LAST_READS = 5
"""A pipe's default size. A grandchild may have enlarged it and still be writing."""
_FLOOD_PAUSE_S = 0.01
_REAP_RETRY_S = 0.05

log = logging.getLogger(__name__)


class WorkerProcess:
    """``module`` is what the child runs (tests bring their own)."""

    def __init__(self, module: str = CHILD_MODULE) -> None:
        self.pid = 0
        self._module = module
        self._output = WorkerOutput(lambda line: log.info("worker %d: %s", self.pid, line))
        self._loop: asyncio.AbstractEventLoop
        self._listener: TransportListener
        self._channel: Channel
        self._popen: subprocess.Popen[bytes]
        self._output_fd: int
        self._pidfd: int
        self._is_detached = False
        self._closed = asyncio.Event()
        self._pause: asyncio.TimerHandle | None = None

    @property
    def has_faulted(self) -> bool:
        return bool(self.pid) and -(self._popen.returncode or 0) in _FAULTS

    def start(self, plan: LoadPlan, *, generation: int, listener: TransportListener) -> None:
        """See :class:`~.transport.Transport`.

        Call it in the main thread: PR_SET_PDEATHSIG kills the child when its parent's *thread*
        ends. It blocks for the vfork and exec: half a millisecond on an idle machine, up to six
        were measured on a busy one.
        """
        with ExitStack() as made:
            try:
                channel = made.enter_context(closing(Channel()))
                self._popen, self._output_fd, self._pidfd = _spawn(
                    self._module,
                    [*channel.argv(generation=generation), *plan.spec.to_argv()],
                    environ=plan.environ,
                    pass_fds=(*channel.pass_fds, *_descriptors(plan)),
                    memory_bytes=plan.limits.memory_bytes,
                )
            except OSError as reason:
                raise LoadFailed(f"error starting model worker: {reason}") from reason
            made.pop_all()
        self.pid = self._popen.pid
        self._listener = listener
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._output_fd, self._on_output)
        self._loop.add_reader(self._pidfd, self._on_exit)
        channel.close_child_lifeline()
        channel.pipe.open(listener.received, listener.broken)

    def send(self, message: FromParent) -> None:
        self._channel.pipe.send(message)

    def mark_ready(self) -> None:
        self._output.mark_ready()

    def last_output(self) -> list[str]:
        """A killed process printed no reason for its death, unless it aborted itself."""
        if not self.pid:
            return []
        returncode = self._popen.returncode
        is_killed = returncode is not None and returncode < 0 and returncode != -signal.SIGABRT
        return self._output.failure_lines(include_ordinary=not is_killed)

    async def stop(self, grace_s: float) -> None:
        """Quit; SIGTERM after half the grace, SIGKILL after all of it."""
        self._is_detached = True
        try:
            self.send(Quit())
            if await self._wait(grace_s / 2):
                return
            self._signal(signal.SIGTERM)
            if await self._wait(grace_s / 2):
                return
            if grace_s:
                log.warning("worker %d did not stop within %g s: killed", self.pid, grace_s)
        finally:
            self.kill()
        if not await self._wait(REAP_DEADLINE_S):
            log.error("worker %d: not dead %g s after SIGKILL", self.pid, REAP_DEADLINE_S)

    async def _wait(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()
        return self._closed.is_set()

    def kill(self) -> None:
        """Send SIGKILL to the group, unless its leader is reaped."""
        self._is_detached = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.returncode is not None:
            return  # the pid may have been reused
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            self._popen.send_signal(number)  # it does not lead a group yet

    def _on_output(self) -> None:
        """Read once per loop iteration, and pause while lines are dropped: a child that prints
        endlessly then blocks on its pipe.
        """
        if not self._read_output():
            return
        if not self._output.is_dropping:
            self._listener.progressed()
            return
        self._loop.remove_reader(self._output_fd)
        self._pause = self._loop.call_later(_FLOOD_PAUSE_S, self._resume_output)

    def _resume_output(self) -> None:
        self._pause = None
        self._loop.add_reader(self._output_fd, self._on_output)

    def _read_output(self) -> int:
        try:
            data = os.read(self._output_fd, _READ_BYTES)
        except BlockingIOError:
            return 0
        if data:
            self._output.feed(data)
        else:
            self._loop.remove_reader(
                self._output_fd
            )  # all writers have closed it; the exit follows
        return len(data)

    def _on_exit(self) -> None:
        """The leader is dead; a tracer, perhaps its own child, can delay reaping it, so we poll."""
        self._loop.remove_reader(self._pidfd)
        self._signal(signal.SIGKILL)  # grandchildren: the leader is dead, but not reaped
        returncode = self._popen.poll()
        if returncode is None:
            self._loop.call_later(_REAP_RETRY_S, self._on_exit)
            return
        if self._pause is not None:
            self._pause.cancel()
        for _ in range(_LAST_READS):
            if not self._read_output():
                break
        self._output.close()
        self._loop.remove_reader(self._output_fd)
        os.close(self._output_fd)
        os.close(self._pidfd)
        has_aborted = returncode == -signal.SIGABRT
        self._listener.exited(describe_exit(returncode), has_aborted=has_aborted)
        self._deliver_rest()

    def _deliver_rest(self) -> None:
        """Deliver what the dead child had sent, one read per iteration; then report the end."""
        if not self._is_detached and self._channel.pipe.read_some():
            self._loop.call_soon(self._deliver_rest)
            return
        self._channel.close()
        self._closed.set()
        self._listener.closed()


def _descriptors(plan: LoadPlan) -> list[int]:
    return [plan.spec.cache_fd] if plan.spec.cache_fd >= 0 else []


def _spawn(
    module: str,
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    pass_fds: Sequence[int],
    memory_bytes: int,
) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start ``python -P -m module argv…`` with exactly these variables and descriptors; returns the
    process, the reading end of its output, and its pidfd.

    ``memory_bytes`` (0 = unlimited) becomes ``RLIMIT_DATA``, which limits private writable memory.
    Files mapped for reading (weights) and reserved address ranges (CUDA's terabytes) do not count.

    :raises OSError: the process cannot be created; nothing is left behind.
    """
    output, output_child = os.pipe()
    with ExitStack() as undo:
        undo.callback(os.close, output)
        try:
            os.set_blocking(output, False)
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output_child,
                stderr=output_child,
                env={**openmp_environ(), **environ},
                pass_fds=pass_fds,
                start_new_session=True,
            )
        finally:
            os.close(output_child)
        undo.callback(popen.wait)
        undo.callback(popen.kill)
        if memory_bytes:
            _limit_memory(popen.pid, memory_bytes)
        pidfd = os.pidfd_open(popen.pid)
        undo.pop_all()
    return popen, output, pidfd


def _limit_memory(pid: int, size_bytes: int) -> None:
    """Set the soft and hard limit, at most our own."""
    _, own = resource.getrlimit(resource.RLIMIT_DATA)
    size_bytes = size_bytes if own == resource.RLIM_INFINITY else min(own, size_bytes)
    resource.prlimit(pid, resource.RLIMIT_DATA, (size_bytes, size_bytes))


def describe_exit(returncode: int) -> str:
    """How a process ended, as a text."""
    if returncode >= 0:
        return f"exit status {returncode}"
    if returncode == -signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    names = {signal_.value: signal_.name for signal_ in signal.Signals}
    return f"killed by signal {-returncode} ({names.get(-returncode, 'unknown')})"

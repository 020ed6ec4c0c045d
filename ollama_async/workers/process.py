"""One worker process, from exec to reaped.

- Runs in: the gateway, on its loop.
- Owns: the process group, its pidfd, the reading end of its stdout and stderr.
- Tasks: none; two loop readers. They stay until the process is reaped, whatever becomes of callers.
- Talks to: nobody; see :mod:`.client`.
- Dies when: the process does; its whole group is killed then, so no grandchild stays.

The child is exec'd, not forked: no state, no locks and no CUDA context come along, and its argv can
be typed by hand. It leads a session of its own, so a Ctrl-C in the terminal reaches only us. A
grandchild that makes itself another session is beyond our reach.

The exit is seen through a pidfd, which the loop watches like a socket: no SIGCHLD handler, no
thread, and no confusion with a process that got the same number later. The group is killed between
that and reaping, while the dead leader still holds the number.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ollama_async.workers.log_rate import LogRate
from ollama_async.workers.output import MOST_LINES, TAIL_BYTES, OutputTail

CHILD_MODULE = "ollama_async.workers.child"

_GULP_BYTES = 2 * TAIL_BYTES
_LAST_GULPS = 5
"""What a pipe holds by default, and no more: somebody may hold it open, and it may be larger."""
_FLOOD_PAUSE_S = 0.01
_FLOOD_LINES = 32
_REAP_RETRY_S = 0.05
_REAP_DEADLINE_S = 10.0
_DEFAULT_ENVIRON = {"GOMP_SPINCOUNT": "1000"}
"""OpenMP's threads spin before they sleep; for ever, by default, when there are as many as cores,
and then a busy neighbour costs a factor of four."""

log = logging.getLogger(__name__)


class ProcessListener(Protocol):
    """Who hears of a process. Plain functions on the loop; they must not raise."""

    def printed(self) -> None:
        """The process wrote something to stdout or stderr that is no flood."""

    def exited(self, returncode: int) -> None:
        """It is dead and reaped; comes exactly once. Negative: the signal that killed it."""


class WorkerProcess:
    """A running child. Made by :meth:`spawn` only."""

    def __init__(
        self, popen: subprocess.Popen[bytes], output: int, pidfd: int, listener: ProcessListener
    ) -> None:
        self.pid = popen.pid
        self._rate = LogRate(lambda line: log.info("worker %d: %s", popen.pid, line))
        self.tail = OutputTail(self._rate.line, self._rate.skipped)
        self._popen = popen
        self._output = output
        self._pidfd = pidfd
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._reaped = asyncio.Event()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(output, self._printed)
        self._loop.add_reader(pidfd, self._exited)

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str],
        pass_fds: Sequence[int],
        listener: ProcessListener,
        memory_bytes: int = 0,
        module: str = CHILD_MODULE,
    ) -> WorkerProcess:
        """Start ``python -P -m module argv…`` with exactly these variables and descriptors.

        ``memory_bytes`` limits what it may allocate (0: nothing does), as ``RLIMIT_DATA``: private
        memory that can be written. Files that are mapped to be read do not count, as weights are,
        nor do address ranges that are only reserved, as CUDA does by the terabyte.

        Call it on the loop, in the main thread: the child asks to be killed when its parent's
        *thread* ends. It blocks for the vfork and exec: half a millisecond on an idle machine, up
        to six were seen on a busy one, whatever the size of the gateway.

        :raises OSError: no process could be made; nothing is left behind.
        """
        output, output_child = os.pipe()
        try:
            os.set_blocking(output, False)
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output_child,
                stderr=output_child,
                env={**_DEFAULT_ENVIRON, **environ},
                pass_fds=pass_fds,
                start_new_session=True,
            )
            try:
                if memory_bytes:
                    _limit_memory(popen.pid, memory_bytes)
                pidfd = os.pidfd_open(popen.pid)
            except BaseException:
                popen.kill()
                popen.wait()
                raise
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(output_child)
        return cls(popen, output, pidfd, listener)

    def last_words(self) -> list[str]:
        """What it printed about its death, in few lines. A process that was killed by a signal had
        no time to speak, unless it was the one by which it aborts itself.
        """
        returncode = self._popen.returncode
        is_killed = returncode is not None and returncode < 0 and returncode != -signal.SIGABRT
        return self.tail.telling_lines(has_spoken=not is_killed)

    async def stop(self, grace_s: float, *, ask: Callable[[], None]) -> bool:
        """End it: ``ask``, after half the grace TERM, after all of it KILL; True when reaped.

        Cancelled half-way, it kills at once; reaping goes on by itself. A process that even KILL
        does not end within ten seconds (a driver holds it) is logged and left to the pidfd.
        """
        try:
            ask()
            if await self.wait(grace_s / 2):
                return True
            self._signal(signal.SIGTERM)
            if await self.wait(grace_s / 2):
                return True
            if grace_s:
                log.warning("worker %d did not stop within %g s: killed", self.pid, grace_s)
        finally:
            self.kill()
        if await self.wait(_REAP_DEADLINE_S):
            return True
        log.error("worker %d: not dead %g s after SIGKILL", self.pid, _REAP_DEADLINE_S)
        return False

    async def wait(self, timeout_s: float) -> bool:
        """Whether it is reaped, waiting up to ``timeout_s`` for that."""
        try:
            async with asyncio.timeout(None if math.isinf(timeout_s) else timeout_s):
                await self._reaped.wait()
        except TimeoutError:
            pass
        return self._reaped.is_set()

    def kill(self) -> None:
        """SIGKILL to the whole group; nothing if it is reaped already. Returns at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.returncode is not None:
            return  # the number may be somebody else's by now
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            self._popen.send_signal(number)  # so early that it leads no group yet

    def _printed(self) -> None:
        """One gulp per turn of the loop: a child that prints without end slows down only itself,
        and has to wait once its lines are dropped.
        """
        if not self._read_output():
            return
        if not self._rate.is_dropping:
            self._listener.printed()
            return
        self._loop.remove_reader(self._output)
        self._pause = self._loop.call_later(_FLOOD_PAUSE_S, self._listen)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._output, self._printed)

    def _read_output(self) -> int:
        try:
            data = os.read(self._output, _GULP_BYTES)
        except BlockingIOError:
            return 0
        if data:
            most_lines = _FLOOD_LINES if self._rate.is_dropping else MOST_LINES
            self.tail.feed(data, most_lines=most_lines)
        else:
            self._loop.remove_reader(self._output)  # all ends are closed; the exit follows
        return len(data)

    def _exited(self) -> None:
        """The leader is dead. Whoever traces it, as one of its own children may, is told before us
        and can keep us waiting, so its status is asked for and not waited for.
        """
        self._loop.remove_reader(self._pidfd)
        self._signal(signal.SIGKILL)  # grandchildren; the leader is dead and not yet reaped
        returncode = self._popen.poll()
        if returncode is None:
            self._loop.call_later(_REAP_RETRY_S, self._exited)
            return
        if self._pause is not None:
            self._pause.cancel()
        for _ in range(_LAST_GULPS):
            if not self._read_output():
                break
        self.tail.close()
        self._rate.close()
        self._loop.remove_reader(self._output)
        os.close(self._output)
        os.close(self._pidfd)
        self._reaped.set()
        self._listener.exited(returncode)


def _limit_memory(pid: int, size_bytes: int) -> None:
    """For good; where we are limited ourselves, not to more than that."""
    _, own = resource.getrlimit(resource.RLIMIT_DATA)
    size_bytes = size_bytes if own == resource.RLIM_INFINITY else min(own, size_bytes)
    resource.prlimit(pid, resource.RLIMIT_DATA, (size_bytes, size_bytes))


def exit_words(returncode: int) -> str:
    """How a process ended, for people."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    if returncode == -signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    return f"killed by signal {-returncode} ({name})"

"""The machine's state: host and GPUs together, surveyed once or monitored in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from ollama_async.hw.gpus import Gpu, list_gpus, select_visible
from ollama_async.hw.host import Host, survey_host

PERIOD_S = 10.0
_CLOSE_TIMEOUT_S = 1.0

log = logging.getLogger(__name__)


class Machine(msgspec.Struct, frozen=True):
    host: Host
    gpus: tuple[Gpu, ...] = ()


def survey_machine(visible_devices: str | None = None) -> Machine:
    """Survey host and GPUs now. Blocks for tens of milliseconds where a GPU driver answers.

    ``visible_devices`` is the operator's ``CUDA_VISIBLE_DEVICES``, which NVML ignores.
    """
    return Machine(survey_host(), tuple(select_visible(list_gpus(), visible_devices)))


class MachineMonitor:
    """Repeats a survey on a thread of its own. ``latest`` is the last result; it never blocks.

    The constructor blocks for the first survey. The thread is a daemon: a GPU driver that hangs
    makes the numbers stale, and must not delay the server's exit as an executor thread would.
    """

    def __init__(self, survey: Callable[[], Machine], *, period_s: float = PERIOD_S) -> None:
        self.latest = survey()
        self._survey = survey
        self._period_s = period_s
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="machine", daemon=True)
        self._thread.start()

    def close(self, *, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Stop. Blocks until a survey under way has ended, at most ``timeout_s``."""
        self._is_closed.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._is_closed.wait(self._period_s):
            try:
                self.latest = self._survey()
            except Exception:  # the boundary "task supervisor": the next survey may succeed
                log.exception("surveying the machine")

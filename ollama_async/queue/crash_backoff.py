"""Crashes of workers: which client's request was to blame, and how long requests are refused.

When a worker dies under several requests, those that have received nothing are suspects. They are
retried alone, one at a time, last started first (``SchedulerState.try_suspects``). A trial lasts
until the suspect ends, or has run for longer than it had when the worker died. A suspect that kills
its worker is to blame. If all survive, the crash was caused by a request that could not be retried
(it had received something, or its client had disconnected). If all of these are of one client, that
client is to blame, else no client is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeVar

TRIAL_MARGIN_S = 5.0
"""How much longer a trial lasts than the suspect had run: a new worker is slow at first."""

MAX_DEATHS = 5
"""A request is not retried after so many workers died under it."""

MAX_KILLS = 4
"""After so many suspects of one crash killed a worker, the others fail without a trial."""

MAX_CRASHES = 3
WINDOW_S = 60.0
BACK_OFF_S = 30.0
"""After so many crashes within the window, without a successful request of the model in between,
requests fail at once for :data:`BACK_OFF_S`: those of the client to blame for all of them, or those
of all clients if each is another's or no client's. The latter count despite successes.
"""

MAX_POISONED = 5
"""A client is refused after so many of its requests killed a worker, despite successes."""


@dataclass(eq=False)
class Crash:
    """A worker's death under requests. ``suspects``: ids of the requests still to be tried.
    ``kills``: number of suspects that killed a worker. ``others``: clients of the other requests.
    """

    key: str
    died_at: float
    suspects: set[int]
    others: set[str]
    kills: int = 0

    @property
    def is_given_up(self) -> bool:
        return self.kills >= MAX_KILLS

    @property
    def client_to_blame(self) -> str | None:
        """The client to blame if no suspect kills a worker."""
        return next(iter(self.others)) if len(self.others) == 1 else None

    def clear(self, request_id: int) -> None:
        """The suspect's trial is over."""
        self.suspects.discard(request_id)

    def record_end(self, request_id: int, client: str) -> None:
        """The request has ended. If it was still to be tried, it now cannot be."""
        if request_id in self.suspects:
            self.suspects.discard(request_id)
            self.others.add(client)


class CrashBackoff:
    """Recent crashes of each model, and how long its requests are refused."""

    def __init__(self) -> None:
        self._open: list[Crash] = []
        self._unexplained: dict[str, deque[float]] = {}
        self._consecutive: dict[tuple[str, str], deque[float]] = {}
        self._poisoned: dict[tuple[str, str], deque[float]] = {}
        self._refused_until: dict[tuple[str, str | None], float] = {}

    def record_idle(self, key: str, now: float) -> None:
        """An idle worker of the model died."""
        self._unexplained.setdefault(key, deque(maxlen=MAX_CRASHES)).append(now)
        self._evaluate(key, None, now)

    def record(self, crash: Crash) -> None:
        """A worker died under requests. No client is to blame before the trials."""
        self._open.append(crash)
        self.record_idle(crash.key, crash.died_at)

    def blame(self, key: str, client: str, now: float, crash: Crash | None = None) -> None:
        """A request of the client killed a worker, and before that the one of ``crash``."""
        consecutive = self._consecutive.setdefault((key, client), deque())
        consecutive.append(now)
        self._poisoned.setdefault((key, client), deque()).append(now)
        if crash is not None and self._explain(crash):
            consecutive.append(now)
        self._evaluate(key, client, now)

    def close_resolved(self, now: float) -> None:
        """Attribute the crashes of which every suspect has been tried."""
        if not self._open:
            return
        closed = [crash for crash in self._open if not crash.suspects]
        self._open = [crash for crash in self._open if crash.suspects]
        for crash in closed:
            if not crash.kills and crash.client_to_blame is not None:
                self._explain(crash)
                self.blame(crash.key, crash.client_to_blame, now)

    def record_success(self, key: str) -> None:
        """A request of the model has ended normally."""
        self._forget_consecutive(key)

    def remaining_s(self, key: str, client: str | None, now: float) -> float:
        """How long the model refuses requests of ``client`` (None: of any); 0: it does not."""
        if not self._refused_until:
            return 0.0
        untils = (self._refused_until.get((key, who), 0.0) for who in (None, client))
        return max(0.0, max(untils) - now)

    def _explain(self, crash: Crash) -> bool:
        """Stop counting the crash as unexplained; whether it was counted."""
        times = self._unexplained.get(crash.key)
        if times is None or crash.died_at not in times:
            return False
        times.remove(crash.died_at)
        return True

    def _evaluate(self, key: str, client: str | None, now: float) -> None:
        self._expire(now)
        blamed = sum(model == key for model, _ in self._consecutive)
        if len(self._unexplained.get(key, ())) + blamed >= MAX_CRASHES:
            self._refuse(key, None, now)
        elif client is not None and (
            len(self._consecutive[key, client]) >= MAX_CRASHES
            or len(self._poisoned[key, client]) >= MAX_POISONED
        ):
            self._refuse(key, client, now)

    def _refuse(self, key: str, client: str | None, now: float) -> None:
        """Back off, and restart the counts."""
        self._refused_until[key, client] = now + BACK_OFF_S
        if client is None:
            self._unexplained.pop(key, None)
            self._forget_consecutive(key)
        else:
            self._poisoned.pop((key, client), None)
            self._consecutive[key, client] = deque([now])

    def _forget_consecutive(self, key: str) -> None:
        kept = {who: times for who, times in self._consecutive.items() if who[0] != key}
        self._consecutive = kept

    def _expire(self, now: float) -> None:
        """Drop entries older than the window, which also bounds the memory."""
        self._unexplained = _recent(self._unexplained, now)
        self._consecutive = _recent(self._consecutive, now)
        self._poisoned = _recent(self._poisoned, now)
        self._refused_until = {
            who: until for who, until in self._refused_until.items() if until > now
        }


_Key = TypeVar("_Key")


def _recent(crashes: dict[_Key, deque[float]], now: float) -> dict[_Key, deque[float]]:
    for times in crashes.values():
        while times and now - times[0] > WINDOW_S:
            times.popleft()
    return {key: times for key, times in crashes.items() if times}

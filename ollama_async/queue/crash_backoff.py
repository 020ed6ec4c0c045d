"""Crashes of workers: which request was to blame, and for how long a model is not tried again.

When a worker dies under several requests, those that have received nothing are suspects. They are
retried alone, one at a time, beginning with the one that had started last (see
``SchedulerState.try_suspects``). A trial lasts until the suspect ends, or until it has run for
longer than it had when the worker died. A suspect that kills its worker is to blame. If all
survive, it was one of those that could not be retried, because they had received something or
their clients had left. If these are of one client, that client is to blame, else nobody is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

TRIAL_MARGIN_S = 5.0
"""How much longer a trial lasts than the suspect had run before: a new worker is slow at first."""

MAX_DEATHS = 5
"""A request under which so many workers died is not retried."""

MAX_KILLS = 4
"""If so many suspects of one crash kill a worker, the remaining ones fail without a trial."""

MAX_CRASHES = 3
WINDOW_S = 60.0
BACK_OFF_S = 30.0
"""After three crashes within a minute, with no successful request of the model in between, a fourth
is likely. Requests then fail at once for half a minute: those of one client if it is to blame for
all three, those of all clients if three are. Crashes that nobody is to blame for count
whatever succeeded in between.
"""

MAX_POISONED = 5
"""A client of which so many requests killed a worker within a minute is refused, whatever succeeded
in between.
"""


class Crash:
    """One death of a worker under requests. ``suspects``: ids of the requests still to be tried.
    ``kills``: how many suspects have killed a worker. ``others``: clients of the requests that
    cannot be tried.
    """

    def __init__(
        self, key: str, died_at: float, suspects: Iterable[int], others: Iterable[str]
    ) -> None:
        self.key = key
        self.died_at = died_at
        self.suspects = set(suspects)
        self.kills = 0
        self._others = set(others)

    @property
    def is_given_up(self) -> bool:
        return self.kills >= MAX_KILLS

    @property
    def client_to_blame(self) -> str | None:
        """The client to blame if no suspect has killed another worker."""
        return next(iter(self._others)) if len(self._others) == 1 else None

    def clear(self, request_id: int) -> None:
        """The suspect's trial is over, and the worker lives."""
        self.suspects.discard(request_id)

    def record_kill(self, request_id: int) -> None:
        """The suspect killed a worker on which it was alone."""
        self.suspects.discard(request_id)
        self.kills += 1

    def record_end(self, request_id: int, client: str) -> None:
        """The request ends. If it was still to be tried, it now cannot be."""
        if request_id in self.suspects:
            self.suspects.discard(request_id)
            self._others.add(client)


class CrashBackoff:
    """Recent crashes of each model, and for how long its requests are refused.

    Memory: a few numbers for each model that crashed within the window and each client to blame.
    """

    def __init__(self) -> None:
        self._open: list[Crash] = []
        self._unexplained: dict[str, deque[float]] = {}
        self._consecutive: dict[str, dict[str, deque[float]]] = {}
        self._poisoned: dict[tuple[str, str], deque[float]] = {}
        self._refused_until: dict[tuple[str, str | None], float] = {}

    def record_idle(self, key: str, now: float) -> None:
        """An idle worker of the model died."""
        self._unexplained.setdefault(key, deque(maxlen=MAX_CRASHES)).append(now)
        self._evaluate(key, None, now)

    def record(self, crash: Crash) -> None:
        """A worker died under requests. Nobody is to blame until the suspects have been tried."""
        self._open.append(crash)
        self.record_idle(crash.key, crash.died_at)

    def blame(self, key: str, client: str, now: float, crash: Crash | None = None) -> None:
        """A request of the client killed a worker, and before it the one of ``crash``."""
        consecutive = self._consecutive.setdefault(key, {}).setdefault(client, deque())
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
        self._consecutive.pop(key, None)

    def remaining_s(self, key: str, client: str | None, now: float) -> float:
        """How long requests of ``client`` (None: of any) for the model are refused; 0: not."""
        if not self._refused_until:
            return 0.0
        untils = (self._refused_until.get((key, who), 0.0) for who in (None, client))
        return max(0.0, max(untils) - now)

    def _explain(self, crash: Crash) -> bool:
        """Count the crash no longer as unexplained. False: it was not counted any more."""
        times = self._unexplained.get(crash.key)
        if times is None or crash.died_at not in times:
            return False
        times.remove(crash.died_at)
        return True

    def _evaluate(self, key: str, client: str | None, now: float) -> None:
        self._expire(now)
        consecutive = self._consecutive.get(key, {})
        if len(self._unexplained.get(key, ())) + len(consecutive) >= MAX_CRASHES:
            self._refuse(key, None, now)
        elif client is not None and (
            len(consecutive[client]) >= MAX_CRASHES
            or len(self._poisoned[key, client]) >= MAX_POISONED
        ):
            self._refuse(key, client, now)

    def _refuse(self, key: str, client: str | None, now: float) -> None:
        """Back off, and count from the beginning afterwards."""
        self._refused_until[key, client] = now + BACK_OFF_S
        if client is None:
            self._unexplained.pop(key, None)
            self._consecutive.pop(key, None)
        else:
            self._poisoned.pop((key, client), None)
            self._consecutive[key][client].clear()
            self._consecutive[key][client].append(now)

    def _expire(self, now: float) -> None:
        """Drop what is older than the window. This also bounds the memory."""
        self._unexplained = _recent(self._unexplained, now)
        consecutive = {key: _recent(clients, now) for key, clients in self._consecutive.items()}
        self._consecutive = {key: clients for key, clients in consecutive.items() if clients}
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

"""Who may not try a model again for a while, because its workers keep dying.

A death counts against nobody until somebody is found to be to blame for it (:mod:`.crash`).
"""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from ollama_async.queue.crash import Crash

CRASHES = 3
WINDOW_S = 60.0
BACK_OFF_S = 30.0
"""Three deaths within a minute, and no request of the model that went well in between, will most
likely be followed by a fourth: requests are refused for half a minute, at no cost, before the model
is loaded once more. Those of one client if it is to blame for all three, those of everybody if
three clients are. Deaths that nobody is to blame for count whatever went well.
"""

POISONS = 5
"""A client of which so many requests killed a worker within a minute is refused whatever went well.
"""


class Crashes:
    """The last deaths of every model's workers: a few numbers for each model that crashed lately,
    and for each client that was to blame.
    """

    def __init__(self) -> None:
        self._open: list[Crash] = []
        self._unexplained: dict[str, deque[float]] = {}
        self._in_a_row: dict[str, dict[str, deque[float]]] = {}
        self._poisons: dict[tuple[str, str], deque[float]] = {}
        self._refused_until: dict[tuple[str, str | None], float] = {}

    def idle(self, key: str, now: float) -> None:
        """A worker of the model died that did nothing."""
        self._unexplained.setdefault(key, deque(maxlen=CRASHES)).append(now)
        self._judge(key, None, now)

    def open(self, crash: Crash) -> None:
        """A worker died under the crash's requests."""
        self._open.append(crash)
        self.idle(crash.key, crash.died_at)

    def blame(self, key: str, client: str, now: float, crash: Crash | None = None) -> None:
        """A request of the client killed a worker, and the one of ``crash`` too."""
        in_a_row = self._in_a_row.setdefault(key, {}).setdefault(client, deque())
        in_a_row.append(now)
        self._poisons.setdefault((key, client), deque()).append(now)
        if crash is not None and self._explain(crash):
            in_a_row.append(now)
        self._judge(key, client, now)

    def close(self, now: float) -> None:
        """Look at the crashes of which no suspect is left to be tried."""
        if not self._open:
            return
        closed = [crash for crash in self._open if not crash.suspects]
        self._open = [crash for crash in self._open if crash.suspects]
        for crash in closed:
            if not crash.kills and crash.blamed is not None:
                self._explain(crash)
                self.blame(crash.key, crash.blamed, now)

    def survived(self, key: str) -> None:
        """A request of the model came to its end: the model works."""
        self._in_a_row.pop(key, None)

    def back_off_s(self, key: str, client: str | None, now: float) -> float:
        """How long the model is not to be tried for ``client`` (None: for anybody); 0: it may."""
        if not self._refused_until:
            return 0.0
        untils = (self._refused_until.get((key, who), 0.0) for who in (None, client))
        return max(0.0, max(untils) - now)

    def _explain(self, crash: Crash) -> bool:
        """Whether the death was still held against nobody; now it is not any more."""
        times = self._unexplained.get(crash.key)
        if times is None or crash.died_at not in times:
            return False
        times.remove(crash.died_at)
        return True

    def _judge(self, key: str, client: str | None, now: float) -> None:
        self._forget_old(now)
        in_a_row = self._in_a_row.get(key, {})
        if len(self._unexplained.get(key, ())) + len(in_a_row) >= CRASHES:
            self._refuse(key, None, now)
        elif client is not None and (
            len(in_a_row[client]) >= CRASHES or len(self._poisons[key, client]) >= POISONS
        ):
            self._refuse(key, client, now)

    def _refuse(self, key: str, client: str | None, now: float) -> None:
        """Afterwards counting begins anew."""
        self._refused_until[key, client] = now + BACK_OFF_S
        if client is None:
            self._unexplained.pop(key, None)
            self._in_a_row.pop(key, None)
        else:
            self._poisons.pop((key, client), None)
            self._in_a_row[key][client].clear()
            self._in_a_row[key][client].append(now)

    def _forget_old(self, now: float) -> None:
        """Also what bounds the memory: all that is kept is of the last minute."""
        self._unexplained = _recent(self._unexplained, now)
        in_a_row = {key: _recent(clients, now) for key, clients in self._in_a_row.items()}
        self._in_a_row = {key: clients for key, clients in in_a_row.items() if clients}
        self._poisons = _recent(self._poisons, now)
        self._refused_until = {
            who: until for who, until in self._refused_until.items() if until > now
        }


_Who = TypeVar("_Who")


def _recent(deaths: dict[_Who, deque[float]], now: float) -> dict[_Who, deque[float]]:
    """Without those who had none within the window."""
    for times in deaths.values():
        while times and not _is_recent(times[0], now):
            times.popleft()
    return {who: times for who, times in deaths.items() if times}


def _is_recent(moment: float, now: float) -> bool:
    return now - moment <= WINDOW_S

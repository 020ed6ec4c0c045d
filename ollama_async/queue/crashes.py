"""Whose request killed a worker, and who may not try again for a while.

Who was alone on a worker that died is to blame. Of several nobody knows: those who have received
nothing are tried again one at a time (see ``Books.fill``), and who then kills a worker is to blame
for that. If all of them live, it was one of those that could not be tried: they had received
something, or their clients have left. If these are of one client, it is to blame, else nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ollama_async.queue.ticket import Ticket

CRASHES = 3
WINDOW_S = 60.0
BACK_OFF_S = 30.0
"""Three deaths within a minute will most likely be followed by a fourth: requests are refused for
half a minute, at no cost, before the model is loaded once more. Those of one client, if it is to
blame for all three; those of everybody, if three clients are, without any request of the model
that went well in between, or nobody is.
"""

KILLS = 4
"""Of the suspects of one death so many may kill a worker; the rest of them then fails untried."""


class Crash:
    """A death under several requests. ``suspects``: who of them is to be tried, alone."""

    def __init__(self, key: str, suspects: Iterable[Ticket], others: Iterable[Ticket]) -> None:
        self.key = key
        self.kills = 0
        self.suspects = {ticket.id for ticket in suspects}
        self._untried = {ticket.request.client for ticket in others}

    @property
    def is_given_up(self) -> bool:
        return self.kills >= KILLS

    @property
    def blamed(self) -> str | None:
        """Whose request it was, if no suspect has killed another worker."""
        return next(iter(self._untried)) if len(self._untried) == 1 else None

    def clear(self, ticket: Ticket) -> None:
        """The suspect was served, and the worker lives."""
        self.suspects.discard(ticket.id)

    def convict(self, ticket: Ticket) -> None:
        """The suspect killed a worker on which it was alone."""
        self.suspects.discard(ticket.id)
        self.kills += 1

    def leave(self, ticket: Ticket) -> None:
        """The ticket ends; nothing happens if it has been tried."""
        if ticket.id in self.suspects:
            self.suspects.discard(ticket.id)
            self._untried.add(ticket.request.client)


class Crashes:
    """The last deaths of every model's workers: a few numbers for each model that crashed lately,
    and for each client that was to blame.
    """

    def __init__(self) -> None:
        self._open: list[Crash] = []
        self._unexplained: dict[str, deque[float]] = {}
        self._blamed: dict[str, dict[str, float]] = {}
        self._by_client: dict[tuple[str, str], deque[float]] = {}
        self._refused_until: dict[tuple[str, str | None], float] = {}

    def open(self, crash: Crash) -> None:
        """The death is noted when its last suspect has been tried, or cannot be."""
        self._open.append(crash)

    def close(self, now: float) -> None:
        """Note what has been found out since."""
        closed = [crash for crash in self._open if not crash.suspects]
        self._open = [crash for crash in self._open if crash.suspects]
        for crash in closed:
            if not crash.kills:
                self.note(crash.key, crash.blamed, now)

    def note(self, key: str, client: str | None, now: float) -> None:
        """A worker of the model died. ``client`` is to blame; None: nobody is."""
        if client is None:
            self._unexplained.setdefault(key, deque(maxlen=CRASHES)).append(now)
        else:
            self._blamed.setdefault(key, {})[client] = now
            times = self._by_client.setdefault((key, client), deque(maxlen=CRASHES))
            times.append(now)
            if len(times) == CRASHES and _is_recent(times[0], now):
                self._refused_until[key, client] = now + BACK_OFF_S
                times.clear()
        self._forget_old(now)
        deaths = [*self._unexplained.get(key, ()), *self._blamed.get(key, {}).values()]
        if sum(_is_recent(death, now) for death in deaths) >= CRASHES:
            self._refused_until[key, None] = now + BACK_OFF_S
            self._unexplained.pop(key, None)
            self._blamed.pop(key, None)

    def survived(self, key: str) -> None:
        """A request of the model came to its end: the model works."""
        self._blamed.pop(key, None)

    def back_off_s(self, key: str, client: str | None, now: float) -> float:
        """How long the model is not to be tried for ``client`` (None: for anybody); 0: it may."""
        until = max(
            self._refused_until.get((key, None), 0.0), self._refused_until.get((key, client), 0.0)
        )
        return max(0.0, until - now)

    def _forget_old(self, now: float) -> None:
        self._by_client = {
            who: times
            for who, times in self._by_client.items()
            if times and _is_recent(times[-1], now)
        }
        self._refused_until = {
            who: until for who, until in self._refused_until.items() if until > now
        }


def _is_recent(moment: float, now: float) -> bool:
    return now - moment <= WINDOW_S

"""A worker's death under requests, until it is known whose fault it was.

Those who have received nothing are tried again, one at a time (see ``Books.try_suspects``), the one
first that had begun last. A trial lasts until the suspect ends, or has run for longer than it had
when the worker died. Who kills a worker meanwhile is to blame. If all of them live, it was one of
those that could not be tried: they had received something, or their clients have left. If these are
of one client, it is to blame, else nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

TRIAL_MARGIN_S = 5.0
"""How much longer a trial lasts than the suspect had run before: a model is slow to begin with."""

DEATHS = 5
"""A request that saw so many workers die is not tried again."""

KILLS = 4
"""Of the suspects of one death so many may kill a worker; the rest of them then fails untried."""


class Crash:
    """``suspects``: the tickets that are still to be tried, alone. ``kills``: how many of them have
    killed a worker. ``others``: clients of those that cannot be tried.
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
        return self.kills >= KILLS

    @property
    def blamed(self) -> str | None:
        """Whose request it was, if no suspect has killed another worker."""
        return next(iter(self._others)) if len(self._others) == 1 else None

    def clear(self, ticket: int) -> None:
        """The suspect's trial is over, and the worker lives."""
        self.suspects.discard(ticket)

    def convict(self, ticket: int) -> None:
        """The suspect killed a worker on which it was alone."""
        self.suspects.discard(ticket)
        self.kills += 1

    def leave(self, ticket: int, client: str) -> None:
        """The ticket ends; nothing happens if it has been tried."""
        if ticket in self.suspects:
            self.suspects.discard(ticket)
            self._others.add(client)

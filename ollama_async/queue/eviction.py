"""Loads that waiting tickets call for, and what each may do about it now."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

import msgspec

from ollama_async.queue.fair_queue import Line
from ollama_async.queue.loading_policy import outgrows
from ollama_async.queue.memory_budget import Room
from ollama_async.queue.plan import Plan
from ollama_async.queue.stay import Stay
from ollama_async.queue.ticket import Ticket

_LEAST_GROWTH = 1.25
"""A context that grows by less (near the end of the memory, where it cannot double) has the model
finish its turn first: the smaller the steps, the more loads there could be.
"""


class Want(msgspec.Struct, frozen=True):
    """A load that is called for. ``first`` is the oldest ticket that needs it of those who are next
    of their client: it sets the want's rank, and whatever is loaded for it has somebody to serve.

    ``own``: the stay that it replaces, if the model is there but does not suit. ``is_growth``: it
    is about a larger context at least, which cannot go to and fro, so ``own`` gets no more turn if
    it grows by enough.
    """

    first: Ticket
    line: Line
    own: Stay | None = None
    is_growth: bool = False


class Step(IntEnum):
    """How near a load is. COMMIT: all who have to go are quiet. DRAIN: they must finish what runs.
    WAIT: some may not be disturbed yet. BLOCKED: older wants have spoken for the memory.
    """

    COMMIT = 0
    DRAIN = 1
    WAIT = 2
    BLOCKED = 3


class Way(msgspec.Struct, frozen=True):
    """One plan for a want, with who has to go for it."""

    plan: Plan
    victims: list[Stay]
    step: Step


def find(lines: Mapping[str, Line], current: Mapping[str, Stay]) -> list[Want]:
    """All wants, oldest first. A model that is leaving is wanted again when it is gone."""
    wants = (_find(line, current.get(key)) for key, line in lines.items())
    return sorted((want for want in wants if want), key=lambda want: want.first.id)


def _find(line: Line, own: Stay | None) -> Want | None:
    if own is None:
        return Want(_oldest(line.heads()), line)
    if own.leaving or all(own.suits(wish) for wish in line.wishes):
        return None
    unsuited = [ticket for ticket in line.heads() if not own.suits(ticket.load_options)]
    if not unsuited:
        return None
    is_growth = any(outgrows(ticket.load_options, own.num_ctx) for ticket in unsuited)
    return Want(_oldest(unsuited), line, own, is_growth)


def _oldest(tickets: Iterable[Ticket]) -> Ticket:
    return min(tickets, key=lambda ticket: ticket.id)


class Ways:
    """Judges plans against the room at one moment."""

    def __init__(self, room: Room, lines: Mapping[str, Line], now: float) -> None:
        self._room = room
        self._lines = lines
        self._now = now

    def best(self, want: Want, plans: Sequence[Plan]) -> Way:
        """The nearest way; of equally near ones the first that evicts nobody, else the first."""
        ways = [self._way(want, plan) for plan in plans]
        return min(ways, key=lambda way: (way.step, any(v is not want.own for v in way.victims)))

    def _way(self, want: Want, plan: Plan) -> Way:
        victims = self._room.victims(plan, want.own, self._rank)
        if victims is None:
            return Way(plan, [], Step.BLOCKED)
        if not all(self._may_go(stay, want, plan) for stay in victims):
            return Way(plan, victims, Step.WAIT)
        is_quiet = all(stay.is_quiet for stay in victims)
        return Way(plan, victims, Step.COMMIT if is_quiet else Step.DRAIN)

    def is_idle(self, stay: Stay) -> bool:
        """Nobody has a place, and nobody waits who could have one."""
        if not stay.is_quiet:
            return False
        line = self._lines.get(stay.target.key)
        return line is None or line.first(lambda ticket: stay.suits(ticket.load_options)) is None

    def _may_go(self, stay: Stay, want: Want, plan: Plan) -> bool:
        if not (stay.is_ready or stay.is_quiet):
            return False
        if stay.turn_ends_at <= self._now or stay.leaving is not None:
            return True
        if stay is want.own:
            return want.is_growth and plan.num_ctx >= _LEAST_GROWTH * stay.num_ctx
        return self.is_idle(stay)

    def _rank(self, stay: Stay) -> tuple[float, ...]:
        """Who goes first: idle ones (longest unused first, those to be kept for ever last), those
        that leave anyway, busy ones by the age of their load so that everybody has a turn, last
        those that cannot go yet.
        """
        if self.is_idle(stay):
            return (0, stay.keep_alive_s == math.inf, stay.idle_since, stay.worker)
        if stay.leaving is not None:
            return (1, stay.worker)
        if stay.is_ready:
            return (2, stay.turn_ends_at > self._now, stay.ready_at, stay.worker)
        return (3, stay.worker)

"""What follows from the books at one moment, whatever event has brought them there.

Quiet models whose time is over are stopped; wants (loads that waiting tickets call for) are
committed, oldest first, or drain their victims; free places are given away; committed loads begin
whose memory is really free; the next moment to look again is named.

Draining is never remembered: it is found anew each time from who waits now, so it ends with the
last ticket that wanted it, and a victim that gets new requests drains all the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from ollama_async.core.errors import LoadFailed, ServerError, ShuttingDown
from ollama_async.queue import eviction
from ollama_async.queue.backend import LoadOptions
from ollama_async.queue.effects import WakeAt
from ollama_async.queue.loading_policy import merge
from ollama_async.queue.memory_budget import Room, is_free
from ollama_async.queue.plan import Plan, Plans
from ollama_async.queue.state import Books
from ollama_async.queue.stay import Phase, Stay

CLOSING_TEXT = "server is shutting down"


class Settling:
    """``kill_at``: when whatever still runs is ended. ``wake_at``: when to be told of the time."""

    def __init__(self, books: Books, plans: Plans) -> None:
        self.kill_at = math.inf
        self.wake_at: float | None = None
        self._books = books
        self._plans = plans
        self._look_again: list[float] = []

    def settle(self, now: float) -> None:
        """Do all that can be done now."""
        self._retire(now)
        self._make_room(now)
        while self._give_places(now):
            self._make_room(now)
        self._begin_loads(now)
        self._name_wake_up(now)

    def _retire(self, now: float) -> None:
        for stay in list(self._books.current.values()):
            if self.kill_at <= now and stay.is_ready:
                for ticket in list(stay.tickets.values()):
                    self._books.fail(ticket, ShuttingDown(CLOSING_TEXT))
            if stay.is_quiet and stay.leaving:
                self._books.stop(stay, stay.leaving)
            elif self._expires_at(stay) <= now:
                self._books.stop(stay, "idle")

    def _expires_at(self, stay: Stay) -> float:
        """When an idle model is to be unloaded; inf while anything runs or waits for it."""
        if not stay.is_quiet or stay.target.key in self._books.lines:
            return math.inf
        return stay.idle_since + self._books.expires_after_s(stay)

    def _make_room(self, now: float) -> None:
        self._look_again = []
        books = self._books
        for stay in books.current.values():
            stay.is_draining = False
            stay.is_settled = stay.is_ready and stay.residence_ends_at <= now
        if not books.lines:
            return
        planned = self._plan_wants()
        room = Room(books.limits, books.stays.values())
        ways = eviction.Ways(room, books.lines, now)
        for want, wish, plans in planned:
            way = ways.best(want, plans)
            if way.step is eviction.Step.COMMIT:
                room.commit(way.plan, way.victims)
                for stay in way.victims:
                    books.stop(stay, "reload" if stay is want.own else "evicted")
                books.commit(want.first.request.target, wish, way.plan, now)
            elif way.step is not eviction.Step.BLOCKED:
                room.reserve(way.plan, way.victims)
                for stay in way.victims:
                    stay.is_draining = way.step is eviction.Step.DRAIN
                    self._look_again.append(stay.turn_ends_at)

    def _plan_wants(self) -> list[tuple[eviction.Want, LoadOptions, Sequence[Plan]]]:
        """All wants with their plans, oldest first; a ticket without any plan has been failed."""
        while True:
            found = eviction.find(self._books.lines, self._books.current)
            planned = [(want, self._plan(want)) for want in found]
            possible = [(want, *plans) for want, plans in planned if plans is not None]
            if len(possible) == len(found):
                return possible

    def _plan(self, want: eviction.Want) -> tuple[LoadOptions, Sequence[Plan]] | None:
        """What to load for all who wait, with room to grow, else for the first alone. None: it can
        have neither, and has been told.
        """
        first, line, own = want.first, want.line, want.own
        target = first.request.target
        loaded = msgspec.structs.replace(own.wish, num_ctx=own.num_ctx) if own else None
        wish = merge(first.load_options, line.wishes, loaded, target)
        try:
            return wish, line.plans(wish, lambda: self._plans.possible(target, wish))
        except Exception:  # noqa: BLE001, S110  # whatever it is: the first alone is tried
            pass
        try:
            return first.load_options, self._plans.possible(target, first.load_options)
        except ServerError as error:
            self._books.fail(first, error)
        except Exception as fault:  # noqa: BLE001  # others wait for what is settled here
            self._books.fail(first, LoadFailed(f"the load cannot be planned: {fault!r}"))
        return None

    def _give_places(self, now: float) -> bool:
        """Fill the free places. True: tickets that only load have ended thereby, and no other event
        will look at whoever stood behind them.
        """
        before = len(self._books.tickets)
        for stay in list(self._books.current.values()):
            self._books.fill(stay, now)
        return len(self._books.tickets) < before

    def _begin_loads(self, now: float) -> None:
        stays = self._books.stays.values()
        for stay in stays:
            is_committed = stay.phase is Phase.COMMITTED
            if is_committed and is_free(self._books.limits, stays, stay.plan):
                self._books.load(stay, now)

    def _name_wake_up(self, now: float) -> None:
        moments = [self._expires_at(stay) for stay in self._books.current.values()]
        moments += [moment for moment in self._look_again if moment > now]
        moments += [stay.trial_ends_at for stay in self._books.current.values()]
        if self._books.current:
            moments.append(self.kill_at)
        earliest = min(moments, default=math.inf)
        at = None if earliest == math.inf else earliest
        if at != self.wake_at:
            self.wake_at = at
            self._books.effects.append(WakeAt(at))

"""Who waits, who runs, what is loaded and what has to go: a pure state machine.

``handle(event, now)`` changes the state and returns the effects to perform, in order. It never
reads a clock, never waits, performs nothing and logs nothing. ``docs/adr/0003-scheduler.md`` says
why; :mod:`.invariants` says what always holds.

After each event the same five things are settled, so no event has to know what else it may cause:
quiet models whose time is over are stopped; wants (loads that waiting tickets call for) are
committed, oldest first, or drain their victims; free places are given away; committed loads start
whose memory is really free; the next moment to look again is named.

Draining is never remembered: it is found anew each time from who waits now, so it ends with the
last ticket that wanted it, and a victim that gets new requests drains all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec

from ollama_async.errors import LoadFailed, ServerError, ShuttingDown, WorkerDied
from ollama_async.queue import wants
from ollama_async.queue.crashes import Crashes
from ollama_async.queue.effects import (
    Abort,
    Complete,
    Effect,
    Fail,
    Load,
    Reject,
    RejectReason,
    Start,
    Stop,
    StopReason,
    WakeAt,
)
from ollama_async.queue.events import (
    Cancelled,
    Ended,
    Event,
    Requested,
    ShutdownAsked,
    TimePassed,
    UnloadAsked,
    WorkerLost,
    WorkerReady,
    WorkerRefused,
    WorkerStopped,
)
from ollama_async.queue.line import Line
from ollama_async.queue.plan import Limits, Plan, Planner
from ollama_async.queue.port import Needs, Target
from ollama_async.queue.room import Room, is_free
from ollama_async.queue.service_time import ServiceTime
from ollama_async.queue.stay import Phase, Stay
from ollama_async.queue.ticket import Ticket
from ollama_async.queue.wishes import merge

CLOSING_TEXT = "server is shutting down"


class Scheduler:
    """The state; public attributes are for looking only.

    ``lines``: who waits, by model; never an empty one. ``stays``: every worker from the decision
    to load it until it is gone. ``current``: of these the one of each model that is not stopping.
    ``tickets``: all that have not ended; ``placed``: where those of them are that do not wait.
    """

    def __init__(self, limits: Limits, planner: Planner) -> None:
        self.limits = limits
        self.lines: dict[str, Line] = {}
        self.stays: dict[int, Stay] = {}
        self.current: dict[str, Stay] = {}
        self.tickets: dict[int, Ticket] = {}
        self.placed: dict[int, Stay] = {}
        self.is_closing = False
        self._planner = planner
        self._crashes = Crashes()
        self._service = ServiceTime()
        self._effects: list[Effect] = []
        self._next_worker = 1
        self._kill_at = math.inf
        self._look_again: list[float] = []
        self._wake_at: float | None = None

    @property
    def waiting(self) -> int:
        """How many tickets wait; never more than ``limits.max_queue``."""
        return len(self.tickets) - len(self.placed)

    @property
    def wake_at(self) -> float | None:
        """When it wants to be told that time has passed."""
        return self._wake_at

    def handle(self, event: Event, now: float) -> list[Effect]:  # noqa: C901  # one case per event
        """Tell what happened; ``now`` in seconds of any clock that never goes back."""
        self._effects = []
        match event:
            case Requested():
                self._on_requested(event, now)
            case Cancelled(ticket):
                self._on_cancelled(ticket, now)
            case Ended(ticket):
                self._on_ended(ticket, now)
            case WorkerReady():
                self._on_ready(event, now)
            case WorkerRefused(worker, code, message):
                self._on_refused(worker, code, message, now)
            case WorkerLost():
                self._on_lost(event, now)
            case WorkerStopped(worker):
                self._forget(self.stays[worker])
                self._settle(now)
            case UnloadAsked(key):
                self._on_unload_asked(key, now)
            case TimePassed():
                self._wake_at = None
                self._settle(now)
            case ShutdownAsked(grace_s):
                self._on_shutdown_asked(grace_s, now)
            case _:
                assert_never(event)
        return self._effects

    # -- tickets -----------------------------------------------------------------------------

    def _on_requested(self, request: Requested, now: float) -> None:
        ticket = Ticket(request)
        stay = self.current.get(request.target.key)
        is_suited = stay is not None and stay.suits(ticket.needs)
        if refusal := self._refusal(ticket, stay, now, is_suited=is_suited):
            self._effects.append(refusal)
            return
        self.tickets[ticket.id] = ticket
        if request.loads_only and stay and stay.is_ready and is_suited and stay.accepts:
            self._begin(ticket, stay, now)
            self._settle(now)
            return
        self._line(request.target.key).join(ticket)
        self._settle(now)
        self._trim([ticket], now)

    def _refusal(
        self, ticket: Ticket, stay: Stay | None, now: float, *, is_suited: bool
    ) -> Reject | Fail | None:
        """Why the ticket cannot even be tried."""
        key = ticket.request.target.key
        if self.is_closing:
            return self._rejection(ticket, "draining")
        if left_s := self._crashes.back_off_s(key, now):
            return Fail(ticket.id, WorkerDied.code, _back_off_text(left_s))
        if self._is_hopeless(ticket, stay, is_suited=is_suited):
            return self._rejection(ticket, "full")
        if not is_suited and (error := self._why_impossible(ticket)):
            return Fail(ticket.id, error.code, error.message)
        return None

    def _is_hopeless(self, ticket: Ticket, stay: Stay | None, *, is_suited: bool) -> bool:
        """The quick no while the queue is full: rejecting a flood must not cost a settlement."""
        if self.waiting < self.limits.max_queue:
            return False
        if stay is not None and is_suited:
            return not (stay.accepts and stay.has_place) and not ticket.request.loads_only
        return ticket.request.target.key in self.lines

    def _on_cancelled(self, id_: int, now: float) -> None:
        ticket = self.tickets.get(id_)
        if ticket is None or ticket.is_leaving:
            return
        stay = self.placed.get(id_)
        if stay is not None and stay.is_ready:
            ticket.is_leaving = True
            self._effects.append(Abort(id_, stay.worker))
            return
        self._end(ticket)
        if stay is not None:
            self._fill(stay, now)
            if stay.phase is Phase.COMMITTED and not stay.tickets:
                self._forget(stay)  # nobody wants it any more, and nothing has begun
        self._settle(now)

    def _on_ended(self, id_: int, now: float) -> None:
        ticket = self.tickets.get(id_)
        stay = self.placed.get(id_)
        if ticket is None or stay is None:
            return
        self._end(ticket)
        stay.idle_since = now
        if not ticket.is_leaving:
            self._service.note(stay.target.key, now - ticket.started_at)
        self._settle(now)

    def _trim(self, candidates: Sequence[Ticket], now: float) -> None:
        """Turn away the last of those who have just come until the rest may wait."""
        waiting = [ticket for ticket in candidates if self._is_waiting(ticket)]
        is_over = self.waiting > self.limits.max_queue
        while self.waiting > self.limits.max_queue:
            ticket = waiting.pop()
            self._effects.append(self._rejection(ticket, "full"))
            self._end(ticket)
        if is_over:
            self._settle(now)

    def _is_waiting(self, ticket: Ticket) -> bool:
        return ticket.id in self.tickets and ticket.id not in self.placed

    def _place(self, ticket: Ticket, stay: Stay, now: float) -> None:
        """Give the ticket a place: a slot, or the promise of one."""
        if stay.phase is Phase.READY:
            self._begin(ticket, stay, now)
        else:
            stay.tickets[ticket.id] = ticket
            self.placed[ticket.id] = stay

    def _begin(self, ticket: Ticket, stay: Stay, now: float) -> None:
        stay.target = ticket.request.target
        if ticket.request.keep_alive_s is not None:
            stay.keep_alive_s = ticket.request.keep_alive_s
        stay.idle_since = now
        if ticket.request.loads_only:
            self._end(ticket)
            self._effects.append(Complete(ticket.id))
            return
        stay.tickets[ticket.id] = ticket
        self.placed[ticket.id] = stay
        ticket.started_at = now
        self._effects.append(Start(ticket.id, stay.worker))

    def _end(self, ticket: Ticket) -> None:
        """Take the ticket out, wherever it is."""
        del self.tickets[ticket.id]
        stay = self.placed.pop(ticket.id, None)
        if stay is not None:
            stay.tickets.pop(ticket.id, None)
            return
        key = ticket.request.target.key
        line = self.lines.get(key)
        if line is not None:
            line.leave(ticket)
            self._drop_if_empty(key)

    def _fail(self, ticket: Ticket, error: ServerError) -> None:
        self._end(ticket)
        if not ticket.is_leaving:
            self._effects.append(Fail(ticket.id, error.code, error.message))

    def _rejection(self, ticket: Ticket, reason: RejectReason) -> Reject:
        key = ticket.request.target.key
        stay = self.current.get(key)
        waiting = len(self.lines.get(key, ()))
        retry_after_s = self._service.estimate_s(key, waiting, stay.slots if stay else 1)
        return Reject(ticket.id, reason, retry_after_s)

    def _line(self, key: str) -> Line:
        return self.lines.setdefault(key, Line())

    def _drop_if_empty(self, key: str) -> None:
        if not self.lines[key]:
            del self.lines[key]

    # -- workers -----------------------------------------------------------------------------

    def _on_ready(self, event: WorkerReady, now: float) -> None:
        stay = self.stays[event.worker]
        if stay.phase is not Phase.LOADING:
            return  # told to stop in the meantime
        stay.become_ready(event.slots, event.num_ctx, now)
        promised = list(stay.tickets.values())
        stay.tickets.clear()
        surplus = []
        for ticket in promised:
            del self.placed[ticket.id]
            if ticket.request.loads_only or stay.has_place:
                self._begin(ticket, stay, now)
            else:
                surplus.append(ticket)
        self._return(surplus, now)

    def _on_refused(self, worker: int, code: str, message: str, now: float) -> None:
        """No second try: whoever waits for the model is told why it cannot be had."""
        stay = self.stays[worker]
        self._forget(stay)
        if stay.phase is not Phase.STOPPING:
            error = LoadFailed(message)
            for ticket in [*stay.tickets.values(), *self.lines.get(stay.target.key, ())]:
                self._end(ticket)
                self._effects.append(Fail(ticket.id, code or error.code, message))
        self._settle(now)

    def _on_lost(self, event: WorkerLost, now: float) -> None:
        stay = self.stays[event.worker]
        if stay.phase is Phase.LOADING:
            self._on_refused(event.worker, LoadFailed.code, event.message, now)
            return
        self._forget(stay)
        if stay.phase is Phase.READY:
            key = stay.target.key
            self._crashes.note(key, now)
            is_given_up = self._crashes.back_off_s(key, now) > 0
            restarted = []
            for ticket in list(stay.tickets.values()):
                can_restart = ticket.id in event.restartable and not ticket.was_restarted
                if can_restart and not (ticket.is_leaving or is_given_up or self.is_closing):
                    ticket.was_restarted = True
                    stay.tickets.pop(ticket.id)
                    del self.placed[ticket.id]
                    restarted.append(ticket)
                else:
                    self._fail(ticket, WorkerDied(event.message))
            if is_given_up:
                for ticket in list(self.lines.get(key, ())):
                    self._fail(ticket, WorkerDied(event.message))
            self._return(restarted, now)
            return
        self._settle(now)

    def _return(self, tickets: Sequence[Ticket], now: float) -> None:
        """Whoever lost a place without fault goes first again, as far as the bound allows."""
        for ticket in reversed(tickets):
            self._line(ticket.request.target.key).rejoin(ticket)
        self._settle(now)
        self._trim(tickets, now)

    def _on_unload_asked(self, key: str, now: float) -> None:
        stay = self.current.get(key)
        if stay is not None and stay.leaving is None:
            stay.leaving = "requested"
        self._settle(now)

    def _on_shutdown_asked(self, grace_s: float, now: float) -> None:
        self.is_closing = True
        self._kill_at = min(self._kill_at, now + grace_s)
        for ticket in list(self.tickets.values()):
            stay = self.placed.get(ticket.id)
            if stay is None or not stay.is_ready:
                self._fail(ticket, ShuttingDown(CLOSING_TEXT))
        for stay in list(self.current.values()):
            stay.leaving = "shutdown"
            if stay.phase is Phase.COMMITTED:
                self._forget(stay)
            elif stay.phase is Phase.LOADING:
                self._stop(stay, "shutdown")
        self._settle(now)

    def _stop(self, stay: Stay, reason: StopReason) -> None:
        stay.phase = Phase.STOPPING
        del self.current[stay.target.key]
        self._effects.append(Stop(stay.worker, reason))

    def _forget(self, stay: Stay) -> None:
        del self.stays[stay.worker]
        if self.current.get(stay.target.key) is stay:
            del self.current[stay.target.key]

    # -- settling ----------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        self._retire(now)
        self._make_room(now)
        for stay in list(self.current.values()):
            self._fill(stay, now)
        self._launch(now)
        self._name_wake_up(now)

    def _retire(self, now: float) -> None:
        for stay in list(self.current.values()):
            if self._kill_at <= now and stay.is_ready:
                for ticket in list(stay.tickets.values()):
                    self._fail(ticket, ShuttingDown(CLOSING_TEXT))
            if stay.is_quiet and stay.leaving:
                self._stop(stay, stay.leaving)
            elif self._expires_at(stay) <= now:
                self._stop(stay, "idle")

    def _expires_at(self, stay: Stay) -> float:
        """When an idle model is to be unloaded; inf while anything runs or waits for it."""
        if not stay.is_quiet or stay.target.key in self.lines:
            return math.inf
        return stay.idle_since + self.keep_alive_s(stay)

    def keep_alive_s(self, stay: Stay) -> float:
        """How long the model stays when idle: what the last request said, else the default."""
        default_s = self.limits.keep_alive_s
        return default_s if stay.keep_alive_s is None else stay.keep_alive_s

    def _make_room(self, now: float) -> None:
        self._look_again = []
        for stay in self.current.values():
            stay.is_draining = False
        if not self.lines:
            return
        planned = self._plan_wants()
        room = Room(self.limits, self.stays.values())
        ways = wants.Ways(room, self.lines, now)
        for want, wish, plans in planned:
            way = ways.best(want, plans)
            if way.step is wants.Step.COMMIT:
                room.commit(way.plan, way.victims)
                self._commit(want, wish, way, now)
            elif way.step is not wants.Step.BLOCKED:
                room.reserve(way.plan, way.victims)
                for stay in way.victims:
                    stay.is_draining = way.step is wants.Step.DRAIN
                    self._look_again.append(stay.turn_ends_at)

    def _plan_wants(self) -> list[tuple[wants.Want, Needs, Sequence[Plan]]]:
        """All wants with their plans, oldest first; a ticket without any plan has been failed."""
        while True:
            found = [(want, self._plan(want)) for want in wants.find(self.lines, self.current)]
            planned = [(want, *plans) for want, plans in found if plans is not None]
            if len(planned) == len(found):
                return planned

    def _plan(self, want: wants.Want) -> tuple[Needs, Sequence[Plan]] | None:
        """What to load for all who wait, else for the first alone. None: it can have neither, and
        has been told.
        """
        loaded = None
        if want.own is not None:
            loaded = msgspec.structs.replace(want.own.wish, num_ctx=want.own.num_ctx)
        target = want.first.request.target
        try:
            wish = merge(want.first.needs, want.line.wishes, loaded)
            return wish, want.line.plans(wish, lambda: self._possible_plans(target, wish))
        except ServerError:
            pass
        try:
            return want.first.needs, self._possible_plans(target, want.first.needs)
        except ServerError as error:
            self._fail(want.first, error)
            return None

    def _commit(self, want: wants.Want, wish: Needs, way: wants.Way, now: float) -> None:
        for stay in way.victims:
            self._stop(stay, "reload" if stay is want.own else "evicted")
        stay = Stay(self._next_worker, want.first.request.target, wish, way.plan, now)
        self._next_worker += 1
        self.stays[stay.worker] = stay
        self.current[stay.target.key] = stay
        self._fill(stay, now)

    def _fill(self, stay: Stay, now: float) -> None:
        """Give the stay's free places to whoever is next."""
        key = stay.target.key
        line = self.lines.get(key)
        while line and stay.accepts and stay.has_place:
            ticket = line.first(lambda ticket: stay.suits(ticket.needs))
            if ticket is None:
                return
            line.serve(ticket)
            self._drop_if_empty(key)
            self._place(ticket, stay, now)

    def _launch(self, now: float) -> None:
        for stay in self.stays.values():
            is_committed = stay.phase is Phase.COMMITTED
            if is_committed and is_free(self.limits, self.stays.values(), stay.plan):
                stay.phase = Phase.LOADING
                stay.load_began_at = now
                self._effects.append(Load(stay.worker, stay.target, stay.plan))

    def _name_wake_up(self, now: float) -> None:
        moments = [self._expires_at(stay) for stay in self.current.values()]
        moments += [moment for moment in self._look_again if moment > now]
        if self.current:
            moments.append(self._kill_at)
        earliest = min(moments, default=math.inf)
        at = None if earliest == math.inf else earliest
        if at != self._wake_at:
            self._wake_at = at
            self._effects.append(WakeAt(at))

    # -- plans -------------------------------------------------------------------------------

    def _why_impossible(self, ticket: Ticket) -> ServerError | None:
        try:
            self._possible_plans(ticket.request.target, ticket.needs)
        except ServerError as error:
            return error
        return None

    def _possible_plans(self, target: Target, needs: Needs) -> list[Plan]:
        """:raises LoadFailed: the model does not fit even if everything else goes."""
        plans = self._planner(target, needs)
        possible = [plan for plan in plans if self.limits.is_possible(plan)]
        if not possible:
            raise LoadFailed(_does_not_fit_text(plans, self.limits))
        return possible


def _back_off_text(left_s: float) -> str:
    return (
        "model runner has unexpectedly stopped several times in a row; "
        f"it will be tried again in {math.ceil(left_s)}s"
    )


def _does_not_fit_text(plans: Iterable[Plan], limits: Limits) -> str:
    """Ollama's sentence, about the device that comes nearest."""
    gaps = [
        (need - limits.capacity.get(device, 0), need, limits.capacity.get(device, 0))
        for plan in plans
        for device, need in plan.demand.items()
    ]
    if not gaps:
        return "no device can hold the model with these options"
    _, need, capacity = min(gap for gap in gaps if gap[0] > 0)
    return f"model requires more system memory ({_gib(need)}) than is available ({_gib(capacity)})"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB"

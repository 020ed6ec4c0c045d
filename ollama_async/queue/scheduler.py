"""Who waits, who runs, what is loaded and what has to go: a pure state machine.

``handle(event, now)`` changes the books and returns the effects to perform, in order. It never
reads a clock, never waits, performs nothing and logs nothing. ``docs/adr/0003-scheduler.md`` says
why.

Here is what each event itself means. What follows from it, :mod:`.reconciler` finds, the same way
after every event, so no event has to know what else it may cause.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from ollama_async.core.errors import LoadFailed, ServerError, ShuttingDown, WorkerDied
from ollama_async.queue.crash import DEATHS, Crash
from ollama_async.queue.crash_backoff import Crashes
from ollama_async.queue.effects import Effect, Fail, Reject
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
from ollama_async.queue.loading_policy import outgrows
from ollama_async.queue.plan import Limits, Planner, Plans
from ollama_async.queue.reconciler import CLOSING_TEXT, Settling
from ollama_async.queue.refused_growth import RefusedGrowth
from ollama_async.queue.state import Books
from ollama_async.queue.stay import Phase, Stay
from ollama_async.queue.ticket import Ticket


class Scheduler:
    """The state is in ``books``, which others may look at."""

    def __init__(self, limits: Limits, planner: Planner) -> None:
        self.books = Books(limits)
        self.is_closing = False
        self._plans = Plans(limits, planner)
        self._settling = Settling(self.books, self._plans)
        self._crashes = Crashes()
        self._refused_growth = RefusedGrowth()

    @property
    def wake_at(self) -> float | None:
        """When it wants to be told that time has passed."""
        return self._settling.wake_at

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Tell what happened; ``now`` in seconds of any clock that never goes back."""
        self.books.effects = []
        newcomers = self._note(event, now)
        if newcomers is None:
            return self.books.effects  # refused: a flood of them must cost next to nothing
        self._settling.settle(now)
        if self._turn_away(newcomers):
            self._settling.settle(now)
        self._crashes.close(now)
        return self.books.effects

    def _note(  # noqa: C901  # one case per event
        self, event: Event, now: float
    ) -> Sequence[Ticket] | None:
        """Put the event into the books; who has come to wait by it, those with more right first.
        None: nothing has changed.
        """
        match event:
            case Requested():
                return self._on_requested(event, now)
            case WorkerReady():
                return self._on_ready(event, now)
            case WorkerLost():
                return self._on_lost(event, now)
            case Cancelled(ticket):
                self._on_cancelled(ticket, now)
            case Ended(ticket):
                self._on_ended(ticket, now)
            case WorkerRefused():
                return self._on_refused(event, now)
            case WorkerStopped(worker):
                self.books.forget(self.books.stays[worker])
            case UnloadAsked(key):
                self._on_unload_asked(key)
            case TimePassed():
                self._settling.wake_at = None
            case ShutdownAsked(grace_s):
                self._on_shutdown_asked(grace_s, now)
            case _:
                assert_never(event)
        return ()

    def _turn_away(self, newcomers: Sequence[Ticket]) -> bool:
        """Reject until no more wait than may: the last of the newcomers, or for it a ticket of who
        holds more. Whether anybody had to go.

        What was settled with them in line stands: they have caused nothing but draining, which
        the next settling undoes, because a load is committed only with places for who is next.
        """
        over = self.books.waiting - self.books.limits.max_queue
        if over <= 0:
            return False
        for _ in range(over):
            last = next(filter(self.books.is_waiting, reversed(newcomers)))
            self.books.reject(self.books.displaced_by(last))
        return True

    # -- tickets -----------------------------------------------------------------------------

    def _on_requested(self, request: Requested, now: float) -> Sequence[Ticket] | None:
        ticket = Ticket(request, has_gpus=self.books.limits.gpus > 0)
        stay = self.books.current.get(request.target.key)
        suited = stay if stay is not None and stay.suits(ticket.load_options) else None
        if refusal := self._refusal(ticket, suited, now):
            self.books.effects.append(refusal)
            return None
        if request.loads_only and suited and suited.is_ready and suited.accepts:
            self.books.tickets[ticket.id] = ticket
            self.books.place(ticket, suited, now)
            return ()
        self.books.admit(ticket)
        return (ticket,)

    def _refusal(self, ticket: Ticket, suited: Stay | None, now: float) -> Reject | Fail | None:
        """Why the ticket cannot even be tried. ``suited``: the model as loaded, if that will do."""
        if self.is_closing:
            return self.books.rejection(ticket, "draining")
        if left_s := self._back_off_s(ticket, now):
            return Fail(ticket.id, WorkerDied.code, _back_off_text(left_s))
        if self._is_hopeless(ticket, suited):
            return self.books.rejection(ticket, "full")
        if suited is None:
            stay = self.books.current.get(ticket.request.target.key)
            if known := self._refused_growth.find(ticket, stay, now):
                return Fail(ticket.id, *known)
            try:
                self._plans.possible(ticket.request.target, ticket.load_options)
            except ServerError as error:
                return Fail(ticket.id, error.code, error.message)
        return None

    def _is_hopeless(self, ticket: Ticket, suited: Stay | None) -> bool:
        """The quick no while the queue is full: a flood must not be planned for."""
        if self.books.waiting < self.books.limits.max_queue:
            return False
        if self.books.holdings.may_displace(ticket.request.client):
            return False
        if suited is not None:
            return not suited.admits(ticket) and not ticket.request.loads_only
        return ticket.request.target.key in self.books.lines

    def _on_cancelled(self, id_: int, now: float) -> None:
        ticket = self.books.tickets.get(id_)
        if ticket is None or ticket.is_leaving:
            return
        if ticket.is_running:
            self.books.abort(ticket)
            return
        stay = self.books.placed.get(id_)
        self.books.end(ticket)
        if stay is None:
            return
        stay.idle_since = now
        if stay.phase is Phase.COMMITTED:
            self.books.fill(stay, now)
            if not stay.tickets:
                self.books.forget(stay)  # nobody wants it any more, and nothing has begun

    def _on_ended(self, id_: int, now: float) -> None:
        ticket = self.books.tickets.get(id_)
        stay = self.books.placed.get(id_)
        if ticket is None or stay is None:
            return
        if not ticket.is_leaving:
            self._crashes.survived(stay.target.key)
            if ticket.crash is not None:
                ticket.crash.clear(ticket.id)
        self.books.end(ticket)
        stay.idle_since = now
        if not ticket.is_leaving:
            self.books.service.note(stay.target.key, now - ticket.started_at)

    # -- workers -----------------------------------------------------------------------------

    def _on_ready(self, event: WorkerReady, now: float) -> Sequence[Ticket]:
        stay = self.books.stays[event.worker]
        if stay.phase is not Phase.LOADING:
            return ()  # told to stop in the meantime
        stay.become_ready(event.slots, event.num_ctx, now)
        promised = list(stay.tickets.values())
        for ticket in promised:
            if ticket.request.loads_only:
                self.books.begin(ticket, now)
        staying = list(stay.tickets.values())
        for ticket in staying[: stay.slots]:
            if ticket.crash is None:
                self.books.begin(ticket, now)
        return self._readmit(staying[stay.slots :])

    def _on_refused(self, event: WorkerRefused, now: float) -> Sequence[Ticket]:
        """No second try: whoever waits for the model is told why it cannot be had. But if it was
        loaded for a large context, those who are content with half of it do not fail for that.
        """
        stay = self.books.stays[event.worker]
        was_over = stay.phase.is_over
        returned = self._release(stay, is_gone=event.is_gone)
        if was_over:
            return returned
        concerned = [*stay.tickets.values(), *self.books.lines.get(stay.target.key, ())]
        num_ctx = stay.wish.num_ctx or 0
        greedy = [
            ticket for ticket in concerned if num_ctx and outgrows(ticket.load_options, num_ctx / 2)
        ]
        if greedy:
            self._refused_growth.note(stay.target.key, num_ctx, event.code, event.message, now)
        for ticket in greedy or concerned:
            self.books.end(ticket)
            self.books.effects.append(Fail(ticket.id, event.code, event.message))
        return [*returned, *self._readmit(list(stay.tickets.values()))]

    def _on_lost(self, event: WorkerLost, now: float) -> Sequence[Ticket]:
        stay = self.books.stays[event.worker]
        if stay.phase is Phase.LOADING:
            refused = WorkerRefused(event.worker, LoadFailed.code, event.message, event.is_gone)
            return self._on_refused(refused, now)
        was_over = stay.phase.is_over
        returned = self._release(stay, is_gone=event.is_gone)
        if was_over:
            return returned
        running = [ticket for ticket in stay.tickets.values() if ticket.is_running]
        untried = [ticket for ticket in stay.tickets.values() if not ticket.is_running]
        retried = self._investigate(stay, running, event, now)
        for ticket in [*running, *untried, *self.books.lines.get(stay.target.key, ())]:
            if ticket not in retried and (ticket.is_running or self._is_given_up(ticket, now)):
                self.books.fail(ticket, WorkerDied(event.message))
        left = [*untried, *sorted(retried, key=_began_last)]
        left = [ticket for ticket in left if ticket.id in stay.tickets]
        return [*returned, *self._readmit(left)]

    def _release(self, stay: Stay, *, is_gone: bool) -> Sequence[Ticket]:
        """Nobody can use the worker any more; its memory is free only if the process is gone. If it
        is not, loads that have not begun are planned anew, since they may have counted on it: whose
        promise that takes away.
        """
        if is_gone:
            self.books.forget(stay)
            return ()
        self.books.linger(stay)
        returned: list[Ticket] = []
        for other in list(self.books.current.values()):
            if other.phase is Phase.COMMITTED:
                returned += self._readmit(list(other.tickets.values()))
                self.books.forget(other)
        return returned

    def _investigate(
        self, stay: Stay, running: Sequence[Ticket], event: WorkerLost, now: float
    ) -> Sequence[Ticket]:
        """Whose fault the death was; of the others those who are to be tried, alone."""
        key, tried = stay.target.key, stay.on_trial
        if not running:
            self._crashes.idle(key, now)
            return ()
        suspects = [
            ticket
            for ticket in running
            if ticket is not tried and self._may_retry(ticket, event, now)
        ]
        if tried is not None and tried.crash is not None:
            crash = tried.crash
            crash.convict(tried.id)
            crash.suspects.update(ticket.id for ticket in suspects)
            self._crashes.blame(key, tried.request.client, now, crash)
        elif event.has_aborted and len(running) == 1:
            self._crashes.blame(key, running[0].request.client, now)
            return ()
        else:
            others = [ticket.request.client for ticket in running if ticket not in suspects]
            crash = Crash(key, now, [ticket.id for ticket in suspects], others)
            self._crashes.open(crash)
        for ticket in suspects:
            ticket.suspect(crash, now)
        return [ticket for ticket in suspects if not self._is_given_up(ticket, now)]

    def _may_retry(self, ticket: Ticket, event: WorkerLost, now: float) -> bool:
        is_over = ticket.is_leaving or self.is_closing or ticket.deaths >= DEATHS
        is_refused = self._back_off_s(ticket, now) > 0
        return ticket.id in event.restartable and not (is_over or is_refused)

    def _is_given_up(self, ticket: Ticket, now: float) -> bool:
        """Whether a ticket is refused after a death that it survived. A suspect is tried even if
        its client is not to come again: it may not be what the client is blamed for.
        """
        if ticket.crash is None:
            return self._back_off_s(ticket, now) > 0
        key = ticket.request.target.key
        return ticket.crash.is_given_up or self._crashes.back_off_s(key, None, now) > 0

    def _back_off_s(self, ticket: Ticket, now: float) -> float:
        request = ticket.request
        return self._crashes.back_off_s(request.target.key, request.client, now)

    def _readmit(self, tickets: Sequence[Ticket]) -> Sequence[Ticket]:
        """Whoever lost a place without fault goes first again, in the same order."""
        for ticket in reversed(tickets):
            self.books.readmit(ticket)
        return tickets

    # -- orders ------------------------------------------------------------------------------

    def _on_unload_asked(self, key: str) -> None:
        stay = self.books.current.get(key)
        if stay is not None and stay.leaving is None:
            stay.leaving = "requested"

    def _on_shutdown_asked(self, grace_s: float, now: float) -> None:
        self.is_closing = True
        self._settling.kill_at = min(self._settling.kill_at, now + grace_s)
        for ticket in list(self.books.tickets.values()):
            if not ticket.is_running:
                self.books.fail(ticket, ShuttingDown(CLOSING_TEXT))
        for stay in list(self.books.current.values()):
            stay.leaving = "shutdown"
            if stay.phase is Phase.COMMITTED:
                self.books.forget(stay)


def _began_last(ticket: Ticket) -> float:
    return -ticket.started_at


def _back_off_text(left_s: float) -> str:
    return (
        "model runner has unexpectedly stopped several times in a row; "
        f"it will be tried again in {math.ceil(left_s)}s"
    )

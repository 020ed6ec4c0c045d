"""Who is where: the scheduler's state, and the moves that keep it consistent. No rules."""

from __future__ import annotations

from ollama_async.core.errors import ServerError
from ollama_async.queue.backend import LoadOptions, Target
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
)
from ollama_async.queue.fair_queue import Line
from ollama_async.queue.holdings import Holdings
from ollama_async.queue.plan import Limits, Plan
from ollama_async.queue.service_time import ServiceTime
from ollama_async.queue.stay import Phase, Stay
from ollama_async.queue.ticket import Ticket


class Books:
    """Attributes are for looking; only the methods here change them.

    ``lines``: who waits, by model; never an empty one. ``stays``: every worker from the decision
    to load it until it is gone. ``current``: of these the one of each model that is not over.
    ``tickets``: all that have not ended; ``placed``: where those of them are that do not wait;
    ``holdings``: how much of both each client has.
    ``effects``: what is to be done about the event at hand.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.lines: dict[str, Line] = {}
        self.stays: dict[int, Stay] = {}
        self.current: dict[str, Stay] = {}
        self.tickets: dict[int, Ticket] = {}
        self.placed: dict[int, Stay] = {}
        self.holdings = Holdings()
        self.effects: list[Effect] = []
        self.service = ServiceTime()
        self._next_worker = 1

    @property
    def waiting(self) -> int:
        """How many tickets wait; never more than ``limits.max_queue`` after an event."""
        return len(self.tickets) - len(self.placed)

    def is_waiting(self, ticket: Ticket) -> bool:
        return ticket.id in self.tickets and ticket.id not in self.placed

    def expires_after_s(self, stay: Stay) -> float:
        """How long the model stays when idle: what the last request said, else the default."""
        default_s = self.limits.keep_alive_s
        return default_s if stay.keep_alive_s is None else stay.keep_alive_s

    # -- tickets -----------------------------------------------------------------------------

    def admit(self, ticket: Ticket) -> None:
        """The ticket joins its model's line."""
        self.tickets[ticket.id] = ticket
        self.holdings.wait(ticket)
        self._line(ticket).join(ticket)

    def readmit(self, ticket: Ticket) -> None:
        """The ticket loses its place without fault and stands in front of its model's line."""
        stay = self.placed.pop(ticket.id)
        del stay.tickets[ticket.id]
        stay.suspects.pop(ticket.id, None)
        ticket.is_running = False
        self.holdings.wait(ticket)
        self._line(ticket).rejoin(ticket)

    def fill(self, stay: Stay, now: float) -> None:
        """Give the stay's free places to whoever is next; of suspects one alone begins."""
        if stay.suspects:
            self.try_suspects(stay, now)
        line = self.lines.get(stay.target.key)
        while line and stay.accepts and len(stay.tickets) < stay.slots:
            ticket = line.first(lambda ticket: stay.suits(ticket.load_options))
            if ticket is None or not stay.admits(ticket):
                break
            line.serve(ticket)
            self._drop_if_empty(stay.target.key)
            self.place(ticket, stay, now)
        if stay.suspects:
            self.try_suspects(stay, now)

    def try_suspects(self, stay: Stay, now: float) -> None:
        """One suspect at a time begins, when the one before it has ended or is cleared."""
        tried = stay.on_trial
        if not stay.is_ready or (tried is not None and now < stay.trial_ends_at):
            return
        if tried is not None and tried.crash is not None:
            tried.crash.clear(tried.id)
            tried.crash = None
            del stay.suspects[tried.id]
        untried = next(iter(stay.suspects.values()), None)
        if untried is not None:
            self.begin(untried, now)

    def place(self, ticket: Ticket, stay: Stay, now: float) -> None:
        """Give the ticket, which is in no line, a place: a slot, or the promise of one."""
        stay.tickets[ticket.id] = ticket
        self.placed[ticket.id] = stay
        self.holdings.hold(ticket)
        if ticket.crash is not None:
            stay.suspects[ticket.id] = ticket
        elif stay.is_ready:
            self.begin(ticket, now)

    def begin(self, ticket: Ticket, now: float) -> None:
        """The ticket's promise comes true; one that only loads has thereby ended."""
        stay = self.placed[ticket.id]
        stay.note_use(ticket.request.target, ticket.request.keep_alive_s, now)
        ticket.started_at = now
        ticket.is_running = True
        if ticket.request.loads_only:
            self.end(ticket)
            self.effects.append(Complete(ticket.id))
        else:
            self.effects.append(Start(ticket.id, stay.worker))

    def abort(self, ticket: Ticket) -> None:
        """The running ticket's client has gone; the slot is taken until the worker confirms."""
        ticket.is_leaving = True
        self.effects.append(Abort(ticket.id, self.placed[ticket.id].worker))

    def end(self, ticket: Ticket) -> None:
        """Take the ticket out, wherever it is."""
        del self.tickets[ticket.id]
        self.holdings.release(ticket)
        if ticket.crash is not None:
            ticket.crash.leave(ticket.id, ticket.request.client)
        stay = self.placed.pop(ticket.id, None)
        if stay is not None:
            del stay.tickets[ticket.id]
            stay.suspects.pop(ticket.id, None)
        else:
            self._line(ticket).leave(ticket)
            self._drop_if_empty(ticket.request.target.key)

    def fail(self, ticket: Ticket, error: ServerError) -> None:
        """The ticket ends with an error, if its client is still there to hear it."""
        self.end(ticket)
        if not ticket.is_leaving:
            self.effects.append(Fail(ticket.id, error.code, error.message))

    def displaced_by(self, newcomer: Ticket) -> Ticket:
        """Who has to go because the queue is full: the newest waiting ticket of the client who
        holds most, unless the newcomer's now holds as much.
        """
        if self.holdings.of(newcomer.request.client) >= self.holdings.largest():
            return newcomer
        return self.holdings.last_of_largest()

    def reject(self, ticket: Ticket) -> None:
        """The waiting ticket has to go because the queue is full."""
        rejection = self.rejection(ticket, "full")
        self.end(ticket)
        self.effects.append(rejection)

    def rejection(self, ticket: Ticket, reason: RejectReason) -> Reject:
        """Words for a ticket that may not be in the books at all."""
        key = ticket.request.target.key
        stay = self.current.get(key)
        waiting = len(self.lines.get(key, ()))
        retry_after_s = self.service.estimate_s(key, waiting, stay.slots if stay else 1)
        return Reject(ticket.id, reason, retry_after_s)

    # -- stays -------------------------------------------------------------------------------

    def commit(self, target: Target, wish: LoadOptions, plan: Plan, now: float) -> None:
        """A load is decided: the memory is spoken for, and whoever is next gets a promise."""
        stay = Stay(self._next_worker, target, wish, plan, now)
        self._next_worker += 1
        self.stays[stay.worker] = stay
        self.current[target.key] = stay
        self.fill(stay, now)

    def load(self, stay: Stay, now: float) -> None:
        """The committed load begins."""
        stay.phase = Phase.LOADING
        stay.load_began_at = now
        self.effects.append(Load(stay.worker, stay.target, stay.plan))

    def stop(self, stay: Stay, reason: StopReason) -> None:
        """The worker, which has no tickets, is told to end."""
        stay.phase = Phase.STOPPING
        del self.current[stay.target.key]
        self.effects.append(Stop(stay.worker, reason))

    def linger(self, stay: Stay) -> None:
        """The worker has ended for all, but its process still holds its memory."""
        stay.phase = Phase.LINGERING
        if self.current.get(stay.target.key) is stay:
            del self.current[stay.target.key]

    def forget(self, stay: Stay) -> None:
        """The stay is over: its process is gone, or has never been."""
        del self.stays[stay.worker]
        if self.current.get(stay.target.key) is stay:
            del self.current[stay.target.key]

    def _line(self, ticket: Ticket) -> Line:
        return self.lines.setdefault(ticket.request.target.key, Line())

    def _drop_if_empty(self, key: str) -> None:
        if not self.lines[key]:
            del self.lines[key]

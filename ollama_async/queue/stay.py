"""A model's stay in memory, from the decision to load it until its process is gone."""

from __future__ import annotations

import math
from enum import Enum

from ollama_async.queue.backend import LoadOptions, Target
from ollama_async.queue.effects import StopReason
from ollama_async.queue.loading_policy import contradicts, outgrows
from ollama_async.queue.plan import Plan
from ollama_async.queue.ticket import Ticket

_RESIDENCE_PER_LOAD = 10.0
_LEAST_RESIDENCE_S = 60.0
"""For ten times as long as its load took, and for a minute at least, a load also serves those who
ask for the same weights with other load-time options. Then it is made anew for whoever comes first,
so requests that contradict each other cost a load in each such time at most. None waits for it.
"""

_TURN_PER_LOAD = 3.0
_TURN_S = (1.0, 30.0)
"""A model that was just loaded for many clients is left alone for three times as long as its load
took, within these bounds: loading then never takes more than a quarter of the time, and whoever
waits for the memory waits a bounded time.
"""


class Phase(Enum):
    """COMMITTED: victims are stopping, the memory is spoken for. LOADING: the worker starts.
    READY: it serves. STOPPING: it was told to end and still holds its memory, for seconds at most.
    LINGERING: not even SIGKILL has ended it, and nobody knows when its memory will be free.
    """

    COMMITTED = "committed"
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    LINGERING = "lingering"

    @property
    def is_over(self) -> bool:
        """The worker serves nobody any more; only its memory counts."""
        return self in {Phase.STOPPING, Phase.LINGERING}


class Stay:
    """``tickets`` hold a place: promised until READY, then running, unless they are ``suspects``
    behind another one; never more than ``slots``.

    ``wish`` is what was loaded for; ``num_ctx`` what a slot holds, or was wished if that is more:
    a wish that the engine could not grant must not reload the model for ever. ``is_settled``: its
    residence is over. ``is_draining``: older tickets need the memory, so nothing new starts here.
    ``leaving``: it ends when quiet.
    """

    def __init__(
        self, worker: int, target: Target, wish: LoadOptions, plan: Plan, now: float
    ) -> None:
        self.worker = worker
        self.target = target
        self.wish = wish
        self.plan = plan
        self.phase = Phase.COMMITTED
        self.tickets: dict[int, Ticket] = {}
        self.suspects: dict[int, Ticket] = {}
        self.slots = plan.slots
        self.num_ctx = max(plan.num_ctx, wish.num_ctx or 0)
        self.keep_alive_s: float | None = None
        self.load_began_at = now
        self.ready_at = now
        self.turn_ends_at = now
        self.residence_ends_at = now
        self.idle_since = now
        self.is_settled = False
        self.is_draining = False
        self.leaving: StopReason | None = None

    def __repr__(self) -> str:
        return f"<Stay {self.worker} {self.target.key} {self.phase.value} {list(self.tickets)}>"

    @property
    def is_ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def is_quiet(self) -> bool:
        """Loading or ready, and nobody has a place: can be stopped without hurting anybody."""
        return self.phase in {Phase.LOADING, Phase.READY} and not self.tickets

    @property
    def accepts(self) -> bool:
        """Whether new tickets may get a place, if one is free."""
        return not self.is_draining and self.leaving is None

    def admits(self, ticket: Ticket) -> bool:
        """Whether the ticket may get a place now. Nobody joins suspects, and they join only those
        who were suspects: the worker may die under the one, and the other would be its victim.
        """
        if not self.accepts or len(self.tickets) >= self.slots:
            return False
        if ticket.crash is None:
            return not self.suspects
        return all(other.deaths for other in self.tickets.values())

    @property
    def on_trial(self) -> Ticket | None:
        """The suspect that runs; no other one does."""
        return next((ticket for ticket in self.suspects.values() if ticket.is_running), None)

    @property
    def trial_ends_at(self) -> float:
        """When the suspect that runs is cleared and the next one begins; inf: there is none."""
        ticket = self.on_trial if self.suspects else None
        return math.inf if ticket is None else ticket.started_at + ticket.trial_s

    def suits(self, load_options: LoadOptions) -> bool:
        """Whether what is loaded is good enough for ``load_options`` (in normal form)."""
        if outgrows(load_options, self.num_ctx):
            return False
        return not (self.is_settled and contradicts(load_options, self.wish))

    def become_ready(self, slots: int, num_ctx: int, now: float) -> None:
        low, high = _TURN_S
        self.phase = Phase.READY
        self.slots = slots
        self.num_ctx = max(num_ctx, self.wish.num_ctx or 0)
        self.ready_at = self.idle_since = now
        load_s = now - self.load_began_at
        self.turn_ends_at = now + min(high, max(low, _TURN_PER_LOAD * load_s))
        self.residence_ends_at = now + max(_LEAST_RESIDENCE_S, _RESIDENCE_PER_LOAD * load_s)

    def note_use(self, target: Target, keep_alive_s: float | None, now: float) -> None:
        """A request begins: the model has the name by which it was asked for last, and is kept for
        as long as was said last.
        """
        self.target = target
        self.idle_since = now
        if keep_alive_s is not None:
            self.keep_alive_s = keep_alive_s

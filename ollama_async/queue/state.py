"""The scheduler's state, and the transitions that keep it consistent, without any policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

from ollama_async.core.errors import ServerError
from ollama_async.queue import events
from ollama_async.queue.backend import LoadOptions, Target
from ollama_async.queue.fair_queue import ClientShares, FairQueue, QueuedRequest
from ollama_async.queue.loading_policy import contradicts, exceeds_context
from ollama_async.queue.memory_budget import Limits, Plan

_SERVICE_WEIGHT = 0.2
_INITIAL_SERVICE_S = 1.0
_MAX_RETRY_AFTER_S = 600


class Phase(Enum):
    """COMMITTED: the memory is assigned, and its victims are stopping. LOADING: the worker starts.
    READY: it serves. STOPPING: it is being stopped, and its memory is free in seconds. LINGERING:
    not even SIGKILL has ended it, and its memory stays taken.
    """

    COMMITTED = "committed"
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    LINGERING = "lingering"

    @property
    def is_ending(self) -> bool:
        """The instance serves no more requests; only its memory counts."""
        return self in {Phase.STOPPING, Phase.LINGERING}


class ModelInstance:
    """A loaded copy of a model, from the decision to load it until its process is gone.

    ``requests`` have places, at most ``slots``: promised until READY, then running, except
    ``suspects`` whose trial has not begun. ``load_options``: what it was loaded for. ``num_ctx``:
    tokens per slot, or what was requested if that is more: a context that the engine could not
    provide must not cause another reload. ``is_draining``: older requests need the memory, so no
    request starts here. ``stop_when_unused``: why it then ends.
    """

    def __init__(
        self, id_: int, target: Target, load_options: LoadOptions, plan: Plan, now: float
    ) -> None:
        self.id = id_
        self.target = target
        self.load_options = load_options
        self.plan = plan
        self.phase = Phase.COMMITTED
        self.requests: dict[int, QueuedRequest] = {}
        self.suspects: dict[int, QueuedRequest] = {}
        self.slots = plan.slots
        self.num_ctx = max(plan.num_ctx, load_options.num_ctx or 0)
        self.keep_alive_s: float | None = None
        self.load_began_at = now
        self.load_s = 0.0
        self.ready_at = now
        self.idle_since = now
        self.is_residence_over = False
        self.is_draining = False
        self.stop_when_unused: events.StopReason | None = None

    @property
    def is_ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def is_unused(self) -> bool:
        """Loading or ready without requests: it can be stopped at once."""
        return self.phase in {Phase.LOADING, Phase.READY} and not self.requests

    @property
    def is_accepting(self) -> bool:
        """Whether queued requests may get a place if one is free."""
        return not self.is_draining and self.stop_when_unused is None

    def has_place_for(self, request: QueuedRequest) -> bool:
        """Whether the request may get a place now. Suspects share a worker only with requests that
        have survived a death, since a suspect may kill it again.
        """
        if not self.is_accepting or len(self.requests) >= self.slots:
            return False
        if request.crash is None:
            return not self.suspects
        return all(other.deaths for other in self.requests.values())

    def satisfies(self, options: LoadOptions) -> bool:
        """Whether requests with these normalized load options can run here."""
        if exceeds_context(options, self.num_ctx):
            return False
        return not (self.is_residence_over and contradicts(options, self.load_options))

    @property
    def on_trial(self) -> QueuedRequest | None:
        """The one suspect that runs."""
        return next((request for request in self.suspects.values() if request.is_running), None)

    @property
    def trial_ends_at(self) -> float:
        """When the suspect on trial is cleared and the next one starts; inf if there is none."""
        request = self.on_trial if self.suspects else None
        return math.inf if request is None else request.started_at + request.trial_s

    def become_ready(self, slots: int, num_ctx: int, now: float) -> None:
        self.phase = Phase.READY
        self.slots = slots
        self.num_ctx = max(num_ctx, self.load_options.num_ctx or 0)
        self.load_s = now - self.load_began_at
        self.ready_at = self.idle_since = now

    def record_use(self, request: QueuedRequest, now: float) -> None:
        """A request starts: the instance gets its name and ``keep_alive``."""
        self.target = request.target
        self.idle_since = now
        if request.keep_alive_s is not None:
            self.keep_alive_s = request.keep_alive_s


class SchedulerState:
    """``queues``: queued requests by model key; no queue is empty. ``instances``: by id, until the
    process is gone. ``current``: the one instance of each model that is not ending, by model key.
    ``requests``: all that have not ended. ``placed``: the instance of each request with a place.
    ``shares``: how many requests each client has. ``effects`` and ``newly_queued`` (highest
    priority first): of the current event. ``wake_at``: when :class:`.TimerFired` is due.
    ``kill_at``: when a shutdown ends running requests.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.queues: dict[str, FairQueue] = {}
        self.instances: dict[int, ModelInstance] = {}
        self.current: dict[str, ModelInstance] = {}
        self.requests: dict[int, QueuedRequest] = {}
        self.placed: dict[int, ModelInstance] = {}
        self.shares = ClientShares()
        self.effects: list[events.Effect] = []
        self.newly_queued: list[QueuedRequest] = []
        self.wake_at: float | None = None
        self.is_shutting_down = False
        self.kill_at = math.inf
        self._service_s: dict[str, float] = {}
        self._next_instance_id = 1

    @property
    def queued(self) -> int:
        """Number of queued requests; never more than ``limits.max_queue`` after an event."""
        return len(self.requests) - len(self.placed)

    def is_queued(self, request: QueuedRequest) -> bool:
        return request.id in self.requests and request.id not in self.placed

    def is_idle(self, instance: ModelInstance) -> bool:
        """No request has a place, and none is queued that could run here."""
        return instance.is_unused and self.next_request(instance) is None

    def next_request(self, instance: ModelInstance) -> QueuedRequest | None:
        """The first queued request that can run on the instance."""
        queue = self.queues.get(instance.target.key)
        if queue is None:
            return None
        return queue.first(lambda request: instance.satisfies(request.load_options))

    def enqueue(self, request: QueuedRequest) -> None:
        self.requests[request.id] = request
        self.shares.update(request, "queued")
        self._queue(request).add(request)
        self.newly_queued.append(request)

    def requeue(self, requests: Sequence[QueuedRequest]) -> None:
        """Requests that lose their places without fault go to the front, in this order."""
        for request in reversed(requests):
            self._vacate(request)
            request.is_running = False
            self.shares.update(request, "queued")
            self._queue(request).put_back(request)
        self.newly_queued += requests

    def fill(self, instance: ModelInstance, now: float) -> None:
        """Give free places to the next requests; of suspects only one starts."""
        if instance.suspects:
            self.try_suspects(instance, now)
        while instance.is_accepting and len(instance.requests) < instance.slots:
            request = self.next_request(instance)
            if request is None or not instance.has_place_for(request):
                break
            self.queues[request.target.key].end_turn(request.client)
            self._dequeue(request)
            self.place(request, instance, now)
        if instance.suspects:
            self.try_suspects(instance, now)

    def try_suspects(self, instance: ModelInstance, now: float) -> None:
        """Start the next suspect if the one before it has ended or is cleared."""
        tried = instance.on_trial
        if not instance.is_ready or (tried is not None and now < instance.trial_ends_at):
            return
        if tried is not None and tried.crash is not None:
            tried.crash.clear(tried.id)
            tried.crash = None
            del instance.suspects[tried.id]
        untried = next(iter(instance.suspects.values()), None)
        if untried is not None:
            self.start(untried, now)

    def place(self, request: QueuedRequest, instance: ModelInstance, now: float) -> None:
        """Give a request that is not queued a place: a slot, or the promise of one."""
        instance.requests[request.id] = request
        self.placed[request.id] = instance
        self.shares.update(request, "placed")
        if request.crash is not None:
            instance.suspects[request.id] = request
        elif instance.is_ready:
            self.start(request, now)

    def start(self, request: QueuedRequest, now: float) -> None:
        """Start the request on its slot. If it only loads, it ends."""
        instance = self.placed[request.id]
        instance.record_use(request, now)
        request.started_at = now
        request.is_running = True
        if request.loads_only:
            self.end(request)
            self.effects.append(events.Complete(request.id))
        else:
            self.effects.append(events.Start(request.id, instance.id))

    def abort(self, request: QueuedRequest) -> None:
        """Cancel a running request; it keeps its slot until the worker confirms."""
        request.is_aborting = True
        self.effects.append(events.Abort(request.id, self.placed[request.id].id))

    def end(self, request: QueuedRequest) -> None:
        """Remove the request, queued or placed."""
        del self.requests[request.id]
        self.shares.update(request, "ended")
        if request.crash is not None:
            request.crash.record_end(request.id, request.client)
        if request.id in self.placed:
            self._vacate(request)
        else:
            self._dequeue(request)

    def fail(self, request: QueuedRequest, error: ServerError) -> None:
        """End the request with an error; a client that has disconnected does not get it."""
        self.end(request)
        if not request.is_aborting:
            self.effects.append(events.Fail(request.id, error.code, error.message))

    def rejection(self, request: QueuedRequest, reason: events.RejectReason) -> events.Reject:
        """The effect that rejects the request, which may be unknown to the state."""
        key = request.target.key
        instance = self.current.get(key)
        slots = max(1, instance.slots) if instance else 1
        rounds = max(1, len(self.queues.get(key, ()))) / slots
        wait_s = math.ceil(rounds * self._service_s.get(key, _INITIAL_SERVICE_S))
        return events.Reject(request.id, reason, min(_MAX_RETRY_AFTER_S, max(1, wait_s)))

    def record_service(self, key: str, seconds: float) -> None:
        """Update the moving average of how long the model's requests run."""
        before = self._service_s.get(key, seconds)
        self._service_s[key] = before + _SERVICE_WEIGHT * (seconds - before)

    def _queue(self, request: QueuedRequest) -> FairQueue:
        return self.queues.setdefault(request.target.key, FairQueue())

    def _dequeue(self, request: QueuedRequest) -> None:
        queue = self.queues[request.target.key]
        queue.remove(request)
        if not queue:
            del self.queues[request.target.key]

    def _vacate(self, request: QueuedRequest) -> None:
        instance = self.placed.pop(request.id)
        del instance.requests[request.id]
        instance.suspects.pop(request.id, None)

    def commit(self, target: Target, load_options: LoadOptions, plan: Plan, now: float) -> None:
        """Decide on a load: assign its memory and promise places to the next requests."""
        instance = ModelInstance(self._next_instance_id, target, load_options, plan, now)
        self._next_instance_id += 1
        self.instances[instance.id] = instance
        self.current[target.key] = instance
        self.fill(instance, now)

    def load(self, instance: ModelInstance, now: float) -> None:
        """Start the committed load."""
        instance.phase = Phase.LOADING
        instance.load_began_at = now
        self.effects.append(events.Load(instance.id, instance.target, instance.plan))

    def stop(self, instance: ModelInstance, reason: events.StopReason) -> None:
        """Stop an instance without requests."""
        instance.phase = Phase.STOPPING
        del self.current[instance.target.key]
        self.effects.append(events.Stop(instance.id, reason))

    def mark_lingering(self, instance: ModelInstance) -> None:
        """The worker serves no more requests, but its process keeps its memory."""
        instance.phase = Phase.LINGERING
        self._leave_current(instance)

    def remove(self, instance: ModelInstance) -> None:
        """The instance's process is gone, or was never started."""
        del self.instances[instance.id]
        self._leave_current(instance)

    def _leave_current(self, instance: ModelInstance) -> None:
        if self.current.get(instance.target.key) is instance:
            del self.current[instance.target.key]

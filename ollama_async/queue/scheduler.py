"""The scheduler: a pure state machine that decides what is queued, runs, is loaded and evicted.

``handle(event, now)`` changes the state and returns the effects to perform, in order. It has no
clock, no I/O and no log. Each event has a handler here; :func:`.reconcile` then finds what follows,
in the same way after every event. See ADR 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from ollama_async.core.errors import LoadFailed, ServerError, ShuttingDown, WorkerDied
from ollama_async.queue import events
from ollama_async.queue.crash_backoff import MAX_DEATHS, Crash, CrashBackoff
from ollama_async.queue.fair_queue import QueuedRequest
from ollama_async.queue.loading_policy import (
    RefusedGrowth,
    exceeds_context,
    feasible_plans,
    normalize,
)
from ollama_async.queue.memory_budget import Limits, Planner
from ollama_async.queue.reconciler import reconcile
from ollama_async.queue.state import ModelInstance, Phase, SchedulerState


class Scheduler:
    """``state`` is read-only for others."""

    def __init__(self, limits: Limits, planner: Planner) -> None:
        self.state = SchedulerState(limits)
        self._planner = planner
        self._backoff = CrashBackoff()
        self._refused_growth = RefusedGrowth()

    def handle(self, event: events.Event, now: float) -> list[events.Effect]:
        """``now``: seconds of any clock that never goes back."""
        self.state.effects = []
        self.state.newly_queued = []
        if self._apply(event, now):
            reconcile(self.state, self._planner, now)
            if self._reject_surplus():
                reconcile(self.state, self._planner, now)
            self._backoff.close_resolved(now)
        return self.state.effects

    def _apply(self, event: events.Event, now: float) -> bool:  # noqa: C901  # one case per event
        """Apply the event itself. False: a request was refused and the state has not changed. A
        flood of these must cost little.
        """
        match event:
            case events.RequestArrived():
                return self._on_arrived(event, now)
            case events.RequestCancelled(request_id):
                self._on_cancelled(request_id, now)
            case events.RequestEnded(request_id):
                self._on_ended(request_id, now)
            case events.WorkerReady():
                self._on_ready(event, now)
            case events.WorkerLoadFailed():
                self._on_load_failed(event, now)
            case events.WorkerLost():
                self._on_lost(event, now)
            case events.WorkerStopped(instance_id):
                self.state.remove(self.state.instances[instance_id])
            case events.UnloadRequested(key):
                self._on_unload_requested(key)
            case events.TimerFired():
                self.state.wake_at = None
            case events.ShutdownRequested(grace_s):
                self._on_shutdown_requested(grace_s, now)
            case _:
                assert_never(event)
        return True

    def _reject_surplus(self) -> bool:
        """Reject the last newly queued requests, or instead those of clients that have more, until
        the queue is within its limit. Returns whether any was rejected.

        They may have caused draining, which the next reconciliation undoes. They have caused no
        load: that gives places to the requests for which it is committed.
        """
        surplus = self.state.queued - self.state.limits.max_queue
        for _ in range(surplus):
            last = next(filter(self.state.is_queued, reversed(self.state.newly_queued)))
            rejected = self.state.shares.displaced_by(last)
            rejection = self.state.rejection(rejected, "full")
            self.state.end(rejected)
            self.state.effects.append(rejection)
        return surplus > 0

    def _on_arrived(self, event: events.RequestArrived, now: float) -> bool:
        job = event.job
        request = QueuedRequest(
            id=event.request_id,
            client=job.client,
            target=job.target,
            load_options=normalize(
                job.load_options, job.target, has_gpus=self.state.limits.gpus > 0
            ),
            keep_alive_s=job.keep_alive_s,
            loads_only=job.task is None,
        )
        loaded = self.state.current.get(request.target.key)
        suitable = loaded if loaded and loaded.satisfies(request.load_options) else None
        if refusal := self._refusal(request, suitable, now):
            self.state.effects.append(refusal)
            return False
        if request.loads_only and suitable and suitable.is_ready and suitable.is_accepting:
            self.state.requests[request.id] = request
            self.state.place(request, suitable, now)
        else:
            self.state.enqueue(request)
        return True

    def _refusal(
        self, request: QueuedRequest, suitable: ModelInstance | None, now: float
    ) -> events.Reject | events.Fail | None:
        """Why the request cannot be queued. ``suitable``: the instance that satisfies it."""
        if self.state.is_shutting_down:
            return self.state.rejection(request, "draining")
        if remaining_s := self._back_off_s(request, now):
            text = (
                "model runner has unexpectedly stopped several times in a row; "
                f"it will be tried again in {math.ceil(remaining_s)}s"
            )
            return events.Fail(request.id, WorkerDied.code, text)
        if self._is_queue_full_for(request, suitable):
            return self.state.rejection(request, "full")
        if suitable is None:
            target, options = request.target, request.load_options
            loaded = self.state.current.get(target.key)
            if loaded and (
                refused := self._refused_growth.find(target, options, loaded.num_ctx, now)
            ):
                return events.Fail(request.id, *refused)
            try:
                feasible_plans(self._planner, self.state.limits.capacity, target, options)
            except ServerError as error:
                return events.Fail(request.id, error.code, error.message)
        return None

    def _is_queue_full_for(self, request: QueuedRequest, suitable: ModelInstance | None) -> bool:
        """Refuse early while the queue is full: a flood must not cost planning."""
        if self.state.queued < self.state.limits.max_queue:
            return False
        if self.state.shares.can_displace(request.client):
            return False
        if suitable is not None:
            return not suitable.has_place_for(request) and not request.loads_only
        return request.target.key in self.state.queues

    def _on_cancelled(self, request_id: int, now: float) -> None:
        request = self.state.requests.get(request_id)
        if request is None or request.is_aborting:
            return
        if request.is_running:
            self.state.abort(request)
            return
        instance = self.state.placed.get(request_id)
        self.state.end(request)
        if instance is None:
            return
        instance.idle_since = now
        if instance.phase is Phase.COMMITTED:
            self.state.fill(instance, now)
            if not instance.requests:
                self.state.remove(instance)  # no request needs it, and it has not started

    def _on_ended(self, request_id: int, now: float) -> None:
        request = self.state.requests.get(request_id)
        instance = self.state.placed.get(request_id)
        if request is None or instance is None:
            return
        if not request.is_aborting:
            self._backoff.record_success(instance.target.key)
            if request.crash is not None:
                request.crash.clear(request.id)
        self.state.end(request)
        instance.idle_since = now
        if not request.is_aborting:
            self.state.record_service(instance.target.key, now - request.started_at)

    def _on_ready(self, event: events.WorkerReady, now: float) -> None:
        instance = self.state.instances[event.instance_id]
        if instance.phase is not Phase.LOADING:
            return  # it is being stopped
        instance.become_ready(event.slots, event.num_ctx, now)
        for request in list(instance.requests.values()):
            if request.loads_only:
                self.state.start(request, now)
        requests = list(instance.requests.values())
        for request in requests[: instance.slots]:
            if request.crash is None:
                self.state.start(request, now)
        self.state.requeue(requests[instance.slots :])

    def _on_load_failed(self, event: events.WorkerLoadFailed, now: float) -> None:
        """Fail the model's requests with the error of the load. If it was made for a large context,
        only those fail that need more than half of it.
        """
        instance = self.state.instances[event.instance_id]
        was_ending = instance.phase.is_ending
        self._release(instance, is_gone=event.is_gone)
        if was_ending:
            return
        key, num_ctx = instance.target.key, instance.load_options.num_ctx
        failed = [*instance.requests.values(), *self.state.queues.get(key, ())]
        if num_ctx:
            large = [each for each in failed if exceeds_context(each.load_options, num_ctx / 2)]
            if large:
                self._refused_growth.record(key, num_ctx, event.code, event.message, now)
                failed = large
        for request in failed:
            self.state.end(request)
            self.state.effects.append(events.Fail(request.id, event.code, event.message))
        self.state.requeue(list(instance.requests.values()))

    def _on_lost(self, event: events.WorkerLost, now: float) -> None:
        instance = self.state.instances[event.instance_id]
        if instance.phase is Phase.LOADING:
            failed = events.WorkerLoadFailed(
                instance.id, LoadFailed.code, event.message, event.is_gone
            )
            self._on_load_failed(failed, now)
            return
        was_ending = instance.phase.is_ending
        self._release(instance, is_gone=event.is_gone)
        if was_ending:
            return
        requests = list(instance.requests.values())
        running = [request for request in requests if request.is_running]
        promised = [request for request in requests if not request.is_running]
        retried = self._suspects(instance, running, event, now)
        for request in [*running, *promised, *self.state.queues.get(instance.target.key, ())]:
            if request not in retried and (request.is_running or self._is_given_up(request, now)):
                self.state.fail(request, WorkerDied(event.message))
        last_started_first = sorted(retried, key=lambda request: -request.started_at)
        left = [each for each in [*promised, *last_started_first] if each.id in instance.requests]
        self.state.requeue(left)

    def _release(self, instance: ModelInstance, *, is_gone: bool) -> None:
        """Give up a lost worker. If its process is not gone, committed loads that may depend on its
        memory are planned again.
        """
        if is_gone:
            self.state.remove(instance)
            return
        self.state.mark_lingering(instance)
        for other in list(self.state.current.values()):
            if other.phase is Phase.COMMITTED:
                self.state.requeue(list(other.requests.values()))
                self.state.remove(other)

    def _suspects(
        self,
        instance: ModelInstance,
        running: Sequence[QueuedRequest],
        event: events.WorkerLost,
        now: float,
    ) -> Sequence[QueuedRequest]:
        """Record who is to blame for the death; returns the requests to be tried alone."""
        key, tried = instance.target.key, instance.on_trial
        if not running:
            self._backoff.record_idle(key, now)
            return ()
        suspects = [
            request
            for request in running
            if request is not tried and self._can_retry(request, event, now)
        ]
        if tried is not None and tried.crash is not None:
            crash = tried.crash
            crash.clear(tried.id)
            crash.kills += 1
            crash.suspects.update(request.id for request in suspects)
            self._backoff.blame(key, tried.client, now, crash)
        elif event.has_aborted and len(running) == 1:
            self._backoff.blame(key, running[0].client, now)
            return ()
        else:
            others = {request.client for request in running if request not in suspects}
            crash = Crash(key, now, {request.id for request in suspects}, others)
            self._backoff.record(crash)
        for request in suspects:
            request.record_death(crash, now)
        return [request for request in suspects if not self._is_given_up(request, now)]

    def _can_retry(self, request: QueuedRequest, event: events.WorkerLost, now: float) -> bool:
        if request.is_aborting or self.state.is_shutting_down or request.deaths >= MAX_DEATHS:
            return False
        return request.id in event.restartable and not self._back_off_s(request, now)

    def _is_given_up(self, request: QueuedRequest, now: float) -> bool:
        """Whether a request that survived a death is refused. A suspect is tried even if its client
        is refused: another request of the client may be to blame.
        """
        if request.crash is None:
            return self._back_off_s(request, now) > 0
        key = request.target.key
        return request.crash.is_given_up or self._backoff.remaining_s(key, None, now) > 0

    def _back_off_s(self, request: QueuedRequest, now: float) -> float:
        return self._backoff.remaining_s(request.target.key, request.client, now)

    def _on_unload_requested(self, key: str) -> None:
        instance = self.state.current.get(key)
        if instance is not None and instance.stop_when_unused is None:
            instance.stop_when_unused = "requested"

    def _on_shutdown_requested(self, grace_s: float, now: float) -> None:
        self.state.is_shutting_down = True
        self.state.kill_at = min(self.state.kill_at, now + grace_s)
        for request in list(self.state.requests.values()):
            if not request.is_running:
                self.state.fail(request, ShuttingDown(events.SHUTDOWN_TEXT))
        for instance in list(self.state.current.values()):
            instance.stop_when_unused = "shutdown"
            if instance.phase is Phase.COMMITTED:
                self.state.remove(instance)

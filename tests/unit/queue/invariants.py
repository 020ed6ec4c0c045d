"""The scheduler's invariants, checked after every event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ollama_async.queue.scheduler import Scheduler
from ollama_async.queue.state import ModelInstance, Phase, SchedulerState


def validate(scheduler: Scheduler) -> None:
    """:raises AssertionError: an invariant is broken; the text names it."""
    _each_request_is_in_one_place(scheduler.state)
    _shares_are_right(scheduler.state)
    _suspects_run_alone(scheduler.state)
    _bounds_hold(scheduler.state)
    _memory_suffices(scheduler.state)
    _no_request_waits_beside_a_free_place(scheduler.state)
    _something_will_happen(scheduler)


def _each_request_is_in_one_place(state: SchedulerState) -> None:
    waiting = [request.id for queue in state.queues.values() for request in queue]
    placed = [id_ for instance in state.instances.values() for id_ in instance.requests]
    assert len(set(waiting)) == len(waiting), "a request waits twice"
    assert len(set(placed)) == len(placed), "a request has two places"
    assert set(placed) == state.placed.keys(), "the index of places is wrong"
    assert not set(placed) & set(waiting), "a request waits and has a place"
    assert {*waiting, *placed} == state.requests.keys(), "a request is lost"
    assert len(waiting) == state.queued, "waiting is miscounted"
    assert all(state.queues.values()), "an empty queue was kept"
    for queue in state.queues.values():
        assert len(queue) == len(list(queue)) == sum(queue.load_options.values()), (
            "a queue is miscounted"
        )
    for key, instance in state.current.items():
        assert instance.target.key == key, "an instance is filed under another model"
        assert state.instances[instance.id] is instance, "a current instance is unknown"
        assert not instance.phase.is_ending, "an ending instance is current"
    for instance in state.instances.values():
        is_current = state.current.get(instance.target.key) is instance
        assert is_current or instance.phase.is_ending, "a model is loaded twice"
        assert not (instance.phase.is_ending and instance.requests), (
            "an ending instance has requests"
        )


def _shares_are_right(state: SchedulerState) -> None:
    counts = Counter(request.client for request in state.requests.values())
    waiting = Counter(
        request.client for request in state.requests.values() if state.is_queued(request)
    )
    for client, total in counts.items():
        assert state.shares.of(client) == (waiting[client], total), "a share is miscounted"
    largest = max(((count, counts[who]) for who, count in waiting.items() if count), default=(0, 0))
    assert state.shares.largest() == largest, "the largest share is wrong"


def _suspects_run_alone(state: SchedulerState) -> None:
    for instance in state.instances.values():
        requests = instance.requests.values()
        running = [request for request in requests if request.is_running]
        assert instance.is_ready or not running, "something runs on a worker that is not ready"
        suspects = [request for request in requests if request.crash]
        assert suspects == list(instance.suspects.values()), "a suspect is forgotten"
        if suspects:
            assert all(request.deaths for request in requests), "a suspect runs beside others"
            tried = [request for request in running if request.crash]
            assert len(tried) == instance.is_ready, "not one suspect is tried at a time"
        elif instance.is_ready:
            assert len(running) == len(requests), "a place at a ready worker is not used"
    for request in state.requests.values():
        if request.crash is not None:
            assert request.id in request.crash.suspects, "a crash has forgotten a suspect"


def _bounds_hold(state: SchedulerState) -> None:
    assert state.queued <= state.limits.max_queue, "too many wait"
    for instance in state.instances.values():
        assert len(instance.requests) <= instance.slots, "more run than there are slots"
        assert instance.phase is not Phase.COMMITTED or instance.requests, (
            "a load that no request needs"
        )


def _memory_suffices(state: SchedulerState) -> None:
    instances = state.instances.values()
    living = [instance for instance in instances if instance.phase is not Phase.COMMITTED]
    lasting = [instance for instance in instances if instance.phase is not Phase.STOPPING]
    for group, name in ((living, "used"), (lasting, "committed")):
        assert len(group) <= state.limits.models, f"too many models are {name}"
        for device, size_bytes in _sum(group).items():
            assert size_bytes <= state.limits.capacity[device], f"too much memory is {name}"


def _sum(instances: Iterable[ModelInstance]) -> Counter[str]:
    total: Counter[str] = Counter()
    for instance in instances:
        total.update(instance.plan.demand)
    return total


def _no_request_waits_beside_a_free_place(state: SchedulerState) -> None:
    for key, queue in state.queues.items():
        instance = state.current.get(key)
        if instance is not None:
            able = queue.first(
                lambda request, instance=instance: instance.satisfies(request.load_options)
            )  # type: ignore[misc]
            assert able is None or not instance.has_place_for(able), (
                "a request waits beside a free place"
            )


def _something_will_happen(scheduler: Scheduler) -> None:
    """Requests wait only for an event that must come: an end, a load, a stop or a timer."""
    moves = any(
        instance.requests or instance.phase is Phase.LOADING or instance.phase.is_ending
        for instance in scheduler.state.instances.values()
    )
    assert not scheduler.state.queued or moves or scheduler.state.wake_at is not None, (
        "all requests wait forever"
    )
    for instance in scheduler.state.instances.values():
        if instance.phase is Phase.COMMITTED:
            assert any(other is not instance for other in scheduler.state.instances.values()), (
                "no load begins"
            )
    if scheduler.state.is_shutting_down:
        assert not scheduler.state.queued, "a request waits although the server shuts down"

"""What holds after every event, whatever came before. For tests: too slow for each request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ollama_async.queue.scheduler import Scheduler
from ollama_async.queue.stay import Phase, Stay


def validate(scheduler: Scheduler) -> None:
    """:raises AssertionError: an invariant is broken; the text says which."""
    _everyone_is_in_one_place(scheduler)
    _bounds_hold(scheduler)
    _memory_is_enough(scheduler)
    _nobody_waits_beside_a_free_place(scheduler)
    _something_will_happen(scheduler)


def _everyone_is_in_one_place(scheduler: Scheduler) -> None:
    waiting = [ticket.id for line in scheduler.lines.values() for ticket in line]
    placed = [id_ for stay in scheduler.stays.values() for id_ in stay.tickets]
    assert len(set(waiting)) == len(waiting), "a ticket waits twice"
    assert len(set(placed)) == len(placed), "a ticket has two places"
    assert set(placed) == scheduler.placed.keys(), "the index of places is wrong"
    assert not set(placed) & set(waiting), "a ticket waits and has a place"
    assert {*waiting, *placed} == scheduler.tickets.keys(), "a ticket is lost"
    assert len(waiting) == scheduler.waiting, "waiting is miscounted"
    assert all(scheduler.lines.values()), "an empty line was kept"
    for line in scheduler.lines.values():
        assert len(line) == len(list(line)) == sum(line.wishes.values()), "a line is miscounted"
    for key, stay in scheduler.current.items():
        assert stay.target.key == key, "a stay is filed under another model"
        assert scheduler.stays[stay.worker] is stay, "a current stay is unknown"
        assert stay.phase is not Phase.STOPPING, "a stopping stay is current"
    for stay in scheduler.stays.values():
        is_current = scheduler.current.get(stay.target.key) is stay
        assert is_current or stay.phase is Phase.STOPPING, "a model is loaded twice"
        assert stay.phase is not Phase.STOPPING or not stay.tickets, "a dying worker has tickets"


def _bounds_hold(scheduler: Scheduler) -> None:
    assert scheduler.waiting <= scheduler.limits.max_queue, "too many wait"
    for stay in scheduler.stays.values():
        assert len(stay.tickets) <= stay.slots, "more run than there are slots"
        assert stay.phase is not Phase.COMMITTED or stay.tickets, "a load that nobody wants"


def _memory_is_enough(scheduler: Scheduler) -> None:
    stays = scheduler.stays.values()
    living = [stay for stay in stays if stay.phase is not Phase.COMMITTED]
    lasting = [stay for stay in stays if stay.phase is not Phase.STOPPING]
    for group, name in ((living, "held"), (lasting, "committed")):
        assert len(group) <= scheduler.limits.models, f"too many models are {name}"
        for device, size_bytes in _sum(group).items():
            assert size_bytes <= scheduler.limits.capacity[device], f"too much memory is {name}"


def _sum(stays: Iterable[Stay]) -> Counter[str]:
    total: Counter[str] = Counter()
    for stay in stays:
        total.update(stay.plan.demand)
    return total


def _nobody_waits_beside_a_free_place(scheduler: Scheduler) -> None:
    for key, line in scheduler.lines.items():
        stay = scheduler.current.get(key)
        if stay is not None and stay.accepts and stay.has_place:
            able = line.first(lambda ticket, stay=stay: stay.suits(ticket.needs))  # type: ignore[misc]
            assert able is None, "a ticket waits beside a free place"


def _something_will_happen(scheduler: Scheduler) -> None:
    """Whoever waits, waits for an event that must come: an end, a load, a stop or a moment."""
    moves = any(
        stay.tickets or stay.phase in {Phase.LOADING, Phase.STOPPING}
        for stay in scheduler.stays.values()
    )
    assert not scheduler.waiting or moves or scheduler.wake_at is not None, "all wait for ever"
    for stay in scheduler.stays.values():
        if stay.phase is Phase.COMMITTED:
            assert any(other is not stay for other in scheduler.stays.values()), "no load begins"
    if scheduler.is_closing:
        assert not scheduler.waiting, "someone waits for a server that is going away"

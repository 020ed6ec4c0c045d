"""What holds after every event, whatever came before. For tests: too slow for each request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ollama_async.queue.scheduler import Scheduler
from ollama_async.queue.state import Books
from ollama_async.queue.stay import Phase, Stay


def validate(scheduler: Scheduler) -> None:
    """:raises AssertionError: an invariant is broken; the text says which."""
    _everyone_is_in_one_place(scheduler.books)
    _holdings_are_right(scheduler.books)
    _suspects_run_alone(scheduler.books)
    _bounds_hold(scheduler.books)
    _memory_is_enough(scheduler.books)
    _nobody_waits_beside_a_free_place(scheduler.books)
    _something_will_happen(scheduler)


def _everyone_is_in_one_place(books: Books) -> None:
    waiting = [ticket.id for line in books.lines.values() for ticket in line]
    placed = [id_ for stay in books.stays.values() for id_ in stay.tickets]
    assert len(set(waiting)) == len(waiting), "a ticket waits twice"
    assert len(set(placed)) == len(placed), "a ticket has two places"
    assert set(placed) == books.placed.keys(), "the index of places is wrong"
    assert not set(placed) & set(waiting), "a ticket waits and has a place"
    assert {*waiting, *placed} == books.tickets.keys(), "a ticket is lost"
    assert len(waiting) == books.waiting, "waiting is miscounted"
    assert all(books.lines.values()), "an empty line was kept"
    for line in books.lines.values():
        assert len(line) == len(list(line)) == sum(line.wishes.values()), "a line is miscounted"
    for key, stay in books.current.items():
        assert stay.target.key == key, "a stay is filed under another model"
        assert books.stays[stay.worker] is stay, "a current stay is unknown"
        assert not stay.phase.is_over, "a stay that is over is current"
    for stay in books.stays.values():
        is_current = books.current.get(stay.target.key) is stay
        assert is_current or stay.phase.is_over, "a model is loaded twice"
        assert not (stay.phase.is_over and stay.tickets), "a dying worker has tickets"


def _holdings_are_right(books: Books) -> None:
    counts = Counter(ticket.request.client for ticket in books.tickets.values())
    waiting = Counter(
        ticket.request.client for ticket in books.tickets.values() if books.is_waiting(ticket)
    )
    for client, total in counts.items():
        assert books.holdings.of(client) == (waiting[client], total), "a holding is miscounted"
    largest = max(((count, counts[who]) for who, count in waiting.items() if count), default=(0, 0))
    assert books.holdings.largest() == largest, "who holds most is not known"


def _suspects_run_alone(books: Books) -> None:
    for stay in books.stays.values():
        tickets = stay.tickets.values()
        running = [ticket for ticket in tickets if ticket.is_running]
        assert stay.is_ready or not running, "something runs on a worker that is not ready"
        suspects = [ticket for ticket in tickets if ticket.crash]
        assert suspects == list(stay.suspects.values()), "a suspect is forgotten"
        if suspects:
            assert all(ticket.deaths for ticket in tickets), "a suspect has company"
            tried = [ticket for ticket in running if ticket.crash]
            assert len(tried) == stay.is_ready, "not one suspect is tried at a time"
        elif stay.is_ready:
            assert len(running) == len(tickets), "a place at a ready worker is not used"
    for ticket in books.tickets.values():
        if ticket.crash is not None:
            assert ticket.id in ticket.crash.suspects, "a crash has forgotten a suspect"


def _bounds_hold(books: Books) -> None:
    assert books.waiting <= books.limits.max_queue, "too many wait"
    for stay in books.stays.values():
        assert len(stay.tickets) <= stay.slots, "more run than there are slots"
        assert stay.phase is not Phase.COMMITTED or stay.tickets, "a load that nobody wants"


def _memory_is_enough(books: Books) -> None:
    stays = books.stays.values()
    living = [stay for stay in stays if stay.phase is not Phase.COMMITTED]
    lasting = [stay for stay in stays if stay.phase is not Phase.STOPPING]
    for group, name in ((living, "held"), (lasting, "committed")):
        assert len(group) <= books.limits.models, f"too many models are {name}"
        for device, size_bytes in _sum(group).items():
            assert size_bytes <= books.limits.capacity[device], f"too much memory is {name}"


def _sum(stays: Iterable[Stay]) -> Counter[str]:
    total: Counter[str] = Counter()
    for stay in stays:
        total.update(stay.plan.demand)
    return total


def _nobody_waits_beside_a_free_place(books: Books) -> None:
    for key, line in books.lines.items():
        stay = books.current.get(key)
        if stay is not None:
            able = line.first(lambda ticket, stay=stay: stay.suits(ticket.load_options))  # type: ignore[misc]
            assert able is None or not stay.admits(able), "a ticket waits beside a free place"


def _something_will_happen(scheduler: Scheduler) -> None:
    """Whoever waits, waits for an event that must come: an end, a load, a stop or a moment."""
    moves = any(
        stay.tickets or stay.phase is Phase.LOADING or stay.phase.is_over
        for stay in scheduler.books.stays.values()
    )
    assert not scheduler.books.waiting or moves or scheduler.wake_at is not None, (
        "all wait for ever"
    )
    for stay in scheduler.books.stays.values():
        if stay.phase is Phase.COMMITTED:
            assert any(other is not stay for other in scheduler.books.stays.values()), (
                "no load begins"
            )
    if scheduler.is_closing:
        assert not scheduler.books.waiting, "someone waits for a server that is going away"

"""A process that even SIGKILL does not end is nobody's worker any more, and keeps its memory."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("end", ["lose", "lose early", "refuse"])
def test_its_requests_end_at_once_and_its_memory_is_taken_until_it_is_gone(make_desk, end):
    desk = make_desk(memory=20)
    ticket = desk.ask("a")
    if end == "lose":
        desk.ready("a")
    if end == "refuse":
        desk.refuse("a", is_gone=False)
    else:
        desk.lose("a", is_gone=False)
    assert desk.fate[ticket].startswith("failed")
    other = desk.ask("b")
    assert desk.loads() == 1
    desk.gone("a")
    assert desk.loads() == 2
    desk.ready("b")
    assert desk.fate[other] == "running"


def test_what_may_be_repeated_waits_for_the_memory(make_desk):
    desk = make_desk(memory=20)
    ticket = desk.ask("a")
    desk.ready("a")
    desk.lose("a", {ticket}, is_gone=False)
    assert desk.loads() == 1
    desk.gone("a")
    desk.ready("a")
    assert desk.fate[ticket] == "running"


def test_a_worker_that_was_stopping_anyway_is_no_exception(make_desk):
    desk = make_desk()
    desk.up("a")
    desk.unload("a")
    desk.outlast("a")
    desk.gone("a")
    assert desk.workers == {}


def test_who_waits_for_its_memory_keeps_none_from_a_model_that_fits_beside_it(make_desk):
    desk = make_desk(memory=40, sizes={"a": 20, "b": 30, "c": 15})
    desk.up("a")
    desk.lose("a", is_gone=False)
    desk.ask("b")
    small = desk.ask("c")
    desk.ready("c")
    assert desk.fate[small] == "running"


def test_a_load_goes_to_another_device(make_desk):
    desk = make_desk(devices={"gpu0": 20, "gpu1": 20})
    desk.up("a")
    desk.lose("a", is_gone=False)
    desk.ask("b")
    assert desk.load[desk.worker("b")].plan.demand.keys() == {"gpu1"}


def test_a_load_that_was_to_have_its_memory_goes_to_another_device(make_desk):
    desk = make_desk(devices={"gpu0": 20, "gpu1": 20}, max_loaded=4)
    desk.up("a")
    desk.up("b")
    ticket = desk.ask("c")
    desk.outlast("a")
    desk.stopped("b")
    desk.ready("c")
    assert desk.fate[ticket] == "running"


def test_who_had_a_promise_of_its_memory_waits_again_within_the_queues_bound(make_desk):
    desk = make_desk(memory=20, slots=3, max_queue=2)
    desk.up("a")
    desk.ask("b", client="ann")
    desk.ask("b", client="ann")
    desk.ask("b", client="bob")
    desk.outlast("a")
    assert desk.count("waiting") == 2
    assert desk.count("rejected:full") == 1
    assert not desk.scheduler.books.placed

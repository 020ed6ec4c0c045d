"""A process that SIGKILL does not end serves no more requests, and its memory stays taken."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("end", ["lose", "lose early", "refuse"])
def test_requests_of_a_lingering_worker_end_and_its_memory_stays_taken(make_harness, end):
    harness = make_harness(memory=20)
    request = harness.submit("a")
    if end == "lose":
        harness.make_ready("a")
    if end == "refuse":
        harness.fail_load("a", is_gone=False)
    else:
        harness.lose("a", is_gone=False)
    assert harness.status[request].startswith("failed")
    other = harness.submit("b")
    assert harness.load_count() == 1
    harness.exit_lingering("a")
    assert harness.load_count() == 2
    harness.make_ready("b")
    assert harness.status[other] == "running"


def test_restartable_requests_wait_for_the_memory(make_harness):
    harness = make_harness(memory=20)
    request = harness.submit("a")
    harness.make_ready("a")
    harness.lose("a", {request}, is_gone=False)
    assert harness.load_count() == 1
    harness.exit_lingering("a")
    harness.make_ready("a")
    assert harness.status[request] == "running"


def test_a_stopping_worker_may_linger(make_harness):
    harness = make_harness()
    harness.load("a")
    harness.unload("a")
    harness.linger("a")
    harness.exit_lingering("a")
    assert harness.workers == {}


def test_a_load_that_waits_for_its_memory_does_not_block_one_that_fits_beside_it(make_harness):
    harness = make_harness(memory=40, sizes={"a": 20, "b": 30, "c": 15})
    harness.load("a")
    harness.lose("a", is_gone=False)
    harness.submit("b")
    small = harness.submit("c")
    harness.make_ready("c")
    assert harness.status[small] == "running"


def test_a_load_takes_another_device_than_the_lingering_one(make_harness):
    harness = make_harness(devices={"gpu0": 20, "gpu1": 20})
    harness.load("a")
    harness.lose("a", is_gone=False)
    harness.submit("b")
    assert harness.loads[harness.instance_id("b")].plan.demand.keys() == {"gpu1"}


def test_a_committed_load_moves_to_another_device(make_harness):
    harness = make_harness(devices={"gpu0": 20, "gpu1": 20}, max_loaded=4)
    harness.load("a")
    harness.load("b")
    request = harness.submit("c")
    harness.linger("a")
    harness.finish_stop("b")
    harness.make_ready("c")
    assert harness.status[request] == "running"


def test_requests_of_a_withdrawn_load_are_queued_within_the_limit(make_harness):
    harness = make_harness(memory=20, slots=3, max_queue=2)
    harness.load("a")
    harness.submit("b", client="ann")
    harness.submit("b", client="ann")
    harness.submit("b", client="bob")
    harness.linger("a")
    assert harness.count("waiting") == 2
    assert harness.count("rejected:full") == 1
    assert not harness.scheduler.state.placed

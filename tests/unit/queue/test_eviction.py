"""Which loaded model is evicted for which load, and when."""

from __future__ import annotations

import math


def test_the_idle_model_that_was_unused_longest_is_evicted(make_harness):
    harness = make_harness(max_loaded=2)
    harness.load("a")
    harness.now += 1
    harness.load("b")
    harness.now += 1
    harness.end(harness.submit("a"))
    harness.submit("c")
    assert (harness.worker_states("a"), harness.worker_states("b")) == (["ready"], ["stopping"])


def test_of_idle_models_one_kept_forever_is_evicted_last(make_harness):
    harness = make_harness(max_loaded=2)
    harness.load("a", keep_alive_s=math.inf)
    harness.now += 1
    harness.load("b")
    harness.submit("c")
    assert (harness.worker_states("a"), harness.worker_states("b")) == (["ready"], ["stopping"])


def test_no_more_are_evicted_than_the_load_needs(make_harness):
    harness = make_harness(memory=62, sizes={"a": 9, "b": 29, "c": 19, "d": 24}, max_loaded=9)
    for key in ("a", "b", "c"):
        harness.load(key)
        harness.now += 1
    harness.submit("d")
    assert [harness.worker_states(key) for key in "abc"] == [["ready"], ["stopping"], ["ready"]]


def test_a_load_without_requests_is_evicted_at_once(make_harness):
    harness = make_harness(max_loaded=1)
    harness.cancel(harness.submit("a"))
    assert harness.worker_states("a") == ["loading"], "others may come for it"
    harness.submit("b")
    assert harness.worker_states("a") == ["stopping"]
    harness.finish_stop("a")
    assert harness.worker_states("b") == ["loading"]


def test_a_load_with_requests_is_not_evicted(make_harness):
    harness = make_harness(max_loaded=1)
    first, second = harness.submit("a"), harness.submit("a")
    harness.cancel(first)
    harness.submit("b")
    harness.advance(1000.0)
    assert harness.worker_states("a") == ["loading"]
    harness.make_ready("a")
    assert harness.status[second] == "running"


def test_an_idle_model_is_evicted_from_the_gpu_before_another_runs_on_the_cpu(make_harness):
    harness = make_harness(devices={"gpu0": 20, "cpu": 1000}, max_loaded=9)
    harness.load("a")
    harness.submit("b")
    assert harness.worker_states("a") == ["stopping"]
    harness.finish_stop("a")
    assert harness.loads[harness.instance_id("b")].plan.demand.keys() == {"gpu0"}


def test_a_busy_victim_drains_and_its_queued_requests_remain(make_harness):
    harness = make_harness(max_loaded=1)
    harness.load("a")
    running, waiting = harness.submit("a"), harness.submit("a")
    harness.now += 100
    other = harness.submit("b")
    harness.end(running)
    assert harness.status[waiting] == "waiting"
    harness.finish_stop("a")
    harness.make_ready("b")
    assert harness.status[other] == "running"
    harness.end(other)
    assert harness.worker_states("b") == ["stopping"], "idle, and the other model is waited for"
    harness.finish_stop("b")
    harness.make_ready("a")
    assert harness.status[waiting] == "running"


def test_a_victim_that_gets_new_requests_does_not_block_the_load(make_harness):
    """ollama/ollama#17408: a victim that got new requests was never idle, and the load waited
    forever.
    """
    harness = make_harness(slots=2, max_queue=100, max_loaded=1)
    harness.load("a")
    running = [harness.submit("a"), harness.submit("a")]
    harness.now += 100
    other = harness.submit("b")
    for request in running:
        revivals = [harness.submit("a") for _ in range(3)]
        harness.end(request)
    assert {harness.status[t] for t in revivals} == {"waiting"}
    harness.finish_stop("a")
    harness.make_ready("b")
    assert harness.status[other] == "running"


def test_a_cancelled_request_ends_the_draining(make_harness):
    harness = make_harness(max_loaded=1)
    harness.load("a")
    running, waiting = harness.submit("a"), harness.submit("a")
    harness.now += 100
    other = harness.submit("b")
    harness.cancel(other)
    harness.end(running)
    assert harness.status[waiting] == "running"
    assert harness.load_count() == 1


def test_busy_models_take_turns_without_thrashing(make_harness):
    """Both always have someone waiting; each load takes 2 s, each answer 1 s."""
    harness = make_harness(max_loaded=1, max_queue=1000)
    served = {"a": 0, "b": 0}
    owner = {}
    for _ in range(200):
        for key in "ab":
            while sum(owner[t] == key for t, f in harness.status.items() if f == "waiting") < 2:
                owner[harness.submit(key)] = key
        for worker, state in list(harness.workers.items()):
            key = harness.loads[worker].target.key
            if state == "loading":
                harness.advance(2.0)
                harness.make_ready(key)
            elif state == "stopping":
                harness.finish_stop(key)
        harness.advance(1.0)
        for request in [t for t, status in harness.status.items() if status == "running"]:
            served[owner[request]] += 1
            harness.end(request)
    assert min(served.values()) >= 50
    assert harness.load_count() <= 40


def test_a_small_load_goes_ahead_of_an_older_one_that_waits_for_memory(make_harness):
    harness = make_harness(memory=50, sizes={"a": 29, "b": 34, "c": 9}, max_loaded=9)
    harness.load("a")
    running = harness.submit("a")
    harness.now += 100
    harness.submit("b")
    harness.submit("c")
    assert harness.worker_states("c") == ["loading"], "it fits now, and beside the older one later"
    harness.end(running)
    harness.finish_stop("a")
    assert harness.worker_states("b") == ["loading"]


def test_a_small_load_does_not_delay_an_older_one(make_harness):
    harness = make_harness(memory=50, sizes={"a": 29, "b": 44, "c": 9}, max_loaded=9, max_queue=9)
    harness.load("a")
    running = harness.submit("a")
    harness.now += 100
    old, young = harness.submit("b"), harness.submit("c")
    assert (harness.worker_states("c"), harness.status[young]) == ([], "waiting")
    harness.end(running)
    harness.finish_stop("a")
    harness.make_ready("b")
    assert harness.status[old] == "running"

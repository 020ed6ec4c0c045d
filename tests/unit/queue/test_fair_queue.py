"""Which requests are queued, which are rejected, and in which order the others run."""

from __future__ import annotations

import pytest

from ollama_async.queue import scheduler


def test_one_slot_and_a_queue_of_one_serve_two_of_six_and_reject_four(make_harness):
    harness = make_harness(slots=1, max_queue=1)
    harness.load("a")
    requests = [harness.submit("a", client=f"client {n}") for n in range(6)]
    assert [harness.status[t] for t in requests] == ["running", "waiting"] + ["rejected:full"] * 4
    harness.end(requests[0])
    harness.end(requests[1])
    assert [harness.status[t] for t in requests] == ["ended", "ended"] + ["rejected:full"] * 4


def test_a_request_with_a_promised_slot_is_not_queued(make_harness):
    harness = make_harness(slots=2, max_queue=1)
    requests = [harness.submit("a") for _ in range(4)]
    assert harness.scheduler.state.queued == 1
    assert harness.status[requests[3]] == "rejected:full"
    harness.make_ready("a")
    assert [harness.status[t] for t in requests[:3]] == ["running", "running", "waiting"]


def test_without_a_queue_the_request_that_causes_a_load_is_served(make_harness):
    harness = make_harness(slots=1, max_queue=0)
    first, second = harness.submit("a"), harness.submit("a")
    assert harness.status[second] == "rejected:full"
    harness.make_ready("a")
    assert harness.status[first] == "running"
    assert harness.status[harness.submit("a")] == "rejected:full"


def test_without_a_queue_an_idle_model_is_replaced(make_harness):
    harness = make_harness(max_queue=0, max_loaded=1)
    harness.load("a")
    request = harness.submit("b")
    harness.finish_stop("a")
    harness.make_ready("b")
    assert harness.status[request] == "running"


def test_without_a_queue_a_busy_model_is_not_replaced(make_harness):
    harness = make_harness(max_queue=0, max_loaded=1)
    harness.load("a")
    harness.submit("a")
    harness.now += 100
    assert harness.status[harness.submit("b")] == "rejected:full"
    assert not harness.scheduler.state.current["a"].is_draining


def test_the_queue_limit_counts_all_models(make_harness):
    harness = make_harness(slots=1, max_queue=2)
    for key in ("a", "b"):
        harness.load(key)
        harness.submit(key)
        harness.submit(key)
    assert harness.status[harness.submit("a")] == "rejected:full"
    assert harness.status[harness.submit("c")] == "waiting", "it triggers a load: it has a promise"
    assert harness.worker_states("c") == ["loading"]


@pytest.mark.slow
def test_a_client_with_many_requests_does_not_delay_the_first_of_another(make_harness):
    harness = make_harness(slots=1, max_queue=1000)
    harness.load("a")
    running = harness.submit("a", client="greedy")
    for _ in range(999):
        harness.submit("a", client="greedy")
    modest = harness.submit("a", client="modest")
    harness.end(running)
    following = next(t for t, status in harness.status.items() if status == "running")
    if following != modest:
        harness.end(following)
    assert harness.status[modest] == "running"


def test_in_a_full_queue_the_largest_client_loses_its_newest_request(make_harness):
    harness = make_harness(slots=1, max_queue=4)
    harness.load("a")
    greedy = [harness.submit("a", client="greedy") for _ in range(7)]
    assert [harness.status[t] for t in greedy[5:]] == ["rejected:full"] * 2
    modest = [harness.submit("a", client="modest") for _ in range(3)]
    assert [harness.status[t] for t in greedy[:5]] == [
        "running",
        "waiting",
        "waiting",
        "rejected:full",
        "rejected:full",
    ]
    assert [harness.status[t] for t in modest] == ["waiting", "waiting", "rejected:full"]
    assert harness.retry_after[greedy[4]] >= 1
    assert harness.status[harness.submit("a", client="greedy")] == "rejected:full"


def test_a_client_without_requests_displaces_one_that_also_runs(make_harness):
    harness = make_harness(slots=1, max_queue=1)
    harness.load("a")
    running, waiting = harness.submit("a", client="greedy"), harness.submit("a", client="greedy")
    modest = harness.submit("a", client="modest")
    assert (harness.status[waiting], harness.status[modest]) == ("rejected:full", "waiting")
    assert harness.status[harness.submit("a", client="greedy")] == "rejected:full"
    assert harness.status[harness.submit("a", client="third")] == "rejected:full", (
        "it would have no fewer"
    )
    harness.end(running)
    assert harness.status[modest] == "running"


def test_displacement_counts_requests_for_all_models(make_harness):
    harness = make_harness(slots=1, max_queue=3)
    harness.load("a")
    harness.load("b")
    for key in ("a", "b"):
        harness.submit(key, client="other")
    mine = [harness.submit(key, client="greedy") for key in ("a", "b", "b")]
    newcomer = harness.submit("a", client="modest")
    assert [harness.status[t] for t in mine] == ["waiting", "waiting", "rejected:full"]
    assert harness.status[newcomer] == "waiting"


def test_a_flood_of_the_largest_client_costs_no_planning(make_harness, monkeypatch):
    harness = make_harness(slots=1, max_queue=2)
    harness.load("a")
    for _ in range(3):
        harness.submit("a", client="greedy")
    harness.planner = None
    monkeypatch.setattr(scheduler, "reconcile", None)
    for _ in range(10):
        assert harness.status[harness.submit("a", client="greedy", num_ctx=8192)] == "rejected:full"


def test_two_clients_do_not_displace_each_other_in_turn(make_harness):
    harness = make_harness(slots=1, max_queue=5)
    harness.load("a")
    requests = [harness.submit("a", client="ab"[number % 2]) for number in range(50)]
    assert [harness.status[t] for t in requests[:6]] == ["running"] + ["waiting"] * 5
    assert harness.count("rejected:full") == 44


def test_clients_take_turns_and_each_is_served_in_order(make_harness):
    harness = make_harness(slots=1)
    harness.load("a")
    current = harness.submit("a", client="x")
    asked = [harness.submit("a", client=client) for client in "aaabbc"]
    order = []
    for _ in asked:
        harness.end(current)
        current = next(t for t in asked if harness.status[t] == "running")
        order.append(asked.index(current))
    assert order == [0, 3, 5, 1, 4, 2]


def test_a_cancelled_queued_request_frees_its_place_at_once(make_harness):
    harness = make_harness(slots=1, max_queue=1)
    harness.load("a")
    harness.submit("a")
    waiting = harness.submit("a")
    harness.cancel(waiting)
    assert harness.scheduler.state.queued == 0
    assert harness.status[harness.submit("a")] == "waiting"


def test_a_cancelled_request_keeps_its_slot_until_the_worker_confirms(make_harness):
    harness = make_harness(slots=1)
    harness.load("a")
    first, second = harness.submit("a"), harness.submit("a")
    harness.cancel(first)
    harness.cancel(first)
    assert (harness.status[first], harness.status[second]) == ("aborting", "waiting")
    harness.end(first)
    assert harness.status[second] == "running"


def test_retry_after_grows_with_the_queue_and_the_time_that_answers_take(make_harness):
    harness = make_harness(slots=1, max_queue=5)
    harness.load("a")
    running = harness.submit("a")
    harness.now += 10
    harness.end(running)
    for _ in range(6):
        harness.submit("a")
    rejected = harness.submit("a")
    assert harness.retry_after[rejected] > 5


def test_a_model_that_can_never_fit_fails_at_once_and_evicts_nothing(make_harness):
    harness = make_harness(memory=20, sizes={"huge": 100}, max_queue=5)
    harness.load("a")
    request = harness.submit("huge")
    assert harness.status[request] == "failed:load_failed"
    assert harness.error[request][1].startswith("model requires more system memory (")
    assert harness.worker_states("a") == ["ready"]


def test_the_client_gets_the_planners_error(make_harness):
    harness = make_harness()
    assert harness.error[harness.submit("broken")] == ("load_failed", "no such engine")


def test_a_request_that_only_loads_ends_when_the_model_is_ready(make_harness):
    harness = make_harness(slots=1)
    loads = [harness.submit("a", loads_only=True) for _ in range(3)]
    request = harness.submit("a")
    harness.make_ready("a")
    assert {harness.status[t] for t in loads} == {"completed"}
    assert harness.status[request] == "running"
    assert harness.status[harness.submit("a", loads_only=True)] == "completed", (
        "even while the slot is taken"
    )


def test_a_worker_with_fewer_slots_than_promised_sends_the_surplus_to_the_front(make_harness):
    harness = make_harness(slots=3, max_queue=1)
    requests = [harness.submit("a", client=client) for client in "abc"]
    harness.make_ready("a", slots=1)
    assert [harness.status[t] for t in requests] == ["running", "waiting", "rejected:full"]


@pytest.mark.parametrize("restarts", [True, False])
def test_a_shutdown_rejects_new_requests_and_fails_queued_ones(make_harness, restarts):
    harness = make_harness(slots=1)
    harness.load("a")
    running, waiting, promised = harness.submit("a"), harness.submit("a"), harness.submit("b")
    harness.shut_down(10.0)
    assert harness.status[waiting] == harness.status[promised] == "failed:shutting_down"
    assert harness.status[harness.submit("a")] == "rejected:draining"
    assert harness.status[running] == "running"
    if restarts:
        harness.lose("a", {running})
        assert harness.status[running] == "failed:worker_died"
    else:
        harness.end(running)
        harness.finish_stop("a")
    harness.finish_stop("b")
    assert not harness.scheduler.state.instances


def test_requests_that_run_after_the_grace_fail(make_harness):
    harness = make_harness(slots=1)
    harness.load("a")
    running = harness.submit("a")
    harness.shut_down(10.0)
    harness.advance(9.9)
    assert harness.status[running] == "running"
    harness.advance(0.2)
    assert harness.status[running] == "failed:shutting_down"
    assert harness.worker_states("a") == ["stopping"]

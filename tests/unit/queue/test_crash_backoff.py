"""A worker's death: which requests fail, which are retried, and when the model backs off."""

from __future__ import annotations


def test_requests_that_received_nothing_are_served_again_and_the_rest_fail(make_harness):
    harness = make_harness(slots=2)
    harness.load("a")
    streamed, unanswered, waiting = (harness.submit("a") for _ in range(3))
    harness.lose("a", {unanswered})
    assert harness.status[streamed] == "failed:worker_died"
    harness.make_ready("a")
    assert (harness.status[unanswered], harness.status[waiting]) == ("running", "waiting"), (
        "it may kill again"
    )
    harness.end(unanswered)
    assert harness.status[waiting] == "running"


def test_restarted_requests_go_first(make_harness):
    harness = make_harness(slots=1)
    harness.load("a")
    unanswered, waiting = harness.submit("a"), harness.submit("a", client="bob")
    harness.lose("a", {unanswered})
    harness.make_ready("a")
    assert (harness.status[unanswered], harness.status[waiting]) == ("running", "waiting")


def test_nothing_is_restarted_twice(make_harness):
    harness = make_harness()
    harness.load("a")
    request = harness.submit("a")
    harness.lose("a", {request})
    harness.make_ready("a")
    harness.lose("a", {request})
    assert harness.status[request] == "failed:worker_died"


def test_a_restarted_request_has_a_place_and_is_not_queued(make_harness):
    harness = make_harness(slots=1, max_queue=0)
    harness.load("a")
    request = harness.submit("a")
    harness.lose("a", {request})
    assert harness.scheduler.state.queued == 0
    harness.make_ready("a")
    assert harness.status[request] == "running"


def test_a_cancelled_request_ends_with_its_worker(make_harness):
    harness = make_harness()
    harness.load("a")
    request = harness.submit("a")
    harness.cancel(request)
    harness.lose("a", {request})
    assert request not in harness.scheduler.state.requests
    assert harness.load_count() == 1


def test_a_crash_without_requests_loads_nothing(make_harness):
    harness = make_harness()
    harness.load("a")
    harness.lose("a")
    assert not harness.scheduler.state.instances


def test_only_the_dead_workers_requests_end(make_harness):
    harness = make_harness()
    harness.load("a")
    harness.load("b")
    mine, other = harness.submit("a"), harness.submit("b")
    harness.lose("a")
    assert (harness.status[mine], harness.status[other]) == ("failed:worker_died", "running")


def test_three_crashes_within_a_minute_cause_a_back_off(make_harness):
    harness = make_harness(slots=1)
    for _ in range(3):
        harness.load("a")
        running, waiting = harness.submit("a"), harness.submit("a")
        harness.lose("a", {running})
        if harness.workers:
            harness.make_ready("a")
            for request in (running, waiting):
                harness.end(request)
            harness.unload("a")
            harness.finish_stop("a")
    assert harness.status[running] == harness.status[waiting] == "failed:worker_died"
    refused = harness.submit("a")
    assert harness.status[refused] == "failed:worker_died"
    assert "tried again in 30s" in harness.error[refused][1]
    assert harness.status[harness.submit("b")] == "waiting", "other models are not concerned"
    harness.now += 31
    harness.submit("a")
    assert harness.worker_states("a") == ["loading"]


def test_three_crashes_in_an_hour_cause_no_back_off(make_harness):
    harness = make_harness()
    for _ in range(3):
        harness.load("a")
        harness.lose("a")
        harness.now += 1200
    assert harness.status[harness.submit("a")] == "waiting"


def load(harness, model="a"):
    if not harness.worker_states(model):
        harness.load(model, client="operator")


def batch(harness, clients, poisons=(), *, model="a"):
    """All run on one worker, which dies without a byte sent; what becomes of them, one by one."""
    load(harness, model)
    requests = [harness.submit(model, client=client) for client in clients]
    assert {harness.status[request] for request in requests} == {"running"}
    harness.lose(model, set(requests))
    while any(harness.status[request] in {"waiting", "running"} for request in requests):
        if harness.worker_states(model) == ["loading"]:
            harness.make_ready(model)
        running = [request for request in requests if harness.status[request] == "running"]
        assert len(running) == 1, "one at a time"
        if requests.index(running[0]) in poisons:
            harness.lose(model, set(running))
        else:
            harness.end(running[0])
    return [harness.status[request] for request in requests]


def test_only_the_poisoned_requests_of_a_batch_fail(make_harness):
    harness = make_harness(slots=8)
    statuses = batch(harness, "abcdefgh", {2, 5})
    failed = [place for place, status in enumerate(statuses) if status == "failed:worker_died"]
    assert failed == [2, 5]
    assert statuses.count("ended") == 6
    assert harness.load_count() == 4


def test_healthy_requests_of_the_poisoning_client_are_served(make_harness):
    harness = make_harness(slots=8)
    for _ in range(2):
        statuses = batch(harness, ["ann"] * 8, {0, 7})
        assert statuses.count("ended") == 6


def test_a_batch_of_poisoned_requests_costs_few_workers(make_harness):
    harness = make_harness(slots=8)
    statuses = batch(harness, "abababab", range(8))
    assert statuses == ["failed:worker_died"] * 8
    assert harness.load_count() <= 5


def test_nothing_runs_beside_a_suspect(make_harness):
    harness = make_harness(slots=4)
    harness.load("a")
    first, second = harness.submit("a"), harness.submit("a", client="bob")
    harness.lose("a", {first, second})
    newcomer = harness.submit("a", client="cyd")
    harness.make_ready("a")
    assert [harness.status[t] for t in (first, second, newcomer)] == [
        "running",
        "waiting",
        "waiting",
    ]
    harness.end(first)
    assert [harness.status[t] for t in (second, newcomer)] == ["running", "waiting"]
    harness.lose("a", {second})
    assert harness.status[second] == "failed:worker_died"
    harness.make_ready("a")
    assert harness.status[newcomer] == "running", "it has seen no death"


def test_an_endless_answer_does_not_block_other_trials(make_harness):
    harness = make_harness(slots=3)
    harness.load("a")
    endless, other = harness.submit("a"), harness.submit("a", client="bob")
    harness.advance(10.0)
    poison = harness.submit("a", client="evil")
    harness.lose("a", {endless, other, poison})
    harness.make_ready("a")
    assert harness.status[poison] == "running", "it began last"
    harness.lose("a", {poison})
    newcomer = harness.submit("a", client="cyd")
    harness.make_ready("a")
    assert [harness.status[t] for t in (endless, other)] == ["running", "waiting"]
    harness.advance(16.0)
    assert [harness.status[t] for t in (endless, other)] == ["running", "running"]
    assert harness.status[newcomer] == "waiting"
    harness.advance(16.0)
    assert harness.status[newcomer] == "running"


def test_a_cleared_suspect_is_tried_again_when_the_next_suspect_kills_the_worker(make_harness):
    harness = make_harness(slots=3)
    harness.load("a")
    first, poison, third = (harness.submit("a", client=client) for client in "abc")
    harness.lose("a", {first, poison, third})
    harness.make_ready("a")
    harness.advance(6.0)
    assert [harness.status[t] for t in (first, poison, third)] == ["running", "running", "waiting"]
    harness.lose("a", {first, poison})
    assert harness.status[poison] == "failed:worker_died"
    harness.make_ready("a")
    for request in (third, first):
        assert harness.status[request] == "running"
        harness.end(request)


def test_suspects_for_which_the_next_worker_has_no_slot_are_tried_first(
    make_harness,
):
    harness = make_harness(slots=4)
    harness.load("a")
    requests = [harness.submit("a", client=client) for client in "abcd"]
    harness.lose("a", set(requests))
    newcomer = harness.submit("a", client="e")
    harness.make_ready("a", slots=2)
    harness.advance(15.0)
    assert [harness.status[t] for t in requests[:2]] == ["running", "running"]
    for request in requests[:2]:
        harness.end(request)
    assert [harness.status[t] for t in requests[2:]] == ["running", "waiting"]
    harness.advance(6.0)
    assert [harness.status[t] for t in requests[2:]] == ["running", "running"]
    harness.end(requests[2])
    assert harness.status[newcomer] == "waiting", "the last one is on trial"
    harness.end(requests[3])
    assert harness.status[newcomer] == "running"


def test_suspects_have_places_and_are_not_queued(make_harness):
    harness = make_harness(slots=4, max_queue=0)
    assert batch(harness, "abcd", {1}) == ["ended", "failed:worker_died", "ended", "ended"]


def test_a_suspect_cancelled_before_its_trial_is_not_started(make_harness):
    harness = make_harness(slots=3)
    harness.load("a")
    first, second, third = (harness.submit("a", client=client) for client in "abc")
    harness.lose("a", {first, second, third})
    harness.make_ready("a")
    harness.cancel(second)
    harness.cancel(first)
    assert (harness.status[first], harness.status[second]) == ("aborting", "cancelled")
    assert harness.status[third] == "waiting", "the worker still has the first"
    harness.end(first)
    assert harness.status[third] == "running"


def test_a_shutdown_tries_no_suspects(make_harness):
    harness = make_harness(slots=3)
    harness.load("a")
    first, second, third = (harness.submit("a", client=client) for client in "abc")
    harness.lose("a", {first, second, third})
    harness.make_ready("a")
    harness.shut_down(60.0)
    assert [harness.status[t] for t in (second, third)] == ["failed:shutting_down"] * 2
    harness.lose("a", {first})
    assert harness.status[first] == "failed:worker_died"
    assert not harness.scheduler.state.instances


def test_suspects_are_tried_while_an_unload_waits_for_them(make_harness):
    harness = make_harness(slots=2)
    harness.load("a")
    first, second = harness.submit("a"), harness.submit("a", client="bob")
    harness.lose("a", {first, second})
    harness.make_ready("a")
    harness.unload("a")
    harness.end(first)
    assert harness.status[second] == "running"
    harness.end(second)
    assert harness.worker_states("a") == ["stopping"]


def test_only_a_client_that_poisons_repeatedly_is_refused(make_harness):
    harness = make_harness(slots=4)
    for _ in range(5):
        statuses = batch(harness, ["ann", "bob", "cyd", "evil"], {3})
        assert statuses == ["ended"] * 3 + ["failed:worker_died"]
    refused = harness.submit("a", client="evil")
    assert "tried again in 30s" in harness.error[refused][1]
    load(harness)
    assert harness.status[harness.submit("a", client="ann")] == "running"
    harness.now += 31
    assert harness.status[harness.submit("a", client="evil")] == "running"


def test_a_poisoning_client_that_cancels_before_its_trial_is_blamed(make_harness):
    harness = make_harness(slots=3)
    for _ in range(5):
        load(harness)
        evil, ann, bob = (harness.submit("a", client=client) for client in ("evil", "ann", "bob"))
        harness.lose("a", {evil, ann, bob})
        harness.cancel(evil)
        harness.make_ready("a")
        harness.end(ann)
        harness.end(bob)
    assert harness.status[harness.submit("a", client="evil")] == "failed:worker_died"
    assert harness.status[harness.submit("a", client="ann")] == "running"


def test_a_poisoning_client_that_had_received_text_is_blamed(make_harness):
    harness = make_harness(slots=3)
    for _ in range(5):
        load(harness)
        evil, ann, bob = (harness.submit("a", client=client) for client in ("evil", "ann", "bob"))
        harness.lose("a", {ann, bob})
        assert harness.status[evil] == "failed:worker_died"
        harness.make_ready("a")
        harness.end(ann)
        harness.end(bob)
    assert harness.status[harness.submit("a", client="evil")] == "failed:worker_died"
    assert harness.status[harness.submit("a", client="ann")] == "running"


def test_unexplained_crashes_cause_a_back_off_of_the_model(make_harness):
    harness = make_harness(slots=2)
    for _ in range(2):
        assert batch(harness, "ab") == ["ended"] * 2
    assert batch(harness, "ab") == ["failed:worker_died"] * 2
    assert harness.status[harness.submit("a", client="cyd")] == "failed:worker_died"


def test_a_model_that_crashes_for_every_client_backs_off(make_harness):
    harness = make_harness(slots=1)
    for client in "abc":
        request = harness.submit("a", client=client)
        harness.make_ready("a")
        harness.lose("a", {request})
        if harness.status[request] == "waiting":
            harness.make_ready("a")
            harness.lose("a", {request})
        assert harness.status[request] == "failed:worker_died"
    assert harness.status[harness.submit("a", client="dan")] == "failed:worker_died"


def test_a_request_alone_in_an_aborted_worker_is_not_retried(make_harness):
    harness = make_harness(slots=2)
    harness.load("a")
    request = harness.submit("a")
    harness.lose("a", {request}, has_aborted=True)
    assert harness.status[request] == "failed:worker_died"
    assert harness.load_count() == 1

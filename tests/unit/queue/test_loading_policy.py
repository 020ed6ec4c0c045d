"""When a request reloads a model, for which context and options."""

from __future__ import annotations

import pytest

from ollama_async.queue.backend import LoadOptions
from ollama_async.queue.memory_budget import Plan
from tests.unit.queue.conftest import DEFAULT_CTX


@pytest.mark.parametrize("num_ctx", [None, 1, 2048, 4096])
def test_a_context_that_fits_never_reloads(make_harness, num_ctx):
    harness = make_harness()
    harness.load("a")
    assert harness.status[harness.submit("a", num_ctx=num_ctx)] == "running"
    assert harness.load_count() == 1


def test_a_larger_context_reloads_once_with_the_largest_context(make_harness):
    harness = make_harness(slots=3)
    harness.load("a")
    running = harness.submit("a")
    waiting = [harness.submit("a", num_ctx=num_ctx) for num_ctx in (8192, 16384, 2048)]
    harness.end(running)
    harness.finish_stop("a")
    harness.make_ready("a")
    assert {harness.status[t] for t in waiting} == {"running"}
    assert harness.load_count() == 2
    assert harness.scheduler.state.current["a"].num_ctx == 16384
    assert harness.stop_reasons == ["reload"]


def test_a_context_beyond_training_is_no_reason_to_reload(make_harness):
    harness = make_harness(train_ctx=4096)
    harness.load("a")
    assert harness.status[harness.submit("a", num_ctx=100_000)] == "running"


def test_a_context_that_the_engine_cannot_provide_reloads_only_once(make_harness):
    harness = make_harness()
    first = harness.submit("a", num_ctx=8192)
    harness.make_ready("a", num_ctx=4096)
    harness.end(first)
    assert harness.status[harness.submit("a", num_ctx=8192)] == "running"


OPTIONS = [{"num_gpu": 0}, {"main_gpu": 1}, {"num_thread": 3}, {"use_mmap": False}]
RESIDENCE_S = 60.0


@pytest.mark.parametrize("option", OPTIONS)
def test_a_contradicting_option_reloads_only_after_the_residence(make_harness, option):
    harness = make_harness(devices={"gpu0": 1000})
    harness.load("a")
    harness.advance(RESIDENCE_S - 1)
    harness.end(harness.submit("a", **option))
    assert harness.load_count() == 1
    harness.advance(2)
    request = harness.submit("a", **option)
    harness.finish_stop("a")
    harness.make_ready("a")
    harness.end(request)
    harness.end(harness.submit("a", **option))
    harness.end(harness.submit("a", num_ctx=1024, **option))
    assert harness.load_count() == 2


@pytest.mark.parametrize("option", OPTIONS)
def test_no_client_inherits_an_option_for_longer_than_a_residence(make_harness, option):
    harness = make_harness(devices={"gpu0": 1000})
    harness.load("a", **option)
    harness.advance(RESIDENCE_S + 1)
    request = harness.submit("a")
    harness.finish_stop("a")
    harness.make_ready("a")
    assert harness.status[request] == "running"
    assert harness.scheduler.state.current["a"].load_options == LoadOptions(num_ctx=DEFAULT_CTX)


def test_contradicting_models_cost_one_load_per_residence(make_harness):
    harness = make_harness(slots=2)
    for number in range(600):
        request = harness.submit("a", client=f"client {number % 2}", use_mmap=number % 2 == 0)
        if "stopping" in harness.workers.values():
            harness.finish_stop("a")
        if "loading" in harness.workers.values():
            harness.make_ready("a")
        assert harness.status[request] == "running", "no request waits for it"
        harness.end(request)
        harness.advance(1.0)
    assert harness.load_count() <= 1 + 600 / RESIDENCE_S


def test_a_slow_load_has_a_longer_residence(make_harness):
    harness = make_harness()
    harness.submit("a")
    harness.advance(20.0)
    harness.make_ready("a")
    harness.advance(190.0)
    assert harness.status[harness.submit("a", client="bob", use_mmap=False)] == "waiting", (
        "for a slot"
    )
    assert harness.load_count() == 1
    assert not harness.scheduler.state.current["a"].is_draining


@pytest.mark.parametrize("option", [{"num_gpu": 0}, {"main_gpu": 3}])
def test_options_about_gpus_mean_nothing_where_there_are_none(make_harness, option):
    harness = make_harness()
    harness.load("a")
    harness.advance(RESIDENCE_S + 1)
    assert harness.status[harness.submit("a", **option)] == "running"


def test_a_context_that_grows_token_by_token_doubles(make_harness):
    harness = make_harness(train_ctx=10_000)
    harness.load("a")
    for num_ctx in range(4096, 10_100, 50):
        request = harness.submit("a", num_ctx=num_ctx)
        if harness.status[request] == "waiting":
            harness.advance(30.0)
            harness.finish_stop("a")
            harness.make_ready("a")
        harness.end(request)
    assert [load.plan.num_ctx for load in harness.loads.values()] == [4096, 8192, 10_000]


def test_a_context_that_cannot_double_grows_to_what_was_requested_once_evictable(make_harness):
    harness = make_harness(memory=80)
    harness.planner = lambda _target, load_options: [
        Plan(
            demand={"cpu": (load_options.num_ctx or 4096) // 100},
            slots=1,
            num_ctx=load_options.num_ctx or 4096,
        )
    ]
    harness.load("a")
    for num_ctx, waited_s in ((8000, 0.0), (8001, 1.0), (8002, 1.0)):
        request = harness.submit("a", num_ctx=num_ctx)
        if waited_s:
            assert harness.worker_states("a") == ["ready"], (
                "so little more is not worth a load at once"
            )
        harness.advance(waited_s)
        harness.finish_stop("a")
        harness.make_ready("a")
        assert harness.status[request] == "running"
        harness.end(request)


def test_a_load_that_fails_for_one_clients_context_is_tried_without_it(make_harness):
    harness = make_harness(slots=1)
    harness.load("a")
    greedy = harness.submit("a", client="greedy", num_ctx=100_000)
    modest = [
        harness.submit("a", client="modest"),
        harness.submit("a", client="modest", num_ctx=8192),
    ]
    harness.finish_stop("a")
    harness.fail_load("a", "not enough memory")
    assert harness.error[greedy] == ("load_failed", "not enough memory")
    harness.make_ready("a")
    assert harness.status[modest[0]] == "running"
    harness.end(modest[0])
    assert harness.status[modest[1]] == "running"


def test_a_refused_context_is_not_retried_at_once(
    make_harness,
):
    harness = make_harness(slots=1)
    harness.load("a")
    harness.submit("a", client="greedy", num_ctx=100_000)
    modest = harness.submit("a", client="modest")
    harness.finish_stop("a")
    harness.fail_load("a", "not enough memory")
    harness.make_ready("a")
    harness.end(modest)
    for num_ctx in (100_000, 99_999, 2_000_000):
        again = harness.submit("a", client="greedy", num_ctx=num_ctx)
        assert harness.error[again] == ("load_failed", "not enough memory")
    assert harness.worker_states("a") == ["ready"]
    harness.submit("a", client="greedy", num_ctx=50_000)
    assert "stopping" in harness.worker_states("a"), "so much was never refused"


def test_a_refused_context_is_retried_after_a_minute(make_harness):
    harness = make_harness(slots=1)
    harness.load("a")
    harness.submit("a", num_ctx=100_000)
    harness.finish_stop("a")
    harness.fail_load("a", "not enough memory")
    harness.load("a")
    harness.advance(61.0)
    assert harness.status[harness.submit("a", num_ctx=100_000)] == "waiting"


def test_a_load_that_fails_for_every_client_is_tried_a_few_times(make_harness):
    harness = make_harness(slots=1, max_queue=100)
    for number in range(50):
        harness.submit("a", client=f"client {number}", num_ctx=10_000 + 1000 * number)
    while "loading" in harness.workers.values():
        harness.fail_load("a", "bad magic")
    assert harness.count("failed:load_failed") == 50
    assert harness.load_count() <= 5


@pytest.mark.parametrize("option", [{"num_batch": 64}, {"num_gpu": -1}])
def test_some_options_never_reload(make_harness, option):
    harness = make_harness()
    harness.load("a")
    assert harness.status[harness.submit("a", **option)] == "running"


def test_the_models_batch_size_reaches_the_planner(make_harness):
    harness = make_harness()
    planned = []
    plan = harness.planner
    harness.planner = lambda target, load_options: (
        planned.append(load_options) or plan(target, load_options)
    )
    harness.submit("a", num_batch=64)
    assert {load_options.num_batch for load_options in planned} == {64}


def test_a_reload_for_another_option_keeps_the_context(make_harness):
    harness = make_harness(train_ctx=16384)
    harness.load("a", num_ctx=8192)
    harness.advance(RESIDENCE_S + 1)
    harness.submit("a", use_mmap=False)
    harness.finish_stop("a")
    harness.make_ready("a")
    instance = harness.scheduler.state.current["a"]
    assert (instance.num_ctx, instance.load_options.use_mmap) == (8192, False)


def test_a_reload_waits_until_its_request_is_next_of_its_client(make_harness):
    harness = make_harness()
    harness.load("a", use_mmap=False)
    running = harness.submit("a", use_mmap=False)
    harness.advance(RESIDENCE_S + 1)
    suited, other = harness.submit("a", use_mmap=False), harness.submit("a", use_mmap=True)
    harness.end(running)
    assert harness.status[suited] == "running"
    harness.end(suited)
    harness.finish_stop("a")
    harness.make_ready("a")
    assert harness.status[other] == "running"
    assert harness.load_count() == 2

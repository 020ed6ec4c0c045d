"""What is loaded, reloaded, kept and unloaded, and who has to go for whom."""

from __future__ import annotations

import math

import pytest

from ollama_async.queue.backend import LoadOptions
from ollama_async.queue.memory_budget import Plan
from tests.unit.queue.conftest import DEFAULT_CTX


def test_a_ready_model_serves_while_another_loads(make_harness):
    harness = make_harness(slots=1)
    harness.load("a")
    harness.submit("b")
    assert harness.status[harness.submit("a")] == "running"
    assert harness.worker_states("b") == ["loading"]


def test_two_models_load_at_the_same_time_if_both_have_room(make_harness):
    harness = make_harness()
    harness.submit("a")
    harness.submit("b")
    assert harness.worker_states("a") == harness.worker_states("b") == ["loading"]


def test_the_idle_model_that_was_unused_longest_is_evicted(make_harness):
    harness = make_harness(max_loaded=2)
    harness.load("a")
    harness.now += 1
    harness.load("b")
    harness.now += 1
    harness.end(harness.submit("a"))
    harness.submit("c")
    assert (harness.worker_states("a"), harness.worker_states("b")) == (["ready"], ["stopping"])


def test_a_model_to_be_kept_for_ever_goes_last_of_the_idle_ones(make_harness):
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


def test_a_load_that_nobody_wants_any_more_frees_memory_at_once(make_harness):
    harness = make_harness(max_loaded=1)
    harness.cancel(harness.submit("a"))
    assert harness.worker_states("a") == ["loading"], "others may come for it"
    harness.submit("b")
    assert harness.worker_states("a") == ["stopping"]
    harness.finish_stop("a")
    assert harness.worker_states("b") == ["loading"]


def test_a_load_that_somebody_waits_for_is_not_disturbed(make_harness):
    harness = make_harness(max_loaded=1)
    first, second = harness.submit("a"), harness.submit("a")
    harness.cancel(first)
    harness.submit("b")
    harness.advance(1000.0)
    assert harness.worker_states("a") == ["loading"]
    harness.make_ready("a")
    assert harness.status[second] == "running"


def test_a_load_that_nobody_wants_any_more_is_stopped_when_an_unload_is_asked(make_harness):
    harness = make_harness()
    harness.cancel(harness.submit("a"))
    harness.unload("a")
    assert harness.worker_states("a") == ["stopping"]
    assert harness.stop_reasons == ["requested"]


def test_a_load_that_nobody_wants_any_more_is_kept_like_an_idle_model(make_harness):
    harness = make_harness(keep_alive_s=5.0)
    request = harness.submit("a")
    harness.advance(60.0)
    harness.cancel(request)
    harness.advance(4.0)
    assert harness.worker_states("a") == ["loading"]
    harness.advance(2.0)
    assert harness.worker_states("a") == ["stopping"]


def test_whoever_comes_for_a_load_that_was_given_up_finds_it_going_on(make_harness):
    harness = make_harness(keep_alive_s=5.0)
    harness.cancel(harness.submit("a"))
    request = harness.submit("a")
    harness.advance(60.0)
    harness.make_ready("a")
    assert harness.status[request] == "running"
    assert harness.load_count() == 1


def test_an_idle_model_leaves_the_gpu_before_another_is_run_on_the_cpu(make_harness):
    harness = make_harness(devices={"gpu0": 20, "cpu": 1000}, max_loaded=9)
    harness.load("a")
    harness.submit("b")
    assert harness.worker_states("a") == ["stopping"]
    harness.finish_stop("a")
    assert harness.loads[harness.instance_id("b")].plan.demand.keys() == {"gpu0"}


def test_a_model_that_no_gpu_can_hold_is_run_on_the_cpu(make_harness):
    harness = make_harness(devices={"gpu0": 5, "cpu": 1000})
    harness.submit("a")
    assert harness.loads[harness.instance_id("a")].plan.demand.keys() == {"cpu"}


def test_a_free_gpu_is_taken_before_an_idle_model_is_evicted_from_another(make_harness):
    harness = make_harness(devices={"gpu0": 20, "gpu1": 20}, max_loaded=9)
    harness.load("a")
    harness.submit("b")
    assert harness.worker_states("a") == ["ready"]
    assert harness.loads[harness.instance_id("b")].plan.demand.keys() == {"gpu1"}


def test_of_several_plans_for_a_device_the_first_that_can_ever_fit_is_freed_for(make_harness):
    harness = make_harness(memory=40)
    harness.planner = lambda _target, _needs: [
        Plan(demand={"cpu": size}, slots=1, num_ctx=size * 100) for size in (60, 25, 10)
    ]
    harness.load("a")
    assert harness.loads[harness.instance_id("a")].plan.num_ctx == 2500
    harness.submit("b")
    assert harness.worker_states("a") == ["stopping"]


def with_fewer_slots(harness):
    """A planner that offers 8, 4 or 2 slots of one byte each, beside 10 bytes of weights, on each
    device.
    """
    harness.planner = lambda _target, load_options: [
        Plan(demand={device: 10 + slots}, slots=slots, num_ctx=load_options.num_ctx or 4096)
        for device in harness.scheduler.state.limits.capacity
        for slots in (8, 4, 2)
    ]


def test_a_model_gets_fewer_slots_before_an_idle_model_is_evicted(make_harness):
    harness = make_harness(memory=30)
    with_fewer_slots(harness)
    harness.load("a")
    harness.submit("b")
    assert harness.worker_states("a") == ["ready"]
    assert [load.plan.slots for load in harness.loads.values()] == [8, 2]


def test_a_model_that_has_to_evict_another_gets_all_that_is_free_then(make_harness):
    harness = make_harness(memory=25)
    with_fewer_slots(harness)
    harness.load("a")
    harness.submit("b")
    assert harness.worker_states("a") == ["stopping"]
    harness.finish_stop("a")
    assert harness.loads[harness.instance_id("b")].plan.slots == 8


def test_another_gpu_is_taken_before_a_model_gets_fewer_slots(make_harness):
    harness = make_harness(devices={"gpu0": 30, "gpu1": 30})
    with_fewer_slots(harness)
    harness.load("a")
    harness.load("b")
    plan = harness.loads[harness.instance_id("b")].plan
    assert (plan.demand.keys(), plan.slots) == ({"gpu1"}, 8)


def test_a_reload_has_as_many_slots_as_the_load_before(make_harness):
    harness = make_harness(memory=25)
    with_fewer_slots(harness)
    harness.load("a")
    harness.submit("a", num_ctx=8192)
    harness.finish_stop("a")
    assert harness.loads[harness.instance_id("a")].plan.slots == 8


def test_whoever_stands_behind_those_who_only_load_is_not_forgotten(make_harness):
    harness = make_harness(slots=1)
    harness.submit("a", loads_only=True)
    harness.submit("a", loads_only=True)
    larger = harness.submit("a", num_ctx=8192)
    harness.make_ready("a")
    harness.finish_stop("a")
    harness.make_ready("a")
    assert harness.status[larger] == "running"


def test_a_load_begins_only_when_the_memory_is_really_free(make_harness):
    harness = make_harness(memory=20)
    harness.load("a")
    harness.submit("b")
    assert (harness.worker_states("a"), harness.worker_states("b")) == (["stopping"], [])
    harness.finish_stop("a")
    assert harness.worker_states("b") == ["loading"]


def test_a_busy_victim_drains_and_its_waiting_requests_stay_in_the_queue(make_harness):
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
    """ollama/ollama#17408: a revived victim was never idle again, and the load waited for ever."""
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


def test_a_cancelled_request_stops_the_draining(make_harness):
    harness = make_harness(max_loaded=1)
    harness.load("a")
    running, waiting = harness.submit("a"), harness.submit("a")
    harness.now += 100
    other = harness.submit("b")
    harness.cancel(other)
    harness.end(running)
    assert harness.status[waiting] == "running"
    assert harness.load_count() == 1


def test_cancelling_who_triggered_a_load_leaves_it_to_the_others(make_harness):
    harness = make_harness(slots=2)
    first, second = harness.submit("a"), harness.submit("a", client="bob")
    harness.cancel(first)
    harness.make_ready("a")
    assert harness.status[second] == "running"
    assert harness.load_count() == 1


def test_a_load_that_nobody_wants_any_more_finishes_and_is_kept(make_harness):
    harness = make_harness(keep_alive_s=60.0)
    harness.cancel(harness.submit("a"))
    harness.make_ready("a")
    assert harness.worker_states("a") == ["ready"]
    harness.advance(61.0)
    assert harness.worker_states("a") == ["stopping"]


def test_a_load_that_has_not_begun_is_dropped_with_its_last_request(make_harness):
    harness = make_harness(max_loaded=1)
    harness.load("a")
    harness.cancel(harness.submit("b"))
    harness.finish_stop("a")
    assert harness.load_count() == 1


def test_models_under_load_take_bounded_turns_and_do_not_thrash(make_harness):
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


def test_a_small_load_does_not_push_an_older_one_back(make_harness):
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


def test_the_second_device_is_taken_when_the_first_is_full(make_harness):
    harness = make_harness(devices={"gpu0": 20, "gpu1": 20}, max_loaded=9)
    harness.submit("a")
    harness.submit("b")
    plans = [load.plan.demand for load in harness.loads.values()]
    assert plans == [{"gpu0": 11}, {"gpu1": 11}]


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


def test_a_context_that_the_engine_could_not_grant_reloads_once_only(make_harness):
    harness = make_harness()
    first = harness.submit("a", num_ctx=8192)
    harness.make_ready("a", num_ctx=4096)
    harness.end(first)
    assert harness.status[harness.submit("a", num_ctx=8192)] == "running"


OPTIONS = [{"num_gpu": 0}, {"main_gpu": 1}, {"num_thread": 3}, {"use_mmap": False}]
RESIDENCE_S = 60.0


@pytest.mark.parametrize("option", OPTIONS)
def test_another_load_option_is_served_by_what_is_loaded_until_its_residence_is_over(
    make_harness, option
):
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
def test_nobody_inherits_an_option_for_longer_than_a_residence(make_harness, option):
    harness = make_harness(devices={"gpu0": 1000})
    harness.load("a", **option)
    harness.advance(RESIDENCE_S + 1)
    request = harness.submit("a")
    harness.finish_stop("a")
    harness.make_ready("a")
    assert harness.status[request] == "running"
    assert harness.scheduler.state.current["a"].load_options == LoadOptions(num_ctx=DEFAULT_CTX)


def test_models_that_contradict_each_other_in_turn_cost_a_load_in_each_residence(make_harness):
    harness = make_harness(slots=2)
    for number in range(600):
        request = harness.submit("a", client=f"client {number % 2}", use_mmap=number % 2 == 0)
        if "stopping" in harness.workers.values():
            harness.finish_stop("a")
        if "loading" in harness.workers.values():
            harness.make_ready("a")
        assert harness.status[request] == "running", "nobody waits for it"
        harness.end(request)
        harness.advance(1.0)
    assert harness.load_count() <= 1 + 600 / RESIDENCE_S


def test_a_load_that_takes_long_resides_for_longer(make_harness):
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


def test_a_context_that_cannot_double_grows_to_what_was_asked_once_the_turn_is_over(make_harness):
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


def test_a_context_that_was_refused_is_not_tried_again_and_again_at_the_cost_of_others(
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


def test_a_context_that_was_refused_is_tried_again_after_a_while(make_harness):
    harness = make_harness(slots=1)
    harness.load("a")
    harness.submit("a", num_ctx=100_000)
    harness.finish_stop("a")
    harness.fail_load("a", "not enough memory")
    harness.load("a")
    harness.advance(61.0)
    assert harness.status[harness.submit("a", num_ctx=100_000)] == "waiting"


def test_a_load_that_fails_for_everybody_is_tried_a_few_times_only(make_harness):
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


def test_the_batch_that_the_model_names_is_planned_for(make_harness):
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


def test_an_idle_model_is_unloaded_after_what_the_last_request_said(make_harness):
    harness = make_harness(keep_alive_s=300.0)
    harness.load("a", keep_alive_s=10.0)
    harness.end(harness.submit("a"))
    harness.advance(9.0)
    assert harness.worker_states("a") == ["ready"]
    harness.advance(2.0)
    assert harness.worker_states("a") == ["stopping"]
    assert harness.stop_reasons == ["idle"]


def test_the_time_to_unload_begins_when_the_last_request_ends(make_harness):
    harness = make_harness(keep_alive_s=10.0)
    harness.load("a")
    harness.advance(5.0)
    request = harness.submit("a")
    harness.advance(100.0)
    harness.end(request)
    harness.advance(9.0)
    assert harness.worker_states("a") == ["ready"]


def test_keep_alive_zero_unloads_when_idle_and_inf_never(make_harness):
    harness = make_harness()
    harness.load("a", keep_alive_s=0.0)
    assert harness.worker_states("a") == ["stopping"]
    harness.load("b", keep_alive_s=math.inf)
    harness.advance(1e9)
    assert harness.worker_states("b") == ["ready"]


def test_unloading_on_request_lets_running_ones_end(make_harness):
    harness = make_harness()
    harness.load("a")
    request = harness.submit("a")
    harness.unload("a")
    assert harness.worker_states("a") == ["ready"]
    harness.end(request)
    assert harness.worker_states("a") == ["stopping"]
    harness.unload("never loaded")


def test_a_request_during_an_unload_loads_again_when_the_memory_is_free(make_harness):
    harness = make_harness()
    harness.load("a")
    running = harness.submit("a")
    harness.unload("a")
    request = harness.submit("a")
    harness.end(running)
    harness.finish_stop("a")
    harness.make_ready("a")
    assert harness.status[request] == "running"


def test_a_failed_load_fails_everybody_who_waits_for_it_and_is_not_repeated(make_harness):
    harness = make_harness(slots=1)
    requests = [harness.submit("a") for _ in range(3)]
    harness.fail_load("a", "bad magic")
    assert {harness.error[t] for t in requests} == {("load_failed", "bad magic")}
    assert harness.load_count() == 1
    harness.submit("a")
    assert harness.load_count() == 2, "a new request may try again"

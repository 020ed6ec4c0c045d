"""When and how models are loaded: the device, the slots, and who gets them."""

from __future__ import annotations

from ollama_async.queue.memory_budget import Plan


def test_a_ready_model_serves_while_another_loads(make_harness):
    harness = make_harness(slots=1)
    harness.load("a")
    harness.submit("b")
    assert harness.status[harness.submit("a")] == "running"
    assert harness.worker_states("b") == ["loading"]


def test_two_models_load_at_the_same_time_if_both_fit(make_harness):
    harness = make_harness()
    harness.submit("a")
    harness.submit("b")
    assert harness.worker_states("a") == harness.worker_states("b") == ["loading"]


def test_a_new_request_joins_a_load_whose_requests_were_cancelled(make_harness):
    harness = make_harness(keep_alive_s=5.0)
    harness.cancel(harness.submit("a"))
    request = harness.submit("a")
    harness.advance(60.0)
    harness.make_ready("a")
    assert harness.status[request] == "running"
    assert harness.load_count() == 1


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


def test_of_several_plans_for_a_device_the_first_that_can_ever_fit_is_chosen(make_harness):
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


def test_requests_behind_those_that_only_load_are_served(make_harness):
    harness = make_harness(slots=1)
    harness.submit("a", loads_only=True)
    harness.submit("a", loads_only=True)
    larger = harness.submit("a", num_ctx=8192)
    harness.make_ready("a")
    harness.finish_stop("a")
    harness.make_ready("a")
    assert harness.status[larger] == "running"


def test_a_load_starts_only_when_the_memory_is_really_free(make_harness):
    harness = make_harness(memory=20)
    harness.load("a")
    harness.submit("b")
    assert (harness.worker_states("a"), harness.worker_states("b")) == (["stopping"], [])
    harness.finish_stop("a")
    assert harness.worker_states("b") == ["loading"]


def test_cancelling_the_request_that_caused_a_load_keeps_it_for_the_others(make_harness):
    harness = make_harness(slots=2)
    first, second = harness.submit("a"), harness.submit("a", client="bob")
    harness.cancel(first)
    harness.make_ready("a")
    assert harness.status[second] == "running"
    assert harness.load_count() == 1


def test_a_load_that_has_not_started_is_dropped_with_its_last_request(make_harness):
    harness = make_harness(max_loaded=1)
    harness.load("a")
    harness.cancel(harness.submit("b"))
    harness.finish_stop("a")
    assert harness.load_count() == 1


def test_the_second_device_is_taken_when_the_first_is_full(make_harness):
    harness = make_harness(devices={"gpu0": 20, "gpu1": 20}, max_loaded=9)
    harness.submit("a")
    harness.submit("b")
    plans = [load.plan.demand for load in harness.loads.values()]
    assert plans == [{"gpu0": 11}, {"gpu1": 11}]


def test_a_failed_load_fails_all_its_requests_and_is_not_repeated(make_harness):
    harness = make_harness(slots=1)
    requests = [harness.submit("a") for _ in range(3)]
    harness.fail_load("a", "bad magic")
    assert {harness.error[t] for t in requests} == {("load_failed", "bad magic")}
    assert harness.load_count() == 1
    harness.submit("a")
    assert harness.load_count() == 2, "a new request may try again"


def test_a_worker_with_more_slots_than_planned_gets_more_requests_at_once(make_harness):
    """One pool of cells serves more requests than the planned separate caches."""
    harness = make_harness(slots=2)
    requests = [harness.submit("a") for _ in range(6)]
    harness.make_ready("a", slots=5)

    assert [harness.status[request] for request in requests] == ["running"] * 5 + ["waiting"]
    harness.end(requests[0])
    assert harness.status[requests[5]] == "running"

"""What is loaded, reloaded, kept and unloaded, and who has to go for whom."""

from __future__ import annotations

import math

import pytest

from ollama_async.queue.backend import LoadOptions
from ollama_async.queue.plan import Plan
from tests.unit.queue.conftest import DEFAULT_CTX


def test_a_ready_model_serves_while_another_loads(make_desk):
    desk = make_desk(slots=1)
    desk.up("a")
    desk.ask("b")
    assert desk.fate[desk.ask("a")] == "running"
    assert desk.state("b") == ["loading"]


def test_two_models_load_at_the_same_time_if_both_have_room(make_desk):
    desk = make_desk()
    desk.ask("a")
    desk.ask("b")
    assert desk.state("a") == desk.state("b") == ["loading"]


def test_the_idle_model_that_was_unused_longest_is_evicted(make_desk):
    desk = make_desk(max_loaded=2)
    desk.up("a")
    desk.now += 1
    desk.up("b")
    desk.now += 1
    desk.end(desk.ask("a"))
    desk.ask("c")
    assert (desk.state("a"), desk.state("b")) == (["ready"], ["stopping"])


def test_a_model_to_be_kept_for_ever_goes_last_of_the_idle_ones(make_desk):
    desk = make_desk(max_loaded=2)
    desk.up("a", keep_alive_s=math.inf)
    desk.now += 1
    desk.up("b")
    desk.ask("c")
    assert (desk.state("a"), desk.state("b")) == (["ready"], ["stopping"])


def test_no_more_are_evicted_than_the_load_needs(make_desk):
    desk = make_desk(memory=62, sizes={"a": 9, "b": 29, "c": 19, "d": 24}, max_loaded=9)
    for key in ("a", "b", "c"):
        desk.up(key)
        desk.now += 1
    desk.ask("d")
    assert [desk.state(key) for key in "abc"] == [["ready"], ["stopping"], ["ready"]]


def test_a_load_that_nobody_wants_any_more_makes_room_at_once(make_desk):
    desk = make_desk(max_loaded=1)
    desk.cancel(desk.ask("a"))
    assert desk.state("a") == ["loading"], "others may come for it"
    desk.ask("b")
    assert desk.state("a") == ["stopping"]
    desk.stopped("a")
    assert desk.state("b") == ["loading"]


def test_a_load_that_somebody_waits_for_is_not_disturbed(make_desk):
    desk = make_desk(max_loaded=1)
    first, second = desk.ask("a"), desk.ask("a")
    desk.cancel(first)
    desk.ask("b")
    desk.wait(1000.0)
    assert desk.state("a") == ["loading"]
    desk.ready("a")
    assert desk.fate[second] == "running"


def test_a_load_that_nobody_wants_any_more_is_stopped_when_an_unload_is_asked(make_desk):
    desk = make_desk()
    desk.cancel(desk.ask("a"))
    desk.unload("a")
    assert desk.state("a") == ["stopping"]
    assert desk.stop_reasons == ["requested"]


def test_a_load_that_nobody_wants_any_more_is_kept_like_an_idle_model(make_desk):
    desk = make_desk(keep_alive_s=5.0)
    ticket = desk.ask("a")
    desk.wait(60.0)
    desk.cancel(ticket)
    desk.wait(4.0)
    assert desk.state("a") == ["loading"]
    desk.wait(2.0)
    assert desk.state("a") == ["stopping"]


def test_whoever_comes_for_a_load_that_was_given_up_finds_it_going_on(make_desk):
    desk = make_desk(keep_alive_s=5.0)
    desk.cancel(desk.ask("a"))
    ticket = desk.ask("a")
    desk.wait(60.0)
    desk.ready("a")
    assert desk.fate[ticket] == "running"
    assert desk.loads() == 1


def test_an_idle_model_leaves_the_gpu_before_another_is_run_on_the_cpu(make_desk):
    desk = make_desk(devices={"gpu0": 20, "cpu": 1000}, max_loaded=9)
    desk.up("a")
    desk.ask("b")
    assert desk.state("a") == ["stopping"]
    desk.stopped("a")
    assert desk.load[desk.worker("b")].plan.demand.keys() == {"gpu0"}


def test_a_model_that_no_gpu_can_hold_is_run_on_the_cpu(make_desk):
    desk = make_desk(devices={"gpu0": 5, "cpu": 1000})
    desk.ask("a")
    assert desk.load[desk.worker("a")].plan.demand.keys() == {"cpu"}


def test_a_free_gpu_is_taken_before_an_idle_model_is_evicted_from_another(make_desk):
    desk = make_desk(devices={"gpu0": 20, "gpu1": 20}, max_loaded=9)
    desk.up("a")
    desk.ask("b")
    assert desk.state("a") == ["ready"]
    assert desk.load[desk.worker("b")].plan.demand.keys() == {"gpu1"}


def test_of_several_plans_for_a_device_the_first_that_can_ever_fit_is_made_room_for(make_desk):
    desk = make_desk(memory=40)
    plans = desk.scheduler._plans  # with what a planner says for contexts that step down
    plans._planner = lambda _target, _needs: [
        Plan(demand={"cpu": size}, slots=1, num_ctx=size * 100) for size in (60, 25, 10)
    ]
    desk.up("a")
    assert desk.load[desk.worker("a")].plan.num_ctx == 2500
    desk.ask("b")
    assert desk.state("a") == ["stopping"]


def with_fewer_slots(desk):
    """A planner that offers 8, 4 or 2 slots of one byte each, beside 10 bytes of weights, on each
    device.
    """
    desk.scheduler._plans._planner = lambda _target, load_options: [
        Plan(demand={device: 10 + slots}, slots=slots, num_ctx=load_options.num_ctx or 4096)
        for device in desk.scheduler.books.limits.capacity
        for slots in (8, 4, 2)
    ]


def test_a_model_gets_fewer_slots_before_an_idle_model_is_evicted(make_desk):
    desk = make_desk(memory=30)
    with_fewer_slots(desk)
    desk.up("a")
    desk.ask("b")
    assert desk.state("a") == ["ready"]
    assert [load.plan.slots for load in desk.load.values()] == [8, 2]


def test_a_model_that_has_to_evict_another_gets_all_that_is_free_then(make_desk):
    desk = make_desk(memory=25)
    with_fewer_slots(desk)
    desk.up("a")
    desk.ask("b")
    assert desk.state("a") == ["stopping"]
    desk.stopped("a")
    assert desk.load[desk.worker("b")].plan.slots == 8


def test_another_gpu_is_taken_before_a_model_gets_fewer_slots(make_desk):
    desk = make_desk(devices={"gpu0": 30, "gpu1": 30})
    with_fewer_slots(desk)
    desk.up("a")
    desk.up("b")
    plan = desk.load[desk.worker("b")].plan
    assert (plan.demand.keys(), plan.slots) == ({"gpu1"}, 8)


def test_a_reload_has_as_many_slots_as_the_load_before(make_desk):
    desk = make_desk(memory=25)
    with_fewer_slots(desk)
    desk.up("a")
    desk.ask("a", num_ctx=8192)
    desk.stopped("a")
    assert desk.load[desk.worker("a")].plan.slots == 8


def test_whoever_stands_behind_those_who_only_load_is_not_forgotten(make_desk):
    desk = make_desk(slots=1)
    desk.ask("a", loads_only=True)
    desk.ask("a", loads_only=True)
    larger = desk.ask("a", num_ctx=8192)
    desk.ready("a")
    desk.stopped("a")
    desk.ready("a")
    assert desk.fate[larger] == "running"


def test_a_load_begins_only_when_the_memory_is_really_free(make_desk):
    desk = make_desk(memory=20)
    desk.up("a")
    desk.ask("b")
    assert (desk.state("a"), desk.state("b")) == (["stopping"], [])
    desk.stopped("a")
    assert desk.state("b") == ["loading"]


def test_a_busy_victim_drains_and_its_waiting_tickets_stay_in_line(make_desk):
    desk = make_desk(max_loaded=1)
    desk.up("a")
    running, waiting = desk.ask("a"), desk.ask("a")
    desk.now += 100
    other = desk.ask("b")
    desk.end(running)
    assert desk.fate[waiting] == "waiting"
    desk.stopped("a")
    desk.ready("b")
    assert desk.fate[other] == "running"
    desk.end(other)
    assert desk.state("b") == ["stopping"], "idle, and the other model is waited for"
    desk.stopped("b")
    desk.ready("a")
    assert desk.fate[waiting] == "running"


def test_a_victim_that_gets_new_requests_does_not_block_the_load(make_desk):
    """ollama/ollama#17408: a revived victim was never idle again, and the load waited for ever."""
    desk = make_desk(slots=2, max_queue=100, max_loaded=1)
    desk.up("a")
    running = [desk.ask("a"), desk.ask("a")]
    desk.now += 100
    other = desk.ask("b")
    for ticket in running:
        revivals = [desk.ask("a") for _ in range(3)]
        desk.end(ticket)
    assert {desk.fate[t] for t in revivals} == {"waiting"}
    desk.stopped("a")
    desk.ready("b")
    assert desk.fate[other] == "running"


def test_a_cancelled_wish_stops_the_draining(make_desk):
    desk = make_desk(max_loaded=1)
    desk.up("a")
    running, waiting = desk.ask("a"), desk.ask("a")
    desk.now += 100
    other = desk.ask("b")
    desk.cancel(other)
    desk.end(running)
    assert desk.fate[waiting] == "running"
    assert desk.loads() == 1


def test_cancelling_who_triggered_a_load_leaves_it_to_the_others(make_desk):
    desk = make_desk(slots=2)
    first, second = desk.ask("a"), desk.ask("a", client="bob")
    desk.cancel(first)
    desk.ready("a")
    assert desk.fate[second] == "running"
    assert desk.loads() == 1


def test_a_load_that_nobody_wants_any_more_finishes_and_is_kept(make_desk):
    desk = make_desk(keep_alive_s=60.0)
    desk.cancel(desk.ask("a"))
    desk.ready("a")
    assert desk.state("a") == ["ready"]
    desk.wait(61.0)
    assert desk.state("a") == ["stopping"]


def test_a_load_that_has_not_begun_is_dropped_with_its_last_ticket(make_desk):
    desk = make_desk(max_loaded=1)
    desk.up("a")
    desk.cancel(desk.ask("b"))
    desk.stopped("a")
    assert desk.loads() == 1


def test_models_under_load_take_bounded_turns_and_do_not_thrash(make_desk):
    """Both always have someone waiting; each load takes 2 s, each answer 1 s."""
    desk = make_desk(max_loaded=1, max_queue=1000)
    served = {"a": 0, "b": 0}
    owner = {}
    for _ in range(200):
        for key in "ab":
            while sum(owner[t] == key for t, f in desk.fate.items() if f == "waiting") < 2:
                owner[desk.ask(key)] = key
        for worker, state in list(desk.workers.items()):
            key = desk.load[worker].target.key
            if state == "loading":
                desk.wait(2.0)
                desk.ready(key)
            elif state == "stopping":
                desk.stopped(key)
        desk.wait(1.0)
        for ticket in [t for t, fate in desk.fate.items() if fate == "running"]:
            served[owner[ticket]] += 1
            desk.end(ticket)
    assert min(served.values()) >= 50
    assert desk.loads() <= 40


def test_a_small_load_goes_ahead_of_an_older_one_that_waits_for_memory(make_desk):
    desk = make_desk(memory=50, sizes={"a": 29, "b": 34, "c": 9}, max_loaded=9)
    desk.up("a")
    running = desk.ask("a")
    desk.now += 100
    desk.ask("b")
    desk.ask("c")
    assert desk.state("c") == ["loading"], "it fits now, and beside the older one later"
    desk.end(running)
    desk.stopped("a")
    assert desk.state("b") == ["loading"]


def test_a_small_load_does_not_push_an_older_one_back(make_desk):
    desk = make_desk(memory=50, sizes={"a": 29, "b": 44, "c": 9}, max_loaded=9, max_queue=9)
    desk.up("a")
    running = desk.ask("a")
    desk.now += 100
    old, young = desk.ask("b"), desk.ask("c")
    assert (desk.state("c"), desk.fate[young]) == ([], "waiting")
    desk.end(running)
    desk.stopped("a")
    desk.ready("b")
    assert desk.fate[old] == "running"


def test_the_second_device_is_taken_when_the_first_is_full(make_desk):
    desk = make_desk(devices={"gpu0": 20, "gpu1": 20}, max_loaded=9)
    desk.ask("a")
    desk.ask("b")
    plans = [load.plan.demand for load in desk.load.values()]
    assert plans == [{"gpu0": 11}, {"gpu1": 11}]


@pytest.mark.parametrize("num_ctx", [None, 1, 2048, 4096])
def test_a_context_that_fits_never_reloads(make_desk, num_ctx):
    desk = make_desk()
    desk.up("a")
    assert desk.fate[desk.ask("a", num_ctx=num_ctx)] == "running"
    assert desk.loads() == 1


def test_a_larger_context_reloads_once_with_the_largest_wish(make_desk):
    desk = make_desk(slots=3)
    desk.up("a")
    running = desk.ask("a")
    waiting = [desk.ask("a", num_ctx=num_ctx) for num_ctx in (8192, 16384, 2048)]
    desk.end(running)
    desk.stopped("a")
    desk.ready("a")
    assert {desk.fate[t] for t in waiting} == {"running"}
    assert desk.loads() == 2
    assert desk.scheduler.books.current["a"].num_ctx == 16384
    assert desk.stop_reasons == ["reload"]


def test_a_context_beyond_training_is_no_reason_to_reload(make_desk):
    desk = make_desk(train_ctx=4096)
    desk.up("a")
    assert desk.fate[desk.ask("a", num_ctx=100_000)] == "running"


def test_a_wish_that_the_engine_could_not_grant_reloads_once_only(make_desk):
    desk = make_desk()
    first = desk.ask("a", num_ctx=8192)
    desk.ready("a", num_ctx=4096)
    desk.end(first)
    assert desk.fate[desk.ask("a", num_ctx=8192)] == "running"


OPTIONS = [{"num_gpu": 0}, {"main_gpu": 1}, {"num_thread": 3}, {"use_mmap": False}]
RESIDENCE_S = 60.0


@pytest.mark.parametrize("option", OPTIONS)
def test_another_load_option_is_served_by_what_is_loaded_until_its_residence_is_over(
    make_desk, option
):
    desk = make_desk(devices={"gpu0": 1000})
    desk.up("a")
    desk.wait(RESIDENCE_S - 1)
    desk.end(desk.ask("a", **option))
    assert desk.loads() == 1
    desk.wait(2)
    ticket = desk.ask("a", **option)
    desk.stopped("a")
    desk.ready("a")
    desk.end(ticket)
    desk.end(desk.ask("a", **option))
    desk.end(desk.ask("a", num_ctx=1024, **option))
    assert desk.loads() == 2


@pytest.mark.parametrize("option", OPTIONS)
def test_nobody_inherits_an_option_for_longer_than_a_residence(make_desk, option):
    desk = make_desk(devices={"gpu0": 1000})
    desk.up("a", **option)
    desk.wait(RESIDENCE_S + 1)
    ticket = desk.ask("a")
    desk.stopped("a")
    desk.ready("a")
    assert desk.fate[ticket] == "running"
    assert desk.scheduler.books.current["a"].wish == LoadOptions(num_ctx=DEFAULT_CTX)


def test_models_that_contradict_each_other_in_turn_cost_a_load_in_each_residence(make_desk):
    desk = make_desk(slots=2)
    for number in range(600):
        ticket = desk.ask("a", client=f"client {number % 2}", use_mmap=number % 2 == 0)
        if "stopping" in desk.workers.values():
            desk.stopped("a")
        if "loading" in desk.workers.values():
            desk.ready("a")
        assert desk.fate[ticket] == "running", "nobody waits for it"
        desk.end(ticket)
        desk.wait(1.0)
    assert desk.loads() <= 1 + 600 / RESIDENCE_S


def test_a_load_that_takes_long_resides_for_longer(make_desk):
    desk = make_desk()
    desk.ask("a")
    desk.wait(20.0)
    desk.ready("a")
    desk.wait(190.0)
    assert desk.fate[desk.ask("a", client="bob", use_mmap=False)] == "waiting", "for a slot"
    assert desk.loads() == 1
    assert not desk.scheduler.books.current["a"].is_draining


@pytest.mark.parametrize("option", [{"num_gpu": 0}, {"main_gpu": 3}])
def test_options_about_gpus_mean_nothing_where_there_are_none(make_desk, option):
    desk = make_desk()
    desk.up("a")
    desk.wait(RESIDENCE_S + 1)
    assert desk.fate[desk.ask("a", **option)] == "running"


def test_a_context_that_grows_token_by_token_doubles(make_desk):
    desk = make_desk(train_ctx=10_000)
    desk.up("a")
    for num_ctx in range(4096, 10_100, 50):
        ticket = desk.ask("a", num_ctx=num_ctx)
        if desk.fate[ticket] == "waiting":
            desk.wait(30.0)
            desk.stopped("a")
            desk.ready("a")
        desk.end(ticket)
    assert [load.plan.num_ctx for load in desk.load.values()] == [4096, 8192, 10_000]


def test_a_context_that_cannot_double_grows_to_what_was_asked_once_the_turn_is_over(make_desk):
    desk = make_desk(memory=80)
    plans = desk.scheduler._plans
    plans._planner = lambda _target, load_options: [
        Plan(
            demand={"cpu": (load_options.num_ctx or 4096) // 100},
            slots=1,
            num_ctx=load_options.num_ctx or 4096,
        )
    ]
    desk.up("a")
    for num_ctx, waited_s in ((8000, 0.0), (8001, 1.0), (8002, 1.0)):
        ticket = desk.ask("a", num_ctx=num_ctx)
        if waited_s:
            assert desk.state("a") == ["ready"], "so little more is not worth a load at once"
        desk.wait(waited_s)
        desk.stopped("a")
        desk.ready("a")
        assert desk.fate[ticket] == "running"
        desk.end(ticket)


def test_a_load_that_fails_for_one_clients_context_is_tried_without_it(make_desk):
    desk = make_desk(slots=1)
    desk.up("a")
    greedy = desk.ask("a", client="greedy", num_ctx=100_000)
    modest = [desk.ask("a", client="modest"), desk.ask("a", client="modest", num_ctx=8192)]
    desk.stopped("a")
    desk.refuse("a", "not enough memory")
    assert desk.error[greedy] == ("load_failed", "not enough memory")
    desk.ready("a")
    assert desk.fate[modest[0]] == "running"
    desk.end(modest[0])
    assert desk.fate[modest[1]] == "running"


def test_a_context_that_was_refused_is_not_tried_again_and_again_at_the_cost_of_others(make_desk):
    desk = make_desk(slots=1)
    desk.up("a")
    desk.ask("a", client="greedy", num_ctx=100_000)
    modest = desk.ask("a", client="modest")
    desk.stopped("a")
    desk.refuse("a", "not enough memory")
    desk.ready("a")
    desk.end(modest)
    for num_ctx in (100_000, 99_999, 2_000_000):
        again = desk.ask("a", client="greedy", num_ctx=num_ctx)
        assert desk.error[again] == ("load_failed", "not enough memory")
    assert desk.state("a") == ["ready"]
    desk.ask("a", client="greedy", num_ctx=50_000)
    assert "stopping" in desk.state("a"), "so much was never refused"


def test_a_context_that_was_refused_is_tried_again_after_a_while(make_desk):
    desk = make_desk(slots=1)
    desk.up("a")
    desk.ask("a", num_ctx=100_000)
    desk.stopped("a")
    desk.refuse("a", "not enough memory")
    desk.up("a")
    desk.wait(61.0)
    assert desk.fate[desk.ask("a", num_ctx=100_000)] == "waiting"


def test_a_load_that_fails_for_everybody_is_tried_a_few_times_only(make_desk):
    desk = make_desk(slots=1, max_queue=100)
    for number in range(50):
        desk.ask("a", client=f"client {number}", num_ctx=10_000 + 1000 * number)
    while "loading" in desk.workers.values():
        desk.refuse("a", "bad magic")
    assert desk.count("failed:load_failed") == 50
    assert desk.loads() <= 5


@pytest.mark.parametrize("option", [{"num_batch": 64}, {"num_gpu": -1}])
def test_some_options_never_reload(make_desk, option):
    desk = make_desk()
    desk.up("a")
    assert desk.fate[desk.ask("a", **option)] == "running"


def test_the_batch_that_the_model_names_is_planned_for(make_desk):
    desk = make_desk()
    planned = []
    plan = desk.scheduler._plans._planner
    desk.scheduler._plans._planner = lambda target, load_options: (
        planned.append(load_options) or plan(target, load_options)
    )
    desk.ask("a", num_batch=64)
    assert {load_options.num_batch for load_options in planned} == {64}


def test_a_reload_for_another_option_keeps_the_context(make_desk):
    desk = make_desk(train_ctx=16384)
    desk.up("a", num_ctx=8192)
    desk.wait(RESIDENCE_S + 1)
    desk.ask("a", use_mmap=False)
    desk.stopped("a")
    desk.ready("a")
    stay = desk.scheduler.books.current["a"]
    assert (stay.num_ctx, stay.wish.use_mmap) == (8192, False)


def test_a_reload_waits_until_its_ticket_is_next_of_its_client(make_desk):
    desk = make_desk()
    desk.up("a", use_mmap=False)
    running = desk.ask("a", use_mmap=False)
    desk.wait(RESIDENCE_S + 1)
    suited, other = desk.ask("a", use_mmap=False), desk.ask("a", use_mmap=True)
    desk.end(running)
    assert desk.fate[suited] == "running"
    desk.end(suited)
    desk.stopped("a")
    desk.ready("a")
    assert desk.fate[other] == "running"
    assert desk.loads() == 2


def test_an_idle_model_is_unloaded_after_what_the_last_request_said(make_desk):
    desk = make_desk(keep_alive_s=300.0)
    desk.up("a", keep_alive_s=10.0)
    desk.end(desk.ask("a"))
    desk.wait(9.0)
    assert desk.state("a") == ["ready"]
    desk.wait(2.0)
    assert desk.state("a") == ["stopping"]
    assert desk.stop_reasons == ["idle"]


def test_the_time_to_unload_begins_when_the_last_request_ends(make_desk):
    desk = make_desk(keep_alive_s=10.0)
    desk.up("a")
    desk.wait(5.0)
    ticket = desk.ask("a")
    desk.wait(100.0)
    desk.end(ticket)
    desk.wait(9.0)
    assert desk.state("a") == ["ready"]


def test_keep_alive_zero_unloads_when_idle_and_inf_never(make_desk):
    desk = make_desk()
    desk.up("a", keep_alive_s=0.0)
    assert desk.state("a") == ["stopping"]
    desk.up("b", keep_alive_s=math.inf)
    desk.wait(1e9)
    assert desk.state("b") == ["ready"]


def test_unloading_on_request_lets_running_ones_end(make_desk):
    desk = make_desk()
    desk.up("a")
    ticket = desk.ask("a")
    desk.unload("a")
    assert desk.state("a") == ["ready"]
    desk.end(ticket)
    assert desk.state("a") == ["stopping"]
    desk.unload("never loaded")


def test_a_request_during_an_unload_loads_again_when_the_memory_is_free(make_desk):
    desk = make_desk()
    desk.up("a")
    running = desk.ask("a")
    desk.unload("a")
    ticket = desk.ask("a")
    desk.end(running)
    desk.stopped("a")
    desk.ready("a")
    assert desk.fate[ticket] == "running"


def test_a_failed_load_fails_everybody_who_waits_for_it_and_is_not_repeated(make_desk):
    desk = make_desk(slots=1)
    tickets = [desk.ask("a") for _ in range(3)]
    desk.refuse("a", "bad magic")
    assert {desk.error[t] for t in tickets} == {("load_failed", "bad magic")}
    assert desk.loads() == 1
    desk.ask("a")
    assert desk.loads() == 2, "a new request may try again"

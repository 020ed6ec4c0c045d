"""Who may wait, who is turned away, and in which order the others go."""

from __future__ import annotations

import pytest


def test_one_slot_and_a_queue_of_one_serve_two_of_six_and_reject_four(make_desk):
    desk = make_desk(slots=1, max_queue=1)
    desk.up("a")
    tickets = [desk.ask("a", client=f"client {n}") for n in range(6)]
    assert [desk.fate[t] for t in tickets] == ["running", "waiting"] + ["rejected:full"] * 4
    desk.end(tickets[0])
    desk.end(tickets[1])
    assert [desk.fate[t] for t in tickets] == ["ended", "ended"] + ["rejected:full"] * 4


def test_a_promise_of_a_slot_is_not_waiting(make_desk):
    desk = make_desk(slots=2, max_queue=1)
    tickets = [desk.ask("a") for _ in range(4)]
    assert desk.scheduler.books.waiting == 1
    assert desk.fate[tickets[3]] == "rejected:full"
    desk.ready("a")
    assert [desk.fate[t] for t in tickets[:3]] == ["running", "running", "waiting"]


def test_a_queue_of_none_serves_whoever_triggers_a_load(make_desk):
    desk = make_desk(slots=1, max_queue=0)
    first, second = desk.ask("a"), desk.ask("a")
    assert desk.fate[second] == "rejected:full"
    desk.ready("a")
    assert desk.fate[first] == "running"
    assert desk.fate[desk.ask("a")] == "rejected:full"


def test_a_queue_of_none_may_still_change_models_when_the_other_is_idle(make_desk):
    desk = make_desk(max_queue=0, max_loaded=1)
    desk.up("a")
    ticket = desk.ask("b")
    desk.stopped("a")
    desk.ready("b")
    assert desk.fate[ticket] == "running"


def test_a_queue_of_none_rejects_what_would_have_to_wait_for_a_busy_model(make_desk):
    desk = make_desk(max_queue=0, max_loaded=1)
    desk.up("a")
    desk.ask("a")
    desk.now += 100
    assert desk.fate[desk.ask("b")] == "rejected:full"
    assert not desk.scheduler.books.current["a"].is_draining


def test_the_bound_counts_all_models_together(make_desk):
    desk = make_desk(slots=1, max_queue=2)
    for key in ("a", "b"):
        desk.up(key)
        desk.ask(key)
        desk.ask(key)
    assert desk.fate[desk.ask("a")] == "rejected:full"
    assert desk.fate[desk.ask("c")] == "waiting", "it triggers a load: it has a promise"
    assert desk.state("c") == ["loading"]


def test_a_client_with_many_tickets_does_not_delay_the_first_of_another(make_desk):
    desk = make_desk(slots=1, max_queue=1000)
    desk.up("a")
    running = desk.ask("a", client="greedy")
    for _ in range(999):
        desk.ask("a", client="greedy")
    modest = desk.ask("a", client="modest")
    desk.end(running)
    following = next(t for t, fate in desk.fate.items() if fate == "running")
    if following != modest:
        desk.end(following)
    assert desk.fate[modest] == "running"


def test_who_holds_most_of_a_full_queue_loses_its_newest_to_who_holds_less(make_desk):
    desk = make_desk(slots=1, max_queue=4)
    desk.up("a")
    greedy = [desk.ask("a", client="greedy") for _ in range(7)]
    assert [desk.fate[t] for t in greedy[5:]] == ["rejected:full"] * 2
    modest = [desk.ask("a", client="modest") for _ in range(3)]
    assert [desk.fate[t] for t in greedy[:5]] == [
        "running",
        "waiting",
        "waiting",
        "rejected:full",
        "rejected:full",
    ]
    assert [desk.fate[t] for t in modest] == ["waiting", "waiting", "rejected:full"]
    assert desk.retry_after[greedy[4]] >= 1
    assert desk.fate[desk.ask("a", client="greedy")] == "rejected:full"


def test_a_single_place_goes_from_who_also_runs_to_who_has_nothing(make_desk):
    desk = make_desk(slots=1, max_queue=1)
    desk.up("a")
    running, waiting = desk.ask("a", client="greedy"), desk.ask("a", client="greedy")
    modest = desk.ask("a", client="modest")
    assert (desk.fate[waiting], desk.fate[modest]) == ("rejected:full", "waiting")
    assert desk.fate[desk.ask("a", client="greedy")] == "rejected:full"
    assert desk.fate[desk.ask("a", client="third")] == "rejected:full", "it holds no less"
    desk.end(running)
    assert desk.fate[modest] == "running"


def test_the_queue_is_shared_over_all_models(make_desk):
    desk = make_desk(slots=1, max_queue=3)
    desk.up("a")
    desk.up("b")
    for key in ("a", "b"):
        desk.ask(key, client="other")
    mine = [desk.ask(key, client="greedy") for key in ("a", "b", "b")]
    newcomer = desk.ask("a", client="modest")
    assert [desk.fate[t] for t in mine] == ["waiting", "waiting", "rejected:full"]
    assert desk.fate[newcomer] == "waiting"


def test_a_flood_of_who_holds_most_is_not_planned_for(make_desk):
    desk = make_desk(slots=1, max_queue=2)
    desk.up("a")
    for _ in range(3):
        desk.ask("a", client="greedy")
    desk.scheduler._plans._planner = None
    desk.scheduler._settling.settle = None
    for _ in range(10):
        assert desk.fate[desk.ask("a", client="greedy", num_ctx=8192)] == "rejected:full"


def test_two_clients_do_not_displace_each_other_in_turn(make_desk):
    desk = make_desk(slots=1, max_queue=5)
    desk.up("a")
    tickets = [desk.ask("a", client="ab"[number % 2]) for number in range(50)]
    assert [desk.fate[t] for t in tickets[:6]] == ["running"] + ["waiting"] * 5
    assert desk.count("rejected:full") == 44


def test_clients_take_turns_and_each_goes_in_its_own_order(make_desk):
    desk = make_desk(slots=1)
    desk.up("a")
    current = desk.ask("a", client="x")
    asked = [desk.ask("a", client=client) for client in "aaabbc"]
    order = []
    for _ in asked:
        desk.end(current)
        current = next(t for t in asked if desk.fate[t] == "running")
        order.append(asked.index(current))
    assert order == [0, 3, 5, 1, 4, 2]


def test_a_client_that_leaves_the_queue_makes_room_at_once(make_desk):
    desk = make_desk(slots=1, max_queue=1)
    desk.up("a")
    desk.ask("a")
    waiting = desk.ask("a")
    desk.cancel(waiting)
    assert desk.scheduler.books.waiting == 0
    assert desk.fate[desk.ask("a")] == "waiting"


def test_a_cancelled_ticket_keeps_its_slot_until_the_worker_confirms(make_desk):
    desk = make_desk(slots=1)
    desk.up("a")
    first, second = desk.ask("a"), desk.ask("a")
    desk.cancel(first)
    desk.cancel(first)
    assert (desk.fate[first], desk.fate[second]) == ("aborting", "waiting")
    desk.end(first)
    assert desk.fate[second] == "running"


def test_retry_after_grows_with_the_line_and_the_time_that_answers_take(make_desk):
    desk = make_desk(slots=1, max_queue=5)
    desk.up("a")
    running = desk.ask("a")
    desk.now += 10
    desk.end(running)
    for _ in range(6):
        desk.ask("a")
    rejected = desk.ask("a")
    assert desk.retry_after[rejected] > 5


def test_a_model_that_can_never_fit_fails_at_once_and_evicts_nobody(make_desk):
    desk = make_desk(memory=20, sizes={"huge": 100}, max_queue=5)
    desk.up("a")
    ticket = desk.ask("huge")
    assert desk.fate[ticket] == "failed:load_failed"
    assert desk.error[ticket][1].startswith("model requires more system memory (")
    assert desk.state("a") == ["ready"]


def test_the_reason_of_a_planner_is_what_the_client_reads(make_desk):
    desk = make_desk()
    assert desk.error[desk.ask("broken")] == ("load_failed", "no such engine")


def test_only_loading_ends_when_the_model_is_ready_and_takes_no_slot_afterwards(make_desk):
    desk = make_desk(slots=1)
    loads = [desk.ask("a", loads_only=True) for _ in range(3)]
    ticket = desk.ask("a")
    desk.ready("a")
    assert {desk.fate[t] for t in loads} == {"completed"}
    assert desk.fate[ticket] == "running"
    assert desk.fate[desk.ask("a", loads_only=True)] == "completed", "even while the slot is taken"


def test_a_worker_with_fewer_slots_than_promised_sends_the_surplus_to_the_front(make_desk):
    desk = make_desk(slots=3, max_queue=1)
    tickets = [desk.ask("a", client=client) for client in "abc"]
    desk.ready("a", slots=1)
    assert [desk.fate[t] for t in tickets] == ["running", "waiting", "rejected:full"]


@pytest.mark.parametrize("restarts", [True, False])
def test_after_shutdown_nobody_is_admitted_and_nobody_waits(make_desk, restarts):
    desk = make_desk(slots=1)
    desk.up("a")
    running, waiting, promised = desk.ask("a"), desk.ask("a"), desk.ask("b")
    desk.shut_down(10.0)
    assert desk.fate[waiting] == desk.fate[promised] == "failed:shutting_down"
    assert desk.fate[desk.ask("a")] == "rejected:draining"
    assert desk.fate[running] == "running"
    if restarts:
        desk.lose("a", {running})
        assert desk.fate[running] == "failed:worker_died"
    else:
        desk.end(running)
        desk.stopped("a")
    desk.stopped("b")
    assert not desk.scheduler.books.stays


def test_what_still_runs_after_the_grace_is_failed_and_stopped(make_desk):
    desk = make_desk(slots=1)
    desk.up("a")
    running = desk.ask("a")
    desk.shut_down(10.0)
    desk.wait(9.9)
    assert desk.fate[running] == "running"
    desk.wait(0.2)
    assert desk.fate[running] == "failed:shutting_down"
    assert desk.state("a") == ["stopping"]

"""A worker's death: whose requests it ends, whose it delays, and when it is one death too many."""

from __future__ import annotations


def test_what_had_sent_nothing_is_served_again_and_the_rest_fails(make_desk):
    desk = make_desk(slots=2)
    desk.up("a")
    spoke, silent, waiting = (desk.ask("a") for _ in range(3))
    desk.lose("a", {silent})
    assert desk.fate[spoke] == "failed:worker_died"
    desk.ready("a")
    assert (desk.fate[silent], desk.fate[waiting]) == ("running", "waiting"), "it may kill again"
    desk.end(silent)
    assert desk.fate[waiting] == "running"


def test_restarted_tickets_go_first(make_desk):
    desk = make_desk(slots=1)
    desk.up("a")
    silent, waiting = desk.ask("a"), desk.ask("a", client="bob")
    desk.lose("a", {silent})
    desk.ready("a")
    assert (desk.fate[silent], desk.fate[waiting]) == ("running", "waiting")


def test_nothing_is_restarted_twice(make_desk):
    desk = make_desk()
    desk.up("a")
    ticket = desk.ask("a")
    desk.lose("a", {ticket})
    desk.ready("a")
    desk.lose("a", {ticket})
    assert desk.fate[ticket] == "failed:worker_died"


def test_a_restarted_ticket_has_a_promise_and_does_not_wait(make_desk):
    desk = make_desk(slots=1, max_queue=0)
    desk.up("a")
    ticket = desk.ask("a")
    desk.lose("a", {ticket})
    assert desk.scheduler.books.waiting == 0
    desk.ready("a")
    assert desk.fate[ticket] == "running"


def test_a_cancelled_request_ends_with_its_worker(make_desk):
    desk = make_desk()
    desk.up("a")
    ticket = desk.ask("a")
    desk.cancel(ticket)
    desk.lose("a", {ticket})
    assert ticket not in desk.scheduler.books.tickets
    assert desk.loads() == 1


def test_an_idle_death_loads_nothing(make_desk):
    desk = make_desk()
    desk.up("a")
    desk.lose("a")
    assert not desk.scheduler.books.stays


def test_only_the_dead_workers_requests_end(make_desk):
    desk = make_desk()
    desk.up("a")
    desk.up("b")
    mine, other = desk.ask("a"), desk.ask("b")
    desk.lose("a")
    assert (desk.fate[mine], desk.fate[other]) == ("failed:worker_died", "running")


def test_three_crashes_within_a_minute_stop_the_tries_for_a_while(make_desk):
    desk = make_desk(slots=1)
    for _ in range(3):
        desk.up("a")
        running, waiting = desk.ask("a"), desk.ask("a")
        desk.lose("a", {running})
        if desk.workers:
            desk.ready("a")
            for ticket in (running, waiting):
                desk.end(ticket)
            desk.unload("a")
            desk.stopped("a")
    assert desk.fate[running] == desk.fate[waiting] == "failed:worker_died"
    refused = desk.ask("a")
    assert desk.fate[refused] == "failed:worker_died"
    assert "tried again in 30s" in desk.error[refused][1]
    assert desk.fate[desk.ask("b")] == "waiting", "other models are not concerned"
    desk.now += 31
    desk.ask("a")
    assert desk.state("a") == ["loading"]


def test_three_crashes_in_an_hour_are_bad_luck(make_desk):
    desk = make_desk()
    for _ in range(3):
        desk.up("a")
        desk.lose("a")
        desk.now += 1200
    assert desk.fate[desk.ask("a")] == "waiting"


def load(desk, model="a"):
    if not desk.state(model):
        desk.up(model, client="operator")


def batch(desk, clients, poisons=(), *, model="a"):
    """All run on one worker, which dies without a byte sent; what becomes of them, one by one."""
    load(desk, model)
    tickets = [desk.ask(model, client=client) for client in clients]
    assert {desk.fate[ticket] for ticket in tickets} == {"running"}
    desk.lose(model, set(tickets))
    while any(desk.fate[ticket] in {"waiting", "running"} for ticket in tickets):
        if desk.state(model) == ["loading"]:
            desk.ready(model)
        running = [ticket for ticket in tickets if desk.fate[ticket] == "running"]
        assert len(running) == 1, "one at a time"
        if tickets.index(running[0]) in poisons:
            desk.lose(model, set(running))
        else:
            desk.end(running[0])
    return [desk.fate[ticket] for ticket in tickets]


def test_of_a_batch_that_died_only_the_poisons_fail(make_desk):
    desk = make_desk(slots=8)
    fates = batch(desk, "abcdefgh", {2, 5})
    failed = [place for place, fate in enumerate(fates) if fate == "failed:worker_died"]
    assert failed == [2, 5]
    assert fates.count("ended") == 6
    assert desk.loads() == 4


def test_a_batch_of_one_client_is_served_although_it_brought_the_poison(make_desk):
    desk = make_desk(slots=8)
    for _ in range(2):
        fates = batch(desk, ["ann"] * 8, {0, 7})
        assert fates.count("ended") == 6


def test_a_batch_of_nothing_but_poison_costs_a_few_deaths(make_desk):
    desk = make_desk(slots=8)
    fates = batch(desk, "abababab", range(8))
    assert fates == ["failed:worker_died"] * 8
    assert desk.loads() <= 5


def test_nobody_runs_beside_a_suspect(make_desk):
    desk = make_desk(slots=4)
    desk.up("a")
    first, second = desk.ask("a"), desk.ask("a", client="bob")
    desk.lose("a", {first, second})
    newcomer = desk.ask("a", client="cyd")
    desk.ready("a")
    assert [desk.fate[t] for t in (first, second, newcomer)] == ["running", "waiting", "waiting"]
    desk.end(first)
    assert [desk.fate[t] for t in (second, newcomer)] == ["running", "waiting"]
    desk.lose("a", {second})
    assert desk.fate[second] == "failed:worker_died"
    desk.ready("a")
    assert desk.fate[newcomer] == "running", "it has seen no death"


def test_an_endless_answer_does_not_keep_the_others_from_their_trials_for_ever(make_desk):
    desk = make_desk(slots=3)
    desk.up("a")
    endless, other = desk.ask("a"), desk.ask("a", client="bob")
    desk.wait(10.0)
    poison = desk.ask("a", client="evil")
    desk.lose("a", {endless, other, poison})
    desk.ready("a")
    assert desk.fate[poison] == "running", "it began last"
    desk.lose("a", {poison})
    newcomer = desk.ask("a", client="cyd")
    desk.ready("a")
    assert [desk.fate[t] for t in (endless, other)] == ["running", "waiting"]
    desk.wait(16.0)
    assert [desk.fate[t] for t in (endless, other)] == ["running", "running"]
    assert desk.fate[newcomer] == "waiting"
    desk.wait(16.0)
    assert desk.fate[newcomer] == "running"


def test_who_was_cleared_is_tried_again_when_the_next_suspect_kills_the_worker(make_desk):
    desk = make_desk(slots=3)
    desk.up("a")
    first, poison, third = (desk.ask("a", client=client) for client in "abc")
    desk.lose("a", {first, poison, third})
    desk.ready("a")
    desk.wait(6.0)
    assert [desk.fate[t] for t in (first, poison, third)] == ["running", "running", "waiting"]
    desk.lose("a", {first, poison})
    assert desk.fate[poison] == "failed:worker_died"
    desk.ready("a")
    for ticket in (third, first):
        assert desk.fate[ticket] == "running"
        desk.end(ticket)


def test_suspects_for_whom_the_next_worker_has_no_slot_are_tried_before_others_go(make_desk):
    desk = make_desk(slots=4)
    desk.up("a")
    tickets = [desk.ask("a", client=client) for client in "abcd"]
    desk.lose("a", set(tickets))
    newcomer = desk.ask("a", client="e")
    desk.ready("a", slots=2)
    desk.wait(15.0)
    assert [desk.fate[t] for t in tickets[:2]] == ["running", "running"]
    for ticket in tickets[:2]:
        desk.end(ticket)
    assert [desk.fate[t] for t in tickets[2:]] == ["running", "waiting"]
    desk.wait(6.0)
    assert [desk.fate[t] for t in tickets[2:]] == ["running", "running"]
    desk.end(tickets[2])
    assert desk.fate[newcomer] == "waiting", "the last one is on trial"
    desk.end(tickets[3])
    assert desk.fate[newcomer] == "running"


def test_suspects_hold_places_and_do_not_wait(make_desk):
    desk = make_desk(slots=4, max_queue=0)
    assert batch(desk, "abcd", {1}) == ["ended", "failed:worker_died", "ended", "ended"]


def test_a_suspect_that_leaves_before_its_turn_is_not_started(make_desk):
    desk = make_desk(slots=3)
    desk.up("a")
    first, second, third = (desk.ask("a", client=client) for client in "abc")
    desk.lose("a", {first, second, third})
    desk.ready("a")
    desk.cancel(second)
    desk.cancel(first)
    assert (desk.fate[first], desk.fate[second]) == ("aborting", "cancelled")
    assert desk.fate[third] == "waiting", "the worker still has the first"
    desk.end(first)
    assert desk.fate[third] == "running"


def test_a_shutdown_tries_no_suspects(make_desk):
    desk = make_desk(slots=3)
    desk.up("a")
    first, second, third = (desk.ask("a", client=client) for client in "abc")
    desk.lose("a", {first, second, third})
    desk.ready("a")
    desk.shut_down(60.0)
    assert [desk.fate[t] for t in (second, third)] == ["failed:shutting_down"] * 2
    desk.lose("a", {first})
    assert desk.fate[first] == "failed:worker_died"
    assert not desk.scheduler.books.stays


def test_suspects_are_tried_while_an_unload_waits_for_them(make_desk):
    desk = make_desk(slots=2)
    desk.up("a")
    first, second = desk.ask("a"), desk.ask("a", client="bob")
    desk.lose("a", {first, second})
    desk.ready("a")
    desk.unload("a")
    desk.end(first)
    assert desk.fate[second] == "running"
    desk.end(second)
    assert desk.state("a") == ["stopping"]


def test_whoever_poisons_again_and_again_is_refused_and_nobody_else(make_desk):
    desk = make_desk(slots=4)
    for _ in range(5):
        fates = batch(desk, ["ann", "bob", "cyd", "evil"], {3})
        assert fates == ["ended"] * 3 + ["failed:worker_died"]
    refused = desk.ask("a", client="evil")
    assert "tried again in 30s" in desk.error[refused][1]
    load(desk)
    assert desk.fate[desk.ask("a", client="ann")] == "running"
    desk.now += 31
    assert desk.fate[desk.ask("a", client="evil")] == "running"


def test_a_poisoner_that_leaves_before_it_is_tried_is_found_out(make_desk):
    desk = make_desk(slots=3)
    for _ in range(5):
        load(desk)
        evil, ann, bob = (desk.ask("a", client=client) for client in ("evil", "ann", "bob"))
        desk.lose("a", {evil, ann, bob})
        desk.cancel(evil)
        desk.ready("a")
        desk.end(ann)
        desk.end(bob)
    assert desk.fate[desk.ask("a", client="evil")] == "failed:worker_died"
    assert desk.fate[desk.ask("a", client="ann")] == "running"


def test_a_poisoner_that_was_sent_text_before_is_found_out(make_desk):
    desk = make_desk(slots=3)
    for _ in range(5):
        load(desk)
        evil, ann, bob = (desk.ask("a", client=client) for client in ("evil", "ann", "bob"))
        desk.lose("a", {ann, bob})
        assert desk.fate[evil] == "failed:worker_died"
        desk.ready("a")
        desk.end(ann)
        desk.end(bob)
    assert desk.fate[desk.ask("a", client="evil")] == "failed:worker_died"
    assert desk.fate[desk.ask("a", client="ann")] == "running"


def test_deaths_that_nobody_explains_put_the_model_into_back_off(make_desk):
    desk = make_desk(slots=2)
    for _ in range(2):
        assert batch(desk, "ab") == ["ended"] * 2
    assert batch(desk, "ab") == ["failed:worker_died"] * 2
    assert desk.fate[desk.ask("a", client="cyd")] == "failed:worker_died"


def test_a_model_that_kills_itself_for_every_client_is_given_up(make_desk):
    desk = make_desk(slots=1)
    for client in "abc":
        ticket = desk.ask("a", client=client)
        desk.ready("a")
        desk.lose("a", {ticket})
        if desk.fate[ticket] == "waiting":
            desk.ready("a")
            desk.lose("a", {ticket})
        assert desk.fate[ticket] == "failed:worker_died"
    assert desk.fate[desk.ask("a", client="dan")] == "failed:worker_died"


def test_a_request_that_was_alone_when_the_worker_aborted_is_not_tried_again(make_desk):
    desk = make_desk(slots=2)
    desk.up("a")
    ticket = desk.ask("a")
    desk.lose("a", {ticket}, has_aborted=True)
    assert desk.fate[ticket] == "failed:worker_died"
    assert desk.loads() == 1

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

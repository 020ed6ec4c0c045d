"""A process that even SIGKILL does not end is nobody's worker any more, and keeps its memory."""

from __future__ import annotations

import pytest

from ollama_async.queue import events as ev


def linger(desk, key, event):
    """What the performer knows of the worker from now on: it is on its way out."""
    worker = desk.worker(key)
    desk.workers[worker] = "stopping"
    for ticket, place in list(desk.on.items()):
        if place == worker:
            del desk.on[ticket]
    desk.tell(event(worker))


def lost(worker):
    return ev.WorkerLost(worker, "killed", is_gone=False)


def refused(worker):
    return ev.WorkerRefused(worker, "load_failed", "it hangs", is_gone=False)


@pytest.mark.parametrize(
    ("is_ready", "event"), [(True, lost), (False, lost), (False, refused)], ids=str
)
def test_its_requests_end_at_once_and_its_memory_is_taken_until_it_is_gone(
    make_desk, is_ready, event
):
    desk = make_desk(memory=20)
    ticket = desk.ask("a")
    if is_ready:
        desk.ready("a")
    linger(desk, "a", event)
    assert desk.fate[ticket].startswith("failed")
    other = desk.ask("b")
    assert desk.loads() == 1
    desk.stopped("a")
    assert desk.loads() == 2
    desk.ready("b")
    assert desk.fate[other] == "running"


def test_what_may_be_repeated_waits_for_the_memory(make_desk):
    desk = make_desk(memory=20)
    ticket = desk.ask("a")
    desk.ready("a")
    worker = desk.worker("a")
    desk.workers[worker] = "stopping"
    del desk.on[ticket]
    desk.fate[ticket] = "waiting"
    desk.tell(ev.WorkerLost(worker, "killed", frozenset({ticket}), is_gone=False))
    assert desk.loads() == 1
    desk.stopped("a")
    desk.ready("a")
    assert desk.fate[ticket] == "running"


def test_a_worker_that_was_stopping_anyway_is_no_exception(make_desk):
    desk = make_desk()
    desk.up("a")
    desk.unload("a")
    (worker,) = desk.workers
    desk.tell(lost(worker))
    desk.stopped("a")
    assert desk.workers == {}

"""Random histories: whatever happens in whatever order, the invariants hold and everything ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

MODELS = ["a", "b", "c", "huge", "broken"]
CLIENTS = ["ann", "bob", "cyd", "dan"]
IS_GONE = st.sampled_from([True, True, False])


class Histories(RuleBasedStateMachine):
    make_desk: Callable[..., Any]

    @initialize(
        slots=st.integers(1, 3),
        max_queue=st.integers(0, 4),
        max_loaded=st.integers(1, 3),
        memory=st.integers(20, 60),
        gpus=st.integers(0, 2),
        shuts_down=st.sampled_from([False, False, False, True]),
    )
    def open(self, slots, max_queue, max_loaded, memory, gpus, shuts_down):
        self.shuts_down = shuts_down
        self.desk = type(self).make_desk(
            slots=slots,
            max_queue=max_queue,
            max_loaded=max_loaded,
            devices=dict.fromkeys(["cpu", "gpu0", "gpu1"][: gpus + 1], memory),
            sizes={"a": 10, "b": 15, "c": 19, "huge": 100},
            keep_alive_s=5.0,
            train_ctx=16384,
        )

    def _some(self, data, *fates):
        tickets = [t for t, fate in self.desk.fate.items() if fate in fates]
        return data.draw(st.sampled_from(tickets)) if tickets else None

    def _worker(self, data, state):
        keys = sorted(
            {
                self.desk.load[worker].target.key
                for worker, found in self.desk.workers.items()
                if found == state
            }
        )
        return data.draw(st.sampled_from(keys)) if keys else None

    def has(self, state):
        return state in self.desk.workers.values()

    @rule(
        model=st.sampled_from(["a", "a", "b", "b", "c", "c", "huge", "broken"]),
        client=st.sampled_from(CLIENTS),
        num_ctx=st.sampled_from([None, None, None, 2048, 8192, 16384, 99999]),
        num_gpu=st.sampled_from([None, None, None, None, -1, 0, 1]),
        use_mmap=st.sampled_from([None, None, None, False]),
        keep_alive_s=st.sampled_from([None, None, 0.0, 1.0, float("inf")]),
        loads_only=st.sampled_from([False, False, False, True]),
        times=st.integers(1, 4),
    )
    def ask(self, times, model, **wishes):
        for _ in range(times):
            ticket = self.desk.ask(model, **wishes)
        fate = self.desk.fate[ticket]
        assert (model in {"huge", "broken"}) <= (fate[:6] in {"failed", "reject"})
        if fate == "rejected:full":
            holdings = self.desk.scheduler.books.holdings
            assert not holdings.may_displace(wishes["client"]), "somebody holds more"

    @rule(data=st.data())
    def end(self, data):
        if ticket := self._some(data, "running", "aborting"):
            self.desk.end(ticket)

    @rule(data=st.data())
    def cancel(self, data):
        if ticket := self._some(data, "waiting", "running", "ended", "cancelled", "aborting"):
            self.desk.cancel(ticket)

    @precondition(lambda self: self.has("loading"))
    @rule(data=st.data(), slots=st.sampled_from([None, None, 1]))
    def ready(self, data, slots):
        self.desk.ready(self._worker(data, "loading"), slots)

    @precondition(lambda self: self.has("loading"))
    @rule(data=st.data(), is_gone=IS_GONE)
    def refuse(self, data, is_gone):
        key = self._worker(data, "loading")
        books = self.desk.scheduler.books
        half = (books.current[key].wish.num_ctx or 0) / 2
        wishes = {
            ticket.id: ticket.load_options.num_ctx or 0
            for ticket in books.tickets.values()
            if ticket.request.target.key == key
        }
        self.desk.refuse(key, is_gone=is_gone)
        if half and any(num_ctx > half for num_ctx in wishes.values()):
            for ticket, num_ctx in wishes.items():
                assert self.desk.fate[ticket].startswith("failed") == (num_ctx > half)

    @precondition(lambda self: self.has("stopping"))
    @rule(data=st.data())
    def stopped(self, data):
        self.desk.stopped(self._worker(data, "stopping"))

    @precondition(lambda self: self.has("stopping"))
    @rule(data=st.data())
    def outlast(self, data):
        self.desk.outlast(self._worker(data, "stopping"))

    @precondition(lambda self: self.has("lingering"))
    @rule(data=st.data())
    def gone(self, data):
        self.desk.gone(self._worker(data, "lingering"))

    @precondition(lambda self: self.has("ready"))
    @rule(data=st.data(), restarts=st.booleans(), has_aborted=st.booleans(), is_gone=IS_GONE)
    def lose(self, data, restarts, has_aborted, is_gone):
        key = self._worker(data, "ready")
        worker = self.desk.worker(key)
        running = {t for t, place in self.desk.on.items() if place == worker}
        unheard = {t for t in sorted(running) if restarts or data.draw(st.booleans())}
        self.desk.lose(key, unheard, has_aborted=has_aborted, is_gone=is_gone)

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 40.0]))
    def wait(self, seconds):
        self.desk.wait(seconds)

    @rule(model=st.sampled_from(["a", "b"]))
    def unload(self, model):
        self.desk.unload(model)

    @precondition(lambda self: self.shuts_down)
    @rule(grace_s=st.sampled_from([0.0, 3.0, float("inf")]))
    def shut_down(self, grace_s):
        self.desk.shut_down(grace_s)

    @invariant()
    def books_agree(self):
        if not hasattr(self, "desk"):
            return
        scheduler = self.desk.scheduler
        in_books = {t for t, f in self.desk.fate.items() if f in {"waiting", "running", "aborting"}}
        assert in_books == scheduler.books.tickets.keys()

    def teardown(self):
        if hasattr(self, "desk"):
            _finish(self.desk)


@pytest.mark.slow
def test_every_history_keeps_the_invariants_and_ends(make_desk):
    Histories.make_desk = staticmethod(make_desk)
    Histories.TestCase.settings = settings(
        max_examples=600,
        stateful_step_count=40,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    Histories.TestCase().runTest()


def _finish(desk):
    """With everybody doing their duty, all who wait are served and memory comes free."""
    waited = {t for t, fate in desk.fate.items() if fate == "waiting"}
    for _ in range(500):
        _everybody_does_their_duty(desk)
        if not desk.scheduler.books.tickets:
            break
        desk.wait(1.0)
    assert not desk.scheduler.books.tickets
    fates = {desk.fate[t] for t in waited}
    assert fates <= {"ended", "completed"}
    desk.shut_down(0.0)
    desk.wait(0.0)
    _let_go(desk)
    assert not desk.workers
    assert not desk.scheduler.books.stays


def _let_go(desk):
    for worker, state in list(desk.workers.items()):
        key = desk.load[worker].target.key
        if state == "stopping":
            desk.stopped(key)
        elif state == "lingering":
            desk.gone(key)


def _everybody_does_their_duty(desk):
    for ticket in [t for t, fate in desk.fate.items() if fate in {"running", "aborting"}]:
        desk.end(ticket)
    for worker, state in list(desk.workers.items()):
        key = desk.load[worker].target.key
        if state == "loading" and desk.workers.get(worker) == state:
            desk.ready(key)
    _let_go(desk)

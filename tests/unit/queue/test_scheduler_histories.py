"""Random histories: the invariants are true after any order of events, and every request ends."""

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
    make_harness: Callable[..., Any]

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
        self.harness = type(self).make_harness(
            slots=slots,
            max_queue=max_queue,
            max_loaded=max_loaded,
            devices=dict.fromkeys(["cpu", "gpu0", "gpu1"][: gpus + 1], memory),
            sizes={"a": 10, "b": 15, "c": 19, "huge": 100},
            keep_alive_s=5.0,
            train_ctx=16384,
        )

    def _some(self, data, *statuses):
        requests = [t for t, status in self.harness.status.items() if status in statuses]
        return data.draw(st.sampled_from(requests)) if requests else None

    def _worker(self, data, state):
        keys = sorted(
            {
                self.harness.loads[worker].target.key
                for worker, found in self.harness.workers.items()
                if found == state
            }
        )
        return data.draw(st.sampled_from(keys)) if keys else None

    def has(self, state):
        return state in self.harness.workers.values()

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
    def submit(self, times, model, **options):
        for _ in range(times):
            request = self.harness.submit(model, **options)
        status = self.harness.status[request]
        assert (model in {"huge", "broken"}) <= (status[:6] in {"failed", "reject"})
        if status == "rejected:full":
            shares = self.harness.scheduler.state.shares
            assert not shares.can_displace(options["client"]), "another client has more"

    @rule(data=st.data())
    def end(self, data):
        if request := self._some(data, "running", "aborting"):
            self.harness.end(request)

    @rule(data=st.data())
    def cancel(self, data):
        if request := self._some(data, "waiting", "running", "ended", "cancelled", "aborting"):
            self.harness.cancel(request)

    @precondition(lambda self: self.has("loading"))
    @rule(data=st.data(), slots=st.sampled_from([None, None, 1]))
    def make_ready(self, data, slots):
        self.harness.make_ready(self._worker(data, "loading"), slots)

    @precondition(lambda self: self.has("loading"))
    @rule(data=st.data(), is_gone=IS_GONE)
    def fail_load(self, data, is_gone):
        key = self._worker(data, "loading")
        state = self.harness.scheduler.state
        half = (state.current[key].load_options.num_ctx or 0) / 2
        contexts = {
            request.id: request.load_options.num_ctx or 0
            for request in state.requests.values()
            if request.target.key == key
        }
        self.harness.fail_load(key, is_gone=is_gone)
        if half and any(num_ctx > half for num_ctx in contexts.values()):
            for request, num_ctx in contexts.items():
                assert self.harness.status[request].startswith("failed") == (num_ctx > half)

    @precondition(lambda self: self.has("stopping"))
    @rule(data=st.data())
    def finish_stop(self, data):
        self.harness.finish_stop(self._worker(data, "stopping"))

    @precondition(lambda self: self.has("stopping"))
    @rule(data=st.data())
    def linger(self, data):
        self.harness.linger(self._worker(data, "stopping"))

    @precondition(lambda self: self.has("lingering"))
    @rule(data=st.data())
    def exit_lingering(self, data):
        self.harness.exit_lingering(self._worker(data, "lingering"))

    @precondition(lambda self: self.has("ready"))
    @rule(data=st.data(), restarts=st.booleans(), has_aborted=st.booleans(), is_gone=IS_GONE)
    def lose(self, data, restarts, has_aborted, is_gone):
        key = self._worker(data, "ready")
        worker = self.harness.instance_id(key)
        running = {t for t, place in self.harness.running_on.items() if place == worker}
        restartable = {t for t in sorted(running) if restarts or data.draw(st.booleans())}
        self.harness.lose(key, restartable, has_aborted=has_aborted, is_gone=is_gone)

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 40.0]))
    def advance(self, seconds):
        self.harness.advance(seconds)

    @rule(model=st.sampled_from(["a", "b"]))
    def unload(self, model):
        self.harness.unload(model)

    @precondition(lambda self: self.shuts_down)
    @rule(grace_s=st.sampled_from([0.0, 3.0, float("inf")]))
    def shut_down(self, grace_s):
        self.harness.shut_down(grace_s)

    @invariant()
    def state_agrees(self):
        if not hasattr(self, "harness"):
            return
        scheduler = self.harness.scheduler
        expected = {
            t for t, f in self.harness.status.items() if f in {"waiting", "running", "aborting"}
        }
        assert expected == scheduler.state.requests.keys()

    def teardown(self):
        if hasattr(self, "harness"):
            _finish(self.harness)


@pytest.mark.slow
def test_every_history_keeps_the_invariants_and_ends(make_harness):
    Histories.make_harness = staticmethod(make_harness)
    Histories.TestCase.settings = settings(
        max_examples=600,
        stateful_step_count=40,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    Histories.TestCase().runTest()


def _finish(harness):
    """If every worker responds, all that wait is served and the memory is freed."""
    waited = {t for t, status in harness.status.items() if status == "waiting"}
    for _ in range(500):
        _respond(harness)
        if not harness.scheduler.state.requests:
            break
        harness.advance(1.0)
    assert not harness.scheduler.state.requests
    statuses = {harness.status[t] for t in waited}
    assert statuses <= {"ended", "completed"}
    harness.shut_down(0.0)
    harness.advance(0.0)
    _finish_stops(harness)
    assert not harness.workers
    assert not harness.scheduler.state.instances


def _finish_stops(harness):
    for worker, state in list(harness.workers.items()):
        key = harness.loads[worker].target.key
        if state == "stopping":
            harness.finish_stop(key)
        elif state == "lingering":
            harness.exit_lingering(key)


def _respond(harness):
    for request in [t for t, status in harness.status.items() if status in {"running", "aborting"}]:
        harness.end(request)
    for worker, state in list(harness.workers.items()):
        key = harness.loads[worker].target.key
        if state == "loading" and harness.workers.get(worker) == state:
            harness.make_ready(key)
    _finish_stops(harness)

"""A harness around the scheduler: it records effects instead of performing them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import msgspec
import pytest

from ollama_async.core.errors import LoadFailed
from ollama_async.queue import events as ev
from ollama_async.queue.backend import Job, LoadOptions, Target
from ollama_async.queue.memory_budget import Limits, Plan, Planner
from ollama_async.queue.scheduler import Scheduler
from tests.unit.queue.invariants import validate

DEFAULT_CTX = 4096


def target(key: str, train_ctx: int = 0) -> Target:
    return Target(
        key=key,
        name=f"{key}:latest",
        digest=key,
        engine="scripted",
        path=key,
        weights_bytes=0,
        cache_bytes_per_token=0,
        train_ctx=train_ctx,
        details={},
    )


class SchedulerHarness:
    """``status``: of each request, by id. ``workers``: state of each that exists, by instance id.
    ``planner`` may be replaced.
    """

    def __init__(self, limits: Limits, slots: int, sizes: dict[str, int], train_ctx: int) -> None:
        self.now = 1000.0
        self.slots = slots
        self.sizes = sizes
        self.train_ctx = train_ctx
        self.status: dict[int, str] = {}
        self.retry_after: dict[int, int] = {}
        self.error: dict[int, tuple[str, str]] = {}
        self.workers: dict[int, str] = {}
        self.loads: dict[int, ev.Load] = {}
        self.stop_reasons: list[str] = []
        self.running_on: dict[int, int] = {}
        self.effects: list[ev.Effect] = []
        self.wake_at: float | None = None
        self._numbers = itertools.count(1)
        self.planner: Planner = self.plan
        self.scheduler = Scheduler(limits, self._plan)

    def _plan(self, target: Target, options: LoadOptions) -> Sequence[Plan]:
        return self.planner(target, options)

    def plan(self, target: Target, options: LoadOptions) -> list[Plan]:
        if target.key == "broken":
            raise LoadFailed("no such engine")
        num_ctx = options.num_ctx or DEFAULT_CTX
        size = self.sizes.get(target.key, 10) + num_ctx // DEFAULT_CTX
        devices = self.scheduler.state.limits.capacity
        return [
            Plan(demand={device: size}, slots=self.slots, num_ctx=num_ctx) for device in devices
        ]

    # -- events ------------------------------------------------------------------------------

    def handle(self, event: ev.Event) -> list[ev.Effect]:
        self.effects = self.scheduler.handle(event, self.now)
        for effect in self.effects:
            self._perform(effect)
        validate(self.scheduler)
        return self.effects

    def submit(self, key: str, client: str = "ann", **options) -> int:
        request = next(self._numbers)
        self.status[request] = "waiting"
        keep_alive_s = options.pop("keep_alive_s", None)
        loads_only = options.pop("loads_only", False)
        self.handle(
            ev.RequestArrived(
                request,
                Job(
                    target=target(key, self.train_ctx),
                    load_options=LoadOptions(**options),
                    client=client,
                    task=None if loads_only else msgspec.Raw(),
                    keep_alive_s=keep_alive_s,
                ),
            )
        )
        return request

    def end(self, request: int) -> None:
        assert self.status[request] in {"running", "aborting"}
        self.status[request] = "ended"
        del self.running_on[request]
        self.handle(ev.RequestEnded(request))

    def cancel(self, request: int) -> None:
        before = self.status[request]
        self.handle(ev.RequestCancelled(request))
        if before == "waiting":
            self.status[request] = "cancelled"

    def make_ready(self, key: str, slots: int | None = None, num_ctx: int | None = None) -> int:
        worker = self.instance_id(key)
        assert self.workers[worker] == "loading"
        self.workers[worker] = "ready"
        plan = self.loads[worker].plan
        self.handle(ev.WorkerReady(worker, slots or plan.slots, num_ctx or plan.num_ctx))
        return worker

    def fail_load(self, key: str, message: str = "bad magic", *, is_gone: bool = True) -> None:
        worker = self.instance_id(key)
        self._end_worker(worker, is_gone=is_gone)
        self.handle(ev.WorkerLoadFailed(worker, LoadFailed.code, message, is_gone))

    def lose(
        self,
        key: str,
        restartable: set[int] = frozenset(),
        *,
        is_gone: bool = True,
        has_aborted: bool = False,
    ) -> None:
        worker = self.instance_id(key)
        self._end_worker(worker, is_gone=is_gone)
        for request, place in list(self.running_on.items()):
            if place == worker:
                del self.running_on[request]
                if self.status[request] == "aborting":
                    self.status[request] = "ended"
                elif self.status[request] == "running":
                    self.status[request] = "waiting"
        event = ev.WorkerLost(
            worker, "killed", frozenset(restartable), is_gone=is_gone, has_aborted=has_aborted
        )
        self.handle(event)

    def _end_worker(self, worker: int, *, is_gone: bool) -> None:
        if is_gone:
            del self.workers[worker]
        else:
            self.workers[worker] = "lingering"

    def linger(self, key: str) -> None:
        """The model's worker is being stopped, and not even SIGKILL ends it."""
        worker = self._ending(key, "stopping")
        self.workers[worker] = "lingering"
        self.handle(ev.WorkerLost(worker, "killed", is_gone=False))

    def finish_stop(self, key: str) -> None:
        self._exit(self._ending(key, "stopping"))

    def exit_lingering(self, key: str) -> None:
        """The process that SIGKILL did not end has exited at last."""
        self._exit(self._ending(key, "lingering"))

    def _exit(self, worker: int) -> None:
        del self.workers[worker]
        self.handle(ev.WorkerStopped(worker))

    def _ending(self, key: str, state: str) -> int:
        return next(
            number
            for number, found in self.workers.items()
            if found == state and self.loads[number].target.key == key
        )

    def unload(self, key: str) -> None:
        self.handle(ev.UnloadRequested(key))

    def shut_down(self, grace_s: float) -> None:
        self.handle(ev.ShutdownRequested(grace_s))

    def advance(self, seconds: float) -> None:
        """Let time pass; the timer fires whenever the scheduler has set it."""
        until = self.now + seconds
        for _ in range(100):
            if self.wake_at is None or self.wake_at > until:
                self.now = until
                return
            self.now = max(self.now, self.wake_at)
            self.wake_at = None
            self.handle(ev.TimerFired())
        raise AssertionError("the scheduler wakes up again and again")

    def load(self, key: str, **options) -> int:
        """Load the model and leave it idle."""
        request = self.submit(key, **options)
        worker = self.make_ready(key)
        self.end(request)
        return worker

    # -- results -----------------------------------------------------------------------------

    def instance_id(self, key: str) -> int:
        """The model's worker that is neither stopping nor lingering."""
        return next(
            number
            for number, state in self.workers.items()
            if state not in {"stopping", "lingering"} and self.loads[number].target.key == key
        )

    def worker_states(self, key: str) -> list[str]:
        return [
            state for number, state in self.workers.items() if self.loads[number].target.key == key
        ]

    def count(self, status: str) -> int:
        return sum(value == status for value in self.status.values())

    def load_count(self) -> int:
        return len(self.loads)

    # -- effects -----------------------------------------------------------------------------

    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Start(request, worker):
                assert self.status[request] == "waiting"
                assert self.workers[worker] == "ready"
                self.status[request] = "running"
                self.running_on[request] = worker
            case ev.Complete(request):
                assert self.status[request] == "waiting"
                self.status[request] = "completed"
            case ev.Abort(request, worker):
                assert self.status[request] == "running"
                assert self.running_on[request] == worker
                self.status[request] = "aborting"
            case ev.Reject(request, reason, retry_after_s):
                assert self.status[request] == "waiting"
                assert retry_after_s >= 1
                self.status[request] = f"rejected:{reason}"
                self.retry_after[request] = retry_after_s
            case ev.Fail(request, code, message):
                assert self.status[request] in {"waiting", "running"}
                self.status[request] = f"failed:{code}"
                self.error[request] = (code, message)
            case ev.Load(worker):
                assert worker not in self.loads
                self.loads[worker] = effect
                self.workers[worker] = "loading"
            case ev.Stop(worker, reason):
                assert self.workers[worker] in {"loading", "ready"}
                self.workers[worker] = "stopping"
                left = [t for t, place in self.running_on.items() if place == worker]
                self.status |= {t: "ended" for t in left if self.status[t] == "aborting"}
                self.running_on = {
                    t: place for t, place in self.running_on.items() if place != worker
                }
                self.stop_reasons.append(reason)
            case ev.WakeAt(at):
                self.wake_at = at


@pytest.fixture
def make_harness() -> Callable[..., SchedulerHarness]:
    def make(
        *,
        slots: int = 1,
        max_queue: int = 10,
        max_loaded: int = 3,
        memory: int = 1000,
        sizes: dict[str, int] | None = None,
        devices: dict[str, int] | None = None,
        keep_alive_s: float = 300.0,
        train_ctx: int = 0,
    ) -> SchedulerHarness:
        limits = Limits(
            max_queue=max_queue,
            capacity=devices or {"cpu": memory},
            max_loaded=max_loaded,
            keep_alive_s=keep_alive_s,
        )
        return SchedulerHarness(limits, slots, sizes or {}, train_ctx)

    return make

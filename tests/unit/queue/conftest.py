"""A desk to play the scheduler at: it performs effects on paper and keeps the books."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from ollama_async.core.errors import LoadFailed
from ollama_async.queue import effects as do
from ollama_async.queue import events as ev
from ollama_async.queue.backend import LoadOptions, Target
from ollama_async.queue.plan import Limits, Plan
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


class Desk:
    """Books: ``fate`` of each ticket, ``workers`` that exist and how they are."""

    def __init__(self, limits: Limits, slots: int, sizes: dict[str, int], train_ctx: int) -> None:
        self.now = 1000.0
        self.slots = slots
        self.sizes = sizes
        self.train_ctx = train_ctx
        self.fate: dict[int, str] = {}
        self.retry_after: dict[int, int] = {}
        self.error: dict[int, tuple[str, str]] = {}
        self.workers: dict[int, str] = {}
        self.load: dict[int, do.Load] = {}
        self.stop_reasons: list[str] = []
        self.on: dict[int, int] = {}
        self.effects: list[do.Effect] = []
        self.wake_at: float | None = None
        self._numbers = itertools.count(1)
        self.scheduler = Scheduler(limits, self.plan)

    def plan(self, wanted: Target, load_options: LoadOptions) -> list[Plan]:
        if wanted.key == "broken":
            raise LoadFailed("no such engine")
        num_ctx = load_options.num_ctx or DEFAULT_CTX
        size = self.sizes.get(wanted.key, 10) + num_ctx // DEFAULT_CTX
        devices = self.scheduler.books.limits.capacity
        return [
            Plan(demand={device: size}, slots=self.slots, num_ctx=num_ctx) for device in devices
        ]

    # what happens

    def tell(self, event: ev.Event) -> list[do.Effect]:
        self.effects = self.scheduler.handle(event, self.now)
        for effect in self.effects:
            self._perform(effect)
        validate(self.scheduler)
        return self.effects

    def ask(self, key: str, client: str = "ann", **wishes) -> int:
        ticket = next(self._numbers)
        self.fate[ticket] = "waiting"
        keep_alive_s = wishes.pop("keep_alive_s", None)
        loads_only = wishes.pop("loads_only", False)
        self.tell(
            ev.Requested(
                ticket=ticket,
                client=client,
                target=target(key, self.train_ctx),
                load_options=LoadOptions(**wishes),
                keep_alive_s=keep_alive_s,
                loads_only=loads_only,
            )
        )
        return ticket

    def end(self, ticket: int) -> None:
        assert self.fate[ticket] in {"running", "aborting"}
        self.fate[ticket] = "ended"
        del self.on[ticket]
        self.tell(ev.Ended(ticket))

    def cancel(self, ticket: int) -> None:
        before = self.fate[ticket]
        self.tell(ev.Cancelled(ticket))
        if before == "waiting":
            self.fate[ticket] = "cancelled"

    def ready(self, key: str, slots: int | None = None, num_ctx: int | None = None) -> int:
        worker = self.worker(key)
        assert self.workers[worker] == "loading"
        self.workers[worker] = "ready"
        plan = self.load[worker].plan
        self.tell(ev.WorkerReady(worker, slots or plan.slots, num_ctx or plan.num_ctx))
        return worker

    def refuse(self, key: str, message: str = "bad magic", *, is_gone: bool = True) -> None:
        worker = self.worker(key)
        self._end(worker, is_gone=is_gone)
        self.tell(ev.WorkerRefused(worker, LoadFailed.code, message, is_gone))

    def lose(
        self,
        key: str,
        restartable: set[int] = frozenset(),
        *,
        is_gone: bool = True,
        has_aborted: bool = False,
    ) -> None:
        worker = self.worker(key)
        self._end(worker, is_gone=is_gone)
        for ticket, place in list(self.on.items()):
            if place == worker:
                del self.on[ticket]
                if self.fate[ticket] == "aborting":
                    self.fate[ticket] = "ended"
                elif self.fate[ticket] == "running":
                    self.fate[ticket] = "waiting"
        event = ev.WorkerLost(
            worker, "killed", frozenset(restartable), is_gone=is_gone, has_aborted=has_aborted
        )
        self.tell(event)

    def _end(self, worker: int, *, is_gone: bool) -> None:
        if is_gone:
            del self.workers[worker]
        else:
            self.workers[worker] = "lingering"

    def outlast(self, key: str) -> None:
        """The model's worker was told to stop, and not even SIGKILL ends it."""
        worker = self._ending(key, "stopping")
        self.workers[worker] = "lingering"
        self.tell(ev.WorkerLost(worker, "killed", is_gone=False))

    def stopped(self, key: str) -> None:
        self._go(self._ending(key, "stopping"))

    def gone(self, key: str) -> None:
        """The process that not even SIGKILL had ended is gone at last."""
        self._go(self._ending(key, "lingering"))

    def _go(self, worker: int) -> None:
        del self.workers[worker]
        self.tell(ev.WorkerStopped(worker))

    def _ending(self, key: str, state: str) -> int:
        return next(
            number
            for number, found in self.workers.items()
            if found == state and self.load[number].target.key == key
        )

    def unload(self, key: str) -> None:
        self.tell(ev.UnloadAsked(key))

    def shut_down(self, grace_s: float) -> None:
        self.tell(ev.ShutdownAsked(grace_s))

    def wait(self, seconds: float) -> None:
        """Time passes; the scheduler is woken at every moment that it named."""
        until = self.now + seconds
        for _ in range(100):
            if self.wake_at is None or self.wake_at > until:
                self.now = until
                return
            self.now = max(self.now, self.wake_at)
            self.wake_at = None
            self.tell(ev.TimePassed())
        raise AssertionError("the scheduler wakes up again and again")

    def up(self, key: str, **wishes) -> int:
        """The model is loaded and idle."""
        ticket = self.ask(key, **wishes)
        worker = self.ready(key)
        self.end(ticket)
        return worker

    # what is so

    def worker(self, key: str) -> int:
        """The model's worker that is neither stopping nor lingering."""
        return next(
            number
            for number, state in self.workers.items()
            if state not in {"stopping", "lingering"} and self.load[number].target.key == key
        )

    def state(self, key: str) -> list[str]:
        return [
            state for number, state in self.workers.items() if self.load[number].target.key == key
        ]

    def count(self, fate: str) -> int:
        return sum(value == fate for value in self.fate.values())

    def loads(self) -> int:
        return len(self.load)

    # performing

    def _perform(self, effect: do.Effect) -> None:
        match effect:
            case do.Start(ticket, worker):
                assert self.fate[ticket] == "waiting"
                assert self.workers[worker] == "ready"
                self.fate[ticket] = "running"
                self.on[ticket] = worker
            case do.Complete(ticket):
                assert self.fate[ticket] == "waiting"
                self.fate[ticket] = "completed"
            case do.Abort(ticket, worker):
                assert self.fate[ticket] == "running"
                assert self.on[ticket] == worker
                self.fate[ticket] = "aborting"
            case do.Reject(ticket, reason, retry_after_s):
                assert self.fate[ticket] == "waiting"
                assert retry_after_s >= 1
                self.fate[ticket] = f"rejected:{reason}"
                self.retry_after[ticket] = retry_after_s
            case do.Fail(ticket, code, message):
                assert self.fate[ticket] in {"waiting", "running"}
                self.fate[ticket] = f"failed:{code}"
                self.error[ticket] = (code, message)
            case do.Load(worker):
                assert worker not in self.load
                self.load[worker] = effect
                self.workers[worker] = "loading"
            case do.Stop(worker, reason):
                assert self.workers[worker] in {"loading", "ready"}
                self.workers[worker] = "stopping"
                left = [t for t, place in self.on.items() if place == worker]
                self.fate |= {t: "ended" for t in left if self.fate[t] == "aborting"}
                self.on = {t: place for t, place in self.on.items() if place != worker}
                self.stop_reasons.append(reason)
            case do.WakeAt(at):
                self.wake_at = at


@pytest.fixture
def make_desk() -> Callable[..., Desk]:
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
    ) -> Desk:
        limits = Limits(
            max_queue=max_queue,
            capacity=devices or {"cpu": memory},
            max_loaded=max_loaded,
            keep_alive_s=keep_alive_s,
        )
        return Desk(limits, slots, sizes or {}, train_ctx)

    return make

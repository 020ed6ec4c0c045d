"""A pool or a client with workers in memory, for tests that decide what a worker does and when."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager

from ollama_async.core.conversation import Inference, Prompt, Sampling, Usage
from ollama_async.queue.backend import Job, LoadOptions, Target
from ollama_async.queue.memory_budget import Limits
from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.load_spec import LoadSpec, ResourceLimits
from ollama_async.workers.messages import (
    PROTOCOL,
    Cancel,
    Deltas,
    Done,
    Hello,
    PackedSubmit,
    Ready,
    Refused,
    Started,
)
from ollama_async.workers.pool import Pool

DEADLINE_S = 30.0


class FakeWorker:
    """A transport to a worker in memory, which does what the test commands."""

    def __init__(self):
        self.pid = 0
        self.has_faulted = False
        self.sent = []
        self.submitted = {}  # by id, until it has ended
        self.cancelled = []
        self.stop_graces_s = []
        self.survives_kill = False
        self.start_fault = None
        self.send_fault = None
        self.holds_stop = False
        self.may_stop = asyncio.Event()
        self.gone = asyncio.Event()
        self._started = set()

    @property
    def is_gone(self):
        return not self.pid or self.gone.is_set()

    # what the client calls

    def start(self, plan, *, generation, listener):
        if self.start_fault:
            raise self.start_fault
        self.plan, self.generation, self.listener = plan, generation, listener
        self.pid = 4000 + generation

    def send(self, message):
        if self.send_fault:
            raise self.send_fault
        self.sent.append(message)
        if isinstance(message, PackedSubmit):
            self.submitted[message.id] = message
        elif isinstance(message, Cancel):
            self.cancelled.append(message.id)

    def kill(self):
        if not self.survives_kill:
            asyncio.get_running_loop().call_soon(self.die)

    async def stop(self, grace_s):
        self.stop_graces_s.append(grace_s)
        if self.holds_stop:
            await self.may_stop.wait()
        if not self.survives_kill:
            self.die("exit status 0")

    def mark_ready(self):
        """Of no interest."""

    def last_output(self):
        return []

    # what the test commands

    def expect_answers_within(self, timeout_s):
        """Set only now, so that no slow machine makes a stall of what comes before."""
        self.listener._stall_timeout_s = timeout_s

    def deliver(self, *messages):
        self.listener.received(list(messages))

    def greet(self):
        self.deliver(Hello(PROTOCOL, self.pid, self.generation))

    async def ready(self, slots=1, **facts):
        sizes = {
            "num_ctx": 4096,
            "weights_bytes": 100,
            "cache_bytes": 20,
            "compute_bytes": 3,
            "device_bytes": 0,
        }
        self.greet()
        self.deliver(Ready(slots=slots, **{**sizes, **facts}))
        await turns()

    async def refuse(self, text):
        self.greet()
        self.deliver(Refused("load_failed", text))
        await turns()

    def begin(self, request_id):
        if request_id not in self._started:
            self._started.add(request_id)
            self.deliver(Started(request_id))

    def write(self, *items):
        for request_id, _ in items:
            if request_id in self.submitted:
                self.begin(request_id)
        self.deliver(Deltas(list(items)))

    def answer(self, request_id, *texts, reason="stop"):
        self.begin(request_id)
        for text in texts:
            self.write((request_id, text))
        del self.submitted[request_id]
        self.deliver(Done(request_id, reason, Usage(prompt=1, answer=len(texts)), [7]))

    def die(self, reason="killed by signal 9", *, has_aborted=False, has_faulted=False):
        """Also what a process that survived SIGKILL does at last."""
        self.has_faulted = has_faulted
        if not self.is_gone:
            self.gone.set()
            self.listener.exited(reason, has_aborted=has_aborted)
            self.listener.closed()


class RecordingSink:
    """A sink that records what it receives, and whose progress can be awaited."""

    def __init__(self, has_sent=True):
        self.received = []
        self.start = None
        self.has_sent = has_sent
        self.finish = None
        self.error = None
        self._changed = asyncio.Event()

    def _record(self, event):
        self.received.append(event)
        self._changed.set()

    def started(self, start):
        self.start = start
        self._record("started")

    def text(self, text):
        self._record(text)

    def part(self, part):
        self._record(part)

    def finished(self, finish):
        self.finish = finish
        self._record(finish.reason)

    def failed(self, error):
        self.error = error
        self._record(error)

    def try_restart(self):
        if not self.has_sent:
            self.received.clear()
        return not self.has_sent

    @property
    def answer(self):
        """All text so far."""
        texts = [event for event in self.received if isinstance(event, str) and event != "started"]
        return "".join(texts[:-1] if self.finish else texts)

    async def until(self, condition):
        await until(self._changed, lambda: condition(self))

    async def end(self):
        await self.until(lambda sink: sink.finish or sink.error)
        return self


class RecordingObserver:
    def __init__(self):
        self.notes = []
        self._changed = asyncio.Event()

    def _record(self, *note):
        self.notes.append(note)
        self._changed.set()

    def rejected(self, reason):
        self._record("rejected", reason)

    def waited(self, model, seconds):
        assert seconds >= 0
        self._record("waited", model)

    def loaded(self, model, outcome, seconds):
        assert seconds >= 0
        self._record("loaded", model, outcome)

    def unloaded(self, model, reason):
        self._record("unloaded", model, reason)

    def worker_died(self, model):
        self._record("died", model)

    async def until(self, note):
        await until(self._changed, lambda: note in self.notes)


async def until(changed, condition):
    """Wait for a condition, checked whenever the event is set."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            changed.clear()
            await changed.wait()


class PoolHarness:
    """A pool, its workers in memory and what it reported."""

    def __init__(self, **settings):
        self.workers = []
        self.plan_fault = None
        self.transport_fault = None
        self.observer = settings.pop("observer", None) or RecordingObserver()
        limits = Limits(
            max_queue=settings.pop("max_queue", 5),
            capacity={"cpu": settings.pop("capacity", 100)},
            max_loaded=settings.pop("max_loaded", 3),
            keep_alive_s=settings.pop("keep_alive_s", math.inf),
        )
        self.slots = settings.pop("slots", 1)
        self.sizes = {"huge": 1000, "small": 10}
        self.size = settings.pop("size", 10)
        self.spec = {}
        self.pool = Pool(
            limits, self.plan, self.observer, make_transport=self.make_worker, **settings
        )

    def plan(self, target, options):
        if self.plan_fault:
            raise self.plan_fault
        size = self.sizes.get(target.key, self.size)
        load = {"model": target.path, "size": size, "num_ctx": options.num_ctx, **self.spec}
        return [plan(slots=self.slots, **load)]

    def make_worker(self):
        if self.transport_fault:
            raise self.transport_fault
        self.workers.append(FakeWorker())
        return self.workers[-1]

    def submit(self, key="a", sink=None, **fields):
        sink = sink or RecordingSink()
        sink.handle = self.pool.submit(job(key, **fields), sink)
        return sink

    async def up(self, key="a", **facts):
        """The model is loaded and idle."""
        sink = self.submit(key)
        await turns()
        worker = self.workers[-1]
        await worker.ready(**facts)
        worker.answer(*worker.submitted)
        assert sink.received == ["started", "stop"]
        return worker


@asynccontextmanager
async def pool(**settings):
    made = PoolHarness(**settings)
    try:
        yield made
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await made.pool.close()
        assert all(worker.is_gone for worker in made.workers)
        assert not made.pool._clients
        assert not made.pool._requests
        assert not made.pool._tasks


def plan(
    *,
    engine="scripted",
    model="m",
    size=10,
    slots=1,
    num_ctx=None,
    environ=None,
    limits=ResourceLimits(),  # noqa: B008  # frozen
    **spec,
):
    num_ctx = num_ctx or 4096
    return LoadPlan(
        demand={"cpu": size},
        slots=slots,
        num_ctx=num_ctx,
        spec=LoadSpec(engine=engine, model=model, num_ctx=num_ctx, slots=slots, **spec),
        environ={"A": "1"} if environ is None else environ,
        limits=limits,
    )


def job(key="a", prompt="hi", **fields):
    default = Inference(Prompt(raw=prompt), Sampling())
    return Job(
        target=target(key),
        load_options=fields.pop("load_options", LoadOptions()),
        client=fields.pop("client", "ann"),
        task=fields.pop("task", default),
        **fields,
    )


def target(key):
    return Target(
        key=key,
        name=f"{key}:latest",
        digest="",
        engine="scripted",
        path=key,
        weights_bytes=0,
        cache_bytes_per_token=0,
        train_ctx=0,
        details={},
    )


async def turns():
    """Let tasks that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)

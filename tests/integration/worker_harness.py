"""Clients of real worker processes, and everything that they report."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.workers.client import WorkerClient
from ollama_async.workers.process import CHILD_MODULE, WorkerProcess
from ollama_async.workers.requests import SubmittedRequest
from tests.unit.workers.harness import DEADLINE_S, job, plan, target, until

HERE = Path(__file__).parent
ENVIRON = {"PYTHONPATH": str(HERE), "PATH": os.environ["PATH"], "MARK": "only the child's"}
MISBEHAVING = "misbehaving_worker"


class Events:
    """All that clients and sinks report, as ``(kind, value)`` in order; the owner of a client.

    Kinds are ``started`` (an id), ``text`` and ``part`` (id, content), ``done`` (a Finish),
    ``failed`` (an error) and ``lost`` (a reason).
    """

    def __init__(self):
        self.all = []
        self.ends = {}  # of requests: a Finish or an error
        self.has_aborted = None
        self._changed = asyncio.Event()

    def add(self, kind, value):
        self.all.append((kind, value))
        self._changed.set()

    def kinds(self):
        return [kind for kind, _ in self.all]

    def of(self, kind):
        return [value for each, value in self.all if each == kind]

    def text(self, request_id):
        return "".join(text for number, text in self.of("text") if number == request_id)

    async def until(self, kind):
        """The first of them."""
        await until(self._changed, lambda: self.of(kind))
        return self.of(kind)[0]

    async def until_so(self, condition):
        await until(self._changed, condition)

    def request_ended(self, _request):
        """The sink is called afterwards."""

    def worker_lost(self, _worker, reason, *, has_aborted):
        self.has_aborted = has_aborted
        self.add("lost", reason)


class EventSink:
    """The sink of one request."""

    def __init__(self, events, request_id):
        self._events = events
        self._id = request_id

    def started(self, _start):
        self._events.add("started", self._id)

    def text(self, text):
        self._events.add("text", (self._id, text))

    def part(self, part):
        self._events.add("part", (self._id, part))

    def finished(self, finish):
        self._events.ends[self._id] = finish
        self._events.add("done", finish)

    def failed(self, error):
        self._events.ends[self._id] = error
        self._events.add("failed", error)


def new_client(events, *, number=7, module=CHILD_MODULE, **timeouts):
    return WorkerClient(number, target("m"), events, WorkerProcess(module), **timeouts)


async def start(client, engine="answer", **settings):
    """``engine`` is what a misbehaving worker does instead."""
    settings = {"slots": 2, "num_ctx": 64, "environ": ENVIRON, **settings}
    async with asyncio.timeout(DEADLINE_S):
        return await client.start(plan(engine=engine, **settings))


def submit(client, request_id, prompt, *, sink=None, num_predict=-1):
    """``prompt``: raw text, or a Prompt."""
    prompt = Prompt(raw=prompt) if isinstance(prompt, str) else prompt
    task = Inference(prompt, Sampling(num_predict=num_predict))
    submit_task(client, request_id, task, sink=sink, num_predict=num_predict)


def submit_task(client, request_id, task, *, sink=None, **fields):
    sink = sink or EventSink(client._owner, request_id)
    client.submit(SubmittedRequest(request_id, job("m", task=task, **fields), sink, lambda _: None))


async def perform(client, task, request_id=1000):
    """The end of the task, and its text."""
    events = Events()
    submit_task(client, request_id, task, sink=EventSink(events, request_id))
    await events.until_so(lambda: events.ends)
    return events.ends[request_id], events.text(request_id)


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def block_loop_until(condition):
    """Keep the event loop from running, as a busy server might."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
async def events():
    return Events()


@pytest.fixture
async def make_client(events):
    """Makes clients of misbehaving workers; whatever becomes of the test, none outlives it."""
    clients = []

    def make(**timeouts):
        clients.append(new_client(events, module=MISBEHAVING, **timeouts))
        return clients[-1]

    yield make
    for client in clients:
        await client.stop(0)


@pytest.fixture
async def client(make_client):
    """Of a ready worker."""
    client = make_client()
    await start(client)
    return client

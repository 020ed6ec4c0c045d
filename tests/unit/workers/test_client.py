"""The states of a worker's client: from start to gone, by itself, by a fault, or stopped.

Real processes are in ``tests/integration/test_worker_*.py``.
"""

from __future__ import annotations

import asyncio

import pytest

from ollama_async.core.conversation import Logprobs, TokenLogprob
from ollama_async.core.errors import BadRequest, LoadFailed, WorkerDied
from ollama_async.workers.client import CRASH_TEXT, WorkerClient
from ollama_async.workers.load_spec import ResourceLimits
from ollama_async.workers.messages import (
    Loading,
    Ready,
    Refused,
    Started,
)
from ollama_async.workers.requests import SubmittedRequest
from tests.unit.workers.harness import (
    DEADLINE_S,
    FakeWorker,
    RecordingSink,
    job,
    plan,
    target,
    turns,
)


class Owner:
    """Records what the client reports."""

    def __init__(self):
        self.ended = []
        self.lost = []
        self.changed = asyncio.Event()

    def request_ended(self, request):
        self.ended.append(request.id)

    def worker_lost(self, _worker, reason, *, has_aborted):
        self.lost.append((reason, has_aborted))
        self.changed.set()


@pytest.fixture
def owner():
    return Owner()


@pytest.fixture
async def worker():
    return FakeWorker()


@pytest.fixture
async def client(owner, worker):
    client = WorkerClient(3, target("a"), owner, worker)
    yield client
    worker.survives_kill = False
    worker.die()
    await client.stop(0)
    assert client.is_gone


async def begin(client, **fields):
    starting = asyncio.create_task(client.start(plan(**fields)))
    await turns()
    return starting


@pytest.fixture
async def ready(client, worker):
    starting = await begin(client)
    await worker.ready(slots=2)
    await starting
    return client


def submit(client, request_id=1, **fields):
    sink = RecordingSink()
    client.submit(SubmittedRequest(request_id, job(**fields), sink, lambda _: None))
    return sink


async def test_a_violation_fails_the_start(client, worker, owner):
    starting = await begin(client)
    worker.greet()
    worker.deliver(Loading())
    assert not starting.done()
    worker.greet()
    with pytest.raises(LoadFailed, match=r"terminated: .* unexpected message: Hello"):
        await starting
    assert worker.is_gone
    assert not owner.lost


async def test_a_workers_facts_are_limited_to_the_plan(client, worker):
    starting = await begin(client, limits=ResourceLimits(slots=3, num_ctx=100))
    await worker.ready(slots=1 << 20, num_ctx=1 << 30)
    facts = await starting
    assert (facts.slots, facts.num_ctx) == (3, 100)
    assert client.facts == facts


async def test_a_refusal_keeps_its_kind_and_the_worker_is_gone(client, worker, owner):
    starting = await begin(client)
    worker.greet()
    worker.deliver(Refused("bad_request", "no such\x1bquantization"))
    with pytest.raises(BadRequest, match=r"^no such quantization$"):
        await starting
    assert worker.is_gone
    assert not owner.lost


async def test_a_start_that_is_cancelled_ends_the_worker(client, worker):
    starting = await begin(client)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert client.is_gone
    assert worker.is_gone


async def test_a_client_that_was_stopped_before_its_start_starts_nothing(client, worker):
    await client.stop(0)
    with pytest.raises(LoadFailed, match="stopped"):
        await client.start(plan())
    assert worker.pid == 0


async def test_a_stop_fails_the_start_under_way(client, worker, owner):
    starting = await begin(client)
    client.detach()
    worker.deliver(Ready(1, 64, 1, 1, 1, 0))
    await client.stop(0)
    with pytest.raises(LoadFailed, match="stopped"):
        await starting
    assert client.is_stopping
    assert not owner.lost


@pytest.mark.parametrize("has_aborted", [False, True])
async def test_an_exit_is_reported_once_with_its_reason(ready, worker, owner, has_aborted):
    submit(ready)
    worker.die("exit status 3", has_aborted=has_aborted)
    assert owner.lost == [(f"{CRASH_TEXT}: exit status 3", has_aborted)]
    assert ready.is_gone
    assert not ready.is_stopping
    assert list(ready.requests) == [1], "its requests end with it"
    with pytest.raises(WorkerDied, match="exit status 3"):
        submit(ready, 2)
    await ready.stop(0)
    assert len(owner.lost) == 1


async def test_a_worker_may_send_the_logprobs_that_were_asked_for(ready, worker, owner):
    listed = Logprobs([TokenLogprob(b" " * 256, -1.0, [(b" " * 256, -1.0)] * 20)])
    submit(ready, 1, num_predict=500, logprobs=21)
    for _ in range(500):
        worker.write((1, listed))
    await turns()
    assert not owner.lost
    submit(ready, 2, num_predict=500)
    for _ in range(500):
        worker.write((2, listed))
    await asyncio.wait_for(owner.changed.wait(), DEADLINE_S)
    assert "sent more for request 2 than was requested" in owner.lost[0][0]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda worker: worker.write((9, "x")), "output for unknown request 9"),
        (lambda worker: worker.greet(), "unexpected message: Hello"),
        (lambda worker: worker.deliver(Started(9)), "started request 9 out of order"),
        (lambda worker: worker.listener.broken("no frame"), "cannot be decoded: no frame"),
    ],
)
async def test_a_fault_kills_and_is_reported_when_the_worker_is_gone(
    ready, worker, owner, fault, reason
):
    sink = submit(ready)
    fault(worker)
    assert not owner.lost
    worker.write((1, "late"))
    await turns()
    [(text, has_aborted)] = owner.lost
    assert reason in text
    assert not has_aborted
    assert sink.received == []


async def test_an_abort_after_a_fault_is_reported_as_the_fault(ready, worker, owner):
    worker.survives_kill = True
    ready.broken("no frame")
    worker.die("killed by signal 6", has_aborted=True)
    [(text, has_aborted)] = owner.lost
    assert "no frame" in text
    assert not has_aborted


async def test_the_loss_of_a_worker_that_survives_sigkill_is_reported_early(
    ready, worker, owner, monkeypatch
):
    monkeypatch.setattr("ollama_async.workers.client.REAP_DEADLINE_S", 0.0)
    worker.survives_kill = True
    ready.fail("it hangs")
    async with asyncio.timeout(DEADLINE_S):
        await owner.changed.wait()
    assert not ready.is_gone
    going = asyncio.create_task(ready.wait_gone())
    await turns()
    worker.die()
    await going
    assert len(owner.lost) == 1


async def test_after_a_detach_nothing_is_reported(ready, worker, owner):
    sink = submit(ready)
    ready.detach()
    worker.write((1, "late"))
    worker.answer(1)
    worker.die()
    assert sink.received == []
    assert owner.ended == owner.lost == []


async def test_a_forgotten_request_gets_nothing_and_may_end(ready, worker, owner):
    sink = submit(ready)
    ready.forget(1)
    worker.answer(1, "late")
    await turns()
    assert sink.received == []
    assert not worker.is_gone
    assert not owner.ended


async def test_the_owner_gets_an_end_before_the_sink(ready, worker, owner):
    sink = submit(ready)
    sink.finished = lambda finish: sink.received.append((finish.reason, list(owner.ended)))
    worker.answer(1)
    assert sink.received == ["started", ("stop", [1])]

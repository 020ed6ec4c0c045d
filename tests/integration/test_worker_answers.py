"""What a ready worker process answers: requests and calls, and what it was given."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from ollama_async.core import errors
from tests.integration.worker_harness import ENVIRON, EventSink, submit


async def test_calls_are_answered_beside_requests(client):
    submit(client, 1, "wait")
    assert await client.calls.tokenize("ab") == [97, 98]
    with pytest.raises(errors.BadRequest, match="no tokens"):
        await client.calls.detokenize([])
    with pytest.raises(errors.EngineFailed, match="answered with Text"):
        await client.calls.tokenize("wrong")


async def test_a_call_without_an_answer_ends_by_its_deadline(client):
    with pytest.raises(errors.EngineFailed, match=r"did not answer in 0.05 s"):
        await client.calls.tokenize("never", timeout_s=0.05)
    assert await client.calls.tokenize("a") == [97]


async def test_calls_fail_when_the_worker_dies(client, events):
    asking = asyncio.create_task(client.calls.tokenize("never"))
    await asyncio.sleep(0)
    submit(client, 1, "exit 4")
    with pytest.raises(errors.WorkerDied, match="exit status 4"):
        await asking
    await events.until("lost")


async def test_a_cancelled_request_ends_as_cancelled(client, events):
    submit(client, 1, "wait")
    await events.until("started")
    client.cancel(1)
    assert str(await events.until("failed")) == "the worker cancelled the request"
    client.cancel(1)
    client.cancel(99)


async def test_a_failed_request_is_reported(client, events):
    submit(client, 1, "fail")
    error = await events.until("failed")
    assert isinstance(error, errors.EngineFailed)
    assert error.message == "no"


async def test_a_sink_that_raises_costs_only_its_own_text(client, events, caplog):
    class Broken(EventSink):
        def text(self, text):
            raise ZeroDivisionError(text)

    submit(client, 1, "answer", sink=Broken(events, 1))
    await events.until("done")
    assert "ZeroDivisionError" in caplog.text


async def test_a_child_gets_its_own_descriptors_variables_and_session(client):
    canary = os.open("/dev/null", os.O_RDONLY)
    try:
        portrait = json.loads(await client.calls.detokenize([1]))
    finally:
        os.close(canary)
    assert portrait["environ"] == {
        **ENVIRON,
        "GOMP_SPINCOUNT": "1000",
        **{name: value for name, value in portrait["environ"].items() if name == "LC_CTYPE"},
    }
    assert portrait["session"] == portrait["pid"] == client.pid
    assert portrait["inheritable"] == []
    assert portrait["fds"]["0"] == "/dev/null"
    kinds = [target.partition(":")[0].strip("/") for target in portrait["fds"].values()]
    assert kinds.count("memfd") == 4  # two rings, each with its mapping's own copy
    assert kinds.count("anon_inode") == 1  # its own, which ends a wait
    assert kinds.count("pipe") == 5  # stdout, stderr, two doorbells, lifeline
    assert str(Path.cwd()) not in portrait["path"]
    assert "MARK" not in os.environ


async def test_no_thread_of_a_child_gains_rights(client):
    threads = statuses(client.pid)
    assert len(threads) > 1
    assert all("NoNewPrivs:\t1" in status for status in threads)


def statuses(pid):
    return [each.joinpath("status").read_text() for each in Path(f"/proc/{pid}/task").iterdir()]


async def test_a_request_over_the_limit_is_refused(client, events, monkeypatch):
    monkeypatch.setattr("ollama_async.workers.frames.TO_CHILD_LIMIT_BYTES", 1000)
    with pytest.raises(errors.TooLarge):
        submit(client, 1, "x" * 1000)
    submit(client, 2, "answer")
    await events.until("done")
    assert events.of("started") == [2]

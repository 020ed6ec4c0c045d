"""What a ready worker process answers, and what it was given."""

import json
import os
from pathlib import Path

import pytest

from ollama_async.core import errors
from ollama_async.core.conversation import Detokenize, Tokenize
from ollama_async.workers.openmp import openmp_environ
from tests.integration.worker_harness import ENVIRON, EventSink, perform, submit, submit_task


async def test_tasks_of_every_kind_are_done_beside_each_other(client):
    submit(client, 1, "wait")
    finish, text = await perform(client, Tokenize("ab"), 2)
    assert (finish.reason, finish.context, text) == ("stop", [97, 98], "")
    error, _ = await perform(client, Detokenize([]), 3)
    assert isinstance(error, errors.BadRequest)
    assert error.message == "no tokens"


async def test_a_task_of_another_kind_ends_with_the_worker(client, events):
    submit(client, 1, "wait")
    submit(client, 2, "exit 4")
    submit_task(client, 3, Tokenize("late"))
    assert "exit status 4" in await events.until("lost")
    assert set(client.requests) >= {1, 2, 3}, "the owner ends them"
    with pytest.raises(errors.WorkerDied, match="exit status 4"):
        submit_task(client, 4, Tokenize("later"))


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
        _, text = await perform(client, Detokenize([1]))
    finally:
        os.close(canary)
    portrait = json.loads(text)
    assert portrait["environ"] == {
        **ENVIRON,
        **openmp_environ(),
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

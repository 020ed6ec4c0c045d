"""A real worker process over the real pipe, playing scripts."""

import contextlib
import json
import os

import pytest

from ollama_async.core.conversation import Detokenize, Message, Prompt, Tokenize
from ollama_async.core.errors import ContextExceeded, LoadFailed
from ollama_async.queue.backend import Finish
from tests.integration.worker_harness import Events, new_client, perform, start, submit
from tests.unit.workers.harness import DEADLINE_S

TICK = {"tokens": ["tick "], "repeat": True, "tokens_per_second": 50}


@contextlib.asynccontextmanager
async def worker(tmp_path, script, *, slots=4, grace_s=10):
    path = tmp_path / "scripts.json"
    path.write_text(json.dumps({"m": script}))
    events = Events()
    client = new_client(events, number=1, load_timeout_s=DEADLINE_S)
    environ = {**os.environ, "OLLAMA_ASYNC_SCRIPTS": str(path)}
    await start(client, "scripted", num_ctx=256, slots=slots, environ=environ)
    try:
        yield client, events
    finally:
        await client.stop(grace_s)


def say(client, number, text="hi", count=5, **more):
    submit(client, number, Prompt(raw=text, **more), num_predict=count)


def chat(client, number, content):
    submit(client, number, Prompt(messages=[Message("user", content)]), num_predict=500)


async def test_a_script_is_played_to_its_end(tmp_path):
    async with worker(tmp_path, {"tokens": "Once upon a time.", "slots": 2}) as (client, events):
        say(client, 1, count=-1)
        await events.until_so(lambda: events.ends)
        tokens, _ = await perform(client, Tokenize("é"))
        _, text = await perform(client, Detokenize([0xC3, 0xA9]))
        assert (tokens.context, text) == ([0xC3, 0xA9], "é")

    assert events.text(1) == "Once upon a time."
    assert events.ends[1].reason == "stop"
    assert (events.ends[1].usage.prompt, events.ends[1].usage.answer) == (2, 5)
    assert (client.facts.slots, client.facts.num_ctx) == (2, 256)
    assert not events.of("lost")


async def test_concurrent_requests_each_get_their_own_text(tmp_path):
    async with worker(tmp_path, {"echo": True}, slots=8) as (client, events):
        texts = {number: f"number {number} says {'x' * number}é" for number in range(1, 25)}
        for number, text in texts.items():
            say(client, number, text, count=-1)
        await events.until_so(lambda: len(events.ends) == len(texts))

    assert {number: events.text(number) for number in texts} == texts


async def test_a_cancel_is_honoured_at_once_and_frees_the_slot(tmp_path):
    async with worker(tmp_path, TICK, slots=1) as (client, events):
        say(client, 1, count=1_000_000)
        await events.until_so(lambda: events.text(1))
        say(client, 2, count=2)
        client.cancel(1)
        await events.until_so(lambda: 2 in events.ends)

    assert events.text(2) == "tick tick "


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            marks=pytest.mark.slow,
        ),
        "{{ 'x' * 10**10 }}",
        "{{ raise_exception('no such role') }}",
    ],
)
async def test_a_hostile_template_costs_only_its_request(tmp_path, template):
    async with worker(tmp_path, {**TICK, "template": template}) as (client, events):
        say(client, 1, count=20)
        chat(client, 2, "hi")
        await events.until_so(lambda: 2 in events.ends)
        say(client, 3, count=1)
        await events.until_so(lambda: {1, 3} <= set(events.ends))

    assert events.ends[2].code == "template_failed"
    assert isinstance(events.ends[1], Finish)
    assert isinstance(events.ends[3], Finish)


@pytest.mark.slow
async def test_a_template_inside_one_endless_operation_costs_its_worker(tmp_path):
    template = (
        "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}"
        "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}"
    )
    async with worker(tmp_path, {**TICK, "template": template}) as (client, events):
        chat(client, 1, "hi")
        await events.until_so(lambda: events.of("lost"))

    assert events.ends == {}


async def test_a_chat_is_rendered_with_the_models_template(tmp_path):
    script = {"echo": True, "template": "[{{ messages[0].content | trim }}]"}
    async with worker(tmp_path, script) as (client, events):
        chat(client, 1, " hi ")
        await events.until_so(lambda: events.ends)

    assert events.text(1) == "[hi]"


async def test_a_crash_comes_after_all_text_from_before(tmp_path):
    marker = tmp_path / "crashed"
    script = {**TICK, "tokens_per_second": 0, "crash_at": 3, "crash_once_file": str(marker)}
    async with worker(tmp_path, script) as (client, events):
        say(client, 1, count=5)
        await events.until_so(lambda: events.of("lost"))
    assert events.text(1) == "tick " * 3
    assert marker.exists()

    async with worker(tmp_path, script) as (client, events):
        say(client, 1, count=5)
        await events.until_so(lambda: events.ends)
    assert events.text(1) == "tick " * 5


async def test_a_hanging_engine_can_be_stopped(tmp_path):
    async with worker(tmp_path, {**TICK, "hang_at": 2}, grace_s=0.2) as (client, events):
        say(client, 1)
        await events.until_so(lambda: events.text(1) == "tick tick ")

    assert events.ends == {}


async def test_a_worker_that_ignores_everything_is_killed(tmp_path):
    async with worker(tmp_path, {**TICK, "ignore_sigterm": True}, grace_s=0.2):
        pass


async def test_a_worker_sends_heartbeats(tmp_path):
    async with worker(tmp_path, TICK) as (client, events):
        say(client, 1, count=10_000)
        await events.until_so(lambda: client.heartbeat and client.heartbeat.busy_slots)

    assert client.heartbeat.cache_used > 0


async def test_a_failed_load_has_its_reason(tmp_path):
    with pytest.raises(LoadFailed, match="out of cheese"):
        async with worker(tmp_path, {"load_seconds": 0.15, "load_error": "out of cheese"}):
            pass


async def test_a_prompt_that_is_too_long_is_refused(tmp_path):
    async with worker(tmp_path, TICK) as (client, events):
        say(client, 1, "x" * 300, truncate=False)
        await events.until_so(lambda: events.ends)

    assert isinstance(events.ends[1], ContextExceeded)

"""A real worker process over the real pipe, playing scripts."""

import asyncio
import contextlib
import json
import os
from collections import defaultdict

import pytest

from ollama_async.core.conversation import Inference, Message, Prompt, Sampling
from ollama_async.core.errors import LoadFailed
from ollama_async.workers.client import WorkerLink
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Done, Failed, Submit

DEADLINE_S = 30
TICK = {"tokens": ["tick "], "repeat": True, "tokens_per_second": 50}


class Heard:
    """Everything that the worker says, and a way to wait for it."""

    def __init__(self):
        self.texts = defaultdict(str)
        self.ends = {}
        self.latest = None
        self.death = None
        self._changed = asyncio.Event()

    def started(self, request_id):
        self.texts[request_id] = ""
        self._changed.set()

    def pieces(self, items):
        for request_id, text in items:
            self.texts[request_id] += text
        self._changed.set()

    def done(self, done):
        self.ends[done.id] = done
        self._changed.set()

    failed = done

    def vitals(self, vitals):
        self.latest = vitals
        self._changed.set()

    def died(self, reason):
        self.death = reason
        self._changed.set()

    async def until(self, condition):
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def worker(tmp_path, script, *, slots=4, grace_s=10):
    path = tmp_path / "scripts.json"
    path.write_text(json.dumps({"m": script}))
    heard = Heard()
    link = WorkerLink(heard, generation=1)
    argv = LoadSpec(engine="scripted", model="m", num_ctx=256, slots=slots).to_argv()
    environ = {**os.environ, "OLLAMA_ASYNC_SCRIPTS": str(path)}
    heard.ready = await link.start(argv, environ, load_timeout_s=DEADLINE_S)
    try:
        yield link, heard
    finally:
        await link.stop(grace_s)


def say(number, text="hi", count=5, **more):
    prompt = Prompt(raw=text, **more)
    return Submit(number, Inference(prompt, Sampling(num_predict=count)))


def chat(number, content):
    prompt = Prompt(messages=[Message("user", content)])
    return Submit(number, Inference(prompt, Sampling(num_predict=500)))


async def test_a_script_is_heard_to_its_end(tmp_path):
    async with worker(tmp_path, {"tokens": "Once upon a time.", "slots": 2}) as (link, heard):
        link.submit(say(1, count=-1))
        await heard.until(lambda: heard.ends)
        assert await link.tokenize("é") == [0xC3, 0xA9]
        assert await link.detokenize([0xC3, 0xA9]) == "é"

    assert heard.texts[1] == "Once upon a time."
    assert heard.ends[1].reason == "stop"
    assert (heard.ends[1].usage.prompt, heard.ends[1].usage.answer) == (2, 5)
    assert (heard.ready.slots, heard.ready.num_ctx) == (2, 256)
    assert heard.death is None


async def test_requests_at_once_each_hear_their_own_text(tmp_path):
    async with worker(tmp_path, {"echo": True}, slots=8) as (link, heard):
        texts = {number: f"number {number} says {'x' * number}é" for number in range(1, 25)}
        for number, text in texts.items():
            link.submit(say(number, text, count=-1))
        await heard.until(lambda: len(heard.ends) == len(texts))

    assert dict(heard.texts) == texts


async def test_a_cancel_is_honoured_at_once_and_frees_the_slot(tmp_path):
    async with worker(tmp_path, TICK, slots=1) as (link, heard):
        link.submit(say(1, count=1_000_000))
        await heard.until(lambda: heard.texts[1])
        link.submit(say(2, count=2))
        link.cancel(1)
        await heard.until(lambda: 2 in heard.ends)

    assert heard.texts[2] == "tick tick "


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
    async with worker(tmp_path, {**TICK, "template": template}) as (link, heard):
        link.submit(say(1, count=20))
        link.submit(chat(2, "hi"))
        await heard.until(lambda: 2 in heard.ends)
        link.submit(say(3, count=1))
        await heard.until(lambda: {1, 3} <= set(heard.ends))

    assert heard.ends[2].code == "template_failed"
    assert isinstance(heard.ends[1], Done)
    assert isinstance(heard.ends[3], Done)


@pytest.mark.slow
async def test_a_template_inside_one_endless_operation_costs_its_worker(tmp_path):
    template = (
        "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}"
        "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}"
    )
    async with worker(tmp_path, {**TICK, "template": template}) as (link, heard):
        link.submit(chat(1, "hi"))
        await heard.until(lambda: heard.death)

    assert heard.ends == {}


async def test_a_chat_is_rendered_with_the_models_template(tmp_path):
    script = {"echo": True, "template": "[{{ messages[0].content | trim }}]"}
    async with worker(tmp_path, script) as (link, heard):
        link.submit(chat(1, " hi "))
        await heard.until(lambda: heard.ends)

    assert heard.texts[1] == "[hi]"


async def test_a_crash_comes_after_what_was_said_before(tmp_path):
    marker = tmp_path / "crashed"
    script = {**TICK, "tokens_per_second": 0, "crash_at": 3, "crash_once_file": str(marker)}
    async with worker(tmp_path, script) as (link, heard):
        link.submit(say(1, count=5))
        await heard.until(lambda: heard.death)
    assert heard.texts[1] == "tick " * 3
    assert marker.exists()

    async with worker(tmp_path, script) as (link, heard):
        link.submit(say(1, count=5))
        await heard.until(lambda: heard.ends)
    assert heard.texts[1] == "tick " * 5


async def test_a_hanging_engine_is_silent_and_can_be_stopped(tmp_path):
    async with worker(tmp_path, {**TICK, "hang_at": 2}, grace_s=0.2) as (link, heard):
        link.submit(say(1))
        await heard.until(lambda: heard.texts[1] == "tick tick ")

    assert heard.ends == {}


async def test_a_worker_that_heeds_nothing_is_killed(tmp_path):
    async with worker(tmp_path, {**TICK, "ignore_sigterm": True}, grace_s=0.2):
        pass


async def test_a_worker_shows_that_it_lives(tmp_path):
    async with worker(tmp_path, TICK) as (link, heard):
        link.submit(say(1, count=10_000))
        await heard.until(lambda: heard.latest and heard.latest.busy_slots)

    assert heard.latest.cache_used > 0


async def test_a_load_that_fails_says_why(tmp_path):
    with pytest.raises(LoadFailed, match="out of cheese"):
        async with worker(tmp_path, {"load_seconds": 0.15, "load_error": "out of cheese"}):
            pass


async def test_a_prompt_that_is_too_long_is_refused(tmp_path):
    async with worker(tmp_path, TICK) as (link, heard):
        link.submit(say(1, "x" * 300, truncate=False))
        await heard.until(lambda: heard.ends)

    assert isinstance(heard.ends[1], Failed)
    assert heard.ends[1].code == "context_exceeded"

"""What a scrape shows."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ollama_async.core.conversation import Usage
from ollama_async.gateway import metrics as metrics_module
from ollama_async.gateway.concurrency import SINGLE_FLIGHT, SingleFlight
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.handlers import server
from ollama_async.gateway.metrics import (
    CACHED_STEP,
    METRICS,
    MODEL_LIMIT,
    Histogram,
    Metrics,
)
from ollama_async.queue.backend import Finish, LoadedModel, Snapshot, Target
from tests.unit.gateway.conftest import FakeRequest

DEADLINE_S = 10.0


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def scrape(session, url):
    async def scrape():
        async with session.get(url + "/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            return samples(await response.text())

    return scrape


async def ask(session, url, path="/api/generate", **fields):
    async with session.post(url + path, json={"model": "m", "prompt": "x"} | fields) as response:
        await response.read()


async def test_an_answer_is_counted_and_timed(session, url, backend, scrape):
    backend.script = lambda job: job.start().send("a", "b", "c").end()

    await ask(session, url)

    found = await scrape()
    model = (("model", "m:latest"),)
    assert found["ollama_prompt_eval_total", model] == 7
    assert found["ollama_prompt_cached_tokens_total", model] in {0, CACHED_STEP}  # of 3
    assert found["ollama_eval_total", model] == 2
    assert found["ollama_drafted_tokens_total", model] == 6
    assert found["ollama_accepted_tokens_total", model] == 1
    assert found["ollama_time_to_first_token_seconds_count", model] == 1
    assert found["ollama_load_duration_seconds_sum", model] == pytest.approx(0.005)
    assert found["ollama_eval_duration_seconds_count", model] == 1
    assert found["ollama_inter_token_seconds_count", ()] == 2
    endpoint = (("code", "200"), ("endpoint", "/api/generate"))
    assert found["ollama_request_seconds_count", endpoint] == 1


def stream_of(cached):
    usage = Usage(prompt=cached + 1, cached=cached)
    finishes = {0: Finish("stop", usage, [])}
    return SimpleNamespace(first_at=None, started_at=None, finishes=finishes)


def cached_total(metrics):
    found = samples(
        metrics.render(Snapshot(queued=0, capacity=1, running={}, loaded=[], loading=0)).decode()
    )
    return found.get(("ollama_prompt_cached_tokens_total", (("model", "m"),)), 0)


@pytest.mark.slow
def test_the_count_of_cached_tokens_hides_single_guesses():
    """A right digit more is a token more; the count moves in steps, and seldom."""
    metrics = Metrics(version="1", ollama_version="2")
    moves = set()
    for cached in range(500):
        before = cached_total(metrics)
        metrics.answered("m", 0.0, stream_of(cached))
        moves.add(cached_total(metrics) - before)

    assert moves <= {0, CACHED_STEP}


def test_cached_tokens_are_counted_right_on_average():
    metrics = Metrics(version="1", ollama_version="2")
    for _ in range(10_000):
        metrics.answered("m", 0.0, stream_of(6000))

    assert cached_total(metrics) == pytest.approx(10_000 * 6000, rel=0.02)  # four deviations: 0.014


async def test_a_load_counts_no_tokens(session, url, backend, scrape):
    backend.script = lambda job: job.start().end("load")

    await ask(session, url, prompt="")

    found = await scrape()
    assert ("ollama_eval_total", (("model", "m:latest"),)) not in found
    assert found["ollama_load_duration_seconds_count", (("model", "m:latest"),)] == 1


async def test_unknown_models_and_paths_add_no_series(session, url, scrape):
    await ask(session, url, model="nosuch")
    async with session.get(url + "/no/such/path"):
        pass

    found = await scrape()
    assert not [labels for _, labels in found if ("model", "nosuch") in labels]
    assert found["ollama_request_seconds_count", (("code", "404"), ("endpoint", "other"))] == 1


async def test_gauges_show_the_backends_snapshot(backend, scrape):
    backend.waiting = 3
    backend.loaded = [loaded("a:latest", running=2), loaded("b:latest")]

    found = await scrape()

    assert found["ollama_requests_queued", ()] == 3
    assert found["ollama_queue_capacity", ()] == 512
    assert found["ollama_models_loaded", ()] == 2
    assert found["ollama_busy_slots", (("model", "a:latest"),)] == 2
    assert found["ollama_kv_cache_usage_ratio", (("model", "b:latest"),)] == 0.25
    assert found["ollama_model_kernels_info", (("kernels", "own"), ("model", "a:latest"))] == 1
    assert found["ollama_build_info", (("ollama_version", "0"), ("version", "0"))] == 1
    assert found["process_resident_memory_bytes", ()] > 0
    assert found["process_open_fds", ()] > 0


async def test_the_observers_events_are_counted(metrics, scrape):
    metrics.rejected("full")
    metrics.waited("m", 0.2)
    metrics.loaded("m", "ok", 1.5)
    metrics.loaded("m", "failed", 0.1)
    metrics.unloaded("m", "idle")
    metrics.worker_died("m")

    found = await scrape()

    assert found["ollama_queue_rejected_total", (("reason", "full"),)] == 1
    assert found["ollama_queue_wait_seconds_count", (("model", "m"),)] == 1
    assert found["ollama_model_loads_total", (("outcome", "ok"),)] == 1
    assert found["ollama_model_loads_total", (("outcome", "failed"),)] == 1
    assert found["ollama_model_load_seconds_sum", (("model", "m"),)] == 1.5
    assert found["ollama_model_unloads_total", (("reason", "idle"),)] == 1
    assert found["ollama_worker_restarts_total", (("model", "m"),)] == 1


def test_every_family_is_shown_even_when_nothing_happened():
    metrics = Metrics(version="0", ollama_version="0")
    text = metrics.render(EMPTY).decode()
    for spec in METRICS:
        assert f"# TYPE {spec.name} {spec.kind}\n" in text


def test_models_beyond_the_limit_become_other():
    metrics = Metrics(version="0", ollama_version="0")
    for number in range(MODEL_LIMIT + 10):
        metrics.waited(f"m{number}", 1.0)
    found = samples(metrics.render(EMPTY).decode())
    counts = [key for key in found if key[0] == "ollama_queue_wait_seconds_count"]
    assert len(counts) == MODEL_LIMIT + 1
    assert found["ollama_queue_wait_seconds_count", (("model", "other"),)] == 10


def test_models_that_fold_to_one_name_make_one_series():
    names = [f"m{number}" for number in range(MODEL_LIMIT + 2)]
    snapshot = Snapshot(
        queued=0, capacity=0, running={}, loaded=[loaded(n) for n in names], loading=0
    )
    found = samples(Metrics(version="0", ollama_version="0").render(snapshot).decode())
    assert found["ollama_slots", (("model", "other"),)] == 8
    assert found["ollama_kv_cache_usage_ratio", (("model", "other"),)] == 0.25


@given(st.lists(st.floats(0, 10), max_size=30))
def test_a_histogram_counts_each_value_in_every_bucket_above_it(values):
    histogram = Histogram((0.005, 0.1, 5.0))
    for value in values:
        histogram.observe(value)
    expected = [sum(value <= bound for value in values) for bound in (0.005, 0.1, 5.0)]
    assert histogram.buckets() == [
        *zip(("0.005", "0.1", "5.0"), expected, strict=True),
        ("+Inf", len(values)),
    ]
    assert histogram.total == pytest.approx(sum(values))


def test_a_known_name_stays_known_when_the_limit_is_reached(metrics, monkeypatch):
    monkeypatch.setattr(metrics_module, "MODEL_LIMIT", 2)
    for name in ("a", "b", "c", "a"):
        metrics.worker_died(name)
    found = samples(metrics.render(EMPTY).decode())
    restarts = {
        labels: value
        for (name, labels), value in found.items()
        if name == "ollama_worker_restarts_total"
    }
    assert restarts == {(("model", "a"),): 2, (("model", "b"),): 1, (("model", "other"),): 1}


EMPTY = Snapshot(queued=0, capacity=0, running={}, loaded=[], loading=0)


def loaded(name: str, running: int = 0) -> LoadedModel:
    target = Target(
        key=name,
        name=name,
        digest="0" * 64,
        engine="scripted",
        path="",
        weights_bytes=0,
        cache_bytes_per_token=0,
        train_ctx=0,
        details={},
    )
    return LoadedModel(
        target=target,
        size=10,
        size_vram=5,
        num_ctx=4096,
        slots=4,
        running=running,
        busy_slots=running,
        cache_used=0.25,
        kernels="own",
        expires_at=0.0,
    )


async def test_scrapes_share_one_rendering_even_if_a_client_disconnects(dependencies, monkeypatch):
    loop, begun, may_end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow(_self: Metrics, _snapshot: object) -> bytes:
        loop.call_soon_threadsafe(begun.set)
        assert may_end.wait(DEADLINE_S)
        return b""

    monkeypatch.setattr(Metrics, "render", slow)
    request = FakeRequest()
    request.app = {DEPENDENCIES: dependencies, SINGLE_FLIGHT: SingleFlight()}
    leaving = asyncio.create_task(server.metrics(request))
    async with asyncio.timeout(DEADLINE_S):
        await begun.wait()
    begun.clear()
    leaving.cancel()
    await asyncio.wait({leaving})
    next_one = asyncio.create_task(server.metrics(request))
    for _ in range(10):
        await asyncio.sleep(0)
    overlapped = begun.is_set()
    may_end.set()

    async with asyncio.timeout(DEADLINE_S):
        assert (await next_one).status == 200
    assert not overlapped

"""What Prometheus reads: every family in one table, filled by the gateway and by the queue.

LabelLimiter that Ollama's users proposed upstream are kept (``ollama_requests_queued``,
``ollama_eval_total``, …); the rest is what operators ask for. Gauges are read from the queue's
snapshot at the scrape; everything else is counted where it happens, on the event loop.

Every label is bounded: models beyond the first 200 that were asked for are called ``other``
(only models that exist count), endpoints are the route table's, the rest are closed sets.
"""

from __future__ import annotations

import operator
import secrets
import threading
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector

from ollama_async.gateway.histogram import CounterVec, Histogram, HistogramVec, LabelLimiter
from ollama_async.gateway.response_stream import ResponseStream
from ollama_async.queue.backend import Snapshot

MODEL_LIMIT = 200
"""Distinct model names before they fold to ``other``: a year of trying models, not an attack."""

CACHED_STEP = 4096
"""Tokens by which the count of cached ones moves. Exact, it would tell whoever guesses another's
prompt how far the guess was right; rounded at random, a request shows by chance or not at all."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(msgspec.Struct, frozen=True):
    """One row of the documentation: ``name`` as a scrape shows it, without ``_bucket`` etc."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


FAMILIES: tuple[Family, ...] = (
    Family("ollama_build_info", "gauge", ("version", "ollama_version"), "Always 1"),
    Family("ollama_requests_queued", "gauge", (), "Requests that wait for a slot"),
    Family("ollama_queue_capacity", "gauge", (), "Requests that may wait (OLLAMA_MAX_QUEUE)"),
    Family("ollama_requests_running", "gauge", ("model",), "Requests that hold a place"),
    Family("ollama_models_loaded", "gauge", (), "Models in memory"),
    Family("ollama_models_loading", "gauge", (), "Models being loaded"),
    Family("ollama_busy_slots", "gauge", ("model",), "Slots that decode or read a prompt"),
    Family("ollama_slots", "gauge", ("model",), "Slots of the loaded model"),
    Family(
        "ollama_kv_cache_usage_ratio", "gauge", ("model",), "Share of the KV cache in use, 0 to 1"
    ),
    Family("ollama_model_size_bytes", "gauge", ("model",), "Memory of the loaded model"),
    Family("ollama_model_vram_bytes", "gauge", ("model",), "Part of it on an accelerator"),
    Family("ollama_prompt_eval_total", "counter", ("model",), "Prompt tokens, cached ones too"),
    Family(
        "ollama_prompt_cached_tokens_total",
        "counter",
        ("model",),
        f"Prompt tokens that were cached; moves in steps of {CACHED_STEP}, right on average",
    ),
    Family("ollama_eval_total", "counter", ("model",), "Answer tokens"),
    Family(
        "ollama_repetitions_stopped_total",
        "counter",
        ("model",),
        "Answers that were ended because they repeated themselves",
    ),
    Family(
        "ollama_prompt_eval_duration_seconds",
        "histogram",
        ("model",),
        "Reading the prompt, per request",
    ),
    Family(
        "ollama_eval_duration_seconds", "histogram", ("model",), "Writing the answer, per request"
    ),
    Family(
        "ollama_load_duration_seconds",
        "histogram",
        ("model",),
        "From arrival to a slot, per request: queue and load",
    ),
    Family(
        "ollama_time_to_first_token_seconds",
        "histogram",
        ("model",),
        "From arrival to the first piece of text",
    ),
    Family("ollama_inter_token_seconds", "histogram", (), "Between two pieces of one answer"),
    Family("ollama_queue_wait_seconds", "histogram", ("model",), "Waiting for a slot"),
    Family(
        "ollama_request_seconds",
        "histogram",
        ("endpoint", "code"),
        "Whole requests; code is the HTTP status, 499 when the client left",
    ),
    Family(
        "ollama_queue_rejected_total",
        "counter",
        ("reason",),
        "Requests refused at the door: full, draining, no_capacity",
    ),
    Family(
        "ollama_requests_cancelled_total",
        "counter",
        ("phase",),
        "Clients that left: in the queue, the prefill or the decode",
    ),
    Family("ollama_model_loads_total", "counter", ("outcome",), "Loads: ok, failed, cancelled"),
    Family("ollama_model_load_seconds", "histogram", ("model",), "Successful loads"),
    Family(
        "ollama_model_unloads_total",
        "counter",
        ("reason",),
        "Unloads: idle, requested, crashed, evicted, reload, shutdown",
    ),
    Family("ollama_worker_restarts_total", "counter", ("model",), "Workers that died in service"),
)
_BY_NAME = {family.name: family for family in FAMILIES}

_TOKEN_BOUNDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
_REQUEST_BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)


class Metrics:
    """All numbers of one server, and its registry; implements ``queue.backend.Observer``.

    Methods are called on the event loop, except :meth:`render`, which belongs in a thread.
    Another room's collector joins by ``registry.register``.
    """

    def __init__(self, *, version: str, ollama_version: str) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.inter_token = Histogram(_TOKEN_BOUNDS)
        self._build = (version, ollama_version)
        self._models = LabelLimiter(MODEL_LIMIT)
        self._counts = {f.name: CounterVec() for f in FAMILIES if f.kind == "counter"}
        self._tallies = {
            f.name: HistogramVec(_REQUEST_BOUNDS) for f in FAMILIES if f.kind == "histogram"
        }
        self._snapshot: Snapshot | None = None
        self._rendering = threading.Lock()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def render(self, snapshot: Snapshot) -> bytes:
        """The text exposition format, of :data:`CONTENT_TYPE`. Takes milliseconds: use a thread."""
        with self._rendering:
            self._snapshot = snapshot
            return generate_latest(self.registry)

    # -- what the gateway tells ------------------------------------------------------------------

    def answered(self, model: str, began_at: float, outbox: ResponseStream) -> None:
        """An answer has ended, well or not; ``began_at`` is its arrival, by perf_counter()."""
        label = (self._models.fold(model),)
        if outbox.first_at is not None:
            waited = outbox.first_at - began_at
            self._tallies["ollama_time_to_first_token_seconds"][label].observe(waited)
        if outbox.started_at is not None:
            self._tallies["ollama_load_duration_seconds"][label].observe(outbox.load_ns / 1e9)
        if outbox.finish is None or outbox.finish.reason == "load":
            return
        usage = outbox.finish.usage
        self._counts["ollama_prompt_eval_total"].add(label, usage.prompt)
        cached = _round_at_random(usage.cached)
        self._counts["ollama_prompt_cached_tokens_total"].add(label, cached)
        self._counts["ollama_eval_total"].add(label, usage.answer)
        if outbox.finish.is_repetition:
            self._counts["ollama_repetitions_stopped_total"].add(label)
        self._tallies["ollama_prompt_eval_duration_seconds"][label].observe(usage.prompt_ns / 1e9)
        self._tallies["ollama_eval_duration_seconds"][label].observe(usage.answer_ns / 1e9)

    def cancelled(self, phase: str) -> None:
        self._counts["ollama_requests_cancelled_total"].add((phase,))

    def request(self, endpoint: str, code: int, began_at: float) -> None:
        """A request of any kind was answered; ``endpoint`` is a path of the route table."""
        tally = self._tallies["ollama_request_seconds"][(endpoint, str(code))]
        tally.observe(perf_counter() - began_at)

    # -- what the queue tells (Observer) ---------------------------------------------------------

    def rejected(self, reason: str) -> None:
        self._counts["ollama_queue_rejected_total"].add((reason,))

    def waited(self, model: str, seconds: float) -> None:
        label = (self._models.fold(model),)
        self._tallies["ollama_queue_wait_seconds"][label].observe(seconds)

    def loaded(self, model: str, outcome: str, seconds: float) -> None:
        self._counts["ollama_model_loads_total"].add((outcome,))
        if outcome == "ok":
            label = (self._models.fold(model),)
            self._tallies["ollama_model_load_seconds"][label].observe(seconds)

    def unloaded(self, model: str, reason: str) -> None:  # noqa: ARG002  # the contract's
        self._counts["ollama_model_unloads_total"].add((reason,))

    def worker_died(self, model: str) -> None:
        self._counts["ollama_worker_restarts_total"].add((self._models.fold(model),))

    # -- what prometheus_client asks (Collector) -------------------------------------------------

    def collect(self) -> Iterable[Metric]:
        """Every family of :data:`FAMILIES`, in its order; without a scrape's snapshot no gauges."""
        gauges = self._gauges()
        for family in FAMILIES:
            match family.kind:
                case "gauge":
                    yield _gauge(family, gauges.get(family.name, []))
                case "counter":
                    yield _counter(family, self._counts[family.name])
                case "histogram":
                    yield _histogram(family, self._histograms(family.name))

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not collect in order to check names."""
        return []

    def _histograms(self, name: str) -> Iterable[tuple[tuple[str, ...], Histogram]]:
        if name == "ollama_inter_token_seconds":
            return [((), self.inter_token)]
        return self._tallies[name]

    def _gauges(self) -> dict[str, list[tuple[tuple[str, ...], float]]]:
        rows: dict[str, list[tuple[tuple[str, ...], float]]] = {
            "ollama_build_info": [(self._build, 1)]
        }
        snapshot = self._snapshot
        if snapshot is None:
            return rows
        rows["ollama_requests_queued"] = [((), snapshot.waiting)]
        rows["ollama_queue_capacity"] = [((), snapshot.capacity)]
        rows["ollama_models_loaded"] = [((), len(snapshot.loaded))]
        rows["ollama_models_loading"] = [((), snapshot.loading)]
        rows["ollama_requests_running"] = self._per_model(snapshot.running.items())
        loaded = [(model.target.name, model) for model in snapshot.loaded]
        rows["ollama_busy_slots"] = self._per_model((n, m.busy_slots) for n, m in loaded)
        rows["ollama_slots"] = self._per_model((n, m.slots) for n, m in loaded)
        rows["ollama_kv_cache_usage_ratio"] = self._per_model(
            ((n, round(m.cache_used, 2)) for n, m in loaded), merge=max
        )
        rows["ollama_model_size_bytes"] = self._per_model((n, m.size) for n, m in loaded)
        rows["ollama_model_vram_bytes"] = self._per_model((n, m.size_vram) for n, m in loaded)
        return rows

    def _per_model(
        self,
        values: Iterable[tuple[str, float]],
        merge: Callable[[float, float], float] = operator.add,
    ) -> list[tuple[tuple[str, ...], float]]:
        """Rows for each model; those folded to one name are merged (a series appears once)."""
        rows: dict[str, float] = {}
        for name, value in values:
            label = self._models.fold(name)
            rows[label] = merge(rows.get(label, 0), value)
        return [((label,), value) for label, value in rows.items()]


def _round_at_random(tokens: int) -> int:
    """A multiple of :data:`CACHED_STEP`, ``tokens`` on average."""
    steps, rest = divmod(tokens, CACHED_STEP)
    return CACHED_STEP * (steps + (secrets.randbelow(CACHED_STEP) < rest))


def _gauge(family: Family, rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    metric = GaugeMetricFamily(family.name, family.meaning, labels=family.labels)
    for labels, value in rows:
        metric.add_metric(labels, value)
    return metric


def _counter(family: Family, counts: CounterVec) -> Metric:
    metric = CounterMetricFamily(family.name, family.meaning, labels=family.labels)
    for labels, value in counts:
        metric.add_metric(labels, value)
    if not family.labels:
        metric.add_metric((), 0)
    return metric


def _histogram(family: Family, rows: Iterable[tuple[tuple[str, ...], Histogram]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
    for labels, tally in rows:
        metric.add_metric(labels, buckets=tally.buckets(), sum_value=tally.total)
    return metric

"""The server's metrics for Prometheus: one table, filled by the gateway and the backend.

Names that Ollama's users proposed upstream are kept (``ollama_requests_queued``,
``ollama_eval_total``, …). Gauges are read from the backend's snapshot at the scrape; everything
else is counted where it happens, on the event loop.

Every label is bounded: models beyond the first 200 that were requested become ``other`` (only
models that exist count), endpoints are those of the route table, the rest are closed sets.
"""

from __future__ import annotations

import operator
import secrets
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Literal, Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector

from ollama_async.queue.backend import Finish, Snapshot, Start

Labels = tuple[str, ...]

OTHER = "other"
"""The label of all values beyond a limit."""

MODEL_LIMIT = 200
"""Distinct model names before they fold to ``other``: a year of trying models, not an attack."""

CACHED_STEP = 4096
"""Tokens by which the count of cached ones moves. An exact count would show a client that guesses
another's prompt how much of the guess was right. A count rounded at random shows a single request
by chance or not at all."""

_STORED_STEP = 1 << 20

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricSpec(msgspec.Struct, frozen=True):
    """One row of the table: ``name`` as a scrape shows it, without ``_bucket`` etc."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    meaning: str
    labels: Labels = ("model",)


_counter = partial(MetricSpec, "counter")
_gauge = partial(MetricSpec, "gauge")
_histogram = partial(MetricSpec, "histogram")

METRICS: tuple[MetricSpec, ...] = (
    _gauge("ollama_build_info", "Always 1", ("version", "ollama_version")),
    _gauge("ollama_requests_queued", "Requests that wait for a slot", ()),
    _gauge("ollama_queue_capacity", "Requests that may wait (OLLAMA_MAX_QUEUE)", ()),
    _gauge("ollama_requests_running", "Requests that hold a place"),
    _gauge("ollama_models_loaded", "Models in memory", ()),
    _gauge("ollama_models_loading", "Models being loaded", ()),
    _gauge("ollama_busy_slots", "Slots that decode or read a prompt"),
    _gauge("ollama_slots", "Slots of the loaded model"),
    _gauge("ollama_kv_cache_usage_ratio", "Share of the KV cache held by running requests"),
    _gauge(
        "ollama_prompt_cache_bytes",
        "Host memory with conversations that lost their slot, rounded to MiB",
    ),
    _gauge("ollama_prompt_cache_entries", "These conversations, in tens"),
    _gauge("ollama_model_size_bytes", "Memory of the loaded model"),
    _gauge("ollama_model_vram_bytes", "Part of it on an accelerator"),
    _gauge(
        "ollama_model_kernels_info",
        "Always 1; kernels is own or stock, for what the CPU computes",
        ("model", "kernels"),
    ),
    _counter("ollama_prompt_eval_total", "Prompt tokens, cached ones too"),
    _counter(
        "ollama_prompt_cached_tokens_total",
        f"Prompt tokens that were cached; moves in steps of {CACHED_STEP}, right on average",
    ),
    _counter(
        "ollama_prompt_restored_tokens_total",
        f"Of these, tokens restored from host memory; moves in steps of {CACHED_STEP}, too",
    ),
    _counter("ollama_eval_total", "Answer tokens"),
    _counter("ollama_drafted_tokens_total", "Tokens that prompt lookup guessed and had evaluated"),
    _counter("ollama_accepted_tokens_total", "Those of them that were right"),
    _counter(
        "ollama_repetitions_stopped_total",
        "Answers that were ended because they repeated themselves",
    ),
    _histogram("ollama_prompt_eval_duration_seconds", "Reading the prompt, per request"),
    _histogram("ollama_eval_duration_seconds", "Writing the answer, per request"),
    _histogram(
        "ollama_load_duration_seconds", "From arrival to a slot, per request: queue and load"
    ),
    _histogram("ollama_time_to_first_token_seconds", "From arrival to the first piece of text"),
    _histogram("ollama_inter_token_seconds", "Between two pieces of one answer", ()),
    _histogram("ollama_queue_wait_seconds", "Waiting for a slot"),
    _histogram(
        "ollama_request_seconds",
        "Whole requests; code is the HTTP status, 499 if the client disconnected",
        ("endpoint", "code"),
    ),
    _counter(
        "ollama_queue_rejected_total",
        "Requests that were refused: full, draining, no_capacity",
        ("reason",),
    ),
    _counter(
        "ollama_requests_cancelled_total",
        "Requests whose client disconnected: in the queue, the prefill or the decode",
        ("phase",),
    ),
    _counter("ollama_model_loads_total", "Loads: ok, failed, cancelled", ("outcome",)),
    _histogram("ollama_model_load_seconds", "Successful loads"),
    _counter(
        "ollama_model_unloads_total",
        "Unloads: idle, requested, crashed, evicted, reload, shutdown",
        ("reason",),
    ),
    _counter("ollama_worker_restarts_total", "Workers that crashed after their model was loaded"),
)

_FAMILIES = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
_TOKEN_BOUNDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
_REQUEST_BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)


class AnswerRecord(Protocol):
    """What is measured of an answer. The moments are of perf_counter(): when the model began, and
    when the first text came; None: never. ``finishes``: the end of each choice that has ended.
    """

    @property
    def start(self) -> Start: ...

    @property
    def started_at(self) -> float | None: ...

    @property
    def first_at(self) -> float | None: ...

    @property
    def finishes(self) -> Mapping[int, Finish]: ...


class Histogram:
    """``bounds`` are upper bounds in seconds, ascending; the last bucket is open.

    Written on the event loop only. An observation takes 0.2 µs; ``prometheus_client``'s own takes a
    lock and walks the buckets in Python (2-3 µs), too much for every token.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, each with its bound as Prometheus spells it."""
        rows: list[tuple[str, float]] = []
        cumulative = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            cumulative += count
            rows.append((bound, cumulative))
        return rows


class Metrics:
    """All metrics of one server, and its registry; implements ``queue.backend.Observer``.

    Methods are called on the event loop, except :meth:`render`, which belongs in a thread.
    """

    def __init__(self, *, version: str, ollama_version: str) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._build = (version, ollama_version)
        self._models: set[str] = set()
        self._counters: dict[str, Counter[Labels]] = {
            spec.name: Counter() for spec in METRICS if spec.kind == "counter"
        }
        self._histograms: dict[str, defaultdict[Labels, Histogram]] = {
            spec.name: defaultdict(partial(Histogram, _REQUEST_BOUNDS))
            for spec in METRICS
            if spec.kind == "histogram"
        }
        self.inter_token = Histogram(_TOKEN_BOUNDS)
        self._histograms["ollama_inter_token_seconds"][()] = self.inter_token
        self._snapshot: Snapshot | None = None
        self._rendering = threading.Lock()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def render(self, snapshot: Snapshot) -> bytes:
        """The text exposition format, of :data:`CONTENT_TYPE`. Takes milliseconds: use a thread."""
        with self._rendering:
            self._snapshot = snapshot
            return generate_latest(self.registry)

    # -- called by the gateway -------------------------------------------------------------------

    def answered(self, model: str, began_at: float, answer: AnswerRecord) -> None:
        """An answer ended, well or not. ``began_at``: its request's arrival, by perf_counter()."""
        label = self._label(model)
        if answer.first_at is not None:
            waited = answer.first_at - began_at
            self._histograms["ollama_time_to_first_token_seconds"][label].observe(waited)
        if answer.started_at is not None:
            self._histograms["ollama_load_duration_seconds"][label].observe(
                answer.start.load_ns / 1e9
            )
        for finish in answer.finishes.values():
            if finish.reason != "load":
                self._finished(label, finish)

    def _finished(self, label: tuple[str, ...], finish: Finish) -> None:
        usage = finish.usage
        self._counters["ollama_prompt_eval_total"][label] += usage.prompt
        for name, tokens in (("cached", usage.cached), ("restored", usage.restored)):
            total = self._counters[f"ollama_prompt_{name}_tokens_total"]
            total[label] += _round_at_random(tokens)
        self._counters["ollama_eval_total"][label] += usage.answer
        self._counters["ollama_drafted_tokens_total"][label] += usage.drafted
        self._counters["ollama_accepted_tokens_total"][label] += usage.accepted
        if finish.is_repetition:
            self._counters["ollama_repetitions_stopped_total"][label] += 1
        histograms = self._histograms
        histograms["ollama_prompt_eval_duration_seconds"][label].observe(usage.prompt_ns / 1e9)
        if usage.answer:  # an embedding generates nothing
            histograms["ollama_eval_duration_seconds"][label].observe(usage.answer_ns / 1e9)

    def cancelled(self, phase: str) -> None:
        self._counters["ollama_requests_cancelled_total"][phase,] += 1

    def request(self, endpoint: str, code: int, began_at: float) -> None:
        """A request of any kind was answered; ``endpoint`` is a path of the route table."""
        histogram = self._histograms["ollama_request_seconds"][endpoint, str(code)]
        histogram.observe(perf_counter() - began_at)

    # -- called by the backend (Observer) --------------------------------------------------------

    def rejected(self, reason: str) -> None:
        self._counters["ollama_queue_rejected_total"][(reason,)] += 1

    def waited(self, model: str, seconds: float) -> None:
        label = self._label(model)
        self._histograms["ollama_queue_wait_seconds"][label].observe(seconds)

    def loaded(self, model: str, outcome: str, seconds: float) -> None:
        self._counters["ollama_model_loads_total"][(outcome,)] += 1
        if outcome == "ok":
            label = self._label(model)
            self._histograms["ollama_model_load_seconds"][label].observe(seconds)

    def unloaded(self, model: str, reason: str) -> None:  # noqa: ARG002  # the contract's
        self._counters["ollama_model_unloads_total"][(reason,)] += 1

    def worker_died(self, model: str) -> None:
        self._counters["ollama_worker_restarts_total"][self._label(model)] += 1

    # -- called by prometheus_client (Collector) -------------------------------------------------

    def collect(self) -> Iterable[Metric]:
        """All of :data:`METRICS`, in order; gauges have no samples before the first render."""
        gauges = self._gauges()
        for spec in METRICS:
            family = _FAMILIES[spec.kind](spec.name, spec.meaning, labels=spec.labels)
            if spec.kind == "histogram":
                for labels, histogram in list(self._histograms[spec.name].items()):
                    family.add_metric(labels, histogram.buckets(), sum_value=histogram.total)
            else:
                rows = gauges.get(spec.name) or list(self._counters.get(spec.name, {}).items())
                for labels, value in rows:
                    family.add_metric(labels, value)
            yield family

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that the registry does not collect in order to check names."""
        return []

    def _label(self, model: str) -> Labels:
        """Bounds the memory that clients can fill with ever new names."""
        if model not in self._models and len(self._models) >= MODEL_LIMIT:
            return (OTHER,)
        self._models.add(model)
        return (model,)

    def _gauges(self) -> dict[str, list[tuple[Labels, float]]]:
        rows: dict[str, list[tuple[Labels, float]]] = {"ollama_build_info": [(self._build, 1)]}
        snapshot = self._snapshot
        if snapshot is None:
            return rows
        rows["ollama_requests_queued"] = [((), snapshot.queued)]
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
        rows["ollama_prompt_cache_bytes"] = self._per_model(
            (n, round(m.stored_bytes / _STORED_STEP) * _STORED_STEP) for n, m in loaded
        )
        rows["ollama_prompt_cache_entries"] = self._per_model(
            (n, round(m.stored_states, -1)) for n, m in loaded
        )
        rows["ollama_model_size_bytes"] = self._per_model((n, m.size) for n, m in loaded)
        rows["ollama_model_vram_bytes"] = self._per_model((n, m.size_vram) for n, m in loaded)
        kernels = {(*self._label(n), m.kernels) for n, m in loaded if m.kernels}
        rows["ollama_model_kernels_info"] = [(labels, 1) for labels in sorted(kernels)]
        return rows

    def _per_model(
        self,
        values: Iterable[tuple[str, float]],
        merge: Callable[[float, float], float] = operator.add,
    ) -> list[tuple[Labels, float]]:
        """Samples by model; models that fold to one label are merged, so a series appears once."""
        rows: dict[Labels, float] = {}
        for name, value in values:
            label = self._label(name)
            rows[label] = merge(rows.get(label, 0), value)
        return list(rows.items())


def _round_at_random(tokens: int) -> int:
    """A multiple of :data:`CACHED_STEP`, ``tokens`` on average."""
    steps, rest = divmod(tokens, CACHED_STEP)
    return CACHED_STEP * (steps + (secrets.randbelow(CACHED_STEP) < rest))

"""Threads of a step get cores of their own while they use all, and are free otherwise."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from ollama_async.workers.child.engines.thread_placement import ThreadPlacement, spread


@pytest.mark.parametrize(
    ("count", "cores", "places"),
    [
        (2, {0, 1}, [{0}, {1}]),
        (2, {3, 7}, [{3}, {7}]),
        (3, {0, 1, 2, 3}, [{0}, {1}, {2}]),  # one core is left for the gateway
        (1, {0, 1}, [{0, 1}]),
        (1, {0}, [{0}]),
        (2, {0, 1, 2, 3}, [{0, 1, 2, 3}] * 2),
        (4, {0, 1}, [{0, 1}] * 4),
        (0, {0, 1}, []),
    ],
)
def test_threads_are_spread_only_over_nearly_all_cores(
    count: int, cores: set[int], places: list[set[int]]
) -> None:
    assert spread(count, cores) == places


class Helpers:
    """Threads that wait, as those of the library do between two steps."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(target=self._end.wait)
            thread.start()
            self._threads.append(thread)

    def tasks(self) -> list[int]:
        return [thread.native_id or 0 for thread in self._threads]

    def close(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def helpers() -> Iterator[Helpers]:
    threads = Helpers()
    yield threads
    threads.close()


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> dict[int, set[int]]:
    """The cores that each thread was given last, of a machine that has two."""
    places: dict[int, set[int]] = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _task: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", places.__setitem__)
    return places


def test_a_step_of_two_threads_is_spread_and_a_lone_one_is_free(
    helpers: Helpers, placed: dict[int, set[int]]
) -> None:
    own = threading.get_native_id()
    placement = ThreadPlacement()
    placement.compute(2, lambda: helpers.start(1))
    (helper,) = helpers.tasks()
    assert placed == {own: {0}, helper: {1}}
    placed.clear()
    assert placement.compute(2, lambda: "again") == "again"
    assert not placed, "nothing to do"
    placement.compute(1, lambda: None)  # the helper rests
    assert placed == {own: {0, 1}, helper: {0, 1}}
    placement.compute(2, lambda: None)
    assert placed == {own: {0}, helper: {1}}


def test_threads_that_were_started_by_the_load_count(
    helpers: Helpers, placed: dict[int, set[int]]
) -> None:
    placement = ThreadPlacement()
    helpers.start(1)
    placement.loaded()
    placement.compute(2, lambda: None)
    assert placed[helpers.tasks()[0]] == {1}


def test_nothing_is_bound_if_other_threads_were_started_meanwhile(
    helpers: Helpers, placed: dict[int, set[int]]
) -> None:
    placement = ThreadPlacement()
    placement.compute(2, lambda: helpers.start(2))
    assert set(map(frozenset, placed.values())) == {frozenset({0, 1})}


def test_a_thread_that_has_ended_is_no_error(helpers: Helpers) -> None:
    cores = os.sched_getaffinity(0)
    placement = ThreadPlacement()
    placement.compute(2, lambda: helpers.start(1))
    helpers.close()
    placement.compute(1, lambda: None)
    assert os.sched_getaffinity(0) == cores

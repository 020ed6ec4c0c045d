"""The machine is looked at again and again, whatever becomes of a look."""

from __future__ import annotations

import threading

import pytest

from ollama_async.hw.host import Host
from ollama_async.hw.machine import Machine
from ollama_async.hw.watch import Watch

DEADLINE_S = 10.0


def machine(cores: int) -> Machine:
    return Machine(Host(cores=cores, memory_bytes=1 << 30, available_bytes=1 << 29))


class Looks:
    """Takes one result after the other, the last one again and again; exceptions are raised."""

    def __init__(self, *results: Machine | Exception) -> None:
        self.results = list(results)
        self.at_last = threading.Event()
        self.lasts = 0

    def __call__(self) -> Machine:
        if len(self.results) == 1:
            self.lasts += 1
            if self.lasts == 2:  # the first of them has been stored
                self.at_last.set()
        result = self.results[0] if len(self.results) == 1 else self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def test_the_first_look_is_there_at_once():
    watch = Watch(Looks(machine(1)))
    assert watch.seen == machine(1)
    watch.close()


def test_a_first_look_that_fails_says_why():
    with pytest.raises(OSError, match="too many"):
        Watch(Looks(OSError("too many open files")))


def test_a_look_that_fails_is_not_the_last(caplog):
    looks = Looks(machine(1), OSError("too many open files"), machine(2))
    watch = Watch(looks, period_s=0.001)
    assert looks.at_last.wait(DEADLINE_S)
    watch.close()
    assert watch.seen == machine(2)
    assert "too many open files" in caplog.text


def test_a_look_that_never_ends_does_not_hold_up_the_end():
    began, may_end = threading.Event(), threading.Event()

    def look() -> Machine:
        if threading.current_thread() is not threading.main_thread():
            began.set()
            may_end.wait()
        return machine(1)

    watch = Watch(look, period_s=0.001)
    assert began.wait(DEADLINE_S)
    watch.close(deadline_s=0.01)
    assert not may_end.is_set()
    may_end.set()

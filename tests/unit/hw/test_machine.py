"""The monitor repeats its survey, whether or not one fails or hangs."""

from __future__ import annotations

import threading

import pytest

from ollama_async.hw.host import Host
from ollama_async.hw.machine import Machine, MachineMonitor

DEADLINE_S = 10.0


def machine(cores: int) -> Machine:
    return Machine(Host(cores=cores, available_bytes=1 << 29))


class Surveys:
    """Returns one result after the other, then the last one repeatedly; raises exceptions."""

    def __init__(self, *results: Machine | Exception) -> None:
        self.results = list(results)
        self.is_last = threading.Event()
        self.lasts = 0

    def __call__(self) -> Machine:
        if len(self.results) == 1:
            self.lasts += 1
            if self.lasts == 2:  # the first of them has been stored
                self.is_last.set()
        result = self.results[0] if len(self.results) == 1 else self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def test_the_first_survey_is_there_at_once():
    monitor = MachineMonitor(Surveys(machine(1)))
    assert monitor.latest == machine(1)
    monitor.close()


def test_a_first_survey_that_fails_raises():
    with pytest.raises(OSError, match="too many"):
        MachineMonitor(Surveys(OSError("too many open files")))


def test_a_survey_that_fails_is_not_the_last(caplog):
    surveys = Surveys(machine(1), OSError("too many open files"), machine(2))
    monitor = MachineMonitor(surveys, period_s=0.001)
    assert surveys.is_last.wait(DEADLINE_S)
    monitor.close()
    assert monitor.latest == machine(2)
    assert "too many open files" in caplog.text


def test_a_survey_that_hangs_does_not_delay_close():
    began, may_end = threading.Event(), threading.Event()

    def survey() -> Machine:
        if threading.current_thread() is not threading.main_thread():
            began.set()
            may_end.wait()
        return machine(1)

    monitor = MachineMonitor(survey, period_s=0.001)
    assert began.wait(DEADLINE_S)
    monitor.close(timeout_s=0.01)
    assert not may_end.is_set()
    may_end.set()

"""Untrusted code under resource limits."""

import contextlib
import ctypes
import functools
import signal
import subprocess
import sys
import threading

import pytest

from ollama_async.core.conversation import Message, Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.jinja_renderer import JinjaRenderer
from ollama_async.workers.child import resource_limits
from ollama_async.workers.child.resource_limits import (
    ResourceLimit,
    Watchdog,
    _Interrupted,
    _raise_in_thread,
)


@pytest.fixture(scope="module")
def watchdog():
    watchdog = Watchdog(last_resort_s=0)
    thread = threading.Thread(target=watchdog.run)
    thread.start()
    yield watchdog
    watchdog.close()
    thread.join()


@pytest.fixture
def limit(watchdog):
    def make(cpu_limit_s=0.2, growth_limit_bytes=64 << 20, **more):
        return ResourceLimit(watchdog, cpu_limit_s, growth_limit_bytes, **more)

    return make


def run_template(template, limit):
    prompt = Prompt(messages=[Message("user", "x")])
    renderer = JinjaRenderer(template, bos="", eos="")
    return limit.run(lambda: renderer.render(prompt))


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        LOOP,
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
            "{{ f(90) }}"
        ),
        "{{ range(99999) | map('string') | map('length') | list | length }}" + LOOP,
    ],
)
def test_a_template_that_never_ends_is_interrupted(template, limit):
    with pytest.raises(TemplateFailed, match="takes too long"):
        run_template(template, limit())


def test_a_template_that_collects_memory_is_interrupted(limit):
    with pytest.raises(TemplateFailed, match="too much memory"):
        run_template(
            "{% set n = namespace(all=[]) %}{% for i in range(99999) %}"
            "{% set n.all = n.all + ['x' * 4000000 ~ i] %}{% endfor %}",
            limit(cpu_limit_s=10),  # memory that earlier tests have left is used first
        )


def test_memory_that_another_takes_is_not_all_charged_to_a_template(monkeypatch):
    """As an image that is being decoded meanwhile; alone, it would be too much."""
    watchdog = Watchdog(last_resort_s=0)
    memory = [100 << 20]
    monkeypatch.setattr(resource_limits, "_anonymous_bytes", lambda: memory[0])
    template, other = (ResourceLimit(watchdog, 10, growth_limit_bytes=64 << 20) for _ in range(2))
    threads = {1: template, 2: other}
    watchdog._running = dict(threads)
    grown = []
    for _ in range(3):
        watchdog._charge_growth()
        grown.append((template.growth_bytes, other.growth_bytes))
        memory[0] += 80 << 20
    assert grown == [(size << 20, size << 20) for size in (0, 40, 80)]
    del watchdog._running[2]
    watchdog._seen.discard(2)
    watchdog._charge_growth()
    assert template.growth_bytes == 160 << 20


def test_what_has_just_begun_is_not_charged_for_what_was_before(monkeypatch):
    watchdog = Watchdog(last_resort_s=0)
    monkeypatch.setattr(resource_limits, "_anonymous_bytes", lambda: 100 << 20)
    watchdog._running = {1: ResourceLimit(watchdog)}
    watchdog._charge_growth()
    assert watchdog._running[1].growth_bytes == 0


def test_calls_share_their_time(limit):
    shared = limit(0.05)
    calls = []

    def busy():
        calls.append(sum(range(100_000)))

    with pytest.raises(TemplateFailed, match="takes too long"):
        repeat(lambda: shared.run(busy))

    assert len(calls) > 1


def repeat(action):
    while True:
        action()


def test_what_ends_in_time_is_left_alone(limit):
    assert limit().run(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        limit().run(lambda: 1 // 0)
    assert run_template("{{ messages[0].content }}", limit()) == "x"


def test_whoever_sets_the_limit_chooses_the_exception(limit):
    with pytest.raises(LookupError, match="takes too long"):
        run_template(LOOP, limit(0.01, error=LookupError))


@pytest.mark.slow
def test_threads_are_interrupted_each_by_its_own_limit_and_never_later(limit):
    """Actions end at about the time at which they would be interrupted, again and again."""
    faults = []

    def work():
        try:
            for _ in range(100):
                with contextlib.suppress(TemplateFailed):
                    limit(0.002).run(lambda: sum(range(100_000)))
        except BaseException as fault:  # noqa: BLE001  # whatever it is, the thread would hide it
            faults.append(fault)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []


def test_the_interpreter_is_as_before(watchdog):
    """An exception that was raised but has not struck is no longer looked for at every jump, which
    would slow the thread down and hide its calls from debuggers.
    """
    for _ in range(20):
        with contextlib.suppress(TemplateFailed):
            ResourceLimit(watchdog, 0.002).run(lambda: sum(range(100_000)))
    calls = []
    before = sys.gettrace()
    sys.settrace(lambda frame, event, _value: calls.append((frame.f_code.co_name, event)))
    try:
        called_by_name()
    finally:
        sys.settrace(before)

    assert ("called_by_name", "call") in calls


def called_by_name():
    pass


ENDLESS = """
import threading
from ollama_async.workers.child.resource_limits import ResourceLimit, Watchdog

watchdog = Watchdog(last_resort_s=0.5)
threading.Thread(target=watchdog.run, daemon=True).start()
ResourceLimit(watchdog, 0.1).run(lambda: 3 ** (10 ** 8))
"""


@pytest.mark.slow
class LateWatchdog:
    """Its thread is interrupted while it leaves, and again on its way to another try."""

    def __init__(self):
        self.tries = 0

    def enter(self, limit):
        pass

    def leave(self):
        self.tries += 1
        if self.tries == 1:
            raise _Late


class _Late(_Interrupted):
    # called when the exception is let go of, and nothing of Python's runs in it
    __del__ = functools.partial(
        _raise_in_thread, threading.get_ident(), ctypes.py_object(_Interrupted)
    )


def interrupted():
    raise _Interrupted


@pytest.mark.parametrize("action", [lambda: "done", interrupted])
def test_an_interruption_between_two_tries_to_leave_is_one_of_the_template(action):
    watchdog = LateWatchdog()
    with pytest.raises(TemplateFailed):
        ResourceLimit(watchdog).run(action)
    assert watchdog.tries > 1, "it has left"


@pytest.mark.slow
def test_one_operation_that_nothing_interrupts_ends_the_process():
    done = subprocess.run([sys.executable, "-c", ENDLESS], check=False, timeout=30)

    assert done.returncode == -signal.SIGALRM

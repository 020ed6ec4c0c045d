"""The README's first command, but for the set-up: one answer through the real server."""

import os
import select
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.engine]


@pytest.fixture
def start(request, environment):
    """A function that starts the script with these words."""

    def run(*words, **variables):
        script = request.config.rootpath / "scripts" / "answer.py"
        return subprocess.Popen(
            [sys.executable, "-P", script, *words],
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return run


def _first_bytes(process, limit_s=50):
    """What the process writes first to its standard output."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 1)[0]:
            return os.read(process.stdout.fileno(), 4096)
    raise AssertionError("nothing came")


def test_the_answer_comes_and_everything_is_stopped(start, demo_model):
    with start(demo_model, "What is the capital of France?") as process:
        text, log = process.communicate(timeout=55)
    assert process.returncode == 0, log
    assert b"Paris" in text
    assert b"127.0.0.1:" in log


@pytest.mark.usefixtures("demo_model")
def test_without_a_file_the_demo_model_answers(start):
    with start() as process:
        text, log = process.communicate(timeout=55)
    assert process.returncode == 0, log
    assert b"Rayleigh" in text
    assert b"Why is the sky blue?" in log


def test_an_interrupted_answer_leaves_nothing_running(start, tiny_model):
    # random weights: it would not end by itself
    with start(tiny_model) as process:
        assert _first_bytes(process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143


def test_a_file_that_is_no_model_is_an_error_and_not_a_hang(start, tmp_path):
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUF" + bytes(1000))
    with start(garbage) as process:
        _, log = process.communicate(timeout=55)
    assert process.returncode == 1
    assert b"Error: " in log


def test_a_missing_file_is_named(start, tmp_path):
    with start(tmp_path / "nothing.gguf") as process:
        _, log = process.communicate(timeout=30)
    assert process.returncode == 2
    assert b"nothing.gguf" in log


def test_without_its_fast_kernels_the_engine_still_answers(start, demo_model):
    with start(
        demo_model, "Why is the sky blue?", OLLAMA_ASYNC_PROBE_FAULT="crash-fast"
    ) as process:
        text, log = process.communicate(timeout=55)
    assert process.returncode == 0, log
    assert b"Rayleigh" in text


def test_an_engine_that_crashes_is_an_error_that_names_the_cure(start, demo_model):
    with start(demo_model, OLLAMA_ASYNC_PROBE_FAULT="crash-all") as process:
        _, log = process.communicate(timeout=55)
    assert process.returncode == 1
    assert b"SIGSEGV" in log
    assert b"ollama-async engine build" in log

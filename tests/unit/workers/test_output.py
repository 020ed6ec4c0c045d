"""What is logged and kept of a worker's output, and how its end is described."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.output import BURST_BYTES, BYTES_PER_S, TAIL_BYTES, WorkerOutput
from ollama_async.workers.process import describe_exit


@pytest.fixture
def logged():
    return []


@pytest.fixture
def worker_output(logged):
    return WorkerOutput(logged.append)


def test_lines_are_forwarded_whole_and_without_control_characters(worker_output, logged):
    for part in (b"on", b"e\ntw\x1b[31mo\r\n\n", b"\xfft", b"hree"):
        worker_output.feed(part)
    assert logged == ["one", "tw [31mo"]
    worker_output.close()
    assert logged == ["one", "tw [31mo", "\N{REPLACEMENT CHARACTER}three"]


@pytest.mark.parametrize("control", ["\x1b]0;title\x07", "\x9b31m", "\u202e", "\u2028", "\x7f"])
def test_control_characters_are_not_forwarded(worker_output, logged, control):
    worker_output.feed(f"before{control}after\n".encode())
    assert logged[0].isprintable()
    assert logged[0].startswith("before")


def test_lines_beyond_the_limit_of_a_read_are_counted(logged):
    worker_output = WorkerOutput(logged.append)
    worker_output.feed(b"a\n" * 5000)
    worker_output.close()
    *lines, dropped = logged
    assert dropped == f"{5000 - len(lines)} lines dropped"
    assert len(lines) <= 500


def test_a_line_without_end_is_forwarded_in_parts(worker_output, logged):
    for _ in range(100):
        worker_output.feed(b"x" * 1000)
    worker_output.close()
    assert sum(map(len, logged)) == 100_000
    assert max(map(len, logged)) <= TAIL_BYTES + 1000
    assert len(worker_output._tail) == TAIL_BYTES


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"", []),
        (b"one\ntwo\nthree\nfour\n", ["two", "three", "four"]),
        (b"load\nerror: no tensor\nfree\nCUDA failed\nbye\n", ["error: no tensor", "CUDA failed"]),
        (b"errors everywhere\n" + b"x" * TAIL_BYTES, ["x" * TAIL_BYTES]),
        (b"Traceback (most recent call last):\n  File error\nKeyError: 'a'\n", ["KeyError: 'a'"]),
    ],
)
def test_error_messages_or_the_last_lines_explain_a_death(worker_output, output, expected):
    worker_output.feed(output)
    assert worker_output.failure_lines() == expected


BACKTRACE = b"".join(
    b"#%d  0x00007fc4c034c7de in ggml_abort () from /lib/libggml-base.so.0\n"
    b"%d\tModules/main.c: No such file or directory.\n" % (number, number)
    for number in range(200)
)
C_BACKTRACE = b"/lib/libggml-base.so(ggml_abort+0x15c)[0x7f3c5a1b2c3d]\n" * 300


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"INFO loading\nx.cpp:12: GGML_ASSERT(a) failed\n", ["x.cpp:12: GGML_ASSERT(a) failed"]),
        (b"x.c:1: fatal error\n" + BACKTRACE, ["x.c:1: fatal error"]),
        (b"x.c:1: fatal error\n" + C_BACKTRACE, ["x.c:1: fatal error"]),
        (b"x.c:1: fatal error\n" + b"INFO still failing\n" * 1000, ["x.c:1: fatal error"]),
        (
            b"CUDA error: an illegal memory access\n  current device: 0\nx.cu:98: CUDA error\n",
            ["CUDA error: an illegal memory access", "x.cu:98: CUDA error"],
        ),
        (
            (
                b"terminate called after throwing an instance of 'std::bad_alloc'\n"
                b"  what():  std::bad_alloc\n"
            ),
            [
                "terminate called after throwing an instance of 'std::bad_alloc'",
                "what():  std::bad_alloc",
            ],
        ),
        (
            (
                b"Traceback (most recent call last):\n  File a\n    fail()\nKeyError: 'a'\n\n"
                b"During handling of the above exception, another exception occurred:\n\n"
                b"Traceback (most recent call last):\n  File b\nValueError: b\nINFO bye\n"
            ),
            ["KeyError: 'a'", "ValueError: b"],
        ),
        (
            b"python: x.c:3: f: Assertion `a' failed.\nINFO bye",
            ["python: x.c:3: f: Assertion `a' failed."],
        ),
        (b"INFO one\n[DEBUG] two\ninfo: three\nI gave up\n", ["I gave up"]),
        (b"INFO 3 requests failed\n", []),
        (b"INFO loading", []),
    ],
)
def test_fatal_lines_are_found_among_other_output(worker_output, output, expected):
    for start in range(0, len(output), 1000):
        worker_output.feed(output[start : start + 1000])
    worker_output.close()
    assert worker_output.failure_lines() == expected


def test_ordinary_lines_do_not_explain_a_kill(worker_output):
    worker_output.feed(b"one\ntwo\n")
    assert worker_output.failure_lines(include_ordinary=False) == []


def test_output_before_ready_does_not_explain_a_death(worker_output):
    worker_output.feed(b"cannot find the newline token\n")
    assert worker_output.failure_lines() == ["cannot find the newline token"]
    worker_output.mark_ready()
    assert worker_output.failure_lines() == []


def test_old_output_of_a_ready_worker_does_not_explain_a_death(logged):
    now = 1000.0
    worker_output = WorkerOutput(logged.append, clock=lambda: now)
    worker_output.mark_ready()
    worker_output.feed(b"x.c:1: CUDA error\ncannot go on\n")
    now += 30
    assert worker_output.failure_lines() == ["x.c:1: CUDA error"]
    now += 60
    assert worker_output.failure_lines() == []


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_logged_lines_are_printable_whatever_the_bytes(parts):
    lines = []
    worker_output = WorkerOutput(lines.append)
    for part in parts:
        worker_output.feed(part)
    worker_output.close()
    assert all(ord(character) >= 32 or character == "\t" for line in lines for character in line)


@pytest.mark.parametrize(
    ("returncode", "text"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-9, "killed by signal 9 (out of memory?)"),
        (-11, "killed by signal 11 (SIGSEGV)"),
        (-63, "killed by signal 63 (unknown)"),
    ],
)
def test_an_exit_is_described(returncode, text):
    assert describe_exit(returncode) == text


# The rate at which output is logged


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_quiet_worker_is_logged_whole():
    logged = []
    output = WorkerOutput(logged.append, Clock())
    for number in range(1000):
        output.feed(b"line %d\n" % number)
    output.close()
    assert logged == [f"line {number}" for number in range(1000)]


@pytest.mark.slow
def test_a_flood_is_bounded_reported_and_counted():
    logged, clock = [], Clock()
    output = WorkerOutput(logged.append, clock)
    for _ in range(4000):
        clock.now += 0.01
        output.feed(b"x" * 1000 + b"\n")
    assert output.is_dropping
    output.feed(b"x\n" * 39)
    output.close()
    assert sum(map(len, logged)) < BURST_BYTES + 40 * BYTES_PER_S + 10_000
    assert any("most lines are dropped" in line for line in logged)
    dropped = [int(line.split()[0]) for line in logged if line.endswith("lines dropped")]
    assert sum(dropped) + sum(line.startswith("x") for line in logged) == 4039


@pytest.mark.slow
def test_a_worker_is_logged_again_after_a_flood():
    logged, clock = [], Clock()
    output = WorkerOutput(logged.append, clock)
    for _ in range(3000):
        output.feed(b"x" * 1000 + b"\n")
    assert output.is_dropping
    clock.now += 60
    output.feed(b"calm\n")
    assert not output.is_dropping
    assert logged[-2].endswith("lines dropped")
    assert logged[-1] == "calm"

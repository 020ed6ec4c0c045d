"""Long commands: progress while they run, their output in a log, nothing left when they end."""

import io
import sys

import pytest

from ollama_async.native.logged_command import LoggedCommandFailed, run_logged


class Terminal(io.StringIO):
    def isatty(self):
        return True


def _run(tmp_path, script, *, stream, timeout_s=30.0):
    run_logged(
        [sys.executable, "-c", script],
        title="Working",
        log=tmp_path / "logs" / "work.log",
        timeout_s=timeout_s,
        stream=stream,
    )
    return (tmp_path / "logs" / "work.log").read_text()


def test_the_output_of_a_command_is_in_its_log_and_not_on_the_screen(tmp_path):
    stream = io.StringIO()
    log = _run(tmp_path, "import sys; print('out'); print('err', file=sys.stderr)", stream=stream)
    assert sorted(log.splitlines()) == ["err", "out"]
    assert "out" not in stream.getvalue()
    assert "Working: done in 0:0" in stream.getvalue()


def test_counters_of_the_build_tool_become_progress(tmp_path):
    stream = Terminal()
    _run(tmp_path, "print('[1/40] a'); print('[12/40] Building b.cpp')", stream=stream)
    assert "Working 12/40 0:0" in stream.getvalue()


def test_without_a_terminal_progress_is_plain_lines(tmp_path):
    stream = io.StringIO()
    _run(tmp_path, "print('[3/40] a')", stream=stream)
    assert "\r" not in stream.getvalue()
    assert "\033" not in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_a_failure_shows_the_end_of_the_log(tmp_path):
    script = "for n in range(100): print('line', n)\nraise SystemExit(7)"
    with pytest.raises(LoggedCommandFailed) as failure:
        _run(tmp_path, script, stream=io.StringIO())
    assert "exit status 7" in str(failure.value)
    assert "line 99" in str(failure.value)
    assert "line 10\n" not in str(failure.value)
    assert str(tmp_path / "logs" / "work.log") in str(failure.value)


@pytest.mark.slow
def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path):
    # the leak check sees to it that neither the shell nor its child is there afterwards
    with pytest.raises(LoggedCommandFailed, match="not finished within"):
        run_logged(
            ["sh", "-c", "sleep 60 & wait"],
            title="Hanging",
            log=tmp_path / "log",
            timeout_s=0.3,
            stream=io.StringIO(),
        )


@pytest.mark.slow
def test_an_interruption_kills_the_command(tmp_path):
    class Interrupting(io.StringIO):
        def flush(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_logged(
            ["sh", "-c", "sleep 60 & wait"],
            title="Interrupted",
            log=tmp_path / "log",
            timeout_s=30,
            stream=Interrupting(),
        )

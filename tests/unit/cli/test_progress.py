"""What commands show while they work, on a terminal and elsewhere."""

import io
import re
import threading

import pytest

from ollama_async.cli.client import CommandFailed
from ollama_async.cli.progress import open_progress


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def seen(terminal) -> list[str]:
    """The lines that stay, after whatever was drawn over has been taken away."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    return [line.rpartition("\r")[2].rstrip() for line in text.splitlines()]


def test_elsewhere_each_step_is_one_line():
    stream = io.StringIO()
    progress = open_progress(stream)
    for done in range(5):
        progress.update("copying", done, 4)
    progress.step("success")
    progress.step("success")
    progress.end()
    assert stream.getvalue() == "copying\nsuccess\n"


def test_without_a_terminal_a_long_step_reports_every_ten_seconds():
    stream, clock = io.StringIO(), Clock()
    progress = open_progress(stream, clock)
    for second in range(26):
        progress.update("pulling a", 500_000_000 + second * 10_000_000, 1_000_000_000)
        clock.now_s += 1
    progress.end()
    assert stream.getvalue().splitlines() == [
        "pulling a",
        "pulling a: 60% of 1 GB, 10 MB/s, 40 seconds left",
        "pulling a: 70% of 1 GB, 10 MB/s, 30 seconds left",
    ]


def test_without_a_terminal_overlapping_steps_are_printed_once_each():
    stream = io.StringIO()
    progress = open_progress(stream)
    for done in range(3):
        progress.update("pulling a", done, 2)
        progress.update("pulling b", done, 2)
    progress.end()
    assert stream.getvalue() == "pulling a\npulling b\n"


def test_without_a_terminal_a_stalled_step_has_no_rate():
    stream, clock = io.StringIO(), Clock()
    progress = open_progress(stream, clock)
    progress.update("pulling a", 5, 10)
    clock.now_s += 10
    progress.update("pulling a", 5, 10)
    assert stream.getvalue().splitlines()[-1] == "pulling a: 50% of 10 B"


def test_on_a_terminal_bars_and_steps_stay_in_their_order(terminal):
    progress = open_progress(terminal)
    progress.step("pulling manifest")
    progress.update("pulling aaaaaaaaaaaa", 0, 2_000_000)
    progress.update("pulling bbbbbbbbbbbb", 500, 1000)
    progress.update("pulling aaaaaaaaaaaa", 2_000_000, 2_000_000)
    progress.update("pulling bbbbbbbbbbbb", 1000, 1000)
    progress.step("[bold]not markup[/bold]")
    progress.end()
    lines = [line for line in seen(terminal) if line]
    assert "pulling manifest" in lines
    first, second, last = lines[-4], lines[-3], lines[-1]
    assert first.startswith("pulling aaaaaaaaaaaa 100% ")
    assert "2.0/2.0 MB" in first
    assert second.startswith("pulling bbbbbbbbbbbb 100% ")
    assert last == "[bold]not markup[/bold]"


@pytest.mark.parametrize(("width", "has_rate"), [(40, False), (75, False), (76, True), (200, True)])
def test_a_bar_is_one_row_of_any_terminal(terminal, monkeypatch, width, has_rate):
    monkeypatch.setenv("COLUMNS", str(width))
    progress = open_progress(terminal)
    text = f"copying file sha256:{'ab' * 32}"
    progress.update(text, 0, 1_000_000_000_000)
    progress.update(text, 500_000_000_000, 1_000_000_000_000)
    progress.end()
    row = [line for line in seen(terminal) if line][-1]  # a second row would be the last one
    assert row.startswith("copying file sha256:")
    assert " 50% " in row
    assert ("0.5/1.0 TB" in row) == has_rate
    assert len(row) <= width


def test_on_a_terminal_nothing_goes_on_after_the_end(terminal):
    threads = set(threading.enumerate())
    progress = open_progress(terminal)
    progress.update("copying", 1, 2)
    drawing = set(threading.enumerate()) - threads
    assert drawing
    progress.end()
    progress.end()
    for thread in drawing:
        thread.join(10)
        assert not thread.is_alive()
    assert terminal.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


@pytest.mark.parametrize(("done", "shown"), [(-5, "0%"), (99, "100%")])
def test_a_server_that_counts_wrong_breaks_nothing(done, shown):
    stream, clock = io.StringIO(), Clock()
    progress = open_progress(stream, clock)

    def updates():
        yield {"status": "pulling", "completed": 1, "total": 10}
        clock.now_s += 10
        yield {"status": "pulling", "completed": done, "total": 10}
        yield {"status": "success"}

    progress.follow(updates(), "cut")
    assert f"pulling: {shown} of 10 B" in stream.getvalue()


def test_updates_must_end_with_success():
    stream = io.StringIO()
    open_progress(stream).follow([{"status": "one"}, {"status": "success"}], "cut")
    assert stream.getvalue() == "one\nsuccess\n"
    with pytest.raises(CommandFailed, match="cut"):
        open_progress(stream).follow([{"status": "one"}, {"total": 1}], "cut")

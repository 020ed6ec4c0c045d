"""An outbox under every order of pieces, turns of the loop, and a client that reads or does not."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama_async.gateway.send_budget import FREE_BYTES, Reservation, SendBudget

from ollama_async.core.conversation import Thought, ToolCall, ToolFunction, Usage
from ollama_async.core.errors import WorkerDied
from ollama_async.gateway import response_stream as outbox_module
from ollama_async.gateway import send_budget
from ollama_async.gateway.histogram import Histogram
from ollama_async.gateway.response_formats import AnswerContent
from ollama_async.gateway.response_formats.ollama import OllamaGenerateFormat
from ollama_async.gateway.response_stream import MERGE_ABOVE, Flusher, ResponseStream
from ollama_async.queue.backend import Finish
from tests.unit.gateway.conftest import FakeRequest

END = Finish("stop", Usage(), [])


class Wire:
    """A request, its protocol and its transport in one; ``writing_paused`` is the test's to set."""

    class version:  # noqa: N801  # plays aiohttp's attribute
        minor = 0

    def __init__(self) -> None:
        self.transport = self.protocol = self
        self.writing_paused = False
        self.is_gone = False
        self.written = b""

    def write(self, data: bytes) -> None:
        assert not self.writing_paused, "written to a client that does not read"
        self.written += data

    def is_closing(self) -> bool:
        return self.is_gone

    def abort(self) -> None:
        self.is_gone = True

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """What the objects say, each its kind and its text; each object has one kind."""
        said = []
        for line in map(json.loads, self.written.splitlines()):
            found = [
                ("text", line["response"]),
                ("thought", line.get("thinking", "")),
                ("call", "".join(each["function"]["name"] for each in line.get("tool_calls", []))),
            ]
            said += [(kind, text) for kind, text in found if text]
        return said

    @property
    def texts(self) -> list[str]:
        return [json.loads(line)["response"] for line in self.written.splitlines()]


def an_outbox(
    *, is_streamed: bool = True, gaps: Histogram | None = None, budget: SendBudget | None = None
) -> ResponseStream:
    reservation = Reservation(budget or SendBudget(), FakeRequest())
    gaps = gaps or Histogram((1.0,))
    return ResponseStream(
        OllamaGenerateFormat("m"), gaps, Flusher(), reservation, is_streamed=is_streamed
    )


async def turn() -> None:
    await asyncio.sleep(0)


OPERATIONS = st.lists(
    st.one_of(
        st.text("abcü\n", min_size=1, max_size=3),
        st.sampled_from(["<turn>", "<slow>", "<reads>"]),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_no_text_is_lost_doubled_or_reordered(operations):
    async def play() -> tuple[str, str]:
        wire, outbox, said = Wire(), an_outbox(), ""
        outbox.attach(wire)
        for operation in operations:
            if operation == "<turn>":
                await turn()
            elif operation == "<slow>":
                wire.writing_paused = True
            elif operation == "<reads>":
                wire.writing_paused = False
                outbox.attach(wire)
            else:
                said += operation
                outbox.text(operation)
        await turn()
        return said, "".join(wire.texts) + outbox.take().content

    said, got = asyncio.run(play())
    assert got == said


KINDS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["text", "thought", "call"]), st.text("ab", min_size=1)),
        st.sampled_from(["<turn>", "<slow>", "<reads>"]),
    ),
    max_size=40,
)


@given(KINDS)
def test_thoughts_and_calls_keep_their_places(operations):
    async def play() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        wire, outbox, said = Wire(), an_outbox(), []
        outbox.attach(wire)
        for operation in operations:
            match operation:
                case "<turn>":
                    await turn()
                case "<slow>":
                    wire.writing_paused = True
                case "<reads>":
                    wire.writing_paused = False
                    outbox.attach(wire)
                case (kind, text):
                    said.append((kind, text))
                    tell(outbox, kind, text)
        await turn()
        wire.writing_paused = False
        outbox.attach(wire)
        return said, wire.kinds

    said, got = asyncio.run(play())
    assert spelled(got) == spelled(said)


def tell(outbox: ResponseStream, kind: str, text: str) -> None:
    if kind == "text":
        outbox.text(text)
    elif kind == "thought":
        outbox.part(Thought(text))
    else:
        outbox.part(ToolCall(ToolFunction(text)))


def spelled(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Letter by letter, so that it does not matter how neighbours of one kind were joined."""
    return [(kind, letter) for kind, text in said for letter in text]


async def test_neighbours_of_one_kind_leave_as_one_object():
    wire, outbox = Wire(), an_outbox()
    outbox.attach(wire)
    for kind, text in zip(("thought", "thought", "text", "call", "call"), "abcfg", strict=True):
        tell(outbox, kind, text)
    await turn()
    assert wire.kinds == [("thought", "ab"), ("text", "c"), ("call", "fg")]


async def test_a_restart_forgets_thoughts_and_calls():
    outbox = an_outbox(is_streamed=False)
    outbox.part(Thought("a"))
    outbox.part(ToolCall(ToolFunction("f")))
    assert outbox.may_restart()
    outbox.text("b")
    assert outbox.take() == AnswerContent(content="b")


async def test_pieces_of_different_turns_are_objects_of_their_own():
    wire, outbox = Wire(), an_outbox()
    outbox.attach(wire)
    for piece in "abc":
        outbox.text(piece)
        await turn()
    assert wire.texts == ["a", "b", "c"]


async def test_a_few_pieces_of_one_turn_stay_objects_and_many_merge():
    wire, outbox = Wire(), an_outbox()
    outbox.attach(wire)
    for _ in range(MERGE_ABOVE):
        outbox.text("a")
    await turn()
    for _ in range(MERGE_ABOVE + 1):
        outbox.text("b")
    await turn()
    assert wire.texts == ["a"] * MERGE_ABOVE + ["b" * (MERGE_ABOVE + 1)]


async def test_a_slow_client_wakes_the_handler_and_gets_what_gathered_as_one_object():
    wire, outbox = Wire(), an_outbox()
    outbox.attach(wire)
    waiting = asyncio.ensure_future(outbox.wake())
    await turn()
    wire.writing_paused = True
    outbox.text("a")
    await asyncio.wait_for(waiting, 10)
    outbox.text("b")
    assert wire.texts == []

    wire.writing_paused = False
    outbox.attach(wire)
    assert wire.texts == ["ab"]


async def test_a_client_that_is_gone_cannot_be_attached():
    wire, outbox = Wire(), an_outbox()
    wire.is_gone = True
    with pytest.raises(ConnectionResetError):
        outbox.attach(wire)


async def test_an_outbox_that_is_not_streamed_wakes_at_the_end_only():
    outbox = an_outbox(is_streamed=False)
    waiting = asyncio.ensure_future(outbox.wake())
    outbox.text("a")
    outbox.text("b")
    await turn()
    assert not waiting.done()
    outbox.finished(END)
    await asyncio.wait_for(waiting, 10)
    assert outbox.take() == AnswerContent(content="ab")


async def test_a_cancelled_wait_can_be_waited_for_again():
    outbox = an_outbox()
    waiting = asyncio.ensure_future(outbox.wake())
    await turn()
    waiting.cancel()
    await asyncio.wait({waiting})
    outbox.failed(WorkerDied("x"))
    await asyncio.wait_for(outbox.wake(), 10)
    assert outbox.has_ended


async def test_gaps_between_pieces_are_measured_anew_after_a_restart():
    gaps = Histogram((1.0,))
    outbox = an_outbox(is_streamed=False, gaps=gaps)
    outbox.text("a")
    outbox.text("b")
    assert outbox.may_restart()
    assert outbox.first_at is None
    outbox.text("c")
    assert sum(gaps.counts) == 1
    assert outbox.take() == AnswerContent(content="c")


async def test_an_answer_that_holds_too_much_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(send_budget, "CLIENT_LIMIT_BYTES", 1 << 20)
    budget = SendBudget()
    outbox = an_outbox(is_streamed=False, budget=budget)
    while not outbox.has_ended:
        outbox.text("x" * 1000)
    held_bytes = outbox.held_bytes
    outbox.text("more")
    outbox.finished(END)

    assert outbox.finish is None
    assert outbox.error is not None
    assert outbox.held_bytes == held_bytes < (1 << 20) + 2000
    assert (1 << 20) - 2 * FREE_BYTES < budget.reserved_bytes <= 1 << 20


@pytest.mark.parametrize("part", [Thought("x" * 1000), ToolCall(ToolFunction("f" * 1000))])
async def test_what_a_client_does_not_read_has_a_limit(monkeypatch, part):
    monkeypatch.setattr(outbox_module, "UNREAD_LIMIT_BYTES", 1 << 20)
    wire, outbox = Wire(), an_outbox()
    outbox.attach(wire)
    outbox.text("read")
    await turn()
    wire.writing_paused = True
    parts = 0
    while not wire.is_gone:
        outbox.part(part)
        parts += 1
    assert 500 < parts < 1100
    assert outbox.has_ended


async def test_what_a_client_reads_in_time_has_no_limit(monkeypatch):
    monkeypatch.setattr(outbox_module, "UNREAD_LIMIT_BYTES", 1 << 20)
    wire, outbox = Wire(), an_outbox()
    outbox.attach(wire)
    for _ in range(30):
        for _ in range(100):
            outbox.text("x" * 1000)
        await turn()
    assert not outbox.has_ended
    assert len(wire.written) > 3_000_000

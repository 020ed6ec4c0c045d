"""Answers that are more than text: what a parser finds, on its way through the step thread."""

from __future__ import annotations

import re

import pytest

from ollama_async.core.conversation import Sampling, Thought, ToolCall, ToolFunction
from ollama_async.core.scripted_models import Script
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines.scripted import Scripted
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.child.output_parser import NESTING_LIMIT, OutputParser
from ollama_async.workers.messages import Cancel, Deltas, Done, Started, ToolCallDelta
from tests.unit.child.loop_harness import hand_over

CALL_ID = re.compile(r"call_[a-z0-9]{8}")


class Brackets:
    """``(thoughts)``, ``[name]`` is a call, all else is content."""

    def __init__(self):
        self.held = ""

    def feed(self, text):
        parts = []
        for letter in text:
            self.held += letter
            first, last = self.held[0], letter
            if first == "[" and last == "]":
                parts.append(ToolCall(ToolFunction(self.held[1:-1], {"x": len(parts)})))
            elif first == "(" and last == ")":
                parts.append(Thought(self.held[1:-1]))
            elif first not in "[(":
                parts.append(letter)
            else:
                continue
            self.held = ""
        return parts

    def finish(self):
        return [self.held] if self.held else []


class Failing(Brackets):
    def feed(self, text):
        if "!" in text:
            raise ZeroDivisionError
        return super().feed(text)


def call(name, index, x=0):
    return ("call", name, index, x)


def plain(pieces):
    """Neighbouring texts joined; thoughts and calls as tuples, ids checked and left out."""
    parts = []
    for piece in pieces:
        if isinstance(piece, str) and parts and isinstance(parts[-1], str):
            parts[-1] += piece
        elif isinstance(piece, str):
            parts.append(piece)
        elif isinstance(piece, Thought):
            parts.append(("thought", piece.text))
        else:
            assert isinstance(piece, ToolCallDelta)
            assert CALL_ID.fullmatch(piece.call.id)
            function = piece.call.function
            parts.append(call(function.name, function.index, function.arguments["x"]))
    return parts


class ParserHarness:
    """The loop over a scripted engine."""

    def __init__(self, *tokens, special=()):
        script = Script(tokens=list(tokens))
        self.engine = Scripted(script, slots=2, num_ctx=64)
        self.special = dict(special)
        self.mailbox = Mailbox()
        self.sent = []
        self.loop = EngineLoop(self.engine, self.mailbox, self.sent.extend, BatchPlanner(64))

    def put(self, *, limit=50, stop=(), parser=None, number=1, takes_one_call=False):
        hand_over(
            self.mailbox,
            PreparedRequest(
                id=number,
                tokens=[1, 2],
                sampling=Sampling(stop=list(stop)),
                num_ctx=64,
                keep=0,
                max_tokens=limit,
                shift=False,
                returns_context=False,
                parser=OutputParser(parser or Brackets(), takes_one_call=takes_one_call),
                special=self.special,
            ),
        )
        return self

    def run(self, turns=60):
        for _ in range(turns):
            self.loop.iterate(idle_s=0)
        return self

    def pieces(self, number=1):
        return plain(
            piece
            for message in self.sent
            if isinstance(message, Deltas)
            for request_id, piece in message.items
            if request_id == number
        )

    @property
    def end(self):
        (done,) = [message for message in self.sent if isinstance(message, Done)]
        return done


def test_text_before_between_and_after_calls_that_are_cut_into_pieces_keeps_its_place():
    harness = ParserHarness("(h", "m) so [o", "n", "e] and ", "[two]", " bye").put().run()

    assert harness.pieces() == [
        ("thought", "hm"),
        " so ",
        call("one", 0),
        " and ",
        call("two", 1),
        " bye",
    ]
    assert (harness.end.reason, harness.end.usage.answer) == ("stop", 7)


def test_tokens_up_to_the_last_thought_are_counted():
    harness = ParserHarness("(h", "m)", "so", "(o", "h)", "[one]").put().run()

    assert (harness.end.usage.thinking, harness.end.usage.answer) == (5, 7)
    assert ParserHarness("so", "[one]").put().run().end.usage.thinking == 0


def test_what_the_limit_cut_off_inside_a_call_is_content():
    harness = ParserHarness("so ", "[on", "e]").put(limit=2).run()

    assert harness.pieces() == ["so [on"]
    assert harness.end.reason == "length"


def test_what_the_model_left_open_is_content():
    assert ParserHarness("so ", "(hm").put().run().pieces() == ["so (hm"]


def test_a_stop_string_inside_a_thought_ends_the_answer():
    harness = ParserHarness("(hm ST", "OP more) yes").put(stop=["STOP"], parser=Brackets()).run()

    assert harness.pieces() == ["(hm "]  # this parser's idea of a thought without an end
    assert harness.end.reason == "stop"


def test_a_stop_string_that_is_never_complete_goes_through_the_parser_at_the_end():
    assert ParserHarness("[on", "e]").put(stop=["e]x"]).run().pieces() == [call("one", 0)]


def test_a_cancel_inside_a_call_sends_nothing_more():
    harness = ParserHarness("so ", "[on", *["x"] * 40)
    harness.put()
    harness.run(turns=4)
    harness.mailbox.cancel(Cancel(1))
    harness.run()

    assert harness.pieces() == ["so "]
    assert harness.end.reason == "cancel"


def test_requests_with_and_without_a_parser_share_a_step():
    harness = ParserHarness("(a)", "[b]")
    harness.put(number=1)
    hand_over(
        harness.mailbox,
        PreparedRequest(
            id=2,
            tokens=[3],
            sampling=Sampling(),
            num_ctx=64,
            keep=0,
            max_tokens=5,
            shift=False,
            returns_context=False,
        ),
    )
    harness.run()

    assert harness.pieces(1) == [("thought", "a"), call("b", 0)]
    assert harness.pieces(2) == ["(a)[b]"]


def test_control_tokens_that_the_parser_reads_have_their_text_for_it_alone():
    harness = ParserHarness("a", "b", special={257: b"[z]"})  # the second token of the script
    harness.put().run()

    assert harness.pieces() == ["a", call("z", 0)]


def test_a_parser_that_fails_loses_no_text_and_affects_no_other_request(capsys):
    harness = ParserHarness("a", "[b]", "c!", "[d]").put(parser=Failing()).put(number=2).run()

    assert harness.pieces(1) == ["a", call("b", 0), "c![d]"]
    assert harness.pieces(2) == ["a", call("b", 0), "c!", call("d", 1)]
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert sum(isinstance(message, Started) for message in harness.sent) == 2


@pytest.mark.parametrize(
    "tokens",
    [
        ["so ", "[a]", "[b]", "more"],
        ["so [", "a][b][c] more"],
        ["so ", "[a", "] and then [b] more"],
    ],
)
def test_an_answer_that_may_have_one_call_ends_with_it(tokens):
    harness = ParserHarness(*tokens).put(takes_one_call=True).run()

    (before, called) = harness.pieces()
    assert (before, called[:3]) == ("so ", ("call", "a", 0))
    assert (harness.end.reason, harness.end.stop_string) == ("stop", "")
    assert harness.end.usage.answer <= 3


def test_an_answer_that_may_have_one_call_may_have_none():
    harness = ParserHarness("so ", "[a").put(takes_one_call=True).run()

    assert harness.pieces() == ["so [a"]


def test_of_calls_that_are_known_only_at_the_end_the_first_counts():
    calls = [ToolCall(ToolFunction(name)) for name in "ab"]
    parser = OutputParser(Says(*calls, "c"), takes_one_call=True)
    assert [delta.call.function.name for delta in parser.finish()] == ["a"]
    assert parser.is_over


class Says:
    """A parser that says something at the end."""

    def __init__(self, *parts):
        self.parts = parts

    def feed(self, _text):
        return []

    def finish(self):
        return list(self.parts)


def test_a_call_keeps_the_id_that_it_has():
    (called,) = OutputParser(Says(ToolCall(ToolFunction("f"), "mine"))).finish()
    assert called == ToolCallDelta(ToolCall(ToolFunction("f"), "mine"))


def deep(levels):
    value = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n": 2**64}, '{"name": "f", "arguments": {"n": 18446744073709551616}}'),
        ({"half": "\ud83d"}, '{"name": "f", "arguments": {"half": "\\ud83d"}}'),
    ],
)
def test_a_call_that_the_pipe_cannot_carry_is_content(arguments, text):
    assert OutputParser(Says(ToolCall(ToolFunction("f", arguments)))).finish() == [text]


def test_arguments_may_nest_so_deep_and_no_deeper():
    (called,) = OutputParser(Says(ToolCall(ToolFunction("f", deep(NESTING_LIMIT))))).finish()
    (text,) = OutputParser(Says(ToolCall(ToolFunction("f", deep(NESTING_LIMIT + 1))))).finish()

    assert isinstance(called, ToolCallDelta)
    assert isinstance(text, str)

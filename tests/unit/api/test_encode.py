import json
import math
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api import encode
from ollama_async.api.ollama import AnswerMessage, ChatResponse, GenerateResponse


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_735_787_045_678_901_234, "2025-01-02T03:04:05.678901234Z"),
        (1_735_787_045_670_000_000, "2025-01-02T03:04:05.67Z"),
        (1_735_787_045_000_000_001, "2025-01-02T03:04:05.000000001Z"),
    ],
)
def test_times_are_printed_as_go_prints_them(nanoseconds, text):
    assert encode.utc(nanoseconds) == text


@given(st.floats(0, 4e9))
def test_local_times_are_the_same_moment(seconds):
    text = re.sub(r"(\.\d{6})\d+", r"\1", encode.local(seconds))
    assert abs(datetime.fromisoformat(text).timestamp() - seconds) < 2e-6


@pytest.mark.parametrize("seconds", [-1e18, -1.0, 253_402_300_800.0, 1e18])
def test_times_out_of_range_are_clamped(seconds):
    assert datetime.fromisoformat(encode.local(seconds)).year in {1969, 1970, 9998, 9999}


def test_never_is_centuries_ahead():
    assert datetime.fromisoformat(encode.local(math.inf)[:19]).year > datetime.now(UTC).year + 280


def test_never_is_always_the_same_moment():
    assert encode.local(math.inf) == encode.local(math.inf)


def test_keys_are_in_gos_order_and_defaults_are_omitted():
    full = GenerateResponse(
        model="m",
        created_at="t",
        response="",
        thinking="h",
        done=True,
        done_reason="stop",
        context=[1],
        total_duration=1,
        load_duration=2,
        prompt_eval_count=3,
        prompt_eval_duration=4,
        eval_count=5,
        eval_duration=6,
    )
    assert list(json.loads(encode.to_json(full))) == [
        "model", "created_at", "response", "thinking", "done", "done_reason", "context",
        "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration",
        "eval_count", "eval_duration",
    ]  # fmt: skip
    empty = ChatResponse(
        model="m", created_at="t", message=AnswerMessage(role="assistant", content=""), done=False
    )
    assert encode.to_json(empty) == (
        b'{"model":"m","created_at":"t","message":{"role":"assistant","content":""},"done":false}'
    )


@given(st.text(), st.sampled_from([encode.to_json, encode.to_line, encode.to_event]))
def test_text_ends_no_line_for_readers_that_know_more_line_ends_than_json(text, write):
    data = write({"text": f"{text}\x85\u2028\u2029"})
    assert len(data.decode().rstrip("\n").splitlines()) == 1
    assert json.loads(data.removeprefix(b"data: ")) == {"text": f"{text}\x85\u2028\u2029"}

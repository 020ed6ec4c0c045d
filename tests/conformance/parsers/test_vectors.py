"""What Ollama's own parsers answer, recorded; and by which rules we differ from it.

Ollama was given each answer as one piece that also was the last one.
"""

import json
import re
from pathlib import Path

import pytest

from ollama_async.prompts.parsers import NAMES, named
from tests.unit.prompts.parsers.feeding import read

VECTORS = Path(__file__).parents[2] / "vectors" / "parsers.jsonl"
FIRST, *REST = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]
CASES = [(case, think) for case in REST for think in case["think"]]
MARK = re.compile(r"</?[^<>\s]*[>=]?")


def words(*texts):
    """What a reader would miss; tags and white space are not text."""
    return re.findall(r"\w+", MARK.sub(" ", " ".join(map(str, texts))))


def lost_by_ollama(case):
    """Rules 1 and 2: the answer ended in an error, or some of its words are nowhere."""
    kept = words(case["content"], case["thinking"], *case["calls"])
    return "error" in case or not set(words(case["answer"])) <= set(kept)


def overlooked_by_ollama(case):
    """Rule 3: olmo3 does not look for calls in the last piece of an answer."""
    return case["name"] == "olmo3" and "<function_calls>" in case["content"]


def named_by(row):
    case, think = row
    return f"{case['name']}, think {think}, {case['answer'][:40]}"


@pytest.mark.parametrize(("case", "think"), [pytest.param(*row, id=named_by(row)) for row in CASES])
def test_an_answer_means_what_ollama_takes_it_for_unless_it_would_lose_text(case, think):
    assert is_right(case, think)


def is_right(case, think):
    """Whether an answer is read as it should be."""
    found = read(named(case["name"]), case["answer"], tools=FIRST["tools"], think=think)
    calls = [(call["name"], call["arguments"]) for call in case["calls"]]
    if (found.content, found.thinking, found.calls) == (case["content"], case["thinking"], calls):
        return True
    if overlooked_by_ollama(case):
        return [name for name, _ in found.calls] == ["get_weather"]
    everything = " ".join(words(found.content, found.thinking, *found.calls))
    return lost_by_ollama(case) and all(
        word in everything for word in words(case["answer"]) if word not in HEADS
    )


HEADS = {"tool_call_id", "tool_name", "parameters", "0"}
"""Keys of calls, and their ids."""


def test_nothing_is_recorded_for_a_format_that_does_not_exist():
    assert {case["name"] for case, _ in CASES} == set(NAMES)

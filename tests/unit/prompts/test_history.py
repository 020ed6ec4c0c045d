"""What stays of a conversation that is too long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.prompts.history import fit
from ollama_async.prompts.shorten import cut_middle

CALL = [ToolCall(ToolFunction("f"))]


def conversation(text):
    """``s``: system, ``u``: user, ``a``: assistant, ``c``: one that calls a tool, ``t``: result."""
    roles = {"s": "system", "u": "user", "a": "assistant", "c": "assistant", "t": "tool"}
    return Prompt(
        messages=[
            Message(roles[letter], letter, tool_calls=CALL if letter == "c" else [])
            for letter in text
        ]
    )


def letters(prompt):
    return "".join(message.content for message in prompt.messages)


def fitted(text, limit):
    return fit(conversation(text), letters, lambda kept: len(kept) <= limit)


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("suauau", 9, "suauau"),
        ("suauau", 5, "suau"),
        ("suauau", 3, "su"),
        ("suauau", 1, "su"),
        ("usasu", 3, "ssu"),
        ("uauct", 3, "uct"),
        ("uauct", 2, "ct"),
        ("uauct", 1, "ct"),
        ("uctctct", 4, "ctct"),
        ("uctctct", 5, "ctct"),
        ("uaus", 1, "us"),
        ("u", 0, "u"),
        ("s", 0, "s"),
        ("", 0, ""),
        ("tu", 1, "u"),
        ("ctt", 1, "ctt"),
    ],
)
def test_the_oldest_turns_go_first(text, limit, kept):
    assert fitted(text, limit) == kept


def valid(text):
    """Every result follows a call, perhaps after other results."""
    return all(
        text[: index + 1].rstrip("t").endswith("c")
        for index in range(len(text))
        if text[index] == "t"
    )


@given(st.lists(st.sampled_from(["s", "u", "a", "ct", "ctt"]), max_size=30), st.integers(0, 40))
def test_system_messages_and_the_last_one_stay_and_no_result_loses_its_call(parts, limit):
    text = "".join(parts)
    kept = fitted(text, limit)

    assert kept.count("s") == text.count("s")
    assert text.replace("s", "").endswith(kept.replace("s", ""))
    assert kept[-1:] == text[-1:]
    assert valid(kept.replace("s", "")) or not valid(text.replace("s", ""))
    assert len(text) <= limit or len(kept) <= max(limit, len(fitted(text, 0)))


def test_a_long_history_is_rendered_a_few_times_only():
    renderings = []

    def count(prompt):
        renderings.append(prompt)
        return len(prompt.messages)

    kept = fit(conversation("ua" * 500 + "u"), count, lambda length: length <= 100)

    assert kept == 99
    assert len(renderings) <= 11


@pytest.mark.parametrize(
    ("length", "num_ctx", "keep", "kept"),
    [
        (20, 10, 0, [15, 16, 17, 18, 19]),
        (20, 10, 4, [0, 1, 2, 3, 17, 18, 19]),
        (20, 10, 100, [0, 1, 2, 3, 4, 5, 6, 7, 19]),
        (20, 10, -1, [0, 1, 2, 3, 4, 5, 6, 7, 19]),
        (10, 10, 4, [0, 1, 2, 3, 7, 8, 9]),
        (4, 3, 0, [2, 3]),
    ],
)
def test_the_middle_is_cut_and_half_of_the_rest_is_free(length, num_ctx, keep, kept):
    assert cut_middle(range(length), num_ctx=num_ctx, keep=keep) == kept

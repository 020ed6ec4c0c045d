"""What stays of a conversation that is too long."""

import random
from itertools import accumulate
from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.truncation import cut_middle, truncate

ROLES = {
    "s": "system",
    "d": "developer",
    "u": "user",
    "a": "assistant",
    "c": "assistant",
    "t": "tool",
    "f": "function",
    "i": "ipython",
}
RESULTS = "tfi"


def conversation(text):
    """``s``, ``d``: system, ``u``: user, ``a``: assistant, ``c``: one that calls a tool, ``t``,
    ``f``, ``i``: result. Digits are the ids of the message's calls, or of what it answers.
    """
    messages = []
    for letter in text:
        if letter.isdigit():
            messages[-1].content += letter
        else:
            messages.append(Message(ROLES[letter], letter))
    for message in messages:
        kind, ids = message.content[0], message.content[1:]
        if kind == "c":
            message.tool_calls = [ToolCall(ToolFunction("f"), id=each) for each in ids or [""]]
        else:
            message.tool_call_id = ids
    return Prompt(messages=messages)


def letters(prompt):
    return "".join(message.content for message in prompt.messages)


def size(text):
    """In messages."""
    return sum(not letter.isdigit() for letter in text)


class Template:
    """Renders as :func:`letters` what it does not refuse, and counts how often."""

    def __init__(self, refuses=lambda _text: False):
        self.renderings = 0
        self._refuses = refuses

    def render(self, prompt):
        self.renderings += 1
        text = letters(prompt)
        if self._refuses(text):
            raise TemplateFailed(f"no {text}")
        return text


def fitted(text, most, target=None, template=None):
    template = template or Template()
    target = most if target is None else target
    return truncate(conversation(text), template.render, size, most=most, target=target)


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("suauau", 6, "suauau"),
        ("suauau", 5, "suau"),
        ("suauau", 3, "su"),
        ("usasu", 3, "ssu"),
        ("uaus", 2, "us"),
        ("sauau", 4, "suau"),
        ("sauau", 3, "su"),
        ("uctauct", 6, "uct"),
        ("uauct", 3, "uct"),
        ("uuu", 2, "uu"),
        ("uauuu", 3, "uuu"),
        ("uaua", 3, "ua"),
    ],
)
def test_the_oldest_turns_go_first(text, most, kept):
    assert fitted(text, most) == kept


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("uctctct", 5, "uctct"),
        ("uctctct", 4, "uct"),
        ("uauctct", 6, "uctct"),
        ("sudctct", 5, "sudct"),
        ("ucttcttta", 6, "ucttta"),
        ("ucttcttta", 5, "ua"),
        ("uctctacta", 5, "uacta"),
        ("uctctacta", 4, "ucta"),
        ("uctctacta", 3, "ua"),
        ("ucstct", 4, "usct"),
        ("uaaaa", 3, "uaa"),
    ],
)
def test_then_the_oldest_rounds_after_the_last_user_message(text, most, kept):
    assert fitted(text, most) == kept


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("uauct", 2, "u"),
        ("uctctct", 2, "u"),
        ("sucta", 2, "su"),
        ("suct", 1, "su"),
        ("uasuct", 0, "su"),
        ("u", 0, "u"),
    ],
)
def test_the_last_user_message_stays_when_nothing_else_can(text, most, kept):
    assert fitted(text, most) == kept


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("", 0, ""),
        ("s", 0, "s"),
        ("aaa", 1, "a"),
        ("sctctct", 5, "sctct"),
        ("sctct", 1, "sct"),
        ("ctt", 1, "ctt"),
        ("ttct", 3, "ct"),
        ("ttt", 1, "ttt"),
    ],
)
def test_without_a_user_message_the_newest_round_stays(text, most, kept):
    assert fitted(text, most) == kept


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("uc1c2t2t1", 3, "uc1t1"),
        ("uc1c2t2c3t3t1", 6, "uc1c3t3t1"),
        ("uc12t2t1c3t3", 5, "uc3t3"),
        ("uc1t1c1t1", 4, "uc1t1"),
        ("ucctta", 4, "ucta"),
        ("uc1t9c2t2", 4, "uc2t2"),
        ("ucfct", 4, "uct"),
        ("ucici", 4, "uci"),
        ("uc1ut1", 3, "c1ut1"),
        ("ucut", 3, "cut"),
        ("uc1ut1", 2, "u"),
        ("ucuct", 4, "uct"),
        ("ucuact", 4, "uact"),
    ],
)
def test_calls_and_their_results_stay_together(text, most, kept):
    """By ids, whatever comes between, else in their order; what the user gave up has none."""
    assert fitted(text, most) == kept


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("tu", 1, "u"),
        ("tuau", 3, "uau"),
        ("uttt", 3, "utt"),
        ("uatct", 4, "uct"),
        ("uctttct", 5, "uct"),
        ("uautct", 4, "utct"),
        ("uautct", 3, "uct"),
    ],
)
def test_results_without_a_call_go_with_what_is_before_them(text, most, kept):
    assert fitted(text, most) == kept


@pytest.mark.parametrize(
    ("target", "kept"), [(6, "uctct"), (5, "uctct"), (4, "uct"), (3, "uct"), (1, "uct")]
)
def test_rounds_make_room_for_the_reserve_but_what_is_needed_does_not(target, kept):
    assert fitted("uauctct", 6, target) == kept


def test_the_whole_needs_no_reserve():
    assert fitted("uauctct", 7, 1) == "uauctct"


def test_when_what_is_needed_does_not_fit_at_all_the_question_may_take_the_reserve():
    assert fitted("ssuct", 4, 1) == "ssu"


# --------------------------------------------------------------------------- refusing templates


def test_a_refused_whole_is_an_error():
    with pytest.raises(TemplateFailed, match="no uau"):
        fitted("uau", 9, template=Template(lambda _text: True))


@pytest.mark.parametrize(
    ("text", "most", "refused", "kept"),
    [
        ("uauauau", 5, ["uauau"], "uau"),
        ("uauauau", 5, ["uau"], "uauau"),
        ("uauauau", 5, ["u"], "uauau"),
        ("uauauau", 5, ["u", "uau"], "uauau"),
        ("uauauau", 3, ["uau", "u"], "uauau"),
        ("uc1ut1at", 5, ["c1ut1at"], "uat"),
        ("uctctct", 6, ["uct"], "uctct"),
        ("uctctct", 4, ["uct"], "u"),
        ("uct", 2, ["u"], "uct"),
        ("suct", 3, ["su"], "suct"),
        ("uaucta", 2, ["ua"], "u"),
    ],
)
def test_a_refused_rest_is_none(text, most, refused, kept):
    assert fitted(text, most, template=Template(refused.__contains__)) == kept


@pytest.mark.parametrize("text", ["ua" * 500 + "u", "u" + "ct" * 200, "u" * 1000])
def test_a_template_that_takes_only_the_whole_costs_a_few_renderings(text):
    template = Template(lambda rendered: rendered != text)

    assert fitted(text, 50, template=template) == text
    assert template.renderings <= 7


# --------------------------------------------------------------------------- whatever is said


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "ua" * 500 + "u",
        "u" * 1000,
        "s" + "ua" * 400 + "u" + "ct" * 100,
        "su" + "ct" * 200,
        "ct" * 500,
    ],
)
def test_a_long_history_is_rendered_a_few_times_only(text):
    for most in range(1, len(text), 37):
        template = Template()
        fitted(text, most, template=template)

        assert template.renderings <= 4


@given(st.integers(0), st.integers(1, 1000))
@settings(deadline=None)
def test_texts_that_say_nothing_about_lengths_cost_some_more(seed, share):
    """Messages of one character each, and of one token or a thousand."""
    lengths = random.Random(seed).choices([1, 10, 1000], k=1000)
    lengths_from_end = [0, *accumulate(reversed(lengths))]
    renderings = []

    def render(prompt):
        renderings.append(prompt)
        return len(prompt.messages)

    most = max(lengths[-1], share * sum(lengths) // 1000)
    conversation = Prompt(messages=[Message("user", "x")] * 1000)
    kept = truncate(conversation, render, lengths_from_end.__getitem__, most=most, target=most)

    assert lengths_from_end[kept] <= most
    assert kept == 1000 or lengths_from_end[kept + 1] > most
    assert len(renderings) <= 15


@pytest.mark.slow
def test_in_a_long_agent_loop_the_task_always_stays():
    text = "suau" + "ct" * 200

    assert {fitted(text, most).replace("ct", "") for most in range(3, size(text) - 2)} == {"su"}


PARTS = [*"sduatc", "ct", "ctt", "cctt", "c1t1", "c12t2t1", "c3ut3", "cf", "c2", "t2"]
CONVERSATIONS = st.lists(st.sampled_from(PARTS), max_size=24).map("".join)
LIMITS = st.integers(0, 30)


def is_within(kept, whole):
    """Whether nothing was changed or reordered."""
    rest = iter(whole)
    return all(letter in rest for letter in kept)


def spec(text):
    return "".join(letter for letter in text if letter not in "sd")


@given(CONVERSATIONS, LIMITS, LIMITS)
def test_what_is_left_is_a_conversation(text, most, target):
    kept = fitted(text, most, min(most, target))

    assert is_within(kept, text)
    assert [each for each in kept if each in "sd"] == [each for each in text if each in "sd"]
    assert ("u" in kept) == ("u" in text)
    assert spec(kept)[:1] not in {*RESULTS} or spec(kept)[:1] == spec(text)[:1]
    assert kept == text or size(text) > most


@given(CONVERSATIONS, LIMITS, LIMITS)
def test_it_is_the_longest_with_the_reserve_or_else_the_shortest_that_is_needed(text, most, target):
    target = min(most, target)
    rests = {fitted(text, size(text) - 1, limit) for limit in range(size(text))}
    needed = min(rests, key=size, default=text)
    kept = fitted(text, most, target)

    if size(text) <= most:
        assert kept == text
    elif size(needed) > most:
        assert size(kept) <= size(needed)
    else:
        within = [rest for rest in rests if size(rest) <= target]
        assert kept == max(within, key=size, default=needed)


@st.composite
def agents(draw):
    """Messages with ids of their own; the results of a call may come late."""
    messages, waiting = [], []
    for number in range(draw(st.integers(0, 16))):
        kind = draw(st.sampled_from("suact"))
        if kind == "t" and waiting:
            at = draw(st.integers(0, len(waiting) - 1))
            messages.append(Message("tool", str(number), tool_call_id=waiting.pop(at)))
        elif kind in "ct":
            ids = [f"{number}.{call}" for call in range(draw(st.integers(1, 3)))]
            calls = [ToolCall(ToolFunction("f"), id=each) for each in ids]
            messages.append(Message("assistant", str(number), tool_calls=calls))
            waiting += ids
        else:
            messages.append(Message(ROLES[kind], str(number)))
    return messages


@given(agents(), LIMITS, LIMITS)
def test_a_call_is_kept_if_and_only_if_its_results_are(messages, most, target):
    prompt = Prompt(messages=messages, think=True, tools=[{"type": "function"}])
    kept = truncate(
        prompt, lambda each: each, lambda each: len(each.messages), most=most, target=target
    )
    ids = {call.id for message in kept.messages for call in message.tool_calls}

    for message in messages:
        if message.tool_call_id:
            assert (message in kept.messages) == (message.tool_call_id in ids)
    assert (kept.think, kept.tools) == (prompt.think, prompt.tools)


@given(CONVERSATIONS, LIMITS, LIMITS, st.sets(st.integers(0, 30)))
def test_no_refusal_of_a_rest_ends_a_request(text, most, target, refused):
    template = Template(lambda rendered: size(rendered) in refused and rendered != text)
    kept = fitted(text, most, min(most, target), template)

    assert kept == text or size(kept) not in refused
    assert template.renderings <= 6 + ceil(log2(1 + size(text))) + 6


def test_ids_that_repeat_and_calls_without_answers_cost_no_more_than_others():
    many = 20_000
    calls = [ToolCall(ToolFunction("f"), id=each) for each in "xyz"]
    opened = [Message("assistant", tool_calls=calls)] * many
    prompt = Prompt(
        messages=[*opened, *[Message("tool", tool_call_id="x")] * many, *[Message("tool")] * many]
    )

    kept = truncate(prompt, lambda each: len(each.messages), int, most=9, target=9)

    assert kept <= 3 * many


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

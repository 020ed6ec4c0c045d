"""An answer that speaks of the marks around thoughts loses none of its words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.prompts.jinja_renderer import JinjaRenderer
from ollama_async.prompts.message_forms import ThinkingTags, plain_messages

ASK, WHY = Message("user", "ask"), Message("user", "why?")
CALL = ToolCall(ToolFunction("f", {"k": "v"}), id="call_1")
RESULT = Message("tool", "r", tool_name="f", tool_call_id="call_1")

CUTS = (
    "{% for m in messages %}[{{ m.content.split('</think>')[-1] if m.role == 'assistant' "
    "else m.content }}{% for c in m.tool_calls %}{{ c.function }}{% endfor %}]{% endfor %}"
)
CUTS_WITHOUT_THOUGHTS = CUTS.replace("== 'assistant'", "== 'assistant' and m.thinking is undefined")


def render(template, *messages):
    return JinjaRenderer(template, bos="", eos="").render(Prompt(messages=list(messages)))


def says(text, **more):
    return Message("assistant", text, **more)


def test_a_tag_is_unchanged_if_the_template_does_not_cut_at_it():
    template = CUTS.replace(".split('</think>')[-1]", "")

    assert render(template, ASK, says("a </think> b"), WHY) == "[ask][a </think> b][why?]"


def test_a_tag_is_unchanged_if_the_template_keeps_messages_with_thoughts():
    assert render(CUTS_WITHOUT_THOUGHTS, ASK, says("a </think> b"), WHY) == (
        "[ask][a </think> b][why?]"
    )


def test_a_tag_is_broken_if_the_template_always_cuts_at_it():
    assert render(CUTS, ASK, says("a </think> b"), WHY) == "[ask][a <\u2060/think> b][why?]"


@pytest.mark.parametrize("template", [CUTS, CUTS_WITHOUT_THOUGHTS])
def test_thoughts_in_front_of_an_answer_may_go_but_not_the_answer(template):
    plain = render(template, ASK, says("\n<think>t</think>a"), WHY)
    speaking = render(template, ASK, says("<think>t</think>a </think> b"), WHY)

    assert plain == "[ask][a][why?]"
    assert speaking.replace("\u2060", "") == "[ask][a </think> b][why?]"


def test_text_in_front_of_thoughts_is_kept():
    assert "a <think>t" in render(CUTS, ASK, says("a <think>t</think> b"), WHY)


def test_a_tag_in_a_message_of_another_role_is_unchanged():
    assert render(CUTS, Message("user", "a </think> b"), says("c"), WHY) == (
        "[a </think> b][c][why?]"
    )


@pytest.mark.parametrize("template", [CUTS, CUTS_WITHOUT_THOUGHTS])
def test_an_answer_that_begins_with_a_tag_is_continued(template):
    text = render(template, ASK, says("a </think> b"))

    assert text.replace("\u2060", "") == "[ask][a </think> b"


def test_a_template_is_probed_once_for_each_kind_of_tag():
    asked = []
    marks = ThinkingTags(lambda messages, words: asked.append((messages, words)) or False)
    answer = says("a </think> b </think> c")

    for _ in range(2):
        assert marks.apply(plain_messages([ASK, answer])) == plain_messages([ASK, answer])
        assert len(asked) == 3


@pytest.mark.parametrize("template", [CUTS, CUTS_WITHOUT_THOUGHTS])
@given(
    parts=st.lists(st.sampled_from(["</think>", "[/THINK]", "<think>", "x", " "]), max_size=8),
    thinking=st.sampled_from(["", "hm"]),
    calls=st.booleans(),
)
def test_no_word_of_an_answer_is_lost(template, parts, thinking, calls):
    words = [f"word{number}." for number, _ in enumerate(parts)]
    content = "go " + "".join(w + part for w, part in zip(words, parts, strict=True))
    answer = says(content, thinking=thinking, tool_calls=[CALL] if calls else [])

    text = render(template, ASK, answer, *([RESULT] if calls else []), WHY)

    assert text.replace("\u2060", "").count(content) == 1

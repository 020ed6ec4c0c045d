"""An answer that the client began goes on where it ends."""

import pytest

from ollama_async.core.conversation import (
    ChatFormatSpec,
    Message,
    Prompt,
    Thought,
    ToolCall,
    ToolFunction,
)
from ollama_async.prompts.chat_format import choose
from ollama_async.prompts.jinja_renderer import JinjaRenderer

CHATML = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.thinking %}<think>{{ m.thinking | trim }}</think>{% endif %}"
    "{{ m.content | trim }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ASK = Message("user", "u")


def render(template, *messages):
    return JinjaRenderer(template, bos="", eos="").render(Prompt(messages=list(messages)))


@pytest.mark.parametrize(
    "begun", ["It", "It ", "It\n\n", "```python\ndef f(n):\n    ", "a</>b", "Continue", " It"]
)
def test_the_turn_of_an_answer_that_was_begun_stays_open(begun):
    text = render(CHATML, ASK, Message("assistant", begun))

    assert text == f"<user>u</><assistant>{begun.lstrip()}"


def test_thoughts_before_the_content_are_kept():
    text = render(CHATML, ASK, Message("assistant", "It", thinking="hm"))

    assert text == "<user>u</><assistant><think>hm</think>It"


def test_a_thought_that_was_begun_goes_on():
    text = render(CHATML, ASK, Message("assistant", thinking="hm, "))

    assert text == "<user>u</><assistant><think>hm, "


def test_a_thought_that_the_template_does_not_show_is_no_beginning():
    text = render(
        CHATML.replace("m.thinking", "m.nothing"), ASK, Message("assistant", thinking="x")
    )

    assert text == "<user>u</><assistant>"


def test_an_empty_last_message_is_only_the_place_for_the_answer():
    assert render(CHATML, ASK, Message("assistant")) == "<user>u</><assistant>"


def test_a_call_is_not_the_beginning_of_an_answer():
    call = ToolCall(ToolFunction("f", {"k": "v"}))
    template = CHATML.replace("</>", "{% for c in m.tool_calls %}{{ c.function }}{% endfor %}</>")

    text = render(template, ASK, Message("assistant", "w", tool_calls=[call]))

    assert text.endswith("</><assistant>")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}[{{ m.content | tojson }}]{% endfor %}>",
        "{% for m in messages %}[{{ m.content | upper }}]{% endfor %}>",
        "{% for m in messages %}[{{ m.content }}{{ m.content }}]{% endfor %}>",
    ],
)
def test_without_a_clean_cut_a_new_turn_begins(template):
    assert render(template, ASK, Message("assistant", 'a "b"')).endswith("]>")


def test_a_template_that_leaves_the_turn_open_by_itself_does_so():
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
        "{% if m.role == 'user' or not loop.last %}</>{% endif %}{% endfor %}"
        "{% if messages[-1].role == 'user' %}<assistant>{% endif %}"
    )

    assert render(template, ASK, Message("assistant", "It ")) == "<user>u</><assistant>It "


def test_a_template_that_writes_the_last_turn_with_the_prompt_only_goes_on_as_well():
    template = (
        "{% for m in messages if m.role == 'user' or add_generation_prompt %}"
        "<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    )

    assert render(template, ASK, Message("assistant", "It")) == "<user>u</><assistant>It"


@pytest.mark.parametrize(
    ("begun", "read"),
    [
        (Message("assistant", "It"), ["x</think>y"]),
        (Message("assistant", "It", thinking="hm"), ["x</think>y"]),
        (Message("assistant", thinking="hm"), [Thought("x"), "y"]),
    ],
)
@pytest.mark.parametrize("think", [None, True, False])
def test_what_follows_is_read_as_what_was_begun(begun, read, think):
    chat_format = choose(ChatFormatSpec(), chat_template=CHATML, bos="", eos="")
    prompt = Prompt(messages=[ASK, begun], think=think)

    parser = chat_format.start(prompt, chat_format.render(prompt))

    assert [*parser.feed("x</think>y"), *parser.finish()] == read

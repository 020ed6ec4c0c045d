"""What the recorded prompts do not show: begun answers, system messages, words beside calls."""

import pytest

from ollama_async.core.conversation import Message
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.renderers import NAMES, named
from tests.unit.prompts.renderers.rendering import (
    OFFER_TOOLS,
    assistant,
    call,
    in_order,
    render,
    result,
    tool,
    user,
)


def test_an_unknown_name_is_no_renderer():
    assert named("qwen9") is None


@pytest.mark.parametrize("name", NAMES)
def test_the_beginning_of_an_answer_is_left_open(name):
    text = render(name, user(), assistant("To begin"))

    assert text.endswith("To begin")


@pytest.mark.parametrize("think", [None, True, "low"])
@pytest.mark.parametrize(
    ("name", "begun"),
    [
        ("qwen3-vl-thinking", "<|im_start|>assistant\n<think>\n"),
        ("qwen3.5", "<|im_start|>assistant\n<think>\n"),
        ("qwen3.8", "<|im_start|>assistant\n<think>\n"),
        ("ornith", "<|im_start|>assistant\n<think>\n"),
        ("cogito", "<｜Assistant｜><think>\n"),  # noqa: RUF001
        ("deepseek3.1", "<｜Assistant｜><think>"),  # noqa: RUF001
        ("olmo3-think", "<|im_start|>assistant\n<think>"),
        ("olmo3-32b-think", "<|im_start|>assistant\n<think>"),
        ("nemotron-3-nano", "<|im_start|>assistant\n<think>\n"),
        ("nemotron-3.5-nano", "<|im_start|>assistant\n<think>\n"),
        ("gemma4", "<|turn>model\n<|channel>thought\n"),
        ("gemma4-small", "<|turn>model\n<|channel>thought\n"),
        ("gemma4-large", "<|turn>model\n<|channel>thought\n"),
        ("glm-4.7", "<|assistant|><think>"),
        ("glm-ocr", "<|assistant|>\n<think>"),
        ("lfm2-thinking", "<|im_start|>assistant\n<think>"),
        ("laguna", "<assistant>\n<think>\n"),
        ("poolside-v1", "<assistant><think>"),
        ("cohere", "<|CHATBOT_TOKEN|><|START_THINKING|>"),
        ("glimmer", "<|start|>assistant to=self<|message|>"),
    ],
)
def test_an_unfinished_thought_is_left_open(name, begun, think):
    text = render(name, user(), assistant(thinking="To begin"), think=think)

    assert text.endswith(f"{begun}To begin")


@pytest.mark.parametrize(
    ("name", "ended"),
    [
        ("qwen3.5", "<think>\nTo begin\n</think>\n\n"),
        ("gemma4", "<|channel>thought\nTo begin\n<channel|>"),
        ("glimmer", "to=self<|message|>To begin<|eom|><|start|>assistant"),
        ("qwen3-coder", "<|im_start|>assistant\n"),
    ],
)
def test_an_unfinished_thought_is_ended_where_the_client_wants_no_thinking(name, ended):
    text = render(name, user(), assistant(thinking="To begin"), think=False)

    assert text.endswith(ended)


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("qwen3.5", "<|im_start|>assistant\n<think>\n"),
        ("gemma4-large", "<|turn>model\n<|channel>thought\n<channel|>"),
        ("glm-4.7", "<|assistant|><think>"),
        ("glimmer", "<|start|>assistant"),
    ],
)
def test_an_empty_last_answer_is_no_beginning(name, opening):
    assert render(name, user(), assistant("")).endswith(opening)


@pytest.mark.parametrize("name", NAMES)
def test_a_system_message_in_the_middle_is_kept(name):
    text = render(name, Message("system", "first"), user(), Message("system", "second"), user("Q2"))

    assert in_order(text, "first", "second", "Q2")


@pytest.mark.parametrize("name", NAMES)
def test_system_messages_at_the_start_are_one(name):
    text = render(name, Message("system", "first"), Message("developer", "second"), user())

    assert "first\n\nsecond" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_role_that_nobody_knows_is_refused(name):
    with pytest.raises(TemplateFailed, match="the role 'narrator' is none of"):
        render(name, Message("narrator", "Once upon a time"))


@pytest.mark.parametrize("name", OFFER_TOOLS)
def test_keywords_of_a_schema_that_the_format_has_room_for_reach_the_model(name):
    described = {"n": {"type": "integer", "description": "how many"}}
    text = render(name, user(), tools=[tool(properties=described)])

    assert "how many" in text


def test_only_thoughts_of_the_answer_being_made_are_shown():
    old = assistant("", call("a"), thinking="old")
    new = assistant("", call("a"), thinking="new")
    text = render("qwen3.5", user(), old, result("1"), user(), new, result("2"))

    assert "old" not in text
    assert "<think>\nnew\n</think>\n\n<tool_call>" in text


@pytest.mark.parametrize("tools", [[], [tool()]], ids=["no tools", "tools"])
@pytest.mark.parametrize("before", [[], [assistant("", call("add")), result("8")]])
@pytest.mark.parametrize("name", NAMES)
def test_a_system_message_after_an_answer_asks_for_the_next(name, before, tools):
    rule = Message("system", "rule")
    opening = opening_of(name, tools)

    text = render(name, user(), *before, assistant("reply"), rule, tools=tools)

    assert text.endswith(opening)
    assert text.index("reply") < text.rindex(opening)


def opening_of(name, tools):
    """What begins an answer, behind what the ends of all turns have in common."""
    text, more = (render(name, *[user()] * count, tools=tools) for count in (1, 2))
    return text[next(i for i in range(len(text)) if not more.startswith(text[: i + 1])) :]

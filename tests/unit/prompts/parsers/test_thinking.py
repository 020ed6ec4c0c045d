# ruff: noqa: E501 - the answers are as long as they are, with the tags that they have
"""Thoughts are split off the answer; ids, names and headers of calls."""

import pytest

from ollama_async.core.conversation import Message
from ollama_async.prompts.parsers import detected, named, of_go_template, of_jinja
from tests.unit.prompts.parsers.feeding import fed, read

ADD = ("add", {"a": 1, "b": 2})
JSON_ADD = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
THOUGHTS = detected("{% if x %}<think>{% endif %}</think>")


@pytest.mark.parametrize(
    ("format_", "rendered", "think", "answer", "thinking", "content"),
    [
        (THOUGHTS, "<think>\n", None, "Hm.\n</think>\n\n4", "Hm.", "4"),
        (THOUGHTS, "<think>\n", False, "<think>Hm.</think>4", "Hm.", "4"),
        (THOUGHTS, "<think>\n\n</think>\n\n", False, "4", "", "4"),
        (THOUGHTS, "", True, " <think>Hm.</think> 4", "Hm.", "4"),
        (THOUGHTS, "", True, " 4 <think>", "", " 4 <think>"),
        (of_go_template(thinking=("<t>", "</t>"), tool_tag=None), "", True, "\n<t>\nHm. </t>\n4 <t>", "Hm. ", "4 <t>"),
        (of_go_template(thinking=("<t>", "</t>"), tool_tag=None), "x<t>\n", True, "\nHm.</t>4</t", "Hm.", "4</t"),
        (of_go_template(thinking=("<t>", "</t>"), tool_tag=None), "", True, " 4 <t>", "", " 4 <t>"),
        (of_go_template(thinking=("<t>", "</t>"), tool_tag=None), "", False, "<t>Hm.</t>4", "", "<t>Hm.</t>4"),
        (of_go_template(thinking=("<t>", "</t>"), tool_tag=None), "", "high", "<t>Hm.</t>4", "Hm.", "4"),
        (named("gemma4"), "", True, "<|channel>thought\nHm.\n<channel|>\n4", "Hm.", "4"),
        (named("gemma4"), "", False, "<|channel>thought\nHm.\n<channel|>\n4", "", "4"),
        (named("gemma4-no-thinking"), "", True, "<|channel>Hm.<channel|>4", "", "4"),
        (named("ministral"), "", None, "[THINK]Hm.[/THINK]\n4", "Hm.", "4"),
        (named("harmony"), "", None, "<|channel|>analysis<|message|>Hm.<|end|>", "Hm.", ""),
        (named("cohere"), "", None, "Hm.<|END_THINKING|><|START_RESPONSE|>4<|END_RESPONSE|>", "Hm.", "4"),
        (detected("<|tool_call:begin|> <|think|>"), "<|begin|>assistant", None, "<|think|>Hm.<|end|><|begin|>assistant<|content|>4", "Hm.", "4"),
        (detected("<|tools_prefix|> <|inner_prefix|>"), "", None, "<|inner_prefix|>Hm.<|inner_suffix|>4", "Hm.", "4"),
        (detected("<|START_ACTION|>"), "", None, "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>4", "Hm.", "4"),
    ],
)  # fmt: skip
def test_thoughts_are_split_off_the_answer(format_, rendered, think, answer, thinking, content):
    found = read(format_, answer, rendered=rendered, think=think)

    assert (found.thinking, found.content) == (thinking, content)


@pytest.mark.parametrize("name", ["qwen3.5", "deepseek3", "qwen3-vl-thinking", "cohere", "laguna"])
def test_an_answer_that_goes_on_from_the_clients_text_has_no_thoughts(name):
    messages = [Message("user", "hi"), Message("assistant", "The answer")]
    found = read(named(name), " is 4.", think=True, messages=messages, rendered="hi The answer")

    assert found.thinking == ""


def test_functionary_prompts_begin_the_head_of_a_message():
    format_ = detected(">>>all")

    assert read(format_, "all\nSure.", rendered="...>>>").content == "Sure."
    assert read(format_, 'add\n{"a": 1, "b": 2}', rendered="...>>>").calls == [ADD]
    assert read(format_, "Sure", rendered="...>>>").content == "Sure"


def test_harmony_names_are_the_clients_again():
    tool = {"function": {"name": "read-file.now", "parameters": {}}}
    answer = "<|channel|>commentary to=functions.read_file_now<|message|>{}"

    assert read(named("harmony"), answer, tools=[tool]).calls == [("read-file.now", {})]


def test_an_id_that_the_model_gives_is_kept():
    answer = '<|START_ACTION|>[{"tool_call_id": "7", "tool_name": "add", "parameters": {}}]<|END_ACTION|>'

    (call,) = fed(named("cohere"), [answer], think=False)
    assert call.id == "7"


@pytest.mark.parametrize("tag", ["[CALL_ID]", " [CALL_ID] "])
def test_the_id_of_a_headed_call_is_no_part_of_its_name(tag):
    answer = f'[TOOL_CALLS]add{tag}a1b2c3d4e[ARGS]{{"a": 1}}'

    for format_ in (detected("[TOOL_CALLS]"), named("ministral")):
        (call,) = fed(format_, [answer], think=False)
        assert (call.id, call.function.name) == ("a1b2c3d4e", "add")


def test_a_template_without_tags_has_no_format():
    assert detected("{{ messages }}") is None
    assert of_jinja("{{ messages }}") is None
    assert named("nobody") is None


def test_a_client_that_wants_no_call_gets_none():
    answer = f"<tool_call>{JSON_ADD}</tool_call>"

    assert read(named("qwen3"), answer, tool_choice="none").content == answer

"""What single families of renderers do: levels of thinking, sizes, dates, turns."""

import re
from datetime import date

import pytest

from ollama_async.core.conversation import ChatFormatSpec, Message, Prompt
from ollama_async.prompts.renderers import glimmer
from tests.unit.prompts.renderers.rendering import (
    assistant,
    call,
    in_order,
    render,
    result,
    tool,
    user,
)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("gemma4:e2b", "model\n"),
        ("gemma4:e4b-it-q4_K_M", "model\n"),
        ("gemma4:12b", "<channel|>"),
        ("gemma4:26b-a4b", "<channel|>"),
        ("someone/Gemma4-31B:latest", "<channel|>"),
        ("gemma4:1.12b", "model\n"),
        ("mario:latest", "model\n"),
        ("", "model\n"),
    ],
)
def test_gemma4_knows_its_size_from_the_name_of_the_model(name, ends):
    assert render("gemma4", user(), chat_format=ChatFormatSpec(name=name)).endswith(ends)


@pytest.mark.parametrize(
    ("name", "count", "ends"),
    [
        ("mine", 11_900_000_000, "model\n"),
        ("mine", 12_000_000_000, "<channel|>"),
        ("gemma4:e4b", 12_000_000_000, "model\n"),
        ("gemma4:26b", 4_000_000_000, "<channel|>"),
    ],
)
def test_gemma4_knows_its_size_from_its_parameters_where_the_name_says_none(name, count, ends):
    spec = ChatFormatSpec(name=name, parameter_count=count)

    assert render("gemma4", user(), chat_format=spec).endswith(ends)


@pytest.mark.parametrize(
    ("think", "said"),
    [("low", "Reasoning effort is set to low."), ("high", "xhigh"), ("max", "xhigh")],
)
def test_qwen38_gets_the_instruction_for_its_effort(think, said):
    text = render("qwen3.8", user(), think=think)

    assert said in text
    assert text.endswith("<think>\n")


def test_qwen38_gets_no_instruction_for_a_medium_effort():
    assert render("qwen3.8", user(), think="medium") == render("qwen3.8", user(), think=True)


def test_glimmer_gets_its_reasoning_strength():
    assert "Reasoning strength: low." in render("glimmer", user(), think="low")


def test_glimmer_gets_its_reasoning_strength_once():
    text = render("glimmer", Message("system", "Reasoning strength: odd."), user())

    assert text.count("Reasoning strength") == 1


def test_glimmer_writes_the_date_of_its_clock():
    renderer = glimmer.family(lambda: date(2031, 2, 3))

    assert "Current date: 2031-02-03." in renderer.render(Prompt(messages=[user()]))


def test_glimmer_writes_todays_date():
    before = glimmer.local_date()
    text = render("glimmer", user())

    assert re.search(r"Current date: (\S+)\.", text)[1] in {
        str(before),
        str(glimmer.local_date()),
    }


def test_glimmer_writes_thoughts_text_and_calls_as_messages_of_one_turn():
    text = render(
        "glimmer", user(), assistant("Wait.", call("a.b", x=True), thinking="hm"), result("1")
    )

    assert text.partition("ask<|eot|>")[2] == (
        "<|start|>assistant to=self<|message|>hm<|eom|>"
        "<|start|>assistant to=user<|message|>Wait.<|eom|>"
        '<|start|>assistant to=a.b<|message|><atem:function_calls>\n<atem:invoke name="a.b">\n'
        '<atem:parameter name="x">true</atem:parameter>\n</atem:invoke>\n</atem:function_calls>'
        '<|eot|><|start|>tool a.b<|message|><tool_output name="a.b">\n1\n</tool_output><|eot|>'
        "<|start|>assistant"
    )


def test_a_turn_of_gemma_goes_on_after_results():
    text = render(
        "gemma4", user(), assistant("", call("a", n=1)), result("r"), assistant("So."), user()
    )

    assert (
        "<|turn>model\n<|tool_call>call:a{n:1}<tool_call|>"
        '<|tool_response>response:a{value:<|"|>r<|"|>}<tool_response|>So.<turn|>\n<|turn>user'
    ) in text


def test_an_answer_of_deepseek_goes_on_after_results():
    text = render(
        "deepseek3.1", user(), assistant("", call("a")), result("r"), assistant("So."), user()
    )

    assert "<｜tool▁output▁begin｜>r<｜tool▁output▁end｜>So.<｜end▁of▁sentence｜><｜User｜>" in text  # noqa: RUF001


def test_gemma4_ends_an_answer_with_the_text_beside_its_last_calls():
    acting = assistant("On it.", call("a"))
    text = render("gemma4", user(), acting, result("r"), user("next"), acting, result("s"))

    past, _, pending = text.partition("next")
    assert in_order(past, "call:a", "value:", "On it.<turn|>\n<|turn>user")
    assert in_order(pending, "On it.", "call:a", "value:")


@pytest.mark.parametrize("more", [[], [Message("system", "rule")], [assistant("done"), user()]])
def test_gemma4_keeps_text_before_calls_if_the_next_turn_is_not_of_the_user(more):
    text = render("gemma4", user(), assistant("words", call("add")), result("8"), *more)

    assert in_order(text, "words", "call:add", "response:add", *(one.content for one in more))


def test_a_schema_in_gemmas_words():
    schema = {
        "type": "object",
        "properties": {
            "who": {
                "type": "object",
                "properties": {"name": {"type": ["string", "null"]}},
                "required": ["name"],
            },
            "many": {"type": "array", "items": {"type": "string", "enum": ["x"]}, "nullable": True},
        },
    }
    text = render("gemma4", user(), tools=[tool(**schema)])

    assert (
        'many:{items:{enum:[<|"|>x<|"|>],type:<|"|>STRING<|"|>},nullable:true,type:<|"|>ARRAY<|"|>},'
        'who:{properties:{name:{type:[<|"|>STRING<|"|>,<|"|>NULL<|"|>]}},required:[<|"|>name<|"|>],'
        'type:<|"|>OBJECT<|"|>}'
    ) in text


def test_arguments_in_pythons_words():
    made = call("f", text='say "hi"', yes=True, none=None, n=1.5, many=[1, {"a": False}])
    text = render("lfm2", user(), assistant("", made), result("1"))

    assert r'[f(text="say \"hi\"",yes=True,none=None,n=1.5,many=[1, {"a": false}])]' in text


@pytest.mark.parametrize("name", ["nemotron-3-nano", "nemotron-3.5-nano"])
@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("", "<think>\nhm\n</think>\n<tool_call>"),
        ("Wait.", "<think>\nhm\n</think>\nWait.\n<tool_call>"),
    ],
)
def test_a_call_of_nemotron_is_on_the_line_after_thoughts_or_words(name, words, written):
    acting = assistant(words, call("f"), thinking="hm")
    pending = render(name, user(), acting, result("1"))
    past = render(name, user(), acting, result("1"), user())

    assert written in pending
    assert written.replace("\nhm\n", "").replace("</think>\nWait", "</think>Wait") in past

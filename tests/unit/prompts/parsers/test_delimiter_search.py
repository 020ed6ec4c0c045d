# ruff: noqa: E501, RUF001 - the answers are as long as they are, with the tags that they have
"""Tags within the strings of a call: they end nothing, unless the strings do not work out."""

import json

import pytest

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.parsers import detected, named
from tests.unit.prompts.parsers.feeding import TOOLS, prompt, read

TEXT = 'see </tool_call> and "<tool_call>", ok'
QUOTED = json.dumps(TEXT)
CITY = ("get_weather", {"city": TEXT})
ADD = ("add", {"a": 1})
JSON_CITY = f'{{"name": "get_weather", "arguments": {{"city": {QUOTED}}}}}'
JSON_ADD = '{"name": "add", "arguments": {"a": 1}}'


def in_json(before, between, after):
    """A call whose arguments hold ``after``, the tag at its end."""
    text = f'x{after}"y'
    city = json.dumps({"city": text})
    return f"{before}{between}{city}{after}", ("get_weather", {"city": text})


@pytest.mark.parametrize(
    ("format_", "before", "between", "after"),
    [
        (named("qwen3"), '<tool_call>{"name": "get_weather", "arguments": ', "", "}</tool_call>"),
        (
            named("deepseek3"),
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>",
            "",
            "<｜tool▁call▁end｜>",
        ),
        (
            named("deepseek3"),
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n",
            "```json\n",
            "\n```<｜tool▁call▁end｜>",
        ),
        (
            detected("<|tool_calls_section_begin|>"),
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ),
        (
            detected("<|tool_call:begin|> <|think|>"),
            "<|tool_call:begin|>x<|tool_call:name|>get_weather",
            "<|tool_call:args|>",
            "<|tool_call:end|>",
        ),
        (detected("<tool_calls>"), '<tool_calls>[{"name": "get_weather", "arguments": ', "", "}]</tool_calls>"),
        (detected("<TOOLCALL>"), '<TOOLCALL>[{"name": "get_weather", "arguments": ', "", "}]</TOOLCALL>"),
        (
            detected("<|tools_prefix|> <|inner_prefix|>"),
            '<|tools_prefix|>[{"get_weather": ',
            "",
            "}]<|tools_suffix|>",
        ),
        (
            detected("Action: ```json"),
            'Action: ```json\n[{"tool_name": "get_weather", "parameters": ',
            "",
            "}]\n```",
        ),
        (
            named("cohere"),
            '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "get_weather", "parameters": ',
            "",
            "}]<|END_ACTION|>",
        ),
        (named("harmony"), "<|channel|>commentary to=functions.get_weather<|message|>", "", "<|end|>"),
        (detected("<function="), "<function=get_weather>", "", "</function>"),
        (detected("[TOOL_CALLS]"), "[TOOL_CALLS]get_weather", "[ARGS]", "[TOOL_CALLS]"[:0]),
        (named("laguna"), "<tool_call>get_weather", "", "</tool_call>"),
        (named("laguna"), '<tool_call>{"name": "get_weather", "arguments": ', "", "}</tool_call>"),
    ],
)  # fmt: skip
def test_a_string_of_json_may_hold_what_ends_the_call(format_, before, between, after):
    answer, call = in_json(before, between, after)

    found = read(format_, answer, think=False)

    assert (found.calls, found.content) == ([call], "")


@pytest.mark.parametrize("text", ["a </tool_call> b", "</parameter>", "</parameter></function> x",
                                  "</tool_call>\n</parameter>\n."])  # fmt: skip
def test_a_value_in_tags_may_hold_closing_tags(text):
    def parameter(value):
        return f"<function=get_weather>\n<parameter=city>\n{value}\n</parameter>\n</function>"

    for format_, around in (
        (named("qwen3-coder"), "<tool_call>\n{}\n</tool_call>"),
        (detected("<seed:tool_call> <function= <parameter="), "<seed:tool_call>{}</seed:tool_call>"),
    ):  # fmt: skip
        answer = around.format(parameter(text)) + around.format(parameter("Rome"))

        found = read(format_, answer)

        assert found.calls == [("get_weather", {"city": city}) for city in (text, "Rome")]
        assert found.content == ""


def test_a_value_that_holds_whole_calls_is_read_as_other_servers_read_it():
    """It cannot be told from a call that was not closed."""
    inner = "<tool_call><function=add><parameter=a>1</parameter></function></tool_call>"
    answer = f"<tool_call><function=get_weather><parameter=city>{inner}</parameter></function></tool_call>"

    found = read(named("qwen3-coder"), answer)

    assert ("get_weather", {"city": inner}) not in found.calls
    assert "</parameter></function></tool_call>" in found.content


@pytest.mark.parametrize(
    "broken",
    [
        '<tool_call>{"name": "add", "arguments": {"a": "x}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": "x}}</tool_call>\n',
        '<tool_call>{"name": "add", "arguments": {"a": "x\n}}</tool_call>',
        '<tool_call>{"name": "add, "arguments": {"a": 1}}</tool_call> ',
        '<tool_call>{"say": "</tool_call> it" or not}</tool_call>',
        '<tool_call>say "hi</tool_call>',
    ],
)  # fmt: skip
def test_a_broken_string_costs_its_own_call_only(broken):
    answer = f"{broken}<tool_call>{JSON_CITY}</tool_call> Bye."

    found = read(named("qwen3"), answer)

    assert found.calls == [CITY]
    assert "".join(broken.split()) in "".join(found.content.split())
    assert found.content.endswith("Bye.")


def test_what_follows_a_broken_string_is_read_at_its_end():
    answer = f'<tool_call>{{"name": "add</tool_call>\n<tool_call>{JSON_ADD}</tool_call> Bye.'

    found = read(named("qwen3"), answer)

    assert found.calls == [ADD]
    assert found.content.startswith('<tool_call>{"name": "add</tool_call>')
    assert found.content.endswith("Bye.")


def test_a_tag_that_was_forgotten_ends_where_the_call_ends():
    answer = (
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Rome</tool_call>"
        "<tool_call>add<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>"
    )

    assert read(named("glm-4.7"), answer, think=False).calls == [
        ("get_weather", {"city": "Rome"}),
        ADD,
    ]


def test_a_call_is_passed_on_when_its_closing_tag_arrives():
    parser = named("qwen3").start(prompt(tools=TOOLS), "")

    assert parser.feed(f"<tool_call>{JSON_CITY}") == []
    (call,) = parser.feed("</tool_call>")
    assert isinstance(call, ToolCall)


@pytest.mark.parametrize("text", ["it's", "it's (ok), a='b'", "a <|tool_call_end|> b"])
def test_a_python_string_may_hold_its_own_quotes(text):
    """As the templates of these models write it, without escapes."""
    answer = f"<|tool_call_start|>[get_weather(city='{text}', days=3)]<|tool_call_end|>"

    assert read(named("lfm2"), answer).calls == [("get_weather", {"city": text, "days": 3})]

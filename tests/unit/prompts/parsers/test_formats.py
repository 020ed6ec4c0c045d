# ruff: noqa: E501, RUF001 - the answers are as long as they are, with the tags that they have
"""One answer with text, calls and thoughts for each format, and what only some of them do."""

import pytest

from ollama_async.prompts.parsers import detected, named, of_go_template, of_jinja
from tests.unit.prompts.parsers.feeding import joined, prompt, read

ADD = ("add", {"a": 1, "b": 2})
WEATHER = ("get_weather", {"city": 'Paris, "FR"', "days": 3})
JSON_ADD = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
JSON_WEATHER = '{"name": "get_weather", "arguments": {"city": "Paris, \\"FR\\"", "days": 3}}'
XML_ADD = (
    "<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n</parameter>\n</function>"
)
XML_WEATHER = (
    '<function=get_weather>\n<parameter=city>\nParis, "FR"\n</parameter>\n'
    "<parameter=days>3</parameter>\n</function>"
)
PY_ADD = "add(a=1, b=2)"
PY_WEATHER = "get_weather(city='Paris, \"FR\"', days=3)"
GLM_ADD = "add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key><arg_value>2</arg_value>"
GLM_WEATHER = (
    '<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris, "FR"</arg_value>'
    "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>"
)
ATEM = (
    '<atem:function_calls><atem:invoke name="{}"><atem:parameter name="a">1</atem:parameter>'
    '\n<atem:parameter name="b">2</atem:parameter></atem:invoke></atem:function_calls>'
)
INVOKE = '<invoke name="add">\n<parameter name="a">1</parameter>\n<parameter name="b">2</parameter>\n</invoke>'
DSML = (
    '<｜DSML｜invoke name="add">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="b" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
)

# format, answer, content, calls
ANSWERS = [
    (
        named("qwen3"),
        f"Sure.\n<tool_call>{JSON_ADD}</tool_call>\n<tool_call>\n{JSON_WEATHER}\n</tool_call> Done.",
        "Sure.Done.",
        [ADD, WEATHER],
    ),
    (named("qwen3"), f"<tool_call>\n{JSON_ADD}\n{JSON_WEATHER}\n</tool_call>", "", [ADD, WEATHER]),
    (
        named("qwen3"),
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}</tool_call>',
        "",
        [ADD],
    ),
    (named("qwen3"), f"<tool_call>{JSON_ADD}", "", [ADD]),
    (
        named("qwen3-coder"),
        f"Sure. <tool_call>\n{XML_ADD}\n</tool_call>\n<tool_call>{XML_WEATHER}</tool_call>",
        "Sure.",
        [ADD, WEATHER],
    ),
    (
        named("qwen3-coder"),
        f"<tool_call>\n{XML_ADD}\n{XML_WEATHER}\n</tool_call>",
        "",
        [ADD, WEATHER],
    ),
    (
        named("ministral"),
        '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}[TOOL_CALLS]get_weather[ARGS]{"city": "Paris, \\"FR\\"", "days": 3}',
        "",
        [ADD, WEATHER],
    ),
    (
        named("ministral"),
        'Hm. [TOOL_CALLS]nothing[ARGS]{"a": 1}',
        'Hm. [TOOL_CALLS]nothing[ARGS]{"a": 1}',
        [],
    ),
    (
        named("harmony"),
        '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 2}<|call|>',
        "",
        [ADD],
    ),
    (
        named("harmony"),
        ' to=functions.add<|channel|>commentary json<|message|>{"a": 1, "b": 2}',
        "",
        [ADD],
    ),
    (
        named("harmony"),
        '<|channel|>commentary to=functions.add<|message|>{"a": 1, "b": 2}<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather<|message|>{"city": "Paris, \\"FR\\"", "days": 3}<|end|>',
        "",
        [ADD, WEATHER],
    ),
    (
        named("cogito"),
        'Sure.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 1, "b": 2}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 1, "b": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "Sure.",
        [ADD, ADD],
    ),
    (
        named("deepseek3"),
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1, "b": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜> Done.',
        "Done.",
        [ADD],
    ),
    (named("deepseek3"), "<｜tool▁output▁begin｜>rain<｜tool▁output▁end｜>!", "rain!", []),
    (
        named("olmo3"),
        f"Sure.\n<function_calls>\n{PY_ADD}\n{PY_WEATHER}\n</function_calls>",
        "Sure.\n",
        [ADD, WEATHER],
    ),
    (
        named("functiongemma"),
        'Sure. <start_function_call>call:add{a:1,b:2}<end_function_call><start_function_call>call:get_weather{city:<escape>Paris, "FR"<escape>,days:3}<end_function_call>',
        "Sure. ",
        [ADD, WEATHER],
    ),
    (
        named("gemma4"),
        'Sure. <|tool_call>call:add{a:1,b:2}<tool_call|><|tool_call>call:get_weather{city:<|"|>Paris, "FR"<|"|>,days:3}<tool_call|><|tool_response>',
        "Sure.",
        [ADD, WEATHER],
    ),
    (
        named("gemma4"),
        '<|tool_call>call:add{a:[1,{x:<|"|>y<|"|>}],b:null}<tool_call|>',
        "",
        [("add", {"a": [1, {"x": "y"}], "b": None})],
    ),
    (
        named("gemma4"),
        "<|tool_call>call:get_weather{city:Paris, France,days:3}<tool_call|>",
        "",
        [("get_weather", {"city": "Paris, France", "days": 3})],
    ),
    (
        named("gemma4"),
        '<|tool_call>call:get_weather{city:<|"|>Paris}<tool_call|>',
        "",
        [("get_weather", {"city": "Paris"})],
    ),
    (
        named("glm-ocr"),
        f"Sure. <tool_call>{GLM_ADD}</tool_call>\n{GLM_WEATHER}",
        "Sure.",
        [ADD, WEATHER],
    ),
    (
        named("glm-ocr"),
        "<tool_call>add a</arg_key><arg_value>1<arg_key>b</arg_key><arg_value>2</arg_value></tool_call>",
        "",
        [ADD],
    ),
    (
        named("glm-ocr"),
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Par",
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Par",
        [],
    ),
    (
        named("lfm2"),
        f"Sure. <|tool_call_start|>[{PY_ADD}, {PY_WEATHER}]<|tool_call_end|>Done.",
        "Sure.Done.",
        [ADD, WEATHER],
    ),
    (named("lfm2"), f"[{PY_ADD}]", "", [ADD]),
    (
        named("laguna"),
        'Sure.\n<tool_call>add{"a": 1, "b": 2}</tool_call>\n' + GLM_WEATHER,
        "Sure.",
        [ADD, WEATHER],
    ),
    (named("laguna"), f"<user>{GLM_ADD}</user> and <user>", "and <user>", [ADD]),
    (
        named("cohere"),
        '<|START_THINKING|><|END_THINKING|><|START_ACTION|>[{"tool_call_id": "7", "tool_name": "add", "parameters": {"a": 1, "b": 2}} {"tool_name": "get_weather", "parameters": {"city": "Paris, \\"FR\\"", "days": 3}}]<|END_ACTION|>',
        "",
        [ADD, WEATHER],
    ),
    (
        named("glimmer"),
        " to=user<|message|>Sure.<|eom|><|start|>assistant to=add<|message|>"
        + ATEM.format("add")
        + "<|eot|>",
        "Sure.",
        [ADD],
    ),
    (named("glimmer"), " to=add.add<|message|>" + ATEM.format("add.add") + "<|eot|>", "", [ADD]),
    (named("glimmer"), "<|message|>" + ATEM.format("add") + "<|eot|>", "", [ADD]),
    (detected("<tool_call>"), f"<tool_call>{JSON_ADD}</tool_call>", "", [ADD]),
    (
        detected("<function= <parameter="),
        f"Sure. {XML_ADD}\n</tool_call> {XML_WEATHER}",
        "Sure.",
        [ADD, WEATHER],
    ),
    (
        detected("<seed:tool_call> <function= <parameter="),
        f"<seed:tool_call>{XML_ADD}</seed:tool_call>",
        "",
        [ADD],
    ),
    (
        detected("<minimax:tool_call>"),
        f"<minimax:tool_call>\n{INVOKE}\n{INVOKE}\n</minimax:tool_call>",
        "",
        [ADD, ADD],
    ),
    (detected("｜DSML｜"), f"<｜DSML｜function_calls>\n{DSML}</｜DSML｜function_calls>", "", [ADD]),
    (
        detected("<｜tool▁calls▁begin｜>"),
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1, "b": 2}<｜tool▁call▁end｜>',
        "",
        [ADD],
    ),
    (
        detected("<|tool_calls_section_begin|>"),
        '<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{"a": 1, "b": 2}<|tool_call_end|><|tool_calls_section_end|>',
        "",
        [ADD],
    ),
    (detected("<arg_key>"), f"<tool_call>{GLM_ADD}</tool_call>", "", [ADD]),
    (
        detected("[TOOL_CALLS]"),
        f"Sure.[TOOL_CALLS] [{JSON_ADD}, {JSON_WEATHER}]",
        "Sure.",
        [ADD, WEATHER],
    ),
    (detected("[TOOL_CALLS]"), '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}', "", [ADD]),
    (
        detected("<TOOLCALL>"),
        f"<TOOLCALL>[{JSON_ADD}, {JSON_WEATHER}]</TOOLCALL>",
        "",
        [ADD, WEATHER],
    ),
    (
        detected("<tool_calls>"),
        f"<tool_calls>\n{JSON_ADD}\n{JSON_WEATHER}\n</tool_calls>",
        "",
        [ADD, WEATHER],
    ),
    (
        detected("<|tool_call_start|>"),
        f"<|tool_call_start|>[{JSON_ADD}]<|tool_call_end|>",
        "",
        [ADD],
    ),
    (detected("<|tool_call|>"), f"<|tool_call|>[{JSON_ADD}]<|/tool_call|>", "", [ADD]),
    (
        detected("<|tools_prefix|> <|inner_prefix|>"),
        'Sure.<|tools_prefix|>[{"add": {"a": 1, "b": 2}}, {"add": {"a": 1, "b": 2}}]<|tools_suffix|>',
        "Sure.",
        [ADD, ADD],
    ),
    (
        detected("<|tool_call:begin|> <|think|>"),
        '<|tool_calls|><|tool_call:begin|>x1<|tool_call:name|>add<|tool_call:args|>{"a": 1, "b": 2}<|tool_call:end|><|calls|>',
        "",
        [ADD],
    ),
    (
        detected("<|role_sep|> <|message_sep|>"),
        f"Sure.<|message_sep|>\n\nfunction call<|role_sep|>\n{JSON_ADD}<|message_sep|>\n\n",
        "Sure.",
        [ADD],
    ),
    (detected("<|role_sep|> <|message_sep|>"), f"<|function_call|>{JSON_ADD}", "", [ADD]),
    (detected("functools["), f"functools[{JSON_ADD}, {JSON_WEATHER}]", "", [ADD, WEATHER]),
    (
        detected("Action: ```json"),
        'Action: ```json\n[{"tool_name": "add", "parameters": {"a": 1, "b": 2}}]\n```',
        "",
        [ADD],
    ),
    (detected("<function="), 'Sure. <function=add>{"a": 1, "b": 2}</function>', "Sure.", [ADD]),
    (detected(">>>all"), '>>>all\nSure.\n>>>add\n{"a": 1, "b": 2}', "Sure.", [ADD]),
    (
        detected("<|recipient|> <|content|>"),
        '<|from|>assistant\n<|recipient|>all\n<|content|>Sure.\n<|from|>assistant\n<|recipient|>add\n<|content|>{"a": 1, "b": 2}<|stop|>',
        "Sure.",
        [ADD],
    ),
    (
        detected("<|python_tag|>"),
        '{"name": "add", "parameters": {"a": 1, "b": 2}}; {"name": "add", "parameters": {"a": 1, "b": 2}}',
        "",
        [ADD, ADD],
    ),
    (detected("<|python_tag|>"), f"<|python_tag|>{JSON_ADD}", "", [ADD]),
    (detected("<|python_tag|>"), f"[{PY_ADD}, {PY_WEATHER}]", "", [ADD, WEATHER]),
    (detected("<|python_tag|>"), '{"answer": 4}', '{"answer": 4}', []),
    (
        detected("[TOOL_CALLS]"),
        'Sure.[TOOL_CALLS]add[CALL_ID]a1b2c3d4e[ARGS]{"a": 1, "b": 2}[TOOL_CALLS]get_weather[CALL_ID]x[ARGS]{"city": "Paris, \\"FR\\"", "days": 3}',
        "Sure.",
        [ADD, WEATHER],
    ),
    (
        detected("<|open|> <|close|> <|sep|> 'argument'"),
        (
            "<|open|>response<|sep|>Sure.<|close|>response<|sep|><|open|>tools<|sep|>"
            '<|open|>call tool="add" index="1"<|sep|><|open|>argument key="a" type="number"<|sep|>1<|close|>argument<|sep|>'
            '<|open|>argument key="b" type="number"<|sep|>2<|close|>argument<|sep|><|close|>call<|sep|>'
            '<|open|>call tool="add" index="2"<|sep|><|open|>json type="object"<|sep|>{"a": 1, "b": 2}<|close|>json<|sep|>'
            "<|close|>call<|sep|><|close|>tools<|sep|><|close|>message<|sep|><|end_of_msg|>"
        ),
        "Sure.",
        [ADD, ADD],
    ),
    (
        detected("<arg_key{}> ':opensource'"),
        "Sure.<tool_calls:opensource>\n<tool_call:opensource>add<tool_sep:opensource>\n<arg_key:opensource>a</arg_key:opensource>\n<arg_value:opensource>1</arg_value:opensource>\n<arg_key:opensource>b</arg_key:opensource>\n<arg_value:opensource>2</arg_value:opensource>\n</tool_call:opensource>\n</tool_calls:opensource>",
        "Sure.",
        [ADD],
    ),
    (
        detected("]<]minimax[>[ <invoke name="),
        'Sure.]<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="add">]<]minimax[>[<a>1]<]minimax[>[</a>]<]minimax[>[<opts>]<]minimax[>[<x>1]<]minimax[>[</x>]<]minimax[>[</opts>]<]minimax[>[<tags>]<]minimax[>[<item>a]<]minimax[>[</item>]<]minimax[>[</tags>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>',
        "Sure.",
        [("add", {"a": 1, "opts": {"x": 1}, "tags": ["a"]})],
    ),
    (
        detected('<function name=" <param name="'),
        (
            'Sure. <function name="add"><param name="a">1</param><param name="b">2</param></function>\n'
            '<function name="get_weather"><param name="city"><![CDATA[<a> & </param></function>]]></param></function>'
        ),
        "Sure.",
        [ADD, ("get_weather", {"city": "<a> & </param></function>"})],
    ),
    (
        detected("<|tool_call_start|>"),
        f"Sure.\n[{JSON_ADD}, {JSON_WEATHER}]",
        "Sure.",
        [ADD, WEATHER],
    ),
    (
        detected("<|tool|> <|/tool|>"),
        f"Sure.<|tool_call|>[{JSON_ADD}]<|/tool_call|>",
        "Sure.",
        [ADD],
    ),
    (of_jinja("{{ tools }}"), f"[{JSON_ADD}]", "", [ADD]),
    (of_jinja("{{ tools }}"), JSON_ADD, "", [ADD]),
    (of_jinja("{{ tools }}"), '[{"name": "other"}]', '[{"name": "other"}]', []),
    (detected("tool_code"), f"Sure.\n```tool_code\n{PY_ADD}\n```\nDone.", "Sure.Done.", [ADD]),
    (
        of_go_template(thinking=None, tool_tag="<tool_call>"),
        f"Sure. <tool_call>\n{JSON_ADD}\n</tool_call>\n<tool_call>{JSON_WEATHER}</tool_call>",
        "Sure. ",
        [ADD, WEATHER],
    ),
    (
        of_go_template(thinking=None, tool_tag="[TOOL_CALLS]"),
        f"[TOOL_CALLS] [{JSON_ADD}, {JSON_WEATHER}]",
        "",
        [ADD, WEATHER],
    ),
    (
        of_go_template(thinking=None, tool_tag="<tool_call>"),
        '<tool_call>add {"a": 1, "b": 2}</tool_call>',
        "",
        [ADD],
    ),
    (
        of_go_template(thinking=None, tool_tag="<tool_call>"),
        '<tool_call>{"add": {"a": 1, "b": 2}}</tool_call>',
        "",
        [ADD],
    ),
    (
        of_go_template(thinking=None, tool_tag="<tool_call>"),
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        [],
    ),
    (
        of_go_template(thinking=None, tool_tag="{"),
        '{"name": "add", "parameters": {"a": 1, "b": 2}}',
        "",
        [ADD],
    ),
    (of_go_template(thinking=None, tool_tag="{"), f"Sure. {JSON_ADD}", f"Sure. {JSON_ADD}", []),
    (
        of_go_template(thinking=None, tool_tag="["),
        f"[{JSON_ADD}, {JSON_WEATHER}]",
        "",
        [ADD, WEATHER],
    ),
]


@pytest.mark.parametrize(
    ("format_", "answer", "content", "calls"), ANSWERS, ids=[answer for _, answer, *_ in ANSWERS]
)
def test_text_and_calls_are_split(format_, answer, content, calls):
    found = read(format_, answer, think=False)

    assert (found.content, found.calls) == (content, calls)


@pytest.mark.parametrize(
    ("format_", "answer"), [(format_, answer) for format_, answer, _, calls in ANSWERS if calls]
)
def test_without_tools_there_are_no_calls_and_the_text_is_all_there(format_, answer):
    found = read(format_, answer, think=False, tools=[])

    assert found.calls == []
    assert found.content


def test_calls_come_as_soon_as_each_is_complete():
    parser = detected("[TOOL_CALLS]").start(prompt(), "")

    parts = parser.feed(f"[TOOL_CALLS] [{JSON_ADD}")
    assert joined(parts).calls == [ADD]
    parts += parser.feed(f", {JSON_WEATHER}")
    assert joined(parts).calls == [ADD, WEATHER]
    parts += parser.feed("]") + parser.finish()
    assert joined(parts).content == ""


def test_text_is_passed_on_at_once_up_to_what_may_become_a_tag():
    parser = named("qwen3").start(prompt(), "")

    assert joined(parser.feed("Sure, I")).content == "Sure, I"
    assert joined(parser.feed(" will <tool")).content == " will"
    assert joined(parser.feed("box")).content == " <toolbox"

# ruff: noqa: E501, RUF001 - the answers are as long as they are, with the tags that they have
"""The arguments of a call get the types that the tool's schema gives them."""

import pytest

from ollama_async.prompts.parsers import detected, named
from tests.unit.prompts.parsers.feeding import TOOLS, read

WEATHER = ("get_weather", {"city": 'Paris, "FR"', "days": 3})
XML_WEATHER = (
    '<function=get_weather>\n<parameter=city>\nParis, "FR"\n</parameter>\n'
    "<parameter=days>3</parameter>\n</function>"
)
DSML = (
    '<｜DSML｜invoke name="add">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="b" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3.5", "3.5"),
        ("null", None),
        ("99999999999999999999", "99999999999999999999"),
        ("x", "x"),
    ],
)
def test_a_whole_number_is_what_its_schema_calls_one(text, value):
    call = f"<tool_call><function=get_weather><parameter=days>{text}</parameter></function></tool_call>"

    assert read(named("qwen3-coder"), call).calls == [("get_weather", {"days": value})]


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        ("a", "2.0", 2),
        ("a", "2.5", 2.5),
        ("a", "1e400", "1e400"),
        ("a", "nan", "nan"),
        ("b", "7", 7),
        ("b", "NULL", None),
        ("opts", '{"x": [1]}', {"x": [1]}),
        ("opts", "{x", "{x"),
        ("tags", '["a"]', ["a"]),
        ("tags", "a", "a"),
        ("tags", "['it\\'s', None, {'x': True}]", ["it's", None, {"x": True}]),
        ("opts", "{'x': '\\u00e9'}", {"x": "é"}),
        ("opts", "{'http://x': {'y, z': 1}}", {"http://x": {"y, z": 1}}),
        ("opts", "{x: y}", "{x: y}"),
        ("a", "None", None),
        ("unknown", "None", "None"),
        ("unknown", "1", "1"),
        ("unknown", "\n<b>\n & </c>\n", "<b>\n & </c>"),
    ],
)
def test_values_without_types_of_their_own_get_those_of_the_schema(parameter, text, value):
    call = (
        f"<tool_call><function=add><parameter={parameter}>{text}</parameter></function></tool_call>"
    )

    assert read(named("qwen3-coder"), call).calls == [("add", {parameter: value})]


def test_text_stays_text_whatever_it_looks_like():
    for text in ("null", "None", "12", "true"):
        call = f"<tool_call><function=get_weather><parameter=city>{text}</parameter></function></tool_call>"

        assert read(named("qwen3-coder"), call).calls == [("get_weather", {"city": text})]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#/$defs/P"}, {"x": 1}),
        ({"allOf": [{"$ref": "#/$defs/P"}]}, {"x": 1}),
        ({"enum": [{"x": 1}, {"x": 2}]}, {"x": 1}),
        ({"$ref": "#/$defs/Loop"}, '{"x": 1}'),
        ({"$ref": "#/nowhere"}, '{"x": 1}'),
        ({"$ref": 1}, '{"x": 1}'),
        ({"enum": []}, '{"x": 1}'),
    ],
)
def test_types_are_found_behind_references(schema, value):
    parameters = {
        "properties": {"a": schema},
        "$defs": {"P": {"type": "object"}, "Loop": {"$ref": "#/$defs/Loop"}},
    }
    tool = {"function": {"name": "f", "parameters": parameters}}
    call = '<tool_call><function=f><parameter=a>{"x": 1}</parameter></function></tool_call>'

    assert read(named("qwen3-coder"), call, tools=[tool]).calls == [("f", {"a": value})]


@pytest.mark.parametrize(
    "inside",
    [
        "{0}<a>1{0}</b>",
        "{0}<a>1",
        "{0}<a>1{0}</a>text",
        "text",
        "".join(f"{{0}}<a{depth}>" for depth in range(100))
        + "".join(f"{{0}}</a{depth}>" for depth in reversed(range(100))),
    ],
)
def test_elements_that_do_not_match_are_text(inside):
    tag = "]<]minimax[>["
    answer = f'{tag}<tool_call>{tag}<invoke name="add">{inside.format(tag)}{tag}</invoke>{tag}</tool_call>'

    found = read(detected(f"{tag} <invoke name="), answer)

    assert (found.calls, found.content) == ([], answer)


def test_a_tag_may_say_what_type_its_value_has():
    parameter = '<｜DSML｜parameter name="{}" string="{}">{}</｜DSML｜parameter>'
    values = "".join(
        parameter.format(*each)
        for each in (
            ("t", "true", "12"),
            ("n", "false", "12"),
            ("l", "false", '["12"]'),
            ("x", "false", "no JSON"),
        )
    )
    answer = f'<｜DSML｜tool_calls><｜DSML｜invoke name="f">{values}</｜DSML｜invoke></｜DSML｜tool_calls>'

    (call,) = read(detected("｜DSML｜"), answer).calls
    assert call == ("f", {"t": "12", "n": 12, "l": ["12"], "x": "no JSON"})


@pytest.mark.parametrize("text", [("TRUE", True), ("maybe", "maybe")])
def test_a_boolean_that_may_be_text_is_either(text):
    call = f"<tool_call><function=get_weather><parameter=exact>{text[0]}</parameter></function></tool_call>"

    assert read(named("qwen3-coder"), call).calls == [("get_weather", {"exact": text[1]})]


def test_tools_of_any_shape_are_harmless():
    tools = [
        {},
        {"function": 1},
        {"function": {"name": 2}},
        {"function": {"name": "add", "parameters": []}},
        *TOOLS,
    ]

    assert read(
        named("qwen3-coder"), f"<tool_call>{XML_WEATHER}</tool_call>", tools=tools
    ).calls == [WEATHER]

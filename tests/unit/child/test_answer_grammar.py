"""Grammars of answers: formats, thoughts, forced tool calls."""

import msgspec
import pytest

from ollama_async.core.errors import BadRequest
from ollama_async.prompts.output_format import CallSyntax, Delimiters, ForcedCall
from tests.unit.child.constraint_harness import (
    BRACES,
    CLOSE,
    END,
    OPEN,
    SPECIAL,
    STRADDLING,
    THINK,
    constrain,
    keeps,
)


def test_without_a_format_nothing_is_constrained():
    assert constrain() is None
    assert constrain(tool_choice="none", marks=THINK) is None


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("{}", True),
        ('{"a": [1, -2.5e3, "\\n", null, true]}', True),
        ('{\n\n    "a": {\n        "b": 1\n    }\n}', True),
        ("[]", False),
        (" {}", False),
        ('{"a":  1}', False),
        ('{"a": 1', False),
        ('{"a": "\\u0041"}', False),
        ('{"a": "\n"}', False),
        ("{" + "\n" * 3 + "}", False),
        ("Sure: {}", False),
    ],
)
def test_json_is_an_object_in_a_usual_layout(answer, kept):
    assert keeps(constrain("json"), answer) is kept


def test_a_complete_answer_is_over():
    constraint = constrain("json")

    constraint.accept(ord("{"))
    assert not constraint.is_over
    assert not constraint.allows(END)
    constraint.accept(ord("}"))
    assert constraint.is_over
    assert not constraint.failure


def test_an_answer_that_could_go_on_may_end():
    constraint = constrain({"type": "integer"})

    constraint.accept(ord("1"))
    assert not constraint.is_over
    assert END in constraint.allowed()
    assert constraint.allows(ord("2"))


def test_a_token_that_is_not_allowed_is_a_failure():
    constraint = constrain("json")

    constraint.accept(ord("x"))
    assert constraint.is_over
    assert constraint.failure


def test_tokens_of_several_characters_and_control_tokens():
    assert keeps(constrain("json"), [BRACES])
    constraint = constrain({"type": "string"})
    constraint.accept(ord('"'))
    assert not {END, OPEN, CLOSE} & set(constraint.allowed().tolist())


@pytest.mark.parametrize(
    ("rendered", "answer", "kept"),
    [
        ("", "<think>Well, {}!</think>\n\n{}", True),
        ("", "{}", True),
        ("", "\n{}", True),
        ("", "Well", False),
        ("", "<think>Well</think>Well", False),
        ("<think>\n", "Well, </thin </think>{}", True),
        ("<think>\n", "{}", False),
        ("<think>\n", [*b"Well", STRADDLING, ord("}")], True),
        ("<think>\n", [*b"Well", STRADDLING, ord("!")], False),
    ],
)
def test_thoughts_come_first(rendered, answer, kept):
    assert keeps(constrain("json", marks=THINK, rendered=rendered), answer) is kept


def test_thoughts_that_begin_in_the_prompt():
    marks = Delimiters(thoughts=("<think>", "</think>"), begins_thinking=True)

    assert keeps(constrain("json", marks=marks), "Well</think>{}")


@pytest.mark.parametrize("think", [None, True, "low"])
def test_thoughts_are_free_unless_they_are_forbidden(think):
    assert keeps(constrain("json", marks=THINK, think=think), "<think>Well</think>{}")
    assert keeps(constrain("json", marks=THINK, think=think), "{}")


@pytest.mark.parametrize("answer", ["<think>Well</think>{}", "<think></think>{}", "\n{}", "Well"])
def test_thoughts_that_are_forbidden_do_not_begin(answer):
    constraint = constrain("json", marks=THINK, think=False)

    assert constraint.allowed().tolist() == [ord("{"), BRACES]
    assert not keeps(constraint, answer)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("</think>{}", True),
        ("</think>\n\n{}", True),
        ([STRADDLING, ord("}")], True),
        ("Well</think>{}", False),
        ("\n</think>{}", False),
        ("{}", False),
    ],
)
def test_forbidden_thoughts_that_the_prompt_has_begun_end_at_once(answer, kept):
    begun = [
        constrain("json", marks=THINK, think=False, rendered="<think>\n"),
        constrain("json", marks=msgspec.structs.replace(THINK, begins_thinking=True), think=False),
    ]

    assert [keeps(constraint, answer) for constraint in begun] == [kept, kept]


MESSAGES = Delimiters(
    thoughts=("<|open|>thoughts", "<|close|><|open|>answer"), opening="<|open|>answer"
)


@pytest.mark.parametrize(
    ("think", "answer", "kept"),
    [
        (False, [OPEN, *b"answer{}"], True),
        (False, [*b"{}"], False),
        (False, [OPEN, *b"thoughtsWell", CLOSE, OPEN, *b"answer{}"], False),
        (True, [OPEN, *b"answer{}"], True),
        (True, [OPEN, *b"thoughtsWell", CLOSE, OPEN, *b"answer{}"], True),
        (True, [*b"{}"], False),
    ],
)
def test_an_answer_that_is_a_message_has_its_header(think, answer, kept):
    constraint = constrain("json", marks=MESSAGES, special=SPECIAL, think=think)

    assert keeps(constraint, answer) is kept


def test_marks_may_be_control_tokens():
    marks = Delimiters(thoughts=("<|open|>thoughts", "<|close|><|open|>answer"))
    thoughts = [OPEN, *b"thoughts", *b"Well", CLOSE, OPEN, *b"answer"]

    assert keeps(constrain("json", marks=marks, special=SPECIAL), [*thoughts, *b"{}"])
    assert not keeps(constrain("json", marks=marks, special=SPECIAL), [*thoughts[:-1], *b"{}"])


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"$ref": "#/$defs/days"}},
                "required": ["city"],
                "$defs": {"days": {"type": "integer"}},
            },
        },
    },
    {"type": "function", "function": {"name": 'say "hi"', "parameters": {}}},
]


CALLS = Delimiters(calls=("<call>", "</call>"), thoughts=("<think>", "</think>"))


WEATHER = '<call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 2}}\n</call>'


HI = '<call>{"name":"say \\"hi\\"","arguments":{}}</call>'.replace('","', '", "')


@pytest.mark.parametrize(
    ("choice", "answer", "kept"),
    [
        ("weather", WEATHER, True),
        ("weather", "<think>Rome?</think>" + WEATHER, True),
        ("weather", HI, False),
        ("weather", WEATHER + "\n" + WEATHER, False),
        ("weather", WEATHER.replace('"Rome"', "1"), False),
        ("weather", WEATHER.replace("city", "town"), False),
        ("weather", "It rains.", False),
        ("required", WEATHER, True),
        ("required", HI, True),
        ("required", WEATHER + "\n" + HI, True),
        ("required", WEATHER + "\n", True),
        ("required", "", False),
        ("required", WEATHER + "It rains.", False),
    ],
)
def test_a_forced_call_obeys_its_tool(choice, answer, kept):
    constraint = constrain(marks=CALLS, tools=TOOLS, tool_choice=choice)

    assert keeps(constraint, answer) is kept


def test_a_forced_call_without_thoughts():
    forced = {"marks": CALLS, "tools": TOOLS, "tool_choice": "weather", "think": False}

    assert keeps(constrain(**forced), WEATHER)
    assert not keeps(constrain(**forced), "<think>Rome?</think>" + WEATHER)


def test_a_forced_call_goes_before_the_format():
    assert keeps(constrain("json", marks=CALLS, tools=TOOLS, tool_choice="weather"), WEATHER)


@pytest.mark.parametrize(
    ("marks", "tools", "choice", "named"),
    [
        (Delimiters(), TOOLS, "required", "cannot be forced"),
        (CALLS, TOOLS, "news", "news"),
        (CALLS, [], "required", "no tools"),
        (CALLS, [{"function": {}}, {}], "required", "there is no tool"),
        (CALLS, TOOLS * 200, "required", "more than 256 tools"),
        (
            CALLS,
            [{"function": {"name": "odd", "parameters": {"not": {}}}}],
            "odd",
            "tool 'odd': format: the keyword \"not\"",
        ),
    ],
)
def test_a_call_that_cannot_be_forced_is_refused(marks, tools, choice, named):
    with pytest.raises(BadRequest) as refused:
        constrain(marks=marks, tools=tools, tool_choice=choice)
    assert named in refused.value.message


# Calls that are not plain JSON

TAGGED = CallSyntax(
    forms=("<f={name}> {parameters} </f>",), parameter="<p={key}>{value}</p>", close=("</c>",)
)
SEVERAL = msgspec.structs.replace(TAGGED, repeated=True)
FORCED = Delimiters(thoughts=("<think>", "</think>"), forced=ForcedCall("<c>", SEVERAL))
ONE = "<f=weather><p=city>Rome</p></f>"
OTHER = '<f=say "hi"></f>'


@pytest.mark.parametrize(
    ("choice", "parallel", "answer", "kept"),
    [
        ("weather", True, f"<c>{ONE}</c>", True),
        ("weather", True, f"<think>Rome?</think><c>{ONE}</c>", True),
        ("weather", True, f"<c>\n{ONE}\n</c>", True),
        ("weather", True, f"<c>{OTHER}</c>", False),
        ("weather", True, f"<c>{ONE}{ONE}</c>", False),
        ("weather", True, "<c><f=weather></f></c>", False),
        ("weather", True, f"So: <c>{ONE}</c>", False),
        ("weather", True, ONE, False),
        ("required", True, f"<c>{OTHER}</c>", True),
        ("required", True, f"<c>{ONE}{OTHER}</c>", True),
        ("required", False, f"<c>{ONE}{OTHER}</c>", False),
        ("required", True, "", False),
    ],
)
def test_a_call_can_be_forced_in_a_familys_own_syntax(choice, parallel, answer, kept):
    constraint = constrain(
        marks=FORCED, tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel
    )

    assert keeps(constraint, answer) is kept


def test_thoughts_before_a_call_may_end_in_their_own_way():
    forced = ForcedCall("<c>", TAGGED, thoughts_end="</think><next>")
    marks = Delimiters(thoughts=("<think>", "</think><final>"), opening="<final>", forced=forced)

    def allowed(answer, **more):
        return keeps(constrain(marks=marks, tools=TOOLS, tool_choice="weather", **more), answer)

    assert allowed(f"<think>Rome?</think><next><c>{ONE}</c>")
    assert not allowed(f"<think>Rome?</think><final><c>{ONE}</c>")
    assert allowed(f"<c>{ONE}</c>")
    assert not allowed(f"<final><c>{ONE}</c>")
    assert allowed(f"<c>{ONE}</c>", think=False)


def test_what_cannot_be_enforced_of_a_schema_is_left_out_of_a_forced_call():
    odd = {"function": {"name": "odd", "parameters": {"not": {}, "properties": {"a": {}}}}}

    assert keeps(constrain(marks=FORCED, tools=[odd], tool_choice="odd"), "<c><f=odd></f></c>")


@pytest.mark.parametrize(
    ("tools", "choice", "named"),
    [
        (TOOLS, "news", "there is no tool 'news'"),
        ([], "required", "no tools"),
        ([{"function": {}}, {}], "required", "there is no tool"),
        (TOOLS * 200, "required", "more than 256 tools"),
        (
            [{"function": {"name": "f", "description": "x" * (1 << 18)}}],
            "f",
            "bytes of their descriptions",
        ),
    ],
)
def test_a_call_that_cannot_be_forced_in_a_syntax_is_refused(tools, choice, named):
    with pytest.raises(BadRequest) as refused:
        constrain(marks=FORCED, tools=tools, tool_choice=choice)
    assert named in refused.value.message

"""Grammars restrict an answer to what was asked for: JSON, a schema, a tool call; with thoughts."""

import contextlib
import json
import random
import sys
import threading
import time
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.core.errors import BadRequest
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.grammar import llguidance, schema_analysis
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from tests.growth import cost

END, OPEN, CLOSE, BRACES, STRADDLING = range(256, 261)
SPECIAL = {OPEN: b"<|open|>", CLOSE: b"<|close|>"}
THINK = Delimiters(thoughts=("<think>", "</think>"))


class Vocabulary:
    """A token for each byte, and a few that are longer or no text at all."""

    facts = SimpleNamespace(vocab_size=261)

    def piece(self, token):
        longer = {BRACES: b"{}", STRADDLING: b"</think>{"}
        return bytes([token]) if token < 256 else longer.get(token, b"")

    def is_end(self, token):
        return token == END


GRAMMARS = ConstraintFactory(Vocabulary())


def constrain(form=None, *, rendered="", marks=None, special=None, **prompt):
    inference = Inference(Prompt(**prompt), Sampling(), format=form)
    return GRAMMARS.constrain(inference, rendered, marks or Delimiters(), special or {})


def keeps(constraint, answer):
    """Whether the whole answer is allowed, and may end there."""
    for token in answer.encode() if isinstance(answer, str) else answer:
        if not constraint.allows(token):
            assert token not in constraint.allowed()
            return False
        assert token in constraint.allowed()
        constraint.accept(token)
        assert not constraint.failure
    return constraint.is_over or constraint.allows(END)


def walk(constraint, seed, patience=60):
    """Any answer; from ``patience`` tokens on one that comes to its end."""
    chance, said = random.Random(seed), b""
    for step in range(5000):
        allowed = constraint.allowed().tolist()
        closing = [token for token in (END, *b'"}]') if token in allowed]
        token = closing[0] if closing and step >= patience else chance.choice(allowed)
        if token == END:
            return said
        said += Vocabulary.piece(None, token)
        constraint.accept(token)
        assert not constraint.failure
        if constraint.is_over:
            return said
    raise AssertionError(said)


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


def test_thoughts_that_the_format_says_have_begun():
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


def test_what_lists_its_properties_has_no_others():
    person = {"properties": {"name": {"type": "string"}}}

    assert keeps(constrain(person), '{"name": "x"}')
    assert keeps(constrain(person), "{}")
    assert not keeps(constrain(person), '{"age": 1}')
    assert not keeps(constrain(person), "1")
    assert keeps(constrain({**person, "additionalProperties": True}), '{"age": 1}')


def test_a_schema_that_is_referred_to_lists_its_properties():
    schema = {
        "$defs": {"leaf": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "type": "object",
        "properties": {"it": {"$ref": "#/$defs/leaf"}},
    }

    assert keeps(constrain(schema), '{"it": {"a": 1}}')
    assert not keeps(constrain(schema), '{"it": {"b": 1}}')


def test_schemas_that_hold_together_stay_open():
    parts = [{"properties": {name: {"type": "integer"}}, "required": [name]} for name in "ab"]

    assert keeps(constrain({"type": "object", "allOf": parts}), '{"a": 1, "b": 2}')


def test_a_client_cannot_change_how_schemas_are_enforced():
    schema = {"type": "object", "x-guidance": {"lenient": True, "whitespace_pattern": " *"}}

    assert not keeps(constrain(schema), "{  }")


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {}}, '"not"'),
        ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
        ({"properties": {"a": {"if": {}, "then": {}}}}, '"if"'),
        ({"contains": {}}, '"contains"'),
        ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, '"oneOf"'),
        ({"type": "string", "pattern": "(?=a)"}, '"pattern"'),
        ({"$ref": "http://127.0.0.1/schema"}, '"$ref"'),
        ({"$ref": "#/$defs/missing"}, '"$ref"'),
        ({"type": "integer", "multipleOf": 9_999_991}, '"multipleOf"'),
        ({"allOf": [{"multipleOf": number} for number in (97, 89, 83)]}, '"multipleOf"'),
        ({"const": "a\0b"}, '"const"'),
        ({"const": 2**53 + 1}, '"const"'),
        ({"enum": [1, {"a": [2**64]}]}, '"enum"'),
        ({"type": "integer", "minimum": 2**63}, '"minimum"'),
        ({"type": "string", "pattern": "(?<!a)b"}, '"pattern"'),
        ({"type": "string", "pattern": "^(?=a)a|b"}, '"pattern"'),
        ({"type": "string", "pattern": "^(?!abc)"}, '"pattern"'),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, '"uniqueItems"'),
        ({"type": "array", "items": {"enum": [*"abcdefghijkl"]}, "uniqueItems": True}, "unique"),
        ({"propertyNames": {"minLength": 1, "pattern": "a"}}, '"propertyNames"'),
        ({"propertyNames": {"minLength": 1, "format": "uri"}}, '"propertyNames"'),
        ({"properties": {"a": {}}, "propertyNames": {"pattern": "a"}}, '"propertyNames"'),
        ({"anyOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}, "unevaluatedProp"),
        ({"oneOf": [{"properties": {"a": {"const": 1}}}, {"type": "object"}]}, '"oneOf"'),
        (
            {
                "properties": {
                    "a": {
                        "$id": "http://127.0.0.1/a",
                        "oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}],
                        "$defs": {"a": {"type": ["string", "null"]}},
                    }
                },
                "$defs": {"a": {"type": "string"}},
            },
            '"oneOf"',
        ),
        ({"$ref": "#/x", "x": {"enum": {}}}, '"enum"'),
        ({"items": {"required": "a"}}, '"required"'),
        ({"items": {"format": {}}}, '"format"'),
        ({"items": {"properties": []}}, '"properties"'),
        ({"enum": []}, "empty"),
        ({"type": "word"}, "word"),
        ({"$ref": "#"}, "no answer"),
        (False, "no answer"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "minimum"),
        ("yaml", 'expected "json" or a valid JSON Schema object'),
        (3, 'expected "json" or a valid JSON Schema object'),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(schema, named):
    with pytest.raises(BadRequest) as refused:
        constrain(schema)
    assert named in refused.value.message


def test_what_is_never_written_may_hold_any_character():
    schema = {"properties": {"a": {"const": 1, "description": "\a", "default": "\a"}}}

    assert keeps(constrain(schema), '{"a": 1}')


@pytest.mark.parametrize(
    ("schema", "kept", "refused"),
    [
        # names of properties
        ({"type": "object", "propertyNames": {"type": "string"}}, ['{"x": 1}'], ["1"]),
        ({"type": "object", "propertyNames": True}, ['{"x": 1}'], ["1"]),
        ({"type": "object", "propertyNames": {"title": "x"}}, ['{"x": 1}'], ["1"]),
        ({"type": "object", "propertyNames": False}, ["{}"], ['{"x": 1}']),
        (
            {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
            ["{}", '{"a": 1}', '{"b": 1}', '{"a": 1, "b": 2}'],
            ['{"c": 1}', '{"a": "x"}'],
        ),
        (
            {"properties": {"a": {"type": "null"}, "x": {}}, "propertyNames": {"enum": ["a", "b"]}},
            ['{"a": null}', '{"b": 1}'],
            ['{"a": 1}', '{"x": 1}'],
        ),
        (
            {
                "type": "object",
                "propertyNames": {"$ref": "#/$defs/name"},
                "$defs": {"name": {"anyOf": [{"const": "a"}, {"enum": ["b"]}]}},
                "required": ["a"],
            },
            ['{"a": 1}'],
            ["{}", '{"a": 1, "c": 1}'],
        ),
        (
            {"type": "object", "propertyNames": {"pattern": "^[a-z]$"}},
            ['{"a": 1}'],
            ['{"A": 1}', '{"ab": 1}'],
        ),
        (
            {"type": "object", "propertyNames": {"minLength": 2, "maxLength": 3}},
            ['{"äö": 1}', '{"abc": 1}', '{"\\n\\"": 1}'],
            ['{"a": 1}', '{"abcd": 1}'],
        ),
        (
            {
                "type": "object",
                "patternProperties": {"^[a-z]+$": {"type": "integer"}},
                "propertyNames": {"maxLength": 3},
            },
            ['{"abc": 1}'],
            ['{"abcd": 1}', '{"": 1}', '{"a": "x"}'],
        ),
        (
            {"type": "object", "propertyNames": {"pattern": "^[a-z]*$", "maxLength": 3}},
            ['{"abc": 1}', '{"": 1}'],
            ['{"abcd": 1}', '{"A": 1}'],
        ),
        (
            {"type": "object", "propertyNames": {"format": "date"}},
            ['{"2024-02-29": 1}'],
            ['{"2023-02-29": 1}', '{"x": 1}'],
        ),
        # what is left over
        (
            {"properties": {"a": {}}, "unevaluatedProperties": False},
            ['{"a": 1}', "{}"],
            ['{"b": 1}'],
        ),
        (
            {"properties": {"a": {}}, "unevaluatedProperties": {"type": "integer"}},
            ['{"a": "x"}', '{"b": 1}'],
            ['{"b": "x"}'],
        ),
        (
            {
                "allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {}}}],
                "$defs": {"a": {"properties": {"a": {"type": "integer"}}}},
                "type": "object",
                "unevaluatedProperties": False,
            },
            ['{"a": 1}', '{"a": 1, "b": 2}', '{"b": 2}'],
            ['{"c": 1}', '{"a": "x"}'],
        ),
        ({"type": "object", "unevaluatedProperties": {}}, ['{"a": 1}'], ["1"]),
        (
            {"type": "array", "prefixItems": [{"const": 1}], "unevaluatedItems": False},
            ["[1]", "[]"],
            ["[1, 2]"],
        ),
        ({"type": "array", "items": {"const": 1}, "unevaluatedItems": False}, ["[1, 1]"], ["[2]"]),
        # sets
        (
            {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
            ["[]", '["a"]', '["b", "a"]', '["a", "b"]'],
            ['["a", "a"]', '["c"]'],
        ),
        (
            {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "minItems": 2},
            ["[true, false]"],
            ["[true]", "[true, true]"],
        ),
        (
            {"type": "array", "items": {"enum": list("abcdefgh")}, "uniqueItems": True},
            ['["a", "c", "h"]'],
            ['["a", "a"]'],
        ),
        ({"type": "array", "uniqueItems": True, "maxItems": 1}, ['["x"]'], ['["x", "x"]']),
        # bounds
        (
            {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1},
            [str(2**53 - 1), str(-(2**53) + 1), "0"],
            [str(2**53), str(-(2**53))],
        ),
        (
            {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
            [str(2**62), str(-(2**62)), "0"],
            [str(2**63), str(-(2**63) - 1)],
        ),
        ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, ["5", str(2**62)], ["-1"]),
        ({"type": "integer", "exclusiveMinimum": 2**53}, [str(2**53 + 2)], [str(2**53)]),
        ({"type": "integer", "exclusiveMinimum": 0.5, "maximum": 2.5}, ["1", "2"], ["0", "3"]),
        ({"type": "integer", "minimum": 10**18}, [str(10**18)], [str(10**18 - 1)]),
        ({"type": "integer", "maximum": -(10**18)}, [str(-(10**18))], ["0"]),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, ["2"], ["1"]),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, ["1"], ["0"]),
        ({"type": "number", "minimum": -1.7e308, "maximum": 1.7e308}, ["1.5", "-1.5"], ['"x"']),
        ({"type": "number", "maximum": 2**63 - 1}, [str(2**62), "-1.5"], [str(2**63)]),
        ({"minimum": 2**60 + 1}, [str(2**61), '"x"'], [str(2**60)]),
        (
            {"type": "integer", "allOf": [{"minimum": 1152921504606849999}]},
            [str(2**61)],
            ["1152921504606849998", "1152921504606849792"],
        ),
        # one of several
        (
            {
                "oneOf": [{"$ref": "#/$defs/text"}, {"type": "null"}],
                "$defs": {"text": {"type": "string"}},
            },
            ['"x"', "null"],
            ["1"],
        ),
        (
            {
                "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
                "$defs": {
                    name: {
                        "type": "object",
                        "properties": {"is": {"const": name}, "in": {"$ref": "#"}},
                    }
                    for name in "ab"
                },
            },
            ['{"is": "a"}', '{"is": "a", "in": {"is": "b"}}'],
            ["{}", '{"is": "c"}'],
        ),
        (
            {
                "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
                "$defs": {
                    name: {
                        "type": "object",
                        "properties": {name: {"type": "integer"}},
                        "required": [name],
                        "additionalProperties": False,
                    }
                    for name in "ab"
                },
            },
            ['{"a": 1}', '{"b": 1}'],
            ['{"a": 1, "b": 1}', "{}"],
        ),
        # what must not be there
        ({"properties": {"a": {"not": {}}, "b": {}}}, ["{}", '{"b": 1}'], ['{"a": 1}']),
        ({"items": {"not": False, "type": "integer"}}, ["[1]"], ['["x"]']),
        # names of schemas
        (
            {"$defs": {"a/b ~ü%": {"const": 1}}, "$ref": "#/$defs/a~1b ~0ü%"},
            ["1"],
            ["2"],
        ),
        # schemas where OpenAPI keeps them
        (
            {
                "$ref": "#/components/schemas/a",
                "components": {
                    "schemas": {
                        "a": {"properties": {"a": {"$ref": "#/components/schemas/b"}}},
                        "b": {"type": "integer", "exclusiveMinimum": 2**53},
                    }
                },
            },
            [f'{{"a": {2**53 + 2}}}'],
            [f'{{"a": {2**53}}}', '{"b": 1}'],
        ),
        # beside references in a circle
        (
            {
                "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a", "x-mine": 1}}}},
                "$ref": "#/$defs/a",
            },
            ['{"a": {"a": {}}}'],
            ['{"b": 1}'],
        ),
        # patterns of names
        ({"patternProperties": {"^a": {"type": "integer"}}}, ['{"ab": 1}'], ['{"b": 1}']),
    ],
)
def test_what_can_be_said_otherwise_is_enforced(schema, kept, refused):
    assert [keeps(constrain(schema), answer) for answer in kept] == [True] * len(kept)
    assert [keeps(constrain(schema), answer) for answer in refused] == [False] * len(refused)


@pytest.mark.parametrize(
    ("pattern", "kept", "refused"),
    [
        (r"^(?=.*[A-Z])(?=.*\d)[A-Za-z\d]{4,}$", ["Abc1"], ["abc1", "Abcd", "Ab1"]),
        (r"^(?!\.)(?!.*\.\.)[a-z.]+$", ["a.b", "a."], [".a", "a..b"]),
        (r"^(?!\s*$).*", ["a", " a"], ["", "  "]),
        (r"^(?=[()|\]]+$)..$", ["()", "|]"], ["(a", "("]),
        # Pydantic's decimal numbers: all; of 6 digits, 2 behind the point; of 3 digits
        (r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", ["1", "-0.5", ".5"], ["", "-", ".", "1.5.5", "x"]),
        (
            r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,4}|(?=[\d.]{1,7}0*$)\d{0,4}\.\d{0,2}0*$)",
            ["1234.56", "-0.5", "+1", ".25"],
            ["12345", "1.234", "", "1x"],
        ),
        (
            r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,4}0*$)\d*\.\d*0*$)",
            ["123", "12.3", "1.23", "0.123"],
            ["1234", "12.34", "x"],
        ),
        (
            r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,0}|(?=[\d.]{1,3}0*$)\d{0,0}\.\d{0,2}0*$)",
            ["0", "0.25", ".5"],
            ["1", "0.255"],
        ),
        (r"^\d+$", ["12"], ["١٢"]),
        (r"^\p{Lu}$", ["Ä"], ["ä"]),
        (r"^[^a&&b]$", ["c"], ["a", "b", "&"]),
        (r"^[+--]$", ["+", ",", "-"], ["a"]),
        (r"^[[\w.-]$", ["[", "a", ".", "-"], ["]"]),
        (r"^.$", ["a", "ä"], ["\\r", "\\n"]),
    ],
)
def test_patterns_mean_what_they_mean_in_ecmascript(pattern, kept, refused):
    schema = {"type": "string", "pattern": pattern}

    assert [keeps(constrain(schema), f'"{text}"') for text in kept] == [True] * len(kept)
    assert [keeps(constrain(schema), f'"{text}"') for text in refused] == [False] * len(refused)


@pytest.mark.parametrize(
    ("name", "kept", "refused"),
    [
        ("date", ["2024-02-29", "2000-02-29"], ["2023-02-29", "1900-02-29", "2024-02-30"]),
        ("date-time", ["2024-02-29T01:02:03Z"], ["2023-02-29T01:02:03Z", "2024-01-01T01:02:60Z"]),
        ("time", ["01:02:03Z"], ["01:02:60Z", "1:02:03Z"]),
        ("uuid", ["123e4567-e89b-42d3-a456-426614174000"], ["123e4567"]),
        ("ipv4", ["127.0.0.1"], ["256.0.0.1", "1.2.3"]),
        ("ipv6", ["0:0:0:0:0:0:0:1"], ["1:2:3", "x"]),
        ("duration", ["P1DT2H", "P1W", "PT1S"], ["P", "P1H", "PT1.5S"]),
        ("email", ["a.b@example.org"], ["a", "a@", "a..b@example.org"]),
        ("hostname", ["example.org", "a-b"], ["-a", "a b"]),
        ("uri", ["https://example.org/a?b#c"], ["example.org", "https://exa mple.org"]),
    ],
)
def test_formats_of_values_and_of_names(name, kept, refused):
    value = {"type": "string", "format": name}
    names = {"type": "object", "propertyNames": {"format": name}}

    assert all(keeps(constrain(value), f'"{text}"') for text in kept)
    assert all(keeps(constrain(names), f'{{"{text}": 1}}') for text in kept)
    assert not any(keeps(constrain(value), f'"{text}"') for text in refused)
    assert not any(keeps(constrain(names), f'{{"{text}": 1}}') for text in refused)


def test_keywords_without_a_meaning_are_no_obstacle():
    schema = {"type": "string", "format": "phone", "title": "x", "default": 3, "x-mine": {"not": 1}}

    assert keeps(constrain(schema), '"anything"')
    assert keeps(constrain({"type": "array", "uniqueItems": False, "maxItems": 1}), "[]")


def nest(levels, wrap):
    schema = {"type": "string"}
    for _ in range(levels):
        schema = wrap(schema)
    return schema


HOSTILE = {
    "deep": nest(5000, lambda inner: {"items": inner}),
    "large": {"enum": ["x" * 100_000]},
    "many": {"enum": [f"value {number}" for number in range(4000)]},
    "properties": {"properties": {f"p{number}": {"type": "string"} for number in range(2000)}},
    "doubling": {
        "$defs": {
            **{f"a{at}": {"allOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 2} for at in range(30)},
            "a30": {"type": "string"},
        },
        "$ref": "#/$defs/a0",
    },
    "product": {
        "allOf": [
            {"anyOf": [{"required": [f"{at}"]}, {"required": [f"{at}x"]}]} for at in range(20)
        ]
    },
    "circle": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "circle with others": {"allOf": [{"$ref": "#"}, {"type": "object"}]},
    "repetition": {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
    "brackets": {"type": "string", "pattern": "(" * 5000 + ")" * 5000},
    "states": {"type": "string", "pattern": "^(.*a.{200})$"},
    "intersection": {
        "allOf": [{"type": "string", "pattern": f".*{letter}.*"} for letter in "abcdefghijklmnop"]
    },
    "long string": {"type": "string", "minLength": 10**9},
    "long list": {"type": "array", "minItems": 10**9},
    "fine number": {"type": "number", "minimum": 1e-300, "maximum": 1e300},
    "multiple": {"type": "integer", "multipleOf": 10**12},
    "names of names": nest(
        20,
        lambda inner: {
            "type": "object",
            "propertyNames": {"enum": [str(at) for at in range(100)]},
            "additionalProperties": inner,
        },
    ),
    "sets of sets": nest(
        20, lambda inner: {"type": "array", "items": {"anyOf": [inner] * 9}, "uniqueItems": True}
    ),
    "large set": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": 400},
        "uniqueItems": True,
        "maxItems": 200,
    },
    "references": {
        "propertyNames": {"$ref": "#/$defs/0"},
        "oneOf": [{"$ref": "#/$defs/0"}, {"$ref": "#/$defs/1"}],
        "$defs": {
            **{f"{at}": {"$ref": f"#/$defs/{at + 1}"} for at in range(1000)},
            "1000": {"const": "a"},
        },
    },
    "unions": {
        "oneOf": [{"$ref": "#/$defs/a0"}, {"type": "null"}],
        "$defs": {
            **{f"a{at}": {"anyOf": [{"$ref": f"#/$defs/a{at + 1}"}] * 9} for at in range(50)},
            "a50": {"type": "string"},
        },
    },
    "many options": {"oneOf": [{"const": number} for number in range(4000)]},
    "look-ahead": {"type": "string", "pattern": "^" + "(?=a)" * 10_000 + "b"},
    "class": {"type": "string", "pattern": "[a" * 30_000},
    "long names": {"type": "object", "propertyNames": {"maxLength": 10**9}},
}


def test_a_schema_of_millions_of_values_is_not_even_written_out():
    with pytest.raises(BadRequest, match="characters"):
        constrain({"enum": [object()] * 70_000})  # which could not be


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_or_costs_little(name):
    def answer():
        """Its compilation and an answer of 200 tokens."""
        with contextlib.suppress(BadRequest):
            constraint = constrain(HOSTILE[name])
            chance = random.Random(0)
            for _ in range(200):
                if constraint.is_over:
                    break
                allowed = constraint.allowed().tolist()
                constraint.accept(chance.choice(allowed) if allowed else 0)

    most = 300  # million steps; the library gives "intersection" up after about 80
    assert cost(answer, most) < most


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


# Any schema

names = st.sampled_from(["a", "b", "name", "größe", 'quo"te', "sp ace"])
leaves = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "number", "boolean", "null"])}
    ),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-1000, 1000),
        st.integers(0, 1000),
    ),
    st.builds(
        lambda bounds, kind: {"type": kind} | bounds,
        st.fixed_dictionaries(
            {"minimum": st.integers(-(2**70), 2**62)},
            optional={"exclusiveMaximum": st.integers(2**62 + 2000, 2**70)},
        ),
        st.sampled_from(["integer", "number"]),
    ),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    # all of them together stay below the limit
    st.builds(
        lambda step: {"type": "integer", "multipleOf": step},
        st.sampled_from([1, 2, 3, 7, 10, 25, 36]),
    ),
    st.sampled_from(
        [
            {"type": "string", "pattern": "^[a-f]{2,4}$"},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "uuid"},
            {"const": {"x": [1, "ä"]}},
            {"enum": ["a", 1, None, 2.5, [True]]},
            {"type": ["string", "null"]},
            {"type": "array", "items": {"enum": [1, True, None]}, "uniqueItems": True},
            {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "maxProperties": 1},
            {"oneOf": [{"type": "integer"}, {"type": "string", "format": "date"}]},
            {"type": "string", "pattern": "^(?!\\.)(?=.*[a-c])[a-z.]{1,6}$"},
        ]
    ),
)


def objects(inner):
    def build(properties, required, closed):
        schema = {
            "type": "object",
            "properties": properties,
            "required": sorted(set(properties) & required),
        }
        return schema if closed is None else {**schema, "additionalProperties": closed}

    return st.builds(
        build,
        st.dictionaries(names, inner, max_size=4),
        st.sets(names),
        st.sampled_from([None, False, True, {"type": "integer"}]),
    )


def arrays(inner):
    return st.builds(
        lambda items, least, more: {
            "type": "array",
            "items": items,
            "minItems": least,
            "maxItems": least + more,
        },
        inner,
        st.integers(0, 2),
        st.integers(0, 3),
    )


parts = st.recursive(
    leaves | st.just({"$ref": "#/$defs/it"}),
    lambda inner: st.one_of(
        objects(inner),
        arrays(inner),
        st.builds(lambda either: {"anyOf": either}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)
schemas = st.builds(lambda part, it: {"$defs": {"it": it}, **part}, parts, leaves)


@settings(deadline=None)
@given(schema=schemas, seed=st.integers(0, 1000))
def test_any_answer_under_a_schema_is_valid(schema, seed):
    constraint = constrain(schema)

    said = walk(constraint, seed)

    Draft202012Validator(schema).validate(json.loads(said))


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
nonsense = st.recursive(
    values,
    lambda inner: st.dictionaries(
        st.sampled_from(sorted(schema_analysis.KEYWORDS)), values | inner, min_size=1, max_size=4
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(schema=st.dictionaries(st.sampled_from(sorted(schema_analysis.KEYWORDS)), nonsense))
def test_a_schema_that_makes_no_sense_is_refused_at_worst(schema):
    with contextlib.suppress(BadRequest):
        constrain(schema)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_answer_in_json_mode_is_an_object(seed):
    assert isinstance(json.loads(walk(constrain("json"), seed)), dict)


class Large(Vocabulary):
    """So many tokens that copying them takes a while."""

    facts = SimpleNamespace(vocab_size=50_000)

    def piece(self, token):
        return b"%x" % token

    def is_end(self, token):
        return token == END


def test_while_the_library_copies_a_vocabulary_other_threads_run():
    """Unless it lets go of the interpreter's lock, no other thread gets it in so short a time."""
    went_on, is_over = [], threading.Event()

    def tick():
        while not is_over.is_set():
            went_on.append(time.sleep(0))

    large = Large()
    interval_s = sys.getswitchinterval()
    other = threading.Thread(target=tick)
    other.start()
    try:
        sys.setswitchinterval(60)
        before = len(went_on)
        llguidance.GrammarTokenizer(large.facts.vocab_size, large.piece, large.is_end)
        assert len(went_on) > before
    finally:
        sys.setswitchinterval(interval_s)
        is_over.set()
        other.join()


def test_the_layouts_are_those_of_the_installed_library():
    init = llguidance.ConstraintInit()
    llguidance.set_defaults(init, None)

    assert (init.log_buffer_level, init.log_stderr_level) == (0, 1)
    assert (init.max_items_in_row, init.step_max_items) == (2_000, 50_000)
    assert (init.initial_lexer_fuel, init.step_lexer_fuel) == (1_000_000, 200_000)
    assert (init.max_lexer_states, init.max_grammar_size) == (250_000, 500_000)
    assert (init.precompute_large_lexemes, init.verbose_errors) == (True, True)
    assert not any(init.reserved)


class Ends(Vocabulary):
    """With more than one way to end."""

    def is_end(self, token):
        return token in {END, OPEN}


def test_a_model_may_end_with_any_of_its_ends():
    inference = Inference(Prompt(), Sampling(), format={"type": "integer"})
    constraint = ConstraintFactory(Ends()).constrain(inference, "", Delimiters(), {})
    assert not constraint.allows(OPEN)

    constraint.accept(ord("1"))
    assert {END, OPEN} <= set(constraint.allowed().tolist())
    constraint.accept(OPEN)
    assert constraint.is_over
    assert not constraint.failure


class Endless(Vocabulary):
    def is_end(self, _token):
        return False


def test_a_model_without_an_end_says_what_was_asked_for_all_the_same():
    inference = Inference(Prompt(), Sampling(), format={"const": 1})
    constraint = ConstraintFactory(Endless()).constrain(inference, "", Delimiters(), {})

    constraint.accept(ord("1"))
    assert constraint.is_over
    assert not constraint.failure

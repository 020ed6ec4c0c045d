"""JSON Schemas as constraints: closed objects, refused keywords, random schemas."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar import schema_analysis
from ollama_async.workers.child.grammar.json_schema import prepare
from tests.unit.child.constraint_harness import (
    constrain,
    keeps,
    walk,
)


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
        ({"$ref": "#"}, "leads back to itself"),
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

    generated = walk(constraint, seed)

    Draft202012Validator(schema).validate(json.loads(generated))


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


@pytest.mark.slow
@settings(deadline=None)
@given(schema=st.dictionaries(st.sampled_from(sorted(schema_analysis.KEYWORDS)), nonsense))
def test_a_schema_that_makes_no_sense_is_refused_at_worst(schema):
    with contextlib.suppress(BadRequest):
        constrain(schema)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_answer_in_json_mode_is_an_object(seed):
    assert isinstance(json.loads(walk(constrain("json"), seed)), dict)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"properties": {"a": {"$ref": "#/properties/a"}}},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"allOf": [{"$ref": "#"}]}}},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ],
)
def test_a_schema_that_requires_itself_is_refused(schema):
    with pytest.raises(BadRequest, match="leads back to itself"):
        prepare(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]},
        {"$defs": {"a": {"type": "string"}}, "allOf": [{"$ref": "#/$defs/a"}] * 2},
    ],
)
def test_a_schema_may_contain_itself(schema):
    prepare(schema)

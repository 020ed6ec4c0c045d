"""Schemas that say much in few characters are prepared in little time and memory."""

import contextlib
import json
import random
import tracemalloc

import pytest

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar import json_schema
from ollama_async.workers.child.grammar.json_schema import check_size, prepare
from tests.growth import cost
from tests.unit.child.constraint_harness import (
    constrain,
)

MOST = 50  # million steps of a loop; about five are usual
MEGABYTES = 50
WORDS = {"enum": [f"v{number}" for number in range(500)]}


def ref(name):
    return {"$ref": f"#/$defs/{name}"}


def filled(part, **defs):
    """As many of ``part`` as there can be in one schema."""
    one = {"prefixItems": [part], "$defs": defs}
    left = json_schema.SIZE_LIMIT - len(json.dumps(one))
    more = left // (len(json.dumps(part)) + 2)
    # written out and read, so that no two are the same object
    return json.loads(json.dumps({**one, "prefixItems": [part] * (1 + more)}))


def records(tag_first):
    """Told apart by one of 13 properties."""
    for number in range(100):
        tag = {"k": {"const": number}}
        others = {f"p{at}": ref("e") for at in range(12)}
        yield {"type": "object", "properties": tag | others if tag_first else others | tag}


def names_of_names(levels):
    schema = {"const": "x" * 20_000}
    for _ in range(levels):
        schema = {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": schema}
    return schema


HOSTILE = {
    "records": {"oneOf": [*records(tag_first=True)], "$defs": {"e": WORDS}},
    "records with the tag last": {"oneOf": [*records(tag_first=False)], "$defs": {"e": WORDS}},
    "ranges": {
        "oneOf": [
            {"type": "integer", "minimum": 500 * at, "maximum": 500 * at + 499} for at in range(100)
        ]
    },
    "pairs of unions": filled(
        {"oneOf": [ref("a"), ref("b")]},
        **{name: {"anyOf": [{"const": f"{name}{at}"} for at in range(49)]} for name in "ab"},
    ),
    "a long reference": filled(
        {"oneOf": [ref("a"), ref("a")]}, a={"$ref": "#/" + " " * 9000, " " * 9000: 1}
    ),
    "arrays of all words but one": filled(
        {"type": "array", "items": ref("e"), "minItems": 499, "uniqueItems": True}, e=WORDS
    ),
    "arrays of half of all words": filled(
        {"type": "array", "items": ref("e"), "minItems": 250, "uniqueItems": True}, e=WORDS
    ),
    "arrays of unions": filled(
        {"type": "array", "items": {"anyOf": [ref("e")]}, "uniqueItems": True}, e=WORDS
    ),
    "arrays of long words": filled(
        {"type": "array", "items": ref("e"), "uniqueItems": True},
        e={"enum": ["x" * 15_000, "y" * 15_000]},
    ),
    "a long value among many": {"propertyNames": {"enum": [1] * 500, "const": [0] * 20_000}},
    "names": filled({"propertyNames": ref("e")}, e=WORDS),
    "names with a long pattern": filled(
        {"propertyNames": ref("p")}, p={"pattern": "^" + "[a-z]." * 5000}
    ),
    "names that are decimal numbers": filled(
        {"propertyNames": ref("p")},
        p={"pattern": r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,99}|(?=[\d.]{1,99}0*$)\d{0,99}\.\d{0,99}0*$)"},
    ),
    "names of names": names_of_names(13),
    "properties that are evaluated elsewhere": filled(
        {"allOf": [ref("a")], "unevaluatedProperties": {"type": "null"}},
        a={"properties": {f"p{at}": True for at in range(2500)}},
    ),
    "and after many steps": filled(
        {"allOf": [ref("a0")], "unevaluatedProperties": {"type": "null"}},
        **{f"a{at}": {"allOf": [ref(f"a{at + 1}")]} for at in range(700)},
        a700={},
    ),
    "braces in a class": {"pattern": "[" + "\\p{" * 16_000 + "]"},
}


def prepared(schema):
    try:
        return prepare(schema)
    except BadRequest as refused:
        return refused.message


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_takes_little_time(name):
    assert len(json.dumps(HOSTILE[name])) <= json_schema.SIZE_LIMIT

    assert cost(lambda: prepared(HOSTILE[name]), MOST) < MOST


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["arrays of all words but one", "arrays of long words", "names", "names of names", "ranges"],
)
def test_a_hostile_schema_takes_little_memory(name):
    tracemalloc.start()
    try:
        prepared(HOSTILE[name])
        assert tracemalloc.get_traced_memory()[1] < MEGABYTES * 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tag_first", [True, False])
def test_a_hundred_records_are_distinguished_by_their_tags(tag_first):
    schema = {"oneOf": [*records(tag_first)], "$defs": {"e": WORDS}}

    written = json.loads(prepare(schema))
    assert "oneOf" not in written
    assert all(option["required"] == ["k"] for option in written["anyOf"])


def sets(count):
    one = {"type": "array", "items": {"enum": [*range(100)]}, "minItems": 99, "uniqueItems": True}
    return {"prefixItems": [one] * count}


def test_arrays_without_repetition_are_counted_in_the_whole_schema():
    assert "uniqueItems" not in prepare(sets(1))
    with pytest.raises(BadRequest, match="uniqueItems"):
        prepare(json.loads(json.dumps(sets(2))))


@pytest.mark.parametrize("value", [[], [[]], {}, {"a": {}}, "é", 7, -(10**20), 0.5, None, True])
def test_a_schema_may_have_as_many_characters_as_the_limit(value):
    bare = len(json.dumps({"enum": [value], "title": ""}))
    more = (json_schema.SIZE_LIMIT - bare) // (len(json.dumps(value)) + 2)
    schema = {"enum": [value] * (1 + more), "title": ""}
    schema["title"] = "x" * (json_schema.SIZE_LIMIT - len(json.dumps(schema)))

    check_size(schema)
    schema["title"] += "x"
    with pytest.raises(BadRequest, match="characters"):
        check_size(schema)


def test_a_bound_may_have_any_number_of_digits():
    with pytest.raises(BadRequest, match="minimum"):
        prepare({"minimum": 10**400})
    assert '"maximum": 10' in prepare({"type": "integer", "maximum": 10, "minimum": -(10**400)})


def test_a_reference_may_have_any_number_of_digits():
    assert prepare({"anyOf": [{"$ref": "#/anyOf/" + "1" * 5000}]})


def test_bounds_of_an_array_that_are_no_numbers_are_left_alone():
    schema = {"type": "array", "items": {"enum": [1]}, "minItems": "x", "uniqueItems": True}

    with pytest.raises(BadRequest, match="uniqueItems"):
        prepare(schema)


def nest(levels, wrap):
    schema = {"type": "string"}
    for _ in range(levels):
        schema = wrap(schema)
    return schema


COSTLY = {
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


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTLY)
def test_a_hostile_schema_is_refused_or_costs_little(name):
    def answer():
        """Its compilation and an answer of 200 tokens."""
        with contextlib.suppress(BadRequest):
            constraint = constrain(COSTLY[name])
            chance = random.Random(0)
            for _ in range(200):
                if constraint.is_over:
                    break
                allowed = constraint.allowed().tolist()
                constraint.accept(chance.choice(allowed) if allowed else 0)

    most = 300  # million steps; the library gives "intersection" up after about 80
    assert cost(answer, most) < most

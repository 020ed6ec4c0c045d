"""Keywords that llguidance lacks, rewritten: what they allow and refuse."""

import pytest

from tests.unit.child.constraint_harness import constrain, keeps


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
def test_what_can_be_rewritten_is_enforced(schema, kept, refused):
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

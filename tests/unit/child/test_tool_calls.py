"""Which calls may follow the mark that opens one, for each way to write calls."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.prompts.output_format import CallSyntax, Delimiters, OpenCall
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from ollama_async.workers.child.grammar.tool_calls import MAX_TOOLS

END, ARGS, QUOTE, ALL_ENDS = range(256, 260)
SPECIAL = {ARGS: b"[ARGS]", QUOTE: b'<|"|>'}


class ByteEngine:
    """A token for each byte, marks that are no text, and one that ends several things."""

    facts = SimpleNamespace(vocab_size=260)

    def piece(self, token):
        return bytes([token]) if token < 256 else {ALL_ENDS: b'"}}'}.get(token, b"")

    def is_end(self, token):
        return token == END


GRAMMARS = ConstraintFactory(ByteEngine())
JSON = CallSyntax(forms=("{call}",), close=("</tool_call>",))
LIST = CallSyntax(
    forms=("{call}",),
    name_keys=("tool_name", "name"),
    argument_keys=("parameters",),
    extra_keys=("id", "type"),
    listed=("{call}",),
)
KEYED = CallSyntax(forms=("{keyed}",), listed=("{keyed}",), close=("<|end|>",))
HEADED = CallSyntax(
    forms=("{name}[ARGS] {arguments}", "{name}[CALL_ID]{id}[ARGS] {arguments}"), texts=("all",)
)
XML = CallSyntax(
    forms=("<function={name}> {parameters} </function>",),
    parameter="<parameter={key}>{value}</parameter>",
    repeated=True,
    close=("</tool_call>",),
)
PAIRS = CallSyntax(
    forms=("{name} {parameters}",),
    parameter="<arg_key>{key}</arg_key> <arg_value>{value}</arg_value>",
    close=("</tool_call>",),
)
PYTHON = CallSyntax(
    forms=("{name}( {parameters})",),
    parameter="{key}= {value}",
    between=",",
    quotes=('"', "'"),
    listed=("{name}( {parameters})",),
)
BRACES = CallSyntax(
    forms=("call:{name}{{parameters}}",),
    parameter="{key}:{value}",
    between=",",
    quotes=('<|"|>',),
    close=("<tool_call|>",),
)


def tool(name, properties=None, **schema):
    parameters = {"type": "object", "properties": properties or {}, **schema}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TIDE = tool(
    "get_tide",
    {
        "place": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"enum": ["m", "ft"]},
        "exact": {"type": "boolean"},
        "at": {"type": "array", "items": {"type": "number"}},
        "note": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    required=["place"],
)
TOOLS = [TIDE, tool("now"), {"type": "function", "function": {"name": "store"}}]


def tokens(text):
    """``text`` in bytes, special marks as their tokens."""
    for token, mark in SPECIAL.items():
        text = text.replace(mark.decode(), chr(0x10FF00 + token - 256))
    special = {0x10FF00 + token - 256: token for token in SPECIAL}
    return [
        each
        for letter in text
        for each in ([special[ord(letter)]] if ord(letter) in special else letter.encode())
    ]


def reads(syntax, text, tools=TOOLS):
    """How much of ``text`` is allowed; True: all, and the call is complete with it."""
    guard = GRAMMARS.guard(tools, Delimiters(syntaxes=(syntax,)), SPECIAL)
    grammar = guard._grammars[syntax]
    grammar.restart([])
    for place, token in enumerate(tokens(text)):
        if grammar.is_over or not grammar.allows(token):
            return text[:place]
        grammar.accept(token)
    return grammar.is_over and not grammar.failure


LONG_XML = """
<function=get_tide>
<parameter=place>
Wyk <b> "
</parameter>
<parameter=days>
3
</parameter>
<parameter=unit>
ft
</parameter>
<parameter=exact>
True
</parameter>
<parameter=at>
[1, 2.5]
</parameter>
<parameter=note>
null
</parameter>
</function>
</tool_call>"""
LONG_PAIRS = """get_tide
<arg_key>place</arg_key>
<arg_value>Wyk</arg_value>
<arg_key>days</arg_key>
<arg_value>3</arg_value>
</tool_call>"""
RIGHT = [
    (JSON, '\n{"name": "get_tide", "arguments": {"place": "Wyk"}}\n</tool_call>'),
    (JSON, '{"name":"get_tide","arguments":{"place":"Wyk","days":3,"exact":true}}</tool_call>'),
    (JSON, '{"name": "now", "parameters": {}}</tool_call>'),
    (JSON, '{"name": "get_tide", "arguments": {"days": 3, "place": "W\\u00fck \\/"}}</tool_call>'),
    (JSON, '{\n  "name": "now",\n  "arguments": {\n  }\n}\n</tool_call>'),
    (JSON, '{"name": "store", "arguments": {"x": [1, {"y": null}]}}</tool_call>'),
    (JSON, '{"name": "get_tide", "arguments": {"place": "</tool_call> \\" {"}}</tool_call>'),
    (JSON, '{"name": "get_tide", "arguments": {"place": "Föhr"}}</tool_call>'),
    (LIST, '{"name": "now", "parameters": {}}'),
    (LIST, '[{"tool_name": "now", "parameters": {}}, {"name": "now", "parameters": {}}]'),
    (LIST, '[{"type": "function", "name": "now", "parameters": {}, "id": "aB3"}]'),
    (KEYED, '[{"now": {}}, {"get_tide": {"place": "Wyk"}}]<|end|>'),
    (HEADED, 'get_tide[ARGS]{"place": "Wyk"}'),
    (HEADED, "now[CALL_ID]abc123XYZ[ARGS]{}"),
    (HEADED, "all[ARGS]"),
    (XML, "\n<function=now>\n</function>\n</tool_call>"),
    (XML, LONG_XML),
    (XML, "<function=now></function>\n<function=now></function></tool_call>"),
    (XML, "<function=store><parameter=any_key>x</parameter></function></tool_call>"),
    (PAIRS, "now</tool_call>"),
    (PAIRS, LONG_PAIRS),
    (PYTHON, "[get_tide(place=\"Wyk auf Föhr\", days=3, unit='ft'), now()]"),
    (PYTHON, "now( )"),
    (PYTHON, "store(a=1, b='x', c=[2])"),
    (BRACES, 'call:get_tide{place:<|"|>Wyk "<|"|>,days:3,unit:<|"|>m<|"|>}<tool_call|>'),
    (BRACES, "call:now{}<tool_call|>"),
]
ONCE_AGAIN = '{"name": "get_tide", "arguments": {"days": 1, "days'
WRONG = [
    (JSON, '{"name": "get_tides', '{"name": "get_tide'),
    (JSON, '{"name": "now", "arguments": {"x"', '{"name": "now", "arguments": {'),
    (JSON, '{"name": "get_tide", "arguments": {}}', '{"name": "get_tide", "arguments": {'),
    (
        JSON,
        '{"name": "get_tide", "arguments": {"place": 5',
        '{"name": "get_tide", "arguments": {"place": ',
    ),
    (JSON, '{"arguments"', '{"'),
    (JSON, "I cannot", ""),
    (LIST, "[]", "["),
    (KEYED, '[{"no', '[{"no'),
    (HEADED, "get_tide{", "get_tide"),
    (XML, "<function=get_tide></function>", "<function=get_tide><"),
    (XML, "<function=get_tide><parameter=x", "<function=get_tide><parameter="),
    (XML, "<function=now><parameter=", "<function=now><"),
    (PAIRS, "get_tide</tool_call>", "get_tide<"),
    (PYTHON, "get_tide(x", "get_tide("),
    (PYTHON, "get_tide(days=1)", "get_tide(days=1"),
    (PYTHON, "get_tide(days=1, days", "get_tide(days=1, "),
    (JSON, ONCE_AGAIN, ONCE_AGAIN[:-4]),
    (PYTHON, "now(a", "now("),
    (BRACES, "call:get_tide{place:Wyk", "call:get_tide{place:"),
]


@pytest.mark.parametrize(("syntax", "text"), RIGHT, ids=[text for _, text in RIGHT])
def test_calls_of_tools_that_are_offered_may_be_written(syntax, text):
    assert reads(syntax, text) is True


@pytest.mark.parametrize(("syntax", "text", "allowed"), WRONG, ids=[case[1] for case in WRONG])
def test_an_invalid_call_is_rejected_at_its_first_error(syntax, text, allowed):
    found = reads(syntax, text)

    assert found is not True
    assert found == allowed or (found is False and text == allowed)


def test_what_cannot_be_enforced_in_a_schema_does_not_lose_the_rest():
    odd = tool(
        "odd",
        {
            "list": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
            "mail": {"type": "string", "not": {"const": "x"}},
        },
        required=["list"],
    )

    assert reads(JSON, '{"name": "odd", "arguments": {"list": [1]}}</tool_call>', [odd]) is True
    assert reads(JSON, '{"name": "odd", "arguments": {"list": ["', [odd]) is not True


@pytest.mark.parametrize(
    ("parameters", "right", "wrong"),
    [
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, {"a": "x"}, '"b'),
        ({"properties": {"a": {"type": "number", "multipleOf": 123456789}}}, {"a": 3}, '"a": "'),
        ({"properties": {"a": {"$ref": "http://example.com/x"}}}, {"b": 1}, "1"),
        ({"properties": {"a": {"enum": []}}, "required": ["a"]}, {"b": 1}, "1"),
        ({"properties": 7}, {"b": 1}, "1"),
        ({"properties": {"a": {"type": "nonsense"}}}, {"b": 1}, "1"),
    ],
)
def test_of_a_schema_that_is_of_little_use_the_rest_is_enforced(parameters, right, wrong):
    function = {"name": "odd", "parameters": {"type": "object", **parameters}}
    tools = [{"type": "function", "function": function}, TIDE]
    call = json.dumps({"name": "odd", "arguments": right})

    assert reads(JSON, f"{call}</tool_call>", tools) is True
    assert reads(JSON, f'{{"name": "odd", "arguments": {{{wrong}', tools) is not False
    assert reads(JSON, '{"name": "even"', tools) is not True


def test_tools_that_are_none_do_not_count():
    tools = [{}, {"function": 3}, {"function": {"name": ""}}, {"function": {"name": 7}}, TIDE]

    assert reads(JSON, '{"name": "get_tide", "arguments": {"place": ""}}</tool_call>', tools)


@pytest.mark.parametrize("tools", [[], [{}], [tool(f"t{n}") for n in range(MAX_TOOLS + 1)]])
def test_nothing_is_guarded_without_tools_or_with_too_many(tools):
    assert GRAMMARS.guard(tools, Delimiters(syntaxes=(JSON,)), {}) is None


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)


@given(name=names.filter(str.strip), key=names, value=names)
def test_names_and_keys_may_be_any_text(name, key, value):
    arguments = {key: value}
    call = json.dumps({"name": name.strip(), "arguments": arguments}, ensure_ascii=False)
    tools = [tool(name, {key: {"type": "string"}}, required=[key])]

    assert reads(JSON, f"{call}</tool_call>", tools) is True or "\\u" in call


def never():
    pytest.fail("something is made")


def test_grammars_are_kept_for_the_next_request():
    first = GRAMMARS.guard(TOOLS, Delimiters(syntaxes=(JSON,)), SPECIAL)
    again = GRAMMARS.guard([*TOOLS], Delimiters(syntaxes=(JSON,)), SPECIAL, never)

    assert first._grammars[JSON] is not again._grammars[JSON]


def opened(text):
    """A guard within a call that goes so far."""
    guard = GRAMMARS.guard(TOOLS, Delimiters(syntaxes=(JSON,)), SPECIAL)
    guard.update(SimpleNamespace(call_number=1, open_call=OpenCall(JSON, text)))
    assert not guard.is_free
    return guard


def test_a_token_that_closes_too_much_is_replaced_by_its_prefix():
    guard = opened('{"name": "get_tide", "arguments": {"unit": "m", "place": "Wyk')
    assert guard.allows(ALL_ENDS)

    guard = opened('{"name": "store", "arguments": {"a": {"b": "c')
    assert guard.allows(ALL_ENDS)

    guard = opened('{"name": "get_tide", "arguments": {"at": [], "note": 3, "unit": "m')
    assert not guard.allows(ALL_ENDS)
    assert guard.allowed().tolist() == list(b'"')
    guard.accept(*b'"')
    assert not guard.allows(*b"}")
    assert guard.allowed().tolist() != list(b"}")


def test_a_guard_forgets_a_token_that_was_refused_before():
    guard = opened('{"name": "get_tide", "arguments": {"days": 3, "unit": "m')
    assert not guard.allows(ALL_ENDS)
    guard.accept(*b'"')

    assert set(guard.allowed().tolist()) >= set(b", \n")


def strings(count):
    return {f"p{number}": {"type": "string"} for number in range(count)}


def arguments_of(tool_name, **arguments):
    return f"{json.dumps({'name': tool_name, 'arguments': arguments})}</tool_call>"


@pytest.mark.parametrize("count", [2, 6, 7, 12, 60])
def test_required_arguments_must_come_however_many_there_are(count):
    tools = [tool("many", strings(count), required=["p1"])]

    assert reads(JSON, arguments_of("many", p0="a", p1="b"), tools) is True
    assert reads(JSON, arguments_of("many", p1="b", p0="a"), tools) is True
    assert reads(JSON, arguments_of("many", p0="a"), tools) is not True
    assert reads(JSON, arguments_of("many"), tools) is not True


def test_many_required_arguments_come_in_the_order_of_the_schema():
    given = {f"p{number}": "x" for number in range(10)}
    tools = [tool("many", strings(12), required=list(given))]

    assert reads(JSON, arguments_of("many", **given, p11="y"), tools) is True
    assert reads(JSON, arguments_of("many", p10="y", **given), tools) is True
    assert reads(JSON, arguments_of("many", **dict(list(given.items())[1:])), tools) is not True


def test_what_is_required_and_not_described_may_be_anything():
    tools = [tool("odd", {"a": {"type": "string"}, "never": False}, required=["b"])]

    assert reads(JSON, arguments_of("odd", a="x", b=[1]), tools) is True
    assert reads(JSON, arguments_of("odd", a="x"), tools) is not True
    assert reads(JSON, arguments_of("odd", b=1, never=2), tools) is not True


def test_two_tools_of_one_name_are_two_ways_to_call_it():
    tools = [tool("same", {"a": {"type": "integer"}}), tool("same", {"b": {"type": "integer"}})]

    assert reads(JSON, arguments_of("same", a=1), tools) is True
    assert reads(JSON, arguments_of("same", b=1), tools) is True
    assert reads(JSON, arguments_of("same", a=1, b=1), tools) is not True


MODE = {"$ref": "#/$defs/Mode"}
CHOICES = tool(
    "choose",
    {
        "mode": MODE,
        "maybe": {"anyOf": [{"enum": ["x", "y"], "type": "string"}, {"type": "null"}]},
        "list": {"type": "array", "items": MODE},
    },
    **{"$defs": {"Mode": {"enum": ["slow", "fast"], "type": "string"}}},
)


@pytest.mark.parametrize(
    ("syntax", "right", "wrong"),
    [
        (XML, "<parameter=mode>\nfast\n</parameter>", "<parameter=mode>\nfaster"),
        (XML, "<parameter=maybe>y</parameter>", "<parameter=maybe>z"),
        (XML, "<parameter=maybe>\nnull\n</parameter>", "<parameter=maybe>\nnope"),
        (XML, '<parameter=list>["slow"]</parameter>', '<parameter=list>["s", "'),
        (XML, "<parameter=mode>fast</parameter>", "<parameter=mode>  fast"),
    ],
)
def test_references_and_alternatives_are_enforced_in_tags(syntax, right, wrong):
    call = "<function=choose>{}</function></tool_call>"

    assert reads(syntax, call.format(right), [CHOICES]) is True
    assert reads(syntax, f"<function=choose>{wrong}", [CHOICES]) is not False


def test_references_that_go_on_for_ever_are_followed_a_while():
    chain = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(1500)}
    tools = [tool("far", {"a": {"$ref": "#/$defs/d0"}, "b": {"$ref": "#"}}, **{"$defs": chain})]

    assert reads(JSON, arguments_of("far", a=1, b={"b": {"a": 2}}), tools) is True


def test_descriptions_without_end_are_not_read(capsys):
    tools = [tool(f"t{n}", {"a": {"description": "x" * 10_000}}) for n in range(40)]

    assert GRAMMARS.guard(tools, Delimiters(syntaxes=(JSON,)), {}, never) is None
    assert "more than 262144 bytes" in capsys.readouterr().err


@pytest.mark.slow
def test_a_grammar_that_would_be_too_large_enforces_less():
    tools = [
        tool(f"t{n}", {f"p{n}_{k}": {"type": "string", "minLength": 25 * n + k} for k in range(25)})
        for n in range(150)
    ]

    assert reads(JSON, arguments_of("t7", p7_3="short"), tools) is True
    assert reads(JSON, arguments_of("t7", anything=[1]), tools) is not True
    assert reads(JSON, '{"name": "t777"', tools) is not True


KINDS = CallSyntax(
    forms=("<invoke{space}name={name}> {parameters} </invoke>",),
    parameter="<p{space}name={key}{space}string={is_text}>{value}</p>",
    repeated=True,
    close=("</calls>",),
)


@pytest.mark.parametrize(
    ("value", "schema", "right"),
    [
        ("string=false>1", {}, True),
        ("string=true>1", {}, True),
        ('string=false>{"y": [null, "s"]}', {}, True),
        ("string=false>1", {"type": ["string", "integer"]}, True),
        ("string=false>1", {"type": "integer"}, True),
        ("string=true>1", {"type": "integer"}, False),
        ("string=false>1", {"type": "string"}, False),
        ("string=true>a", {"type": "string", "enum": ["a", "b"]}, True),
        ("string=true>c", {"type": "string", "enum": ["a", "b"]}, False),
    ],
)
def test_an_argument_is_marked_as_text_where_the_syntax_has_a_mark(value, schema, right):
    call = f"<invoke name=f><p name=k {value}</p></invoke></calls>"

    assert (reads(KINDS, call, [tool("f", {"k": schema})]) is True) == right


@pytest.mark.parametrize("value", ["['a', 'b c']", '["a"]', "[]"])
def test_lists_may_be_written_as_python_prints_them(value):
    schema = {"type": "array", "items": {"type": "string"}}
    call = f"<function=f><parameter=k>{value}</parameter></function></tool_call>"

    assert reads(XML, call, [tool("f", {"k": schema})]) is True
    assert reads(XML, call.replace(value, "[1]"), [tool("f", {"k": schema})]) is not True

"""The one decoder: Go's leniency, Go's words, and both paths agree."""

import base64
import contextlib
import json
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api.decode import VALUES_LIMIT, decode
from ollama_async.api.ollama import ChatRequest, GenerateRequest
from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest
from ollama_async.core.json_depth import MAX_DEPTH, is_deep
from ollama_async.gocompat.json_decode import from_base64, unmarshal
from ollama_async.gocompat.json_scan import scan
from tests.json_values import JSON


def complaint(body: bytes, kind: type[msgspec.Struct] = GenerateRequest) -> str:
    with pytest.raises(BadRequest) as caught:
        decode(body, kind)
    return caught.value.message


SYNTAX = [
    (b"", "missing request body"),
    (b" \n\t", "missing request body"),
    (b"x", "invalid character 'x' looking for beginning of value"),
    (b"{", "unexpected EOF"),
    (b'{"a"', "unexpected EOF"),
    (b'"abc', "unexpected EOF"),
    (b"tru", "unexpected EOF"),
    (b"{}}"[:1] + b",}", "invalid character ',' looking for beginning of object key string"),
    (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    (b"[1,]", "invalid character ']' looking for beginning of value"),
    (b'{"a" 1}', "invalid character '1' after object key"),
    (b'{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
    (b"[1 2]", "invalid character '2' after array element"),
    (b"[01]", "invalid character '1' after array element"),
    (b"[-a]", "invalid character 'a' in numeric literal"),
    (b"[1.]", "invalid character ']' after decimal point in numeric literal"),
    (b"[1e+]", "invalid character ']' in exponent of numeric literal"),
    (b"[nul1]", "invalid character '1' in literal null (expecting 'l')"),
    (b'["\\x"]', "invalid character 'x' in string escape code"),
    (b'["\\u12g4"]', "invalid character 'g' in \\u hexadecimal character escape"),
    (b'["a\nb"]', "invalid character '\\n' in string literal"),
    (b"['a']", "invalid character '\\'' looking for beginning of value"),
    (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
    (b"\x80", "invalid character '\\u0080' looking for beginning of value"),
    (b"NaN", "invalid character 'N' looking for beginning of value"),
]


@pytest.mark.parametrize(("body", "text"), SYNTAX)
def test_syntax_errors_have_gos_texts(body, text):
    assert complaint(body) == text


TYPES = [
    (GenerateRequest, b'{"options":"x"}', "string", "options", "map[string]interface {}"),
    (GenerateRequest, b'{"model":1}', "number", "model", "string"),
    (GenerateRequest, b'{"RAW":"x"}', "string", "raw", "bool"),
    (GenerateRequest, b'{"stream":1}', "number", "stream", "bool"),
    (GenerateRequest, b'{"context":[1.5]}', "number 1.5", "context", "int"),
    (GenerateRequest, b'{"images":"x"}', "string", "images", "[]api.ImageData"),
    (GenerateRequest, b'{"images":[{}]}', "object", "images", "api.ImageData"),
    (ChatRequest, b'{"tools":true}', "bool", "tools", "api.Tools"),
    (ChatRequest, b'{"messages":{}}', "object", "messages", "[]api.Message"),
    (ChatRequest, b'{"messages":[{"content":[]}]}', "array", "messages.content", "string"),
    (
        ChatRequest,
        b'{"messages":[{"tool_calls":[{"function":{"arguments":"{}"}}]}]}',
        "string",
        "messages.tool_calls.function.arguments",
        "api.ToolCallFunctionArguments",
    ),
    (CreateRequest, b'{"files":["x"]}', "array", "files", "map[string]string"),
    (CreateRequest, b'{"from":[]}', "array", "from", "string"),
]


@pytest.mark.parametrize(("kind", "body", "value", "field", "go"), TYPES)
def test_type_errors_name_the_field_and_type_as_go_does(kind, body, value, field, go):
    place = f"Go struct field {kind.__name__}.{field} of type {go}"
    assert complaint(body, kind) == f"json: cannot unmarshal {value} into {place}"


def test_a_body_that_is_not_an_object_names_the_request():
    text = "json: cannot unmarshal array into Go value of type api.GenerateRequest"
    assert complaint(b"[]") == text


def test_the_first_of_several_type_errors_is_reported():
    assert "GenerateRequest.model" in complaint(b'{"model":1,"prompt":2,"options":3}')


def test_only_the_first_value_counts():
    assert decode(b'{"model":"a"} {"model":"b"} garbage', GenerateRequest).model == "a"


def test_field_names_match_without_regard_to_case():
    request = decode(b'{"MODEL":"m","Prompt":"p","\xc5\xbfystem":"s"}', GenerateRequest)
    assert (request.model, request.prompt, request.system) == ("m", "p", "s")


def test_the_last_of_equal_names_wins_whatever_its_case():
    body = b'{"model":"a","Model":"b","model":"c","MODEL":"d"}'
    assert decode(body, GenerateRequest).model == "d"


def test_a_wrong_case_deep_inside_is_not_lost():
    request = decode(b'{"messages":[{"role":"User","Content":"hi"}]}', ChatRequest)
    assert (request.messages[0].role, request.messages[0].content) == ("user", "hi")


def test_null_is_absent_everywhere():
    names = GenerateRequest.__struct_encode_fields__
    assert decode(json.dumps(dict.fromkeys(names)).encode(), GenerateRequest) == GenerateRequest()
    assert decode(b"null", ChatRequest) == ChatRequest()
    assert decode(b'{"messages":[null],"tools":[null]}', ChatRequest).messages[0].role == ""


def test_unknown_fields_are_ignored_at_every_depth():
    body = b'{"x":[{}],"messages":[{"role":"user","y":1,"tool_calls":[{"type":"function"}]}]}'
    assert decode(body, ChatRequest).messages[0].tool_calls[0].function.name == ""


def test_bytes_that_are_not_utf8_become_one_replacement_character_each():
    body = b'{"prompt":"\xff\xe2\x82 \\ud800 \\ud83d\\ude00 \xed\xa0\x80"}'
    expected = "\ufffd\ufffd\ufffd \ufffd \U0001f600 \ufffd\ufffd\ufffd"
    assert decode(body, GenerateRequest).prompt == expected


def test_numbers_too_large_for_a_float_are_refused():
    assert complaint(b'{"options":{"a":1e999}}').startswith("json: cannot unmarshal number 1e999")
    assert "number 999" in complaint(b'{"options":{"a":' + b"9" * 5000 + b"}}")


def test_integers_beyond_64_bits_become_floats_so_that_they_can_be_packed():
    request = decode(b'{"tools":[{"n":123456789012345678901234567890}]}', ChatRequest)
    assert request.tools[0]["n"] == 1.2345678901234568e29
    msgspec.msgpack.encode(request)


@pytest.mark.parametrize("levels", [MAX_DEPTH - 2, MAX_DEPTH + 1, 500, 995, 100_000])
def test_deep_nesting_is_an_error_and_never_a_recursion(levels):
    body = b'{"options":{"a":' + b"[" * levels + b"]" * levels + b"}}"
    if levels < MAX_DEPTH - 1:
        assert msgspec.msgpack.encode(decode(body, GenerateRequest))
    else:
        assert complaint(body) == "invalid character '[' exceeded max depth"


def test_a_body_of_too_many_values_is_refused_before_it_takes_memory():
    body = b'{"options":{"a":[' + b"[]," * VALUES_LIMIT + b"[]]}}"
    assert complaint(body) == "the request body holds too many JSON values"


@pytest.mark.parametrize("numbers", [1000, 400_000])
def test_many_numbers_are_read_on_either_path(numbers):
    body = b'{"context":[' + b"7," * numbers + b"8]}"
    assert decode(body, GenerateRequest).context == [7] * numbers + [8]


def test_a_large_image_does_not_count_as_values():
    image = bytes(1_500_000)
    body = json.dumps({"images": [base64.b64encode(image).decode()]}).encode()
    assert len(body) > VALUES_LIMIT
    assert decode(body, GenerateRequest).images == [image]


def test_brackets_in_strings_are_not_nesting():
    assert not is_deep(json.dumps({"prompt": '[{"\\' * 2000}).encode())


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("data:image/png;base64,AA==", 4),
        ("A", 0),
        ("AAAAAA", 4),
        ("AAAAA", 4),
        ("AA=", 3),
        ("AA=A", 2),
        ("AA==AA==", 4),
        ("A===", 1),
        ("====", 0),
        ("AAA=A", 4),
        ("AA-_", 2),
        ("AAA\u00e9", 3),
    ],
)
def test_bad_base64_is_reported_with_its_offset(text, at):
    body = json.dumps({"images": [text]}).encode()
    assert complaint(body) == f"illegal base64 data at input byte {at}"


@given(st.binary(max_size=60))
def test_base64_with_line_ends_is_decoded(data):
    text = base64.encodebytes(data).decode()
    assert from_base64(text) == data == from_base64(text.replace("\n", "\r\n"))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"keep_alive":"300"}', 'time: missing unit in duration "300"'),
        (b'{"keep_alive":true}', "Unsupported type: 'bool'"),
        (b'{"keep_alive":[1]}', "Unsupported type: '[]interface {}'"),
        (
            b'{"think":"x"}',
            'invalid think value: "x" (must be "high", "medium", "low", "max", true, or false)',
        ),
        (
            b'{"think":3}',
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)',
        ),
    ],
)
def test_special_fields_have_their_own_error_texts(body, text):
    assert complaint(body) == complaint(body, ChatRequest) == text


MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "System", "TOOL", ""]),
        "content": st.text(),
        "images": st.lists(st.binary(max_size=9).map(lambda b: base64.b64encode(b).decode())),
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"function": st.fixed_dictionaries({"name": st.text(), "arguments": st.just({})})}
            ),
            max_size=2,
        ),
    },
)
CHAT = st.fixed_dictionaries(
    {"model": st.text()},
    optional={
        "messages": st.lists(MESSAGE, max_size=4),
        "stream": st.booleans(),
        "options": st.dictionaries(st.text(), JSON, max_size=4),
        "tools": st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=3),
        "format": JSON,
        "keep_alive": st.sampled_from(["5m", "-1s", 0, -1, 3.5]),
        "think": st.sampled_from([True, False, "low"]),
        "top_logprobs": st.integers(0, 20),
    },
)


@pytest.mark.slow
@given(CHAT, st.booleans())
def test_both_paths_read_the_same(value, ascii_only):
    body = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        fast = msgspec.json.decode(body, type=ChatRequest)
    except ValueError:
        assert "\\ud" in body.decode(errors="replace") or "\ufffd" in body.decode(errors="replace")
        return
    assert unmarshal(scan(body), ChatRequest) == fast == decode(body, ChatRequest)


def test_a_trailing_comma_after_many_numbers_is_an_error():
    text = "invalid character ']' looking for beginning of value"
    assert complaint(b'{"context":[1, 2 ,3,]}') == text


FRAGMENTS = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"d800", b"null", b"true", b"-", b"1",
     b"e", b".", b"0", b" ", b'"model"', b'"messages"', b'"images"', b'"keep_alive"', b"\xff"]
)  # fmt: skip


@given(st.binary(max_size=40) | st.lists(FRAGMENTS, max_size=25).map(b"".join))
def test_any_bytes_give_a_request_or_a_bad_request(body):
    for kind in (ChatRequest, GenerateRequest, CreateRequest):
        with contextlib.suppress(BadRequest):
            assert isinstance(decode(body, kind), kind)


class Name(msgspec.Struct, tag="name"):
    text: str


class Number(msgspec.Struct, tag="number"):
    of: int


class Exact(msgspec.Struct):
    is_exact: ClassVar[bool] = True

    items: list[Name | Number] = []
    limit: int | None = None


def test_an_exact_request_takes_nulls_unknown_fields_and_unions():
    body = b'{"items":[{"type":"name","text":"a","more":1},{"type":"number","of":2}],"limit":null}'
    expected = Exact([Name("a"), Number(2)], None)
    assert decode(body, Exact) == expected
    assert decode(body + b"}", Exact) == expected  # what follows is ignored, as for others
    assert decode(b'{"LIMIT":3}', Exact) == Exact()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"items":[{"type":"x"}]}', "items.0.type: Invalid value 'x'"),
        (b'{"items":[{"type":"name"}]}', "items.0: Object missing required field `text`"),
        (b'{"limit":"3"}', "limit: Expected `int | null`, got `str`"),
        (b"3", "Expected `object`, got `int`"),
        (b'{"limit":', "unexpected EOF"),
    ],
)
def test_errors_of_an_exact_request_name_the_place(body, message):
    assert complaint(body, Exact) == message


def test_errors_of_an_exact_request_are_short():
    body = b'{"items":[{"type":"%b"}]}' % (b"x" * 10_000)
    assert len(complaint(body, Exact)) < 300

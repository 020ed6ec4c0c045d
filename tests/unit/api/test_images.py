"""A body with large images is decoded without them, and means what it always did."""

from __future__ import annotations

import base64
import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api import decode as decoding
from ollama_async.api.anthropic import MessagesRequest
from ollama_async.api.data_urls import decode_image_url
from ollama_async.api.decode import decode, decode_apart, restore_images
from ollama_async.api.ollama import ChatRequest, GenerateRequest, Message
from ollama_async.core.errors import BadRequest, ServerError, TooLarge

LEAST_BYTES = 80


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Bodies over a kilobyte are large, and a window is 64 bytes."""
    monkeypatch.setattr(decoding, "TEXT_LIMIT_BYTES", 1000)
    monkeypatch.setattr(decoding, "WINDOW_BYTES", 64)
    monkeypatch.setattr(decoding, "LARGE_IMAGE_BYTES", LEAST_BYTES)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("size", [61, 62, 63, 64, 500, 5000])
def test_images_arrive_unchanged(size):
    sent = [
        bytes([number]) * (size // 2) + bytes(range(256))[: size - size // 2]
        for number in range(12)
    ]
    given_images = [encoded(each) for each in sent]
    messages = [
        {"role": "user", "content": '\\"', "images": given_images[:6]},
        {"images": given_images[6:]},
    ]

    chat = decode(json.dumps({"messages": messages}).encode(), ChatRequest)
    generate = decode(json.dumps({"images": given_images}).encode(), GenerateRequest)

    assert [each.images for each in chat.messages] == [sent[:6], sent[6:]]
    assert generate.images == sent


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n" * 70])
def test_line_ends_and_slashes_may_be_escaped(end):
    sent = bytes(range(250, 256)) * 300
    text = end.join(encoded(sent)[at : at + 7] for at in range(0, 2400, 7))
    body = json.dumps({"images": [text, text + end]}).replace("/", "\\/").encode()

    assert decode(body, GenerateRequest).images == [sent, sent]


@pytest.mark.parametrize("tail", ["A", "AA", "AAA", "A=", "AA=", "AA=A", "A===", "AA==AA==", "-"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_bad_base64_gets_the_same_error_as_in_a_small_body(tail, end):
    text = end.join(["ABCD" * 50] * 8) + end + tail
    body = json.dumps({"images": [text]}).encode()
    with pytest.raises(ServerError) as small_body:
        decoding._decode(body, GenerateRequest)

    with pytest.raises(ServerError) as large_body:
        decode(body, GenerateRequest)

    if tail in {"AA=A", "AA==AA==", "-"}:  # no image that could be taken out
        assert isinstance(large_body.value, TooLarge)
    else:
        assert large_body.value.message == small_body.value.message


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": "A" * 1100},
        {"prompt": "x y " * 300},
        {"options": {"A" * 1100: 1}},
        {"format": ["A" * 1100]},
        {"images": ["A" * 1200], "system": "A" * 400},
        {"images": ["A" * 60] * 30},
    ],
)
def test_other_texts_count(asked):
    with pytest.raises(TooLarge, match="limit of 1000 bytes"):
        decode(json.dumps(asked).encode(), GenerateRequest)


def test_a_body_continues_after_an_image():
    body = b'{"images":["' + b"QUJD" * 400 + b'"],"prompt":"\\"' + b"QUJD" * 100 + b'\\\\"} rest'

    request = decode(body, GenerateRequest)

    assert request.prompt == '"' + "QUJD" * 100 + "\\"
    assert request.images == [b"ABC" * 400]


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """As other protocols carry an image."""

    url: str = ""


class Parts(msgspec.Struct, forbid_unknown_fields=True):
    parts: list[Part] = []
    model: str = ""


def translated(parts: Parts) -> list[ChatRequest]:
    """Two requests that share a message."""
    image = [decode_image_url(part.url) for part in parts.parts]
    message = Message(role="user", images=image)
    return [ChatRequest(messages=[message]), ChatRequest(messages=[message])]


@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:image\\/jpeg;base64,"])
@pytest.mark.parametrize("size", [0, 50, 3000])
def test_data_urls_are_restored_in_the_translation(head, size):
    sent = [bytes([number]) * size for number in range(3)] + [b"\xff" * 900]
    urls = ",".join(f'{{"url":"{head}{encoded(each)}"}}' for each in sent)
    body = f'{{"model":"m","parts":[{urls}]}}'.encode()

    parts, images = decode_apart(body, Parts)
    requests = translated(parts)
    restore_images(requests, images)

    assert [each.messages[0].images for each in requests] == [sent, sent]


def test_a_data_url_that_the_translation_drops_counts_as_text():
    body = json.dumps({"parts": [{"url": f"data:image/png;base64,{encoded(bytes(3000))}"}]})
    _, images = decode_apart(body.encode(), Parts)

    with pytest.raises(TooLarge):
        restore_images([ChatRequest()], images)


PIECES = st.sampled_from(
    [
        b'"',
        b"\\",
        b'\\"',
        b"\\\\",
        b"A" * 99,
        b"A" * 400,
        b",",
        b'"' + b"A" * 200 + b'"',
        b"[",
        b"=",
    ]
)


@given(st.lists(PIECES, min_size=4, max_size=40).map(b"".join))
def test_any_bytes_give_a_request_or_an_error(body):
    with contextlib.suppress(BadRequest, TooLarge):
        decode(b'{"images":[' + body + b"]}" + b" " * 900, GenerateRequest)


@given(
    st.lists(st.binary(max_size=300), max_size=12),
    st.text(alphabet='A"\\ \né/', max_size=300),
    st.booleans(),
)
def test_a_body_means_the_same_whatever_its_size(sent, text, is_last):
    fields = {"images": [encoded(each) for each in sent], "prompt": text}
    if is_last:
        fields = dict(reversed(fields.items()))
    body = json.dumps(fields).encode()
    expected = decoding._decode(body, GenerateRequest)

    try:
        request = decode(body, GenerateRequest)
    except TooLarge:
        large = [each for each in fields["images"] if len(each.rstrip("=")) >= LEAST_BYTES]
        assert len(body) - sum(map(len, large)) + 24 * len(large) > 1000 or len(text) >= LEAST_BYTES
    else:
        assert request == expected


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_truncated_image_is_refused_alike_whatever_its_size(cut):
    def complaint(image, kind, padding):
        source = {"type": "base64", "media_type": "image/png", "data": image}
        content = [{"type": "image", "source": source}]
        if kind is GenerateRequest:
            fields = {"images": [image], "prompt": "x" * padding}
        else:
            fields = {
                "messages": [{"role": "user", "content": content}],
                "metadata": {"user_id": "x" * padding},
            }
        body = json.dumps(fields).encode()
        with pytest.raises(BadRequest) as refused:
            decode(body, kind).messages[0].content[0].source.decode()
        return refused.value.message

    image = encoded(bytes(LEAST_BYTES))[:-cut]
    assert len(image) > LEAST_BYTES
    prefixes = {GenerateRequest: "", MessagesRequest: "invalid base64 image data: "}
    for kind, prefix in prefixes.items():
        alone, among_more = complaint(image, kind, 0), complaint(image, kind, 900)
        assert alone == among_more
        assert alone.startswith(f"{prefix}illegal base64 data at input byte 10")

"""Images in data URLs, as OpenAI's protocols carry them. No URL is ever fetched."""

from __future__ import annotations

from ollama_async.core.errors import BadRequest
from ollama_async.gocompat.json_decode import from_base64

_TYPES = ("image/jpeg", "image/jpg", "image/png", "image/webp", "image/gif", "image/bmp", "")


def decode_image_url(url: str) -> bytes:
    """The bytes of ``data:image/png;base64,…``; the content decides what they are.

    :raises BadRequest: with Ollama's text.
    """
    if url.startswith(("http://", "https://")):
        raise BadRequest(
            "image URLs are not currently supported, please use base64 encoded data instead"
        )
    head, comma, data = url.partition(",")
    media_type, semicolon, coding = head.removeprefix("data:").partition(";")
    is_data = head.startswith("data:") and comma and semicolon and coding == "base64"
    if not is_data or media_type not in _TYPES:
        raise BadRequest("invalid image input")
    return decode_base64(data)


def decode_base64(data: str) -> bytes:
    """:raises BadRequest: with Go's text."""
    try:
        return from_base64(data)
    except ValueError as error:
        raise BadRequest(str(error)) from None

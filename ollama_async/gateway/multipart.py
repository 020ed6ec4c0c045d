"""Reads forms with files (``multipart/form-data``, RFC 7578) that were received whole.

aiohttp's reader takes them from the network part by part. Here bodies are received within budgets
first (:mod:`.body`), and parsed in a thread if they are large.
"""

from __future__ import annotations

from email.message import Message as Header

from aiohttp import hdrs, web

from ollama_async.core.errors import BadRequest

PARTS_LIMIT = 64
HEAD_LIMIT_BYTES = 8 << 10
"""Of the headers of one part."""

_BOUNDARY_LIMIT = 70  # characters, by RFC 2046
_WINDOW_BYTES = 1 << 20  # so that no call holds the interpreter for long
_PLAIN_CODINGS = {"", "7bit", "8bit", "binary"}


def boundary_of(request: web.Request) -> bytes:
    """What separates the parts. :raises BadRequest: the body is not such a form, with Go's text."""
    header = _parsed(hdrs.CONTENT_TYPE, request.headers.get(hdrs.CONTENT_TYPE, ""))
    if header.get_content_type() != "multipart/form-data":
        raise BadRequest("request Content-Type isn't multipart/form-data")
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= _BOUNDARY_LIMIT:
        raise BadRequest("no multipart boundary param in Content-Type")
    return boundary.encode(errors="replace")


def read_form(data: bytes, boundary: bytes) -> dict[str, bytes]:
    """The contents by the names of the fields; the first of a name counts.

    :raises BadRequest: it is no such form, or has too many parts.
    """
    delimiter = b"--" + boundary
    fields: dict[str, bytes] = {}
    at = 2 if data.startswith(b"\r\n") else 0
    if not data.startswith(delimiter, at):
        raise BadRequest("multipart: the boundary is missing")
    at += len(delimiter)
    for _ in range(PARTS_LIMIT):
        if data.startswith(b"--", at):
            return fields
        head_end = data.find(b"\r\n\r\n", at, at + HEAD_LIMIT_BYTES)
        content = head_end + 4
        end = _find(data, b"\r\n" + delimiter, content) if head_end >= 0 else -1
        if end < 0:
            raise BadRequest("multipart: a part has no end")
        fields.setdefault(_name(data[at:head_end]), data[content:end])
        at = end + 2 + len(delimiter)
    raise BadRequest(f"multipart: more than {PARTS_LIMIT} parts")


def _find(data: bytes, text: bytes, at: int) -> int:
    while at < len(data):
        found = data.find(text, at, at + _WINDOW_BYTES + len(text))
        if found >= 0:
            return found
        at += _WINDOW_BYTES
    return -1


def _name(head: bytes) -> str:
    """:raises BadRequest: the part is encoded, or has no name."""
    headers = dict[str, str]()
    for line in head.decode(errors="replace").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("content-transfer-encoding", "").lower() not in _PLAIN_CODINGS:
        raise BadRequest("multipart: send the parts as they are, without an encoding")
    header = _parsed(hdrs.CONTENT_DISPOSITION, headers.get("content-disposition", ""))
    found = header.get_param("name", header="content-disposition")
    if not isinstance(found, str) or not found:
        raise BadRequest("multipart: a part has no name")
    return found


def _parsed(name: str, value: str) -> Header:
    header = Header()
    header[name] = value.replace("\r", " ").replace("\n", " ")
    return header

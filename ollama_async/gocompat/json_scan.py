"""Reads JSON text as Go's ``encoding/json`` does: what it accepts, and its syntax errors.

This is the slow path, for bodies that msgspec did not accept at once (see ``api.decode``). Where
the two differ, Go's reading holds, because clients were written against it:

- only the first value counts, whatever follows it is ignored;
- each byte that is not UTF-8, and each lone surrogate, becomes U+FFFD;
- syntax errors have Go's text and name the *byte* at fault.

Two deliberate differences from Go: nesting ends at ``core.json_depth.MAX_DEPTH`` (Go: 10000),
because encoders recurse; of equal keys the last one wins entirely (Go merges objects).
"""

from __future__ import annotations

import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # C code, not in the stubs
from typing import Any

from ollama_async.core.errors import BadRequest, TooLarge
from ollama_async.core.json_depth import MAX_DEPTH, WINDOW_BYTES
from ollama_async.gocompat.strconv import quote

STRING_LIMIT_BYTES = 9 << 20
"""Of one string. One character that needs four bytes in memory makes all of them need four."""

_SPACE = re.compile(rb"[ \t\n\r]*+")
_TEXT = re.compile(rb'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?([eE][+-]?[0-9]++)?")
_INTEGERS = re.compile(rb"(?:-?(?:0|[1-9][0-9]{0,17})[ \t\n\r]*+,[ \t\n\r]*+){1,8192}+")
_HEX = re.compile(rb"[0-9a-fA-F]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTINUED = re.compile(rb"(?:[\x80-\xbf]{1,3}|\\u[dD][c-fC-F][0-9a-fA-F]{2})?")
_ESCAPE_BYTES = 6
_WORDS = {b"t": (b"true", True), b"f": (b"false", False), b"n": (b"null", None)}


def scan(body: bytes) -> Any:
    """The first JSON value of ``body`` as plain Python objects; integers beyond 64 bits as floats.

    :raises BadRequest: with Go's text; ``missing request body`` if there are only blanks.
    :raises TooLarge: a string is over the limit.
    """
    start = _skip_space(body, 0)
    if start == len(body):
        raise BadRequest("missing request body")
    return _value(body, start)


def _value(body: bytes, at: int) -> Any:  # noqa: C901, PLR0912  # one state machine
    """The value that begins at ``at``. Containers under construction are on a stack of our own."""
    open_: list[Any] = []
    keys: list[str] = []
    while True:
        first = body[at : at + 1]
        value: Any
        if first in {b"{", b"["}:
            if len(open_) == MAX_DEPTH:
                raise _invalid(body, at, "exceeded max depth")
            value = {} if first == b"{" else []
            at = _skip_space(body, at + 1)
            if body[at : at + 1] != (b"}" if first == b"{" else b"]"):
                open_.append(value)
                if first == b"{":
                    key, at = _key(body, at)
                    keys.append(key)
                continue
            at += 1
        elif open_ and type(open_[-1]) is list and (run := _INTEGERS.match(body, at)):
            # a context is an array of many thousand integers: take them at once
            open_[-1].extend(map(int, run.group().split(b",")[:-1]))
            at = run.end()
            continue
        else:
            value, at = _scalar(body, at, first)
        while True:  # the value is complete: put it in its container, and close what closes after
            if not open_:
                return value
            at = _skip_space(body, at)
            after = body[at : at + 1]
            at += 1
            parent = open_[-1]
            if type(parent) is list:
                parent.append(value)
                if after == b",":
                    at = _skip_space(body, at)
                    break
                if after != b"]":
                    raise _invalid(body, at - 1, "after array element")
            else:
                key = keys.pop()
                parent.pop(key, None)
                parent[key] = value
                if after == b",":
                    key, at = _key(body, _skip_space(body, at))
                    keys.append(key)
                    break
                if after != b"}":
                    raise _invalid(body, at - 1, "after object key:value pair")
            value = open_.pop()


def _skip_space(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    assert match
    return match.end()


def _key(body: bytes, at: int) -> tuple[str, int]:
    """The key at ``at``, and where its value begins."""
    if body[at : at + 1] != b'"':
        raise _invalid(body, at, "looking for beginning of object key string")
    key, at = _string(body, at)
    at = _skip_space(body, at)
    if body[at : at + 1] != b":":
        raise _invalid(body, at, "after object key")
    return key, _skip_space(body, at + 1)


def _scalar(body: bytes, at: int, first: bytes) -> tuple[Any, int]:
    if first == b'"':
        return _string(body, at)
    if first and first in b"-0123456789":
        return _number(body, at)
    if first not in _WORDS:
        raise _invalid(body, at, "looking for beginning of value")
    word, value = _WORDS[first]
    for offset, expected in enumerate(word, at):
        if body[offset : offset + 1] != bytes([expected]):
            context = f"in literal {word.decode()} (expecting {chr(expected)!r})"
            raise _invalid(body, offset, context)
    return value, at + len(word)


def _string(body: bytes, at: int) -> tuple[str, int]:
    """The string that begins at ``at``, and where it ends.

    :raises TooLarge: it is longer than one call should work on.
    """
    end = _string_end(body, at + 1)
    text = _text(body[at + 1 : end])
    if body[end : end + 1] == b'"':
        return text, end + 1
    parts = [text]
    while (next_end := _string_end(body, end)) > end:
        if next_end - at > STRING_LIMIT_BYTES:
            raise TooLarge(f"a text is over the limit of {STRING_LIMIT_BYTES} bytes")
        parts.append(_text(body[end:next_end]))
        end = next_end
    if body[end : end + 1] != b'"':
        raise _bad_string(body, end)
    return "".join(parts), end + 1


def _string_end(body: bytes, at: int) -> int:
    """Where what may stand in a string ends, or a window of it: not within a character."""
    match = _TEXT.match(body, at, at + WINDOW_BYTES)
    assert match
    if match.end() <= at + WINDOW_BYTES - _ESCAPE_BYTES:
        return match.end()
    rest = _CONTINUED.match(body, match.end())
    assert rest
    return rest.end()


def _text(raw: bytes) -> str:
    # C makes a surrogate of each byte that is not UTF-8, four times as fast as an error handler
    text = raw.decode("utf-8", "surrogateescape")
    if "\\" in text:
        text = scanstring(text + '"', 0)[0]
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _bad_string(body: bytes, at: int) -> BadRequest:
    if body[at : at + 1] != b"\\":
        return _invalid(body, at, "in string literal")
    if body[at + 1 : at + 2] != b"u":
        return _invalid(body, at + 1, "in string escape code")
    digits = _HEX.match(body, at + 2)
    assert digits
    return _invalid(body, digits.end(), "in \\u hexadecimal character escape")


def _number(body: bytes, at: int) -> tuple[int | float, int]:
    match = _NUMBER.match(body, at)
    if not match:
        raise _invalid(body, at + 1, "in numeric literal")
    end = match.end()
    after = body[end : end + 1]
    if after == b"." and not match[1] and not match[2]:
        raise _invalid(body, end + 1, "after decimal point in numeric literal")
    if after and after in b"eE" and not match[2]:
        sign = body[end + 1 : end + 2] in {b"+", b"-"}
        raise _invalid(body, end + 1 + sign, "in exponent of numeric literal")
    text = match.group().decode()
    if not (match[1] or match[2]) and len(text) <= 20:
        whole = int(text)
        if -(2**63) <= whole < 2**64:
            return whole, end
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise BadRequest(f"json: cannot unmarshal number {shown} into Go value of type float64")
    return number, end


def _invalid(body: bytes, at: int, context: str) -> BadRequest:
    if at >= len(body):
        return BadRequest("unexpected EOF")
    shown = quote(chr(body[at]), "'")  # Go takes the byte for a Latin-1 character
    return BadRequest(f"invalid character {shown} {context}")

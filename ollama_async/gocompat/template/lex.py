"""Splits a template's source into tokens, without comments and trimmed space.

Positions are indices into the source. The last token is ``EOF`` or ``ERROR``; the latter's text is
Go's error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat.strconv import finished, quote

EOF = "EOF"
ERROR = "error"
TEXT = "text"
LEFT = "{{"
RIGHT = "}}"
SPACE = "space"
FIELD = "field"
VARIABLE = "variable"
IDENTIFIER = "identifier"
BOOL = "bool"
NUMBER = "number"
COMPLEX = "complex"
CHARACTER = "character"
STRING = "string"
RAW_STRING = "raw string"
PIPE = "|"
DECLARE = ":="
ASSIGN = "="
OPEN = "("
CLOSE = ")"
OTHER = "char"
DOT = "."
KEYWORDS = frozenset(
    {
        *("block", "break", "continue", "define", "else", "end"),
        *("if", "nil", "range", "template", "with"),
    }
)
"""The kind of such a token is its text."""

_SPACES = " \t\r\n"
_DIGITS = "0123456789"
_SPACE_RUN = re.compile(r"[ \t\r\n]+")
_LEFT_TRIM = re.compile(r"-[ \t\r\n]")
_RIGHT = re.compile(r"\}\}|[ \t\r\n]-\}\}[ \t\r\n]*+")
_WORD = re.compile(r"\w*")
_STRING = re.compile(r'"(?:[^"\\\n]|\\[^\n])*+"')
_CHARACTER = re.compile(r"'(?:[^'\\\n]|\\[^\n])*+'")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?"
)
_ENDS_A_WORD = frozenset(_SPACES + ".,|:)(")


class Token(NamedTuple):
    kind: str
    text: str
    at: int

    def __str__(self) -> str:
        """As errors show it."""
        if self.kind in (EOF, ERROR):
            return self.text
        if self.kind in KEYWORDS or self.kind == DOT:
            return f"<{self.text}>"
        return quote(self.text[:10]) + "..." if len(self.text) > 10 else quote(self.text)


class _LexError(Exception):
    def __init__(self, at: int, why: str) -> None:
        self.token = Token(ERROR, why, at)


def lex(source: str) -> list[Token]:
    """The tokens of ``source``, in time linear in its length."""
    tokens: list[Token] = []
    try:
        at = _text(source, 0, tokens)
        while at < len(source):
            at = _text(source, _action(source, at, tokens), tokens)
    except _LexError as reason:
        tokens.append(reason.token)
    else:
        tokens.append(Token(EOF, "EOF", len(source)))
    return tokens


def _text(source: str, at: int, tokens: list[Token]) -> int:
    """Read up to the inside of the next action, over comments, or to the end."""
    while (brace := source.find(LEFT, at)) >= 0:
        inside = brace + 2
        trims = _LEFT_TRIM.match(source, inside) is not None
        text = source[at:brace].rstrip(_SPACES) if trims else source[at:brace]
        if text:
            tokens.append(Token(TEXT, text, at))
        inside += 2 * trims
        if not source.startswith("/*", inside):
            tokens.append(Token(LEFT, LEFT, brace))
            if inside == len(source):
                raise _LexError(inside, "unclosed action")
            return inside
        at = _after_comment(source, inside)
    if at < len(source):
        tokens.append(Token(TEXT, source[at:], at))
    return len(source)


def _after_comment(source: str, at: int) -> int:
    end = source.find("*/", at + 2)
    if end < 0:
        raise _LexError(at, "unclosed comment")
    right = _RIGHT.match(source, end + 2)
    if right is None:
        raise _LexError(at, "comment ends before closing delimiter")
    return right.end()


def _action(source: str, at: int, tokens: list[Token]) -> int:
    """Read the rest of an action; return where the text after it begins."""
    depth = 0
    while (right := _RIGHT.match(source, at)) is None:
        if at >= len(source):
            raise _LexError(at, "unclosed action")
        token = _token(source, at)
        at += len(token.text)
        if token.kind == OPEN:
            depth += 1
        elif token.kind == CLOSE:
            depth -= 1
            if depth < 0:
                raise _LexError(token.at, "unexpected right paren")
        tokens.append(token)
    if depth:
        raise _LexError(at, "unclosed left paren")
    tokens.append(Token(RIGHT, RIGHT, source.index(RIGHT, at)))
    return right.end()


def _token(source: str, at: int) -> Token:
    first = source[at]
    read = _BY_FIRST.get(first)
    if read is not None:
        return read(source, at)
    if _is_alphanumeric(first):
        return _word(source, at)
    if first.isascii() and first.isprintable():
        return Token(OTHER, first, at)
    raise _LexError(at, f"unrecognized character in action: {_named(first)}")


def _declare(source: str, at: int) -> Token:
    if source[at + 1 : at + 2] != "=":
        raise _LexError(at, "expected :=")
    return Token(DECLARE, DECLARE, at)


def _dot(source: str, at: int) -> Token:
    if source[at + 1 : at + 2] in ("", *_DIGITS):
        return _number(source, at)
    return _name(source, at, FIELD, DOT)


def _space(source: str, at: int) -> Token:
    run = _SPACE_RUN.match(source, at)
    assert run is not None
    end = run.end()
    if source.startswith("-}}", end):  # the last one belongs to the trim marker
        end -= 1
    return Token(SPACE, source[at:end], at)


def _word(source: str, at: int) -> Token:
    end = _word_end(source, at)
    word = source[at:end]
    if word in KEYWORDS:
        return Token(word, word, at)
    return Token(BOOL if word in ("true", "false") else IDENTIFIER, word, at)


def _name(source: str, at: int, kind: str, alone: str) -> Token:
    """A token that begins with a dot or a dollar; ``alone`` is its kind if nothing follows."""
    if _at_terminator(source, at + 1):
        return Token(alone, source[at], at)
    return Token(kind, source[at : _word_end(source, at + 1)], at)


def _word_end(source: str, at: int) -> int:
    match = _WORD.match(source, at)
    assert match is not None
    end = match.end()
    if not match[0].isascii():  # \w has more letters and digits than Go
        end = next((i for i in range(at, end) if not _is_alphanumeric(source[i])), end)
    if not _at_terminator(source, end):
        raise _LexError(at, f"bad character {_named(source[end])}")
    return end


def _at_terminator(source: str, at: int) -> bool:
    return at >= len(source) or source[at] in _ENDS_A_WORD or source.startswith(RIGHT, at)


def _number(source: str, at: int) -> Token:
    end = _number_end(source, at, at)
    if source[end : end + 1] not in ("+", "-"):
        return Token(NUMBER, source[at:end], at)
    end = _number_end(source, at, end)
    if source[end - 1] != "i":
        raise _LexError(at, f"bad number syntax: {quote(source[at:end])}")
    return Token(COMPLEX, source[at:end], at)


def _number_end(source: str, start: int, at: int) -> int:
    match = _NUMBER.match(source, at)
    assert match is not None
    end = match.end()
    if end < len(source) and _is_alphanumeric(source[end]):
        raise _LexError(start, f"bad number syntax: {quote(source[start : end + 1])}")
    return end


def _quoted(source: str, at: int) -> Token:
    mark = source[at]
    if mark == "`":
        end = source.find("`", at + 1) + 1
        if not end:
            raise _LexError(at, "unterminated raw quoted string")
        return Token(RAW_STRING, source[at:end], at)
    match = (_STRING if mark == '"' else _CHARACTER).match(source, at)
    if match is None:
        what = "quoted string" if mark == '"' else "character constant"
        raise _LexError(at, f"unterminated {what}")
    return Token(STRING if mark == '"' else CHARACTER, match[0], at)


def _is_alphanumeric(character: str) -> bool:
    return character == "_" or character.isalpha() or character.isdecimal()


def _named(character: str) -> str:
    """A character with its code, as Go's ``%#U`` shows it."""
    code = f"U+{ord(character):04X}"
    return f"{code} '{character}'" if character.isprintable() else code


_BY_FIRST: dict[str, Callable[[str, int], Token]] = {
    **dict.fromkeys(_SPACES, _space),
    **dict.fromkeys(_DIGITS + "+-", _number),
    **dict.fromkeys(
        (PIPE, ASSIGN, OPEN, CLOSE), lambda source, at: Token(source[at], source[at], at)
    ),
    **dict.fromkeys("\"'`", _quoted),
    ".": _dot,
    "$": lambda source, at: _name(source, at, VARIABLE, VARIABLE),
    ":": _declare,
}


class TokenStream:
    """The tokens that the parser of one template reads, and its errors.

    The parser moves ``position`` back to read a token again. ``action`` is the left delimiter of
    the action that is being parsed.
    """

    def __init__(self, source: str, tokens: list[Token], position: int = 0) -> None:
        self._source = source
        self._tokens = tokens
        self.position = position
        self._furthest = -1  # Go's errors name the line of the last token that was looked at
        self.action: Token | None = None

    def fork(self) -> TokenStream:
        """The same tokens from here on, for a template inside this one."""
        return TokenStream(self._source, self._tokens, self.position)

    def next(self) -> Token:
        token = self.peek()
        self.position += 1
        return token

    def peek(self) -> Token:
        position = min(self.position, len(self._tokens) - 1)  # the last one repeats
        self._furthest = max(self._furthest, position)
        return self._tokens[position]

    def next_non_space(self) -> Token:
        token = self.peek_non_space()
        self.position += 1
        return token

    def peek_non_space(self) -> Token:
        """The token that :meth:`next_non_space` would return; skips a space before it."""
        token = self.peek()
        if token.kind == SPACE:
            self.position += 1
            token = self.peek()
        return token

    def expect(self, kind: str, context: str) -> Token:
        token = self.next_non_space()
        if token.kind != kind:
            raise self.unexpected(token, context)
        return token

    def error(self, why: str) -> TemplateFailed:
        line = 0 if self._furthest < 0 else self._line(self._tokens[self._furthest])
        return TemplateFailed(finished(f"template: :{line}: {why}"))

    def unexpected(self, token: Token, context: str) -> TemplateFailed:
        if token.kind != ERROR:
            return self.error(f"unexpected {token} in {context}")
        return self.error(f"{token}{self._action_start(token)}")

    def _action_start(self, token: Token) -> str:
        """Where the action of a wrong ``token`` began, if on another line."""
        if self.action is None or self._line(self.action) == self._line(token):
            return ""
        started = f"started at :{self._line(self.action)}"
        return f" {started}" if token.text.endswith(" action") else f" in action {started}"

    def _line(self, token: Token) -> int:
        return 1 + self._source.count("\n", 0, token.at)

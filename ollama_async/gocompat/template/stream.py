"""Tokens as a parser takes them, and the errors it makes of them."""

from __future__ import annotations

from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat.bytestrings import finished
from ollama_async.gocompat.template.lex import ERROR, SPACE, Token


class Stream:
    """Shared by the parsers of nested templates through :meth:`fork`.

    ``position`` may be moved back to read again.
    """

    def __init__(self, source: str, tokens: list[Token]) -> None:
        self._source = source
        self._tokens = tokens
        self._last = len(tokens) - 1
        self._shared = _Shared()
        self._furthest = -1  # Go's errors name the line of the last token that was looked at
        self._action: Token | None = None

    @property
    def position(self) -> int:
        return self._shared.position

    @position.setter
    def position(self, position: int) -> None:
        self._shared.position = position

    def fork(self) -> Stream:
        """The same tokens from here on, for a template of its own inside this one."""
        inner = Stream(self._source, self._tokens)
        inner._shared = self._shared
        return inner

    def next(self) -> Token:
        token = self.peek()
        self._shared.position += 1
        return token

    def peek(self) -> Token:
        position = self._shared.position
        if position > self._furthest:
            self._furthest = position = min(position, self._last)  # the last one repeats
        return self._tokens[position]

    def next_word(self) -> Token:
        """The next token that is no space."""
        token = self.peek_word()
        self._shared.position += 1
        return token

    def peek_word(self) -> Token:
        """What :meth:`next_word` would return; the space is gone."""
        token = self.peek()
        if token.kind == SPACE:
            self._shared.position += 1
            token = self.peek()
        return token

    def expect(self, kind: str, context: str) -> Token:
        token = self.next_word()
        if token.kind != kind:
            raise self.unexpected(token, context)
        return token

    def begin_action(self, token: Token) -> None:
        self._action = token

    def end_action(self) -> None:
        self._action = None

    def error(self, why: str) -> TemplateFailed:
        line = 0 if self._furthest < 0 else self._line(self._tokens[self._furthest])
        return TemplateFailed(finished(f"template: :{line}: {why}"))

    def unexpected(self, token: Token, context: str) -> TemplateFailed:
        if token.kind != ERROR:
            return self.error(f"unexpected {token} in {context}")
        return self.error(f"{token}{self._begun(token)}")

    def _begun(self, token: Token) -> str:
        """Where the action began in which ``token`` is wrong, if that is another line."""
        if self._action is None or self._line(self._action) == self._line(token):
            return ""
        started = f"started at :{self._line(self._action)}"
        return f" {started}" if token.text.endswith(" action") else f" in action {started}"

    def _line(self, token: Token) -> int:
        return 1 + self._source.count("\n", 0, token.at)


class _Shared:
    def __init__(self) -> None:
        self.position = 0

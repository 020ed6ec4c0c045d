"""Call syntaxes that resemble code: ``add(a=1, b="x")`` and ``call:add{a:1}``."""

from __future__ import annotations

import re
from collections.abc import Callable

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.parsers.literals import (
    PYTHON_QUOTES,
    Unreadable,
    Values,
    as_it_is,
    unescaped,
)
from ollama_async.prompts.parsers.tool_schemas import ParsedCalls, Tools, call_of

_NAME = re.compile(r"[\w.$-]+")


class PythonCalls:
    """``add(a=1, b="x")``, one per line or in a list. ``strings`` decodes the text between quotes;
    lists and dicts are written as Python prints them.
    """

    def __init__(self, strings: Callable[[str], str] = unescaped) -> None:
        self._escapes = strings is unescaped
        self._quotes = {'"': strings, "'": strings}

    @property
    def syntax(self) -> CallSyntax | None:
        """None without escapes: strings may hold their own quotes, and no grammar knows where they
        end.
        """
        if not self._escapes:
            return None
        form = "{name}( {parameters})"
        return CallSyntax(
            forms=(form,),
            parameter="{key}= {value}",
            between=",",
            quotes=('"', "'"),
            listed=(form,),
            repeated=True,
        )

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        del tools
        values = Values(text.strip(), self._quotes, inner=PYTHON_QUOTES)
        pieces: ParsedCalls = []
        try:
            listed = values.take("[")
            while not self._at_end(values, listed=listed):
                pieces.append(self._call(values))
                values.take(",")
        except Unreadable:
            return None
        return pieces or None

    def member(self, text: str) -> ToolCall | None:
        """The call in one member of a list."""
        values = Values(text.strip(), self._quotes, inner=PYTHON_QUOTES)
        try:
            call = self._call(values)
        except Unreadable:
            return None
        return call if values.at == len(values.text) else None

    def _at_end(self, values: Values, *, listed: bool) -> bool:
        if listed and values.take("]"):
            values.skip_space()
            if values.at < len(values.text):
                raise Unreadable("text after the list")
            return True
        values.skip_space()
        if values.at < len(values.text):
            return False
        if listed:
            raise Unreadable("]")
        return True

    def _call(self, values: Values) -> ToolCall:
        values.skip_space()
        name = values.until("(")
        if not _NAME.fullmatch(name):
            raise Unreadable(name)
        return call_of(name, values.members(")", "="))


# ----------------------------------------------------------------- braces


class BraceCalls:
    """``call:add{a:1,b:<escape>x<escape>}``: keys without quotes, strings between marks. ``quote``
    is the mark; quotes of other languages are understood as well. ``lenient``: what is still open
    at the end of the call counts as closed.
    """

    def __init__(self, quote: str, *, lenient: bool) -> None:
        self._quote = quote
        self._quotes = {quote: as_it_is, '"': unescaped, "'": as_it_is}
        self._lenient = lenient

    @property
    def syntax(self) -> CallSyntax:
        return CallSyntax(
            forms=("call:{name}{ {parameters}}",),
            parameter="{key}: {value}",
            between=",",
            quotes=(self._quote,),
        )

    def __call__(self, text: str, tools: Tools) -> ParsedCalls | None:
        del tools
        before, called, rest = text.partition("call:")
        if not called:
            return None
        values = Values(rest.rstrip(), self._quotes, keyed=True, lenient=self._lenient)
        try:
            name = values.until("{")
            given = values.members("}", ":")
        except Unreadable:
            return None
        if not name or values.text[values.at :].strip():
            return None
        return [*([before] if before.strip() else []), call_of(name, given)]

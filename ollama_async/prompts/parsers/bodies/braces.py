"""Calls written as ``call:add{a:1,b:<escape>x<escape>}``: keys without quotes, strings in marks."""

from __future__ import annotations

from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.python_calls import Unreadable, Values, as_it_is, unescaped
from ollama_async.prompts.parsers.tool_schemas import Tools, call_of


class BraceCalls:
    """``quote`` is the mark around strings. Quotes of other languages are understood as well, and
    ``lenient``: what is not closed at the end of the call counts as closed.
    """

    def __init__(self, quote: str, *, lenient: bool) -> None:
        self.quote = quote
        self._quotes = {quote: as_it_is, '"': unescaped, "'": as_it_is}
        self._lenient = lenient

    def __call__(self, text: str, tools: Tools) -> Pieces | None:
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

"""Calls written as Python: ``add(a=1, b="x")``, one to a line or in a list."""

from __future__ import annotations

import re
from collections.abc import Callable

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.python_calls import PYTHON_QUOTES, Unreadable, Values, unescaped
from ollama_async.prompts.parsers.tool_schemas import Tools, call_of

_NAME = re.compile(r"[\w.$-]+")


class PythonCalls:
    """``strings`` says what becomes of the text between quotes; lists and dicts are written as
    Python prints them.
    """

    def __init__(self, strings: Callable[[str], str] = unescaped) -> None:
        self.escapes = strings is unescaped
        self._quotes = {'"': strings, "'": strings}

    def __call__(self, text: str, tools: Tools) -> Pieces | None:
        del tools
        values = Values(text.strip(), self._quotes, inner=PYTHON_QUOTES)
        pieces: Pieces = []
        try:
            listed = values.take("[")
            while not self._at_end(values, listed=listed):
                pieces.append(self._call(values))
                values.take(",")
        except Unreadable:
            return None
        return pieces or None

    def member(self, text: str) -> ToolCall | None:
        """The call that one member of a list is."""
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

"""Calls written in tags that look like XML, with values of any text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ollama_async.prompts.parsers.bodies import Pieces
from ollama_async.prompts.parsers.tools import Tools, call_of


def _as_written(name: str, tools: Tools) -> str:
    del tools
    return name


class XmlCalls:
    """One element for each call, one for each argument in it; the tags' ends are given as text.

    ``<function=add>…</function>`` is ``("<function=", ">", "</function>")``; between the name's
    end and its ``>`` there may be other attributes. ``lines``: one line break at each end of a
    value is markup. ``resolve`` says which tool a name means; None: it is no call.
    """

    def __init__(
        self,
        call: tuple[str, str, str],
        argument: tuple[str, str, str],
        *,
        lines: bool = True,
        resolve: Callable[[str, Tools], str | None] = _as_written,
    ) -> None:
        self._call = _element(*call)
        self._argument = _element(*argument)
        self._lines = lines
        self._resolve = resolve

    def __call__(self, text: str, tools: Tools) -> Pieces | None:
        pieces: Pieces = []
        for written, inner in _elements(self._call, text) or ():
            name = self._resolve(written, tools)
            given = self._arguments(inner, name, tools) if name else None
            if not name or given is None:
                return None
            pieces.append(call_of(name, given))
        return pieces or None

    def _arguments(self, text: str, tool: str, tools: Tools) -> dict[str, Any] | None:
        found = _elements(self._argument, text)
        if found is None:
            return None
        return {
            name: tools.value(tool, name, one_line_less(value) if self._lines else value)
            for name, value in found
        }


def one_line_less(text: str) -> str:
    """``text`` without the line break that markup puts at each end of it."""
    return text.removeprefix("\n").removesuffix("\n")


def _element(start: str, mid: str, end: str) -> re.Pattern[str]:
    name = f"(?P<name>[^{re.escape(mid[0])}]*+){re.escape(mid[:-1])}[^>]*+>"
    return re.compile(f"\\s*{re.escape(start)}{name}(?P<value>(?s:.*?)){re.escape(end)}")


def _elements(element: re.Pattern[str], text: str) -> list[tuple[str, str]] | None:
    """Names and values, if there is nothing else in ``text``."""
    found = []
    at = 0
    while match := element.match(text, at):
        found.append((match["name"].strip(), match["value"]))
        at = match.end()
    return None if text[at:].strip() else found

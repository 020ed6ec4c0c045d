"""Which tools a model may or must call, for all protocols: as the ``tool_choice`` of a prompt."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from ollama_async.core.errors import BadRequest

_WORDS = ("auto", "none", "required")
_SHOWN_CHARACTERS = 40  # of a value that is refused


def choose_any(tools: Sequence[dict[str, Any]], word: str) -> str:
    """The choice ``auto``, ``none`` or ``required``.

    :raises BadRequest: it is another, or cannot be obeyed.
    """
    if word not in _WORDS:
        shown = word[:_SHOWN_CHARACTERS]
        raise BadRequest(f"tool_choice: {shown!r} is not one of {', '.join(_WORDS)}")
    if word == "required" and not tools:
        raise BadRequest("tool_choice: there are no tools to call")
    return word


def choose_one(tools: Sequence[dict[str, Any]], name: str) -> str:
    """The choice of the tool that has to be called.

    :raises BadRequest: there is no such tool, or its name has another meaning as a choice.
    """
    return _check_name(name, _names(tools))


def choose_some(
    tools: Sequence[dict[str, Any]], names: Sequence[str], word: str
) -> tuple[list[dict[str, Any]], str]:
    """Of the tools those with these names, which are all that the model is told of, and the choice.

    :raises BadRequest: there is no such tool, or the choice cannot be obeyed.
    """
    known = _names(tools)
    allowed = {_check_name(name, known) for name in names}
    chosen = [tool for tool in tools if tool["function"]["name"] in allowed]
    return chosen, choose_any(chosen, word)


def _names(tools: Sequence[dict[str, Any]]) -> set[str]:
    return {tool["function"]["name"] for tool in tools}


def _check_name(name: str, known: Set[str]) -> str:
    if name in _WORDS:
        raise BadRequest(f"tool_choice: a function called {name!r} cannot be named")
    if name not in known:
        shown = name[:_SHOWN_CHARACTERS]
        raise BadRequest(f"tool_choice: there is no tool {shown!r} in tools")
    return name

"""What one chat template cannot take, found out by trying, and how messages are put for it.

Templates differ in what they refuse or drop without a word: system messages, text as a string or
as a list of parts, arguments as an object or as JSON, ids of other lengths than nine, neighbours of
one role. Each question is asked once, when a conversation first raises it: a small conversation is
rendered, and its words are looked for in the text. Where nothing helps, messages stay as they are,
and the template says itself what is wrong.

Messages and tools are plain data, made for one rendering; what is here may change them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property
from itertools import groupby, pairwise, product
from operator import itemgetter
from typing import Any

import msgspec
from jinja2.exceptions import SecurityError

from ollama_async.prompts.plain_data import Plain

Run = Callable[[list[Plain], Any], str]
"""Renders messages and tools."""

_ID_LENGTH = 9
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_FINE = "fine words"
_NAME, _PLACE, _RESULT = "look_up_tide", "Nordstrand", "high tide"


class _CallForm(msgspec.Struct, frozen=True):
    """How tool calls and results are put. The defaults are what most templates take."""

    arguments_as_text: bool = False
    content_is_null: bool = False
    ids_are_short: bool = False
    calls_as_text: bool = False
    results_from_user: bool = False


class _PlainForm(msgspec.Struct, frozen=True):
    """How a request without anything special is put. ``no_tools``: None, as Hugging Face has it,
    or an empty list for templates that look into it. ``parts``: of contents, instead of a string.
    """

    no_tools: list[Plain] | None = None
    parts: bool = False


class Manners:
    """Of one template. ``run`` may fail with any exception; those of the sandbox mean that nothing
    else need be tried.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def prepare(self, messages: list[Plain], tools: list[Plain]) -> tuple[list[Plain], Any]:
        """The messages and the tools as this template takes them."""
        if tools and not self._shows_tools:
            messages, tools = _tools_in_system(messages, tools), []
        if any(message["role"] == "tool" or "tool_calls" in message for message in messages):
            messages = _put_calls(messages, self._call_form)
        messages = self._put_turns(messages)
        return messages, tools or self._plain_form.no_tools

    def _put_turns(self, messages: list[Plain]) -> list[Plain]:
        if any(message["role"] == "system" for message in messages) and not self._takes_system:
            messages = _system_to_user(messages)
        roles = [message["role"] for message in messages]
        has_neighbours = any(one == other != "tool" for one, other in pairwise(roles))
        if has_neighbours and not self._takes_neighbours:
            messages = _merge_neighbours(messages)
        return _as_parts(messages) if self._plain_form.parts else messages

    # What the template is asked

    @cached_property
    def _plain_form(self) -> _PlainForm:
        asked = [_turn("user", _FINE)]
        for form in (_PlainForm(), _PlainForm(no_tools=[]), _PlainForm(None, True)):
            if self._shows(_as_parts(asked) if form.parts else asked, form.no_tools):
                return form
        return _PlainForm()

    @cached_property
    def _takes_system(self) -> bool:
        asked = [_turn("system", _RESULT), _turn("user", _FINE)]
        return self._is_right(asked, _system_to_user(asked), _RESULT)

    @cached_property
    def _takes_neighbours(self) -> bool:
        asked = [_turn("user", _FINE), _turn("user", _RESULT)]
        return self._is_right(asked, _merge_neighbours(asked), _RESULT)

    @cached_property
    def _shows_tools(self) -> bool:
        asked = [_turn("user", _FINE)]
        if self._shows(self._finish(asked), [_example_tool()], _NAME):
            return True
        told = self._put_turns(_tools_in_system(asked, [_example_tool()]))
        return not self._shows(told, self._plain_form.no_tools, _NAME)

    @cached_property
    def _call_form(self) -> _CallForm:
        forms = [
            _CallForm(
                arguments_as_text=as_text,
                content_is_null=is_null,
                ids_are_short=is_short,
                calls_as_text=calls_as_text,
                results_from_user=from_user,
            )
            for from_user, calls_as_text, is_short, is_null, as_text in product(
                (False, True), repeat=5
            )
            if not calls_as_text or not (is_null or as_text)
        ]
        tools = [_example_tool()] if self._shows_tools else self._plain_form.no_tools
        for form in forms:
            asked = self._put_turns(_put_calls(_example_calls(), form))
            if self._shows(asked, tools, _NAME, _PLACE, _RESULT):
                return form
        return _CallForm()

    def _is_right(self, asked: list[Plain], changed: list[Plain], word: str) -> bool:
        """Whether the template shows all as ``asked``, or not even as ``changed``."""
        tools = self._plain_form.no_tools
        if self._shows(self._finish(asked), tools, word):
            return True
        return not self._shows(self._finish(changed), tools, word)

    def _finish(self, messages: list[Plain]) -> list[Plain]:
        return _as_parts(messages) if self._plain_form.parts else messages

    def _shows(self, messages: list[Plain], tools: Any, *words: str) -> bool:
        try:
            text = self._run(deepcopy(messages), deepcopy(tools))  # it may change them
        except SecurityError:
            raise
        except Exception:  # noqa: BLE001  # a template is foreign code
            return False
        return all(word in text for word in words or (_FINE,))


# ----------------------------------------------------------------- other ways to say the same


def _system_to_user(messages: Sequence[Plain]) -> list[Plain]:
    """System texts in front of what the user says next, or as a turn of the user at the end."""
    result: list[Plain] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            result.append(message | {"content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            result.append(message)
    if waiting:
        result.append(_turn("user", "\n\n".join(waiting)))
    return result


def _merge_neighbours(messages: Sequence[Plain]) -> list[Plain]:
    """Turns of one role that follow each other become one; results of tools stay apart."""
    result: list[Plain] = []
    for role, turns in groupby(messages, key=itemgetter("role")):
        neighbours = list(turns)
        result += neighbours if role == "tool" else [_as_one(neighbours)]
    return result


def _as_one(turns: list[Plain]) -> Plain:
    if len(turns) == 1:
        return turns[0]
    joined = {key: value for turn in turns for key, value in turn.items()}
    joined["content"] = "\n\n".join(turn["content"] for turn in turns if turn["content"])
    calls = [call for turn in turns for call in turn.get("tool_calls", ())]
    return joined | ({"tool_calls": calls} if calls else {})


def _as_parts(messages: Sequence[Plain]) -> list[Plain]:
    return [
        message | {"content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message["content"], str)
        else message
        for message in messages
    ]


def _tools_in_system(messages: list[Plain], tools: list[Plain]) -> list[Plain]:
    """For templates that know the words of a call but have no place for the tools."""
    text = (
        "You can call these tools:\n\n"
        + json.dumps(tools, ensure_ascii=False, indent=2)
        + "\n\nTo call one, give its name and its arguments as a JSON object."
    )
    if messages and messages[0]["role"] == "system":
        first = messages[0] | {"content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [_turn("system", text), *messages]


def _put_calls(messages: list[Plain], form: _CallForm) -> list[Plain]:
    result = []
    for message in messages:
        if "tool_calls" in message:
            result.append(_put_call(message, form))
        elif message["role"] == "tool":
            result.append(_put_result(message, form))
        else:
            result.append(message)
    return result


def _put_call(message: Plain, form: _CallForm) -> Plain:
    if form.calls_as_text:
        functions = [call["function"] for call in message["tool_calls"]]
        text = json.dumps(functions, ensure_ascii=False)
        plain = {key: value for key, value in message.items() if key != "tool_calls"}
        return plain | {"content": "\n".join(filter(None, (message["content"], text)))}
    put = message | {"tool_calls": [_put_one(call, form) for call in message["tool_calls"]]}
    if form.content_is_null and not message["content"]:
        put["content"] = None
    return put


def _put_one(call: Plain, form: _CallForm) -> Plain:
    function = call["function"]
    if form.arguments_as_text:
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        function = function | {"arguments": arguments}
    return call | {"function": function, "id": _put_id(call["id"], form)}


def _put_result(message: Plain, form: _CallForm) -> Plain:
    if form.results_from_user:
        known = {key: message[key] for key in ("name", "content") if message.get(key)}
        return _turn("user", json.dumps({"tool_response": known}, ensure_ascii=False))
    if "tool_call_id" in message:
        return message | {"tool_call_id": _put_id(message["tool_call_id"], form)}
    return message


def _put_id(text: str, form: _CallForm) -> str:
    """Nine letters and digits that are the same for the same id."""
    if not form.ids_are_short or (len(text) == _ID_LENGTH and text.isalnum()):
        return text
    number = int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8])
    digits = ""
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_BASE36))
        digits += _BASE36[digit]
    return digits


# ----------------------------------------------------------------- what is tried


def _turn(role: str, text: str) -> Plain:
    return {"role": role, "content": text}


def _example_tool() -> Plain:
    place = {"type": "string", "description": "a place"}
    return {
        "type": "function",
        "function": {
            "name": _NAME,
            "description": "the tide",
            "parameters": {"type": "object", "properties": {"place": place}, "required": ["place"]},
        },
    }


def _example_calls() -> list[Plain]:
    call = {
        "type": "function",
        "id": "call_1a2b3c4d",
        "function": {"name": _NAME, "arguments": {"place": _PLACE}},
    }
    return [
        _turn("user", _FINE),
        _turn("assistant", "") | {"tool_calls": [call]},
        _turn("tool", _RESULT) | {"name": _NAME, "tool_call_id": call["id"]},
    ]

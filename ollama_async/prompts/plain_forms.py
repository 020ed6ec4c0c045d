"""In which form one Jinja template wants the values in messages, found out by trying.

Templates differ in what they take for granted: text as a string or as a list of parts, no tools as
None or as an empty list, arguments as an object or as JSON, ids of nine characters. Each question
is asked once, when a conversation first raises it. Which messages there are, and in what order, is
:mod:`.template_probe`'s.

Messages and tools are plain data, made for one rendering; what is here may change them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property
from itertools import product
from typing import Any

import msgspec
from jinja2.exceptions import SecurityError

from ollama_async.prompts import message_shapes as shapes
from ollama_async.prompts.cut_marks import CutMarks
from ollama_async.prompts.plain_data import Plain, plain_messages
from ollama_async.prompts.shape_questions import EXAMPLE_CALL, example_tool
from ollama_async.prompts.template_probe import said

Run = Callable[[list[Plain], Any], str]
"""Renders messages and tools."""

_ID_LENGTH = 9
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


class _CallForm(msgspec.Struct, frozen=True):
    """How tool calls and results are put. The defaults are what most templates take."""

    arguments_as_text: bool = False
    content_is_null: bool = False
    ids_are_short: bool = False


class _TextForm(msgspec.Struct, frozen=True):
    """How a request without anything special is put. ``no_tools``: None, as Hugging Face has it,
    or an empty list for templates that look into it. ``parts``: of contents, instead of a string.
    """

    no_tools: list[Plain] | None = None
    parts: bool = False


_CALL_FORMS = tuple(
    _CallForm(arguments_as_text=as_text, content_is_null=is_null, ids_are_short=is_short)
    for is_short, is_null, as_text in product((False, True), repeat=3)
)


class PlainForms:
    """Of one template. ``run`` may fail with any exception; those of the sandbox mean that nothing
    else need be tried.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._marks = CutMarks(self._shows_put)

    def put(self, messages: list[Plain], tools: list[Plain]) -> tuple[list[Plain], Any]:
        """The messages and the tools as this template takes them."""
        return self._put_forms(self._marks.put(messages)), tools or self._text_form.no_tools

    def _put_forms(self, messages: list[Plain]) -> list[Plain]:
        if any(message["role"] == "tool" or "tool_calls" in message for message in messages):
            messages = _put_calls(messages, self._call_form)
        return self._put_texts(messages)

    def _shows_put(self, messages: list[Plain], words: Sequence[str]) -> bool:
        return self._shows(self._put_forms(messages), self._text_form.no_tools, words)

    @cached_property
    def shows_tools(self) -> bool:
        """Whether tools reach the prompt in the place that templates have for them."""
        asked = self._put_texts(plain_messages(EXAMPLE_CALL[:1]))
        name = example_tool()["function"]["name"]
        return self._shows(asked, [example_tool()], [name])

    def _put_texts(self, messages: list[Plain]) -> list[Plain]:
        return _as_parts(messages) if self._text_form.parts else messages

    @cached_property
    def _text_form(self) -> _TextForm:
        ask = EXAMPLE_CALL[:1]
        for form in (_TextForm(), _TextForm(no_tools=[]), _TextForm(None, True)):
            asked = plain_messages(ask)
            if self._shows(_as_parts(asked) if form.parts else asked, form.no_tools, said(ask)):
                return form
        return _TextForm()

    @cached_property
    def _call_form(self) -> _CallForm:
        """The first with which calls and results are shown; or one of them, the other as text.
        Which of them are told as text is not decided here but by :class:`.TemplateProbe`.
        """
        tools = [example_tool()] if self.shows_tools else self._text_form.no_tools
        for reshape in (shapes.as_they_are, shapes.calls_as_text, shapes.results_from_user):
            example = reshape(list(EXAMPLE_CALL))
            for form in _CALL_FORMS:
                asked = self._put_texts(_put_calls(plain_messages(example), form))
                if self._shows(asked, tools, said(EXAMPLE_CALL)):
                    return form
        return _CallForm()

    def _shows(self, messages: list[Plain], tools: Any, words: Sequence[str]) -> bool:
        try:
            text = self._run(messages, deepcopy(tools))  # it may change them
        except (SecurityError, MemoryError):  # the latter says nothing about the template
            raise
        except Exception:  # noqa: BLE001  # a template is foreign code
            return False
        return all(word in text for word in words)


def _as_parts(messages: Sequence[Plain]) -> list[Plain]:
    return [
        message | {"content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message["content"], str)
        else message
        for message in messages
    ]


def _put_calls(messages: list[Plain], form: _CallForm) -> list[Plain]:
    result = []
    for message in messages:
        if "tool_calls" in message:
            result.append(_put_call(message, form))
        elif "tool_call_id" in message:
            result.append(message | {"tool_call_id": _put_id(message["tool_call_id"], form)})
        else:
            result.append(message)
    return result


def _put_call(message: Plain, form: _CallForm) -> Plain:
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

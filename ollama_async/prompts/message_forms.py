"""Converts messages to the dicts that one Jinja template accepts.

Templates expect different forms: text as a string or as a list of parts, no tools as None or as an
empty list, arguments as an object or as JSON, ids of nine characters. :class:`MessageForms` finds
the form by trying, once for each question. :mod:`.template_probe` decides which messages there are.

Templates also remove thoughts that a client sends in front of an answer: everything before a
closing tag such as ``</think>``. An answer that only mentions the tag must stay whole. For many
templates it suffices that the message has thoughts of its own, even empty ones; for the others a
character of no width breaks the tag. :class:`ThinkingTags` tries this for each kind of message. A
thought that begins an answer is the template's to show or to leave out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from enum import Enum, auto
from functools import cached_property
from itertools import count, product
from typing import Any

import msgspec
from jinja2.exceptions import SecurityError

from ollama_async.core.conversation import Message, ToolCall
from ollama_async.prompts import message_shapes as shapes
from ollama_async.prompts.message_shapes import find_calls
from ollama_async.prompts.probe_questions import EXAMPLE_CALL, EXAMPLE_QUESTION, example_tool
from ollama_async.prompts.template_probe import texts_of

Plain = dict[str, Any]


def plain_messages(messages: Sequence[Message]) -> list[Plain]:
    """The messages as dicts. Every call has an id of its own, and every result the id and the name
    of its call, even if the client left them out or used one id twice.
    """
    plain = [_message(message) for message in messages]
    taken: set[str] = set()
    new_ids = (f"call_{number}" for number in count(1))

    def own_id(given: str) -> str:
        """``given``, or a new id if it is empty or taken."""
        while not given or given in taken:
            given = next(new_ids)
        taken.add(given)
        return given

    for message in plain:
        for call in message.get("tool_calls", ()):
            call["id"] = own_id(call["id"])
    calls = find_calls(messages)
    for index, result in enumerate(plain):
        if index in calls:
            caller, number = calls[index]
            sent = messages[caller].tool_calls[number]
            if result.get("tool_call_id", sent.id) == sent.id:  # an id of another call is kept
                result["tool_call_id"] = plain[caller]["tool_calls"][number]["id"]
                result.setdefault("name", sent.function.name)
        elif "tool_call_id" in result:
            result["tool_call_id"] = own_id(result["tool_call_id"])
    return plain


def plain_tools(tools: Sequence[Plain]) -> list[Plain]:
    """The tools as dicts. Functions have parameters with properties, as in Ollama, because some
    templates rely on them. Added keys come last: models are trained with the client's order.
    """
    return [_tool(msgspec.to_builtins(tool)) for tool in tools]


def _message(message: Message) -> Plain:
    plain: Plain = {"role": message.role, "content": message.content}
    if message.thinking:
        plain["reasoning_content"] = plain["thinking"] = message.thinking
    if message.tool_calls:
        plain["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_name:
        plain["name"] = message.tool_name
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _call(call: ToolCall) -> Plain:
    arguments = msgspec.to_builtins(call.function.arguments)
    function = {"name": call.function.name, "arguments": arguments}
    return {"type": "function", "id": call.id, "function": function}


def _tool(tool: Plain) -> Plain:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    parameters = function.get("parameters")
    if not isinstance(parameters, dict):
        parameters = {"type": "object"}
    parameters.setdefault("properties", {})
    return tool | {"function": function | {"parameters": parameters}}


# ----------------------------------------------------------------- thought tags inside answers

Shows = Callable[[list[Plain], Sequence[str]], bool]
"""Whether the template renders messages, and these texts are in the prompt."""

WORD_JOINER = "\u2060"
"""Has no width and no meaning; a tag that contains it is not a tag."""

OPENING_TAGS = {
    "</think>": "<think>",
    "</thinking>": "<thinking>",
    "</thought>": "<thought>",
    "</seed:think>": "<seed:think>",
    "</mm:think>": "<mm:think>",
    "[/THINK]": "[THINK]",
    "<channel|>": "<|channel>",
}
_LONE = (
    *("<|channel>", "[BEGIN FINAL RESPONSE]"),
    *(f"<|channel|>{channel}<|message|>" for channel in ("analysis", "commentary", "final")),
)
_TAG = re.compile("|".join(map(re.escape, (*OPENING_TAGS, *_LONE))))
_OPENED = re.compile("|".join(map(re.escape, OPENING_TAGS.values())))
_CLOSING = {opening: closing for closing, opening in OPENING_TAGS.items()}


class _Form(Enum):
    AS_IT_IS = auto()
    WITH_THOUGHT = auto()
    """The message gets thoughts of its own: those in front of the answer, or empty ones."""
    BROKEN = auto()


class _Kind(msgspec.Struct, frozen=True):
    """A kind of message: it has ``tag`` in its content, after the thought that may begin it."""

    tag: str
    is_opened: bool
    has_inline_thought: bool
    has_thoughts: bool
    has_calls: bool


class ThinkingTags:
    """Keeps answers whole that mention the tags of thoughts, for one template."""

    def __init__(self, shows: Shows) -> None:
        self._shows = shows
        self._forms: dict[_Kind, _Form] = {}

    def apply(self, messages: list[Plain]) -> list[Plain]:
        """``messages`` in the form in which this template shows all texts."""
        return [
            self._apply_to(message)
            if message["role"] == "assistant" and _TAG.search(message["content"])
            else message
            for message in messages
        ]

    def _apply_to(self, message: Plain) -> Plain:
        _, answer = _split(message["content"])
        for tag in dict.fromkeys(_TAG.findall(answer)):
            kind = _kind(message, tag)
            if kind not in self._forms:
                forms = (form for form in _Form if self._shows_all(kind, form))
                self._forms[kind] = next(forms, _Form.AS_IT_IS)
            message = _apply(self._forms[kind], tag, message)
        return message

    def _shows_all(self, kind: _Kind, form: _Form) -> bool:
        return all(
            self._shows(
                [
                    _apply(form, kind.tag, message) if message["role"] == "assistant" else message
                    for message in plain_messages(example)
                ],
                texts,
            )
            for example, texts in _examples(kind)
        )


def _kind(message: Plain, tag: str) -> _Kind:
    thought, answer = _split(message["content"])
    return _Kind(
        tag=tag,
        is_opened=OPENING_TAGS.get(tag, tag) in answer.partition(tag)[0],
        has_inline_thought=bool(thought),
        has_thoughts="reasoning_content" in message,
        has_calls="tool_calls" in message,
    )


def _split(content: str) -> tuple[str, str]:
    """The thought that ``content`` begins with, including its tags, and the rest."""
    start = len(content) - len(content.lstrip())
    opened = _OPENED.match(content, start)
    if opened is None:
        return "", content
    thought, closing, answer = content.partition(_CLOSING[opened[0]])
    return (thought + closing, answer) if closing else ("", content)


def _apply(form: _Form, tag: str, message: Plain) -> Plain:
    thought, answer = _split(message["content"])
    if form is _Form.WITH_THOUGHT:
        opened = _OPENED.match(thought.lstrip())
        inner = thought.strip()[len(opened[0]) : -len(_CLOSING[opened[0]])] if opened else ""
        thoughts = {"reasoning_content": inner.strip(), "thinking": inner.strip()}
        return message | (thoughts | message) | {"content": answer}
    if form is _Form.BROKEN:
        broken = tag[0] + WORD_JOINER + tag[1:]
        return message | {"content": thought + answer.replace(tag, broken)}
    return message


_CALL, _RESULT = EXAMPLE_CALL[1:]
_WHY, _ANSWER = Message("user", "more words"), Message("assistant", "calm water")


def _examples(kind: _Kind) -> list[tuple[list[Message], list[str]]]:
    """Conversations with messages of ``kind``, and the texts of these messages."""
    (one, texts), (other, more) = _example(kind, "rising falling"), _example(kind, "ebbing flowing")
    if kind.has_calls:
        asked = [EXAMPLE_QUESTION, one, _RESULT]
        return [(asked, texts), ([*asked, _ANSWER, _WHY], texts)]
    return [([EXAMPLE_QUESTION, one, _WHY, other, _WHY], texts + more)]


def _example(kind: _Kind, text: str) -> tuple[Message, list[str]]:
    first, last = text.split()
    opening = OPENING_TAGS.get(kind.tag, kind.tag)
    thought = f"{opening}moonshine{kind.tag}" if kind.has_inline_thought else ""
    middle = f"{opening} steady {kind.tag}" if kind.is_opened else kind.tag
    message = Message(
        "assistant",
        f"{thought}{first} {middle} {last} {kind.tag} slack",
        thinking="moonshine" if kind.has_thoughts else "",
        tool_calls=_CALL.tool_calls if kind.has_calls else [],
    )
    return message, [first, last]


# ----------------------------------------------------------------- the form that one template takes

Run = Callable[[list[Plain], Any], str]
"""Renders messages and tools."""

_ID_LENGTH = 9
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


class _CallForm(msgspec.Struct, frozen=True):
    """The form of tool calls and results. The defaults are what most templates accept."""

    arguments_as_text: bool = False
    content_is_null: bool = False
    ids_are_short: bool = False


class _TextForm(msgspec.Struct, frozen=True):
    """The form of plain messages. ``no_tools``: None, as in Hugging Face's library, or an empty
    list for templates that look into it. ``parts``: contents are lists of parts instead of strings.
    """

    no_tools: list[Plain] | None = None
    parts: bool = False


_CALL_FORMS = tuple(
    _CallForm(arguments_as_text=as_text, content_is_null=is_null, ids_are_short=is_short)
    for is_short, is_null, as_text in product((False, True), repeat=3)
)


class MessageForms:
    """Finds and applies the form that one template accepts.

    ``run`` may fail with any exception; those of the sandbox mean that nothing else need be tried.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._thinking_tags = ThinkingTags(
            lambda messages, texts: self._shows(
                self._apply_forms(messages), self._text_form.no_tools, texts
            )
        )

    def apply(self, messages: list[Plain], tools: list[Plain]) -> tuple[list[Plain], Any]:
        """The messages and the tools in the form that this template accepts."""
        return self._apply_forms(
            self._thinking_tags.apply(messages)
        ), tools or self._text_form.no_tools

    def _apply_forms(self, messages: list[Plain]) -> list[Plain]:
        if any(message["role"] == "tool" or "tool_calls" in message for message in messages):
            messages = _apply_call_form(messages, self._call_form)
        return self._apply_text_form(messages)

    @cached_property
    def shows_tools(self) -> bool:
        """Whether tools that are passed as such reach the prompt."""
        asked = self._apply_text_form(plain_messages(EXAMPLE_CALL[:1]))
        name = example_tool()["function"]["name"]
        return self._shows(asked, [example_tool()], [name])

    def _apply_text_form(self, messages: list[Plain]) -> list[Plain]:
        return _as_parts(messages) if self._text_form.parts else messages

    @cached_property
    def _text_form(self) -> _TextForm:
        ask = EXAMPLE_CALL[:1]
        for form in (_TextForm(), _TextForm(no_tools=[]), _TextForm(None, True)):
            asked = plain_messages(ask)
            if self._shows(_as_parts(asked) if form.parts else asked, form.no_tools, texts_of(ask)):
                return form
        return _TextForm()

    @cached_property
    def _call_form(self) -> _CallForm:
        """The first form in which calls and results are shown, or one of them and the other as
        text. Which of them are rendered as text is decided by :class:`.TemplateProbe`.
        """
        tools = [example_tool()] if self.shows_tools else self._text_form.no_tools
        for reshape in (shapes.as_they_are, shapes.calls_as_text, shapes.results_from_user):
            example = reshape(list(EXAMPLE_CALL))
            for form in _CALL_FORMS:
                asked = self._apply_text_form(_apply_call_form(plain_messages(example), form))
                if self._shows(asked, tools, texts_of(EXAMPLE_CALL)):
                    return form
        return _CallForm()

    def _shows(self, messages: list[Plain], tools: Any, texts: Sequence[str]) -> bool:
        try:
            text = self._run(messages, deepcopy(tools))  # it may change them
        except (SecurityError, MemoryError):  # the latter is not the template's fault
            raise
        except Exception:  # noqa: BLE001  # a template is foreign code
            return False
        return all(part in text for part in texts)


def _as_parts(messages: Sequence[Plain]) -> list[Plain]:
    return [
        message | {"content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message["content"], str)
        else message
        for message in messages
    ]


def _apply_call_form(messages: list[Plain], form: _CallForm) -> list[Plain]:
    result = []
    for message in messages:
        if "tool_calls" in message:
            calls = [_call_in_form(call, form) for call in message["tool_calls"]]
            content = None if form.content_is_null else message["content"]
            result.append(message | {"tool_calls": calls, "content": message["content"] or content})
        elif "tool_call_id" in message:
            result.append(message | {"tool_call_id": _id_in_form(message["tool_call_id"], form)})
        else:
            result.append(message)
    return result


def _call_in_form(call: Plain, form: _CallForm) -> Plain:
    function = call["function"]
    if form.arguments_as_text:
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        function = function | {"arguments": arguments}
    return call | {"function": function, "id": _id_in_form(call["id"], form)}


def _id_in_form(text: str, form: _CallForm) -> str:
    """``text`` as nine letters and digits that depend only on it, if the form needs that."""
    if not form.ids_are_short or (len(text) == _ID_LENGTH and text.isalnum()):
        return text
    number = int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest()[:8])
    digits = ""
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_BASE36))
        digits += _BASE36[digit]
    return digits

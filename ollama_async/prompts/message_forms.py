"""Turns messages into the dicts that one Jinja template accepts.

Templates differ in what they take for granted: text as a string or as a list of parts, no tools as
None or as an empty list, arguments as an object or as JSON, ids of nine characters.
:class:`MessageForms` finds the form by trying. Each question is asked once, when a conversation
first raises it. Which messages there are, and in what order, is decided by :mod:`.template_probe`.

Templates also remove the thoughts that a client sends in front of an answer: everything before a
closing mark such as ``</think>``. An answer that only mentions the mark must stay whole. Many
templates leave it alone if the message has thoughts of its own, even empty ones; for the others the
mark is broken with a character of no width. :class:`ThoughtMarks` asks once for each kind of
message which of these a template needs. A thought that begins an answer, from its opening to its
closing mark, is the template's to show or to leave out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from enum import Enum, auto
from functools import cached_property
from itertools import product
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
    ids = _Ids()
    for message in plain:
        for call in message.get("tool_calls", ()):
            call["id"] = ids.own(call["id"])
    calls = find_calls(messages)
    for index, result in enumerate(plain):
        if index in calls:
            caller, number = calls[index]
            sent = messages[caller].tool_calls[number]
            _complete_result(result, sent, plain[caller]["tool_calls"][number])
        elif "tool_call_id" in result:
            result["tool_call_id"] = ids.own(result["tool_call_id"])
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
    return {
        "type": "function",
        "id": call.id,
        "function": {"name": call.function.name, "arguments": arguments},
    }


class _Ids:
    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._made = 0

    def own(self, wanted: str) -> str:
        """``wanted``, or a new id if it is empty or taken."""
        while not wanted or wanted in self._taken:
            self._made += 1
            wanted = f"call_{self._made}"
        self._taken.add(wanted)
        return wanted


def _complete_result(result: Plain, sent: ToolCall, call: Plain) -> None:
    """``sent`` is the call as the client sent it. An id of another call is kept."""
    if result.get("tool_call_id", sent.id) == sent.id:
        result["tool_call_id"] = call["id"]
        result.setdefault("name", sent.function.name)


def _tool(tool: Plain) -> Plain:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    parameters = function.get("parameters")
    if not isinstance(parameters, dict):
        parameters = {"type": "object"}
    parameters.setdefault("properties", {})
    return tool | {"function": function | {"parameters": parameters}}


# ----------------------------------------------------------------- thought marks inside answers

Shows = Callable[[list[Plain], Sequence[str]], bool]
"""Whether the template renders messages, and these words are in the prompt."""

WORD_JOINER = "\u2060"
"""Has no width and no meaning; a mark that contains it is not a mark."""

OPENING_MARKS = {
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
_MARK = re.compile("|".join(map(re.escape, (*OPENING_MARKS, *_LONE))))
_OPENED = re.compile("|".join(map(re.escape, OPENING_MARKS.values())))
_CLOSING = {opening: closing for closing, opening in OPENING_MARKS.items()}


class _Form(Enum):
    AS_IT_IS = auto()
    WITH_THOUGHT = auto()
    """The message gets thoughts of its own: those in front of the answer, or empty ones."""
    BROKEN = auto()


class _Kind(msgspec.Struct, frozen=True):
    """A kind of message: it has ``mark`` in its content, after the thought that may begin it."""

    mark: str
    is_opened: bool
    has_inline_thought: bool
    has_thoughts: bool
    has_calls: bool


class ThoughtMarks:
    """Keeps answers whole that mention the marks of thoughts, for one template."""

    def __init__(self, shows: Shows) -> None:
        self._shows = shows
        self._forms: dict[_Kind, _Form] = {}

    def apply(self, messages: list[Plain]) -> list[Plain]:
        """``messages`` in the form in which this template shows all words."""
        return [
            self._put_one(message)
            if message["role"] == "assistant" and _MARK.search(message["content"])
            else message
            for message in messages
        ]

    def _put_one(self, message: Plain) -> Plain:
        _, answer = _split(message["content"])
        for mark in dict.fromkeys(_MARK.findall(answer)):
            message = _apply(self._form(_kind(message, mark)), mark, message)
        return message

    def _form(self, kind: _Kind) -> _Form:
        if kind not in self._forms:
            self._forms[kind] = self._find_form(kind)
        return self._forms[kind]

    def _find_form(self, kind: _Kind) -> _Form:
        """The first form in which everything is shown."""
        return next((form for form in _Form if self._shows_all(kind, form)), _Form.AS_IT_IS)

    def _shows_all(self, kind: _Kind, form: _Form) -> bool:
        return all(
            self._shows(
                [
                    _apply(form, kind.mark, message) if message["role"] == "assistant" else message
                    for message in plain_messages(example)
                ],
                words,
            )
            for example, words in _examples(kind)
        )


def _kind(message: Plain, mark: str) -> _Kind:
    thought, answer = _split(message["content"])
    return _Kind(
        mark=mark,
        is_opened=OPENING_MARKS.get(mark, mark) in answer.partition(mark)[0],
        has_inline_thought=bool(thought),
        has_thoughts="reasoning_content" in message,
        has_calls="tool_calls" in message,
    )


def _split(content: str) -> tuple[str, str]:
    """The thought that ``content`` begins with, including its marks, and the rest."""
    start = len(content) - len(content.lstrip())
    opened = _OPENED.match(content, start)
    if opened is None:
        return "", content
    thought, closing, answer = content.partition(_CLOSING[opened[0]])
    return (thought + closing, answer) if closing else ("", content)


def _broken(mark: str) -> str:
    return mark[0] + WORD_JOINER + mark[1:]


def _apply(form: _Form, mark: str, message: Plain) -> Plain:
    thought, answer = _split(message["content"])
    if form is _Form.WITH_THOUGHT:
        return _with_thought(message, thought, answer)
    if form is _Form.BROKEN:
        return message | {"content": thought + answer.replace(mark, _broken(mark))}
    return message


def _with_thought(message: Plain, thought: str, answer: str) -> Plain:
    opened = _OPENED.match(thought.lstrip())
    inner = thought.strip()[len(opened[0]) : -len(_CLOSING[opened[0]])].strip() if opened else ""
    own = {"reasoning_content": inner, "thinking": inner}
    return (
        message | own | {key: message[key] for key in own if key in message} | {"content": answer}
    )


_CALL, _RESULT = EXAMPLE_CALL[1:]
_WHY, _ANSWER = Message("user", "more words"), Message("assistant", "calm water")


def _examples(kind: _Kind) -> list[tuple[list[Message], list[str]]]:
    """Conversations with messages of ``kind``, and the words of these messages."""
    (one, words), (other, more) = _example(kind, "rising falling"), _example(kind, "ebbing flowing")
    if kind.has_calls:
        asked = [EXAMPLE_QUESTION, one, _RESULT]
        return [(asked, words), ([*asked, _ANSWER, _WHY], words)]
    return [([EXAMPLE_QUESTION, one, _WHY, other, _WHY], words + more)]


def _example(kind: _Kind, text: str) -> tuple[Message, list[str]]:
    first, last = text.split()
    opening = OPENING_MARKS.get(kind.mark, kind.mark)
    thought = f"{opening}moonshine{kind.mark}" if kind.has_inline_thought else ""
    middle = f"{opening} steady {kind.mark}" if kind.is_opened else kind.mark
    message = Message(
        "assistant",
        f"{thought}{first} {middle} {last} {kind.mark} slack",
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
        self._marks = ThoughtMarks(self._shows_applied)

    def apply(self, messages: list[Plain], tools: list[Plain]) -> tuple[list[Plain], Any]:
        """The messages and the tools in the form that this template accepts."""
        return self._apply_forms(self._marks.apply(messages)), tools or self._text_form.no_tools

    def _apply_forms(self, messages: list[Plain]) -> list[Plain]:
        if any(message["role"] == "tool" or "tool_calls" in message for message in messages):
            messages = _apply_call_form(messages, self._call_form)
        return self._apply_text_form(messages)

    def _shows_applied(self, messages: list[Plain], words: Sequence[str]) -> bool:
        return self._shows(self._apply_forms(messages), self._text_form.no_tools, words)

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

    def _shows(self, messages: list[Plain], tools: Any, words: Sequence[str]) -> bool:
        try:
            text = self._run(messages, deepcopy(tools))  # it may change them
        except (SecurityError, MemoryError):  # the latter is not the template's fault
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


def _apply_call_form(messages: list[Plain], form: _CallForm) -> list[Plain]:
    result = []
    for message in messages:
        if "tool_calls" in message:
            result.append(_call_in_form(message, form))
        elif "tool_call_id" in message:
            result.append(message | {"tool_call_id": _id_in_form(message["tool_call_id"], form)})
        else:
            result.append(message)
    return result


def _call_in_form(message: Plain, form: _CallForm) -> Plain:
    put = message | {"tool_calls": [_put_one(call, form) for call in message["tool_calls"]]}
    if form.content_is_null and not message["content"]:
        put["content"] = None
    return put


def _put_one(call: Plain, form: _CallForm) -> Plain:
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

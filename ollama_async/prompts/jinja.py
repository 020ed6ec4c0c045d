"""Chat templates as Hugging Face writes them and GGUF files carry them.

A template sees ``messages`` (dicts of ``role``, ``content`` and where they exist ``tool_calls``,
``name``, ``tool_call_id``, ``reasoning_content``), ``tools``, ``bos_token``, ``eos_token``,
``add_generation_prompt`` (true), ``raise_exception`` and ``strftime_now``; if the client said
whether to think, ``enable_thinking``, and ``reasoning_effort`` where it named a level.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn

import msgspec
from jinja2 import Template
from jinja2.exceptions import TemplateError

from ollama_async.conversation import Message, Prompt
from ollama_async.errors import TemplateFailed
from ollama_async.prompts.bounds import allow_text
from ollama_async.prompts.sandbox import Sandbox

SOURCE_LIMIT = 1 << 20
"""Characters that a template may have; the longest in use have some 20,000."""

_DATE_FORMAT_LIMIT = 256


class JinjaRenderer:
    """See :class:`~ollama_async.prompts.port.Renderer`. Compiles at the first use.

    Nothing here takes the clock into account: a hostile template runs until it is interrupted.
    """

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        self._source = source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._template: Template | None = None

    def render(self, prompt: Prompt) -> str:
        """:raises TemplateFailed: as in the contract; also when it asks for too much."""
        try:
            return self._run(_variables(prompt))
        except _Refusal as reason:
            raise TemplateFailed(str(reason)) from None
        except Exception as reason:  # a template is foreign code
            text = str(reason) or type(reason).__name__
            raise TemplateFailed(f"the model's chat template failed: {text}") from reason

    def _run(self, variables: dict[str, Any]) -> str:
        if self._template is None:
            if len(self._source) > SOURCE_LIMIT:
                raise TemplateError(f"it is longer than {SOURCE_LIMIT} characters")
            self._template = Sandbox().from_string(self._source)
        pieces: list[str] = []
        length = 0
        context = self._template.new_context({**variables, **self._tokens, **_FUNCTIONS})
        for piece in self._template.root_render_func(context):
            pieces.append(piece)
            length += len(piece)
            allow_text(length)
        return "".join(pieces)


class _Refusal(Exception):
    """The template says by itself that it cannot render this."""


def _raise_exception(message: Any = "") -> NoReturn:
    raise _Refusal(str(message)[:1000] or "the model's chat template refuses these messages")


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(str(form)[:_DATE_FORMAT_LIMIT])


_FUNCTIONS = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}


def _variables(prompt: Prompt) -> dict[str, Any]:
    variables: dict[str, Any] = {
        "messages": [_as_dict(message) for message in prompt.messages],
        "tools": prompt.tools or None,
        "add_generation_prompt": True,
    }
    if prompt.think is not None:
        variables["enable_thinking"] = variables["thinking"] = bool(prompt.think)
    if isinstance(prompt.think, str):
        variables["reasoning_effort"] = prompt.think
    return variables


def _as_dict(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        plain["reasoning_content"] = plain["thinking"] = message.thinking
    if message.tool_calls:
        plain["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {
                    "name": call.function.name,
                    "arguments": msgspec.to_builtins(call.function.arguments),
                },
            }
            for call in message.tool_calls
        ]
    if message.tool_name:
        plain["name"] = message.tool_name
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    return plain

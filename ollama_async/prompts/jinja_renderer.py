"""Renders chat templates in Jinja, as in Hugging Face repositories and GGUF files.

A template sees ``messages`` (dicts of ``role``, ``content`` and where they exist ``tool_calls``,
``name``, ``tool_call_id``, ``reasoning_content``), ``tools``, ``bos_token``, ``eos_token``,
``add_generation_prompt`` (true, unless the assistant's last message is continued),
``raise_exception`` and ``strftime_now``; if the client set ``think``, ``enable_thinking``, and
``reasoning_effort`` if it named a level. Some families call the tools ``xml_tools`` or, as JSON
text, ``functions``, and the time ``datetime``. :mod:`.message_forms` finds the form in which a
template accepts them, :mod:`.template_probe` the messages that it accepts.
"""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

from jinja2 import Template
from jinja2.exceptions import SecurityError, TemplateError
from msgspec.structs import replace

from ollama_async.core.conversation import ROLES, Message, Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.jinja_sandbox import Sandbox
from ollama_async.prompts.message_forms import MessageForms, Plain, plain_messages, plain_tools
from ollama_async.prompts.message_shapes import Messages
from ollama_async.prompts.probe_questions import EXAMPLE_CALL, example_tool
from ollama_async.prompts.render_limits import join_pieces
from ollama_async.prompts.shaped_rendering import (
    Refused,
    ShapedRendering,
    find_refused_message,
    without_empty_end,
)
from ollama_async.prompts.template_probe import Tools

SOURCE_LIMIT = 1 << 20
"""Characters that a template may have; the longest in use have some 20,000."""

_DATE_FORMAT = "%b %d %Y %H:%M:%S"
_DATE_FORMAT_LIMIT = 256


class JinjaRenderer:
    """A :class:`.Renderer`. Compiles the template at the first use.

    The time is not bounded here: a hostile template runs until it is interrupted.
    """

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        self._source = source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._template: Template | None = None
        self._forms = MessageForms(lambda messages, tools: self._run(_variables(messages, tools)))
        self._shaped = ShapedRendering(self._show)

    def render(self, prompt: Prompt) -> str:
        """:raises TemplateFailed: as in :class:`.Renderer`; also if a limit is exceeded."""
        try:
            self._compile()
            return self._render(prompt)
        except Exception as reason:  # a template is foreign code
            raise TemplateFailed(self._explain(prompt, reason)) from reason

    def _explain(self, prompt: Prompt, reason: Exception) -> str:
        place = ""
        if isinstance(reason, Refused):
            with contextlib.suppress(SecurityError):
                place = find_refused_message(prompt, reason, self._render)
            reason = reason.reason
        if isinstance(reason, _Refusal):
            return place + str(reason)
        text = str(reason) or type(reason).__name__
        return f"{place}the model's chat template failed: {text}"

    def _render(self, prompt: Prompt) -> str:
        messages, tools = without_empty_end(prompt.messages), prompt.tools
        if tools and self._tools_go_to_system:
            messages, tools = _tools_in_system(messages, tools), []
        variables = _thinking_variables(prompt.think)
        return self._shaped.render(
            messages,
            tools,
            lambda shaped, starts_turn: self._show(
                shaped, tools, add_generation_prompt=starts_turn, **variables
            ),
        )

    @cached_property
    def _tools_go_to_system(self) -> bool:
        """Whether tools are written into the system message, because the template ignores them."""
        if self._forms.shows_tools:
            return False
        probe, tool = self._shaped.probe, example_tool()
        arranged = probe.arrange(_tools_in_system(list(EXAMPLE_CALL[:1]), [tool]), [])
        return probe.shows_texts(arranged, [], [tool["function"]["name"]])

    def _show(self, messages: Messages, tools: Tools, **variables: Any) -> str:
        plain, given_tools = self._forms.apply(plain_messages(messages), plain_tools(tools))
        return self._run(_variables(plain, given_tools) | variables)

    def _compile(self) -> Template:
        if self._template is None:
            if len(self._source) > SOURCE_LIMIT:
                raise TemplateError(f"it is longer than {SOURCE_LIMIT} characters")
            self._template = Sandbox().from_string(self._source)
        return self._template

    def _run(self, variables: dict[str, Any]) -> str:
        template = self._compile()
        context = template.new_context({**variables, **self._tokens, **_FUNCTIONS})
        return join_pieces(template.root_render_func(context))


def _tools_in_system(messages: Messages, tools: Tools) -> Messages:
    text = (
        "You can call these tools:\n\n"
        + json.dumps(plain_tools(tools), ensure_ascii=False, indent=2)
        + "\n\nTo call one, give its name and its arguments as a JSON object."
    )
    if messages and ROLES.get(messages[0].role) == "system":
        first = replace(messages[0], content=f"{messages[0].content}\n\n{text}")
        return [first, *messages[1:]]
    return [Message("system", text), *messages]


class _Refusal(Exception):
    """The template itself refuses to render this."""


def _raise_exception(message: Any = "") -> NoReturn:
    raise _Refusal(str(message)[:1000] or "the model's chat template refuses these messages")


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(str(form)[:_DATE_FORMAT_LIMIT])


_FUNCTIONS = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}


def _variables(messages: list[Plain], tools: Any) -> dict[str, Any]:
    variables: dict[str, Any] = {
        "messages": messages,
        "tools": tools,
        "add_generation_prompt": True,
        "datetime": _strftime_now(_DATE_FORMAT),
    }
    if tools:
        functions = [tool.get("function", tool) for tool in tools]
        variables["xml_tools"] = tools
        variables["functions"] = json.dumps(functions, ensure_ascii=False, indent=2)
    return variables


def _thinking_variables(think: bool | str | None) -> dict[str, Any]:
    if think is None:
        return {}
    effort = {"reasoning_effort": think} if isinstance(think, str) else {}
    return {"enable_thinking": bool(think), "thinking": bool(think), **effort}

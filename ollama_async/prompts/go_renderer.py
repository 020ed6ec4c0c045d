"""Renders conversations with a Go template, in the three ways in which Ollama executes one."""

from __future__ import annotations

from ollama_async.core.conversation import Message, Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat.render_budget import RenderBudget, TextBuffer
from ollama_async.gocompat.strconv import finished
from ollama_async.gocompat.template import node as nodes
from ollama_async.gocompat.template.exec import execute
from ollama_async.gocompat.values import OBJECT, Map, Value
from ollama_async.prompts import go_template_data
from ollama_async.prompts.go_template import parse_template, until_response
from ollama_async.prompts.message_shapes import Messages, merge_neighbours, with_known_roles
from ollama_async.prompts.shaped_rendering import Refused, ShapedRendering, find_refused_message
from ollama_async.prompts.template_probe import Tools

_TOO_DEEP = "the messages are nested too deeply for the template"


class GoRenderer:
    """A :class:`.Renderer`. The work of one render is limited: a hostile template costs seconds.

    The first render that needs it also probes the template with a limited number of small
    conversations. Each probe has a budget of its own, as large as a render's. One that is used up
    means that such a conversation cannot be rendered, and nothing for others.

    :raises TemplateFailed: ``source`` is no template, with Go's text.
    """

    def __init__(self, source: str) -> None:
        parsed = parse_template(source)
        self._tree = parsed.tree
        self._shows_messages = "messages" in parsed.variables
        self._shows_tools = "tools" in parsed.variables
        self._is_of_chat = self._shows_messages or "system" in parsed.variables
        self._before_response, _ = until_response(parsed.tree.blocks[""])
        self._shaped = ShapedRendering(
            lambda messages, tools: self._show(messages, tools, _thinking(None), RenderBudget())
        )

    def render(self, prompt: Prompt) -> str:
        """:raises TemplateFailed: as in the contract; also when it asks for too much."""
        budget = RenderBudget()
        try:
            return finished(self._render(prompt, budget))
        except Refused as refused:
            place = find_refused_message(prompt, refused, lambda part: self._render(part, budget))
            is_deep = isinstance(refused.reason, RecursionError)
            raise TemplateFailed(place + (_TOO_DEEP if is_deep else str(refused.reason))) from None
        except RecursionError:
            raise TemplateFailed(_TOO_DEEP) from None

    def _render(self, prompt: Prompt, budget: RenderBudget) -> str:
        thinking = _thinking(prompt.think)
        question = _last_question(prompt.messages)
        if prompt.suffix and question:
            out = TextBuffer(budget)
            self._run({"Prompt": question, "Suffix": prompt.suffix, "Response": ""} | thinking, out)
            return out.text()
        # as in Ollama; merging loses images and calls, and adds a gap for an empty text
        messages = merge_neighbours(with_known_roles(prompt.messages))

        def render(shaped: Messages, _: bool = True) -> str:
            return self._show(shaped, prompt.tools, thinking, budget)

        if self._leaves_out(prompt.tools):
            return render(messages)
        return self._shaped.render(messages, prompt.tools, render)

    def _leaves_out(self, tools: Tools) -> bool:
        """Whether, as in Ollama, what this template does not show is left out: the system text if
        the template only completes text, calls if tools are offered and it has no place for them.
        """
        return not self._is_of_chat or (bool(tools) and not self._shows_tools)

    def _show(
        self, messages: Messages, tools: Tools, thinking: dict[str, Value], budget: RenderBudget
    ) -> str:
        out = TextBuffer(budget)
        if self._shows_messages:
            self._run(_conversation(messages, tools) | thinking, out)
        else:
            self._turns(messages, thinking, out)
        return out.text()

    def _run(
        self, variables: dict[str, Value], out: TextBuffer, *, part: nodes.Block | None = None
    ) -> None:
        """Executes the template, or ``part`` of it, in which missing names are nil as in Ollama."""
        main = self._tree.blocks[""] if part is None else part
        data = Map(OBJECT, variables)
        execute(self._tree, data, out, main=main, missing_is_zero=part is None)

    def _turns(self, messages: list[Message], thinking: dict[str, Value], out: TextBuffer) -> None:
        """Executes the template for each turn; for the last one, up to where its answer goes."""
        *finished_turns, last = _pair(messages)
        for turn in finished_turns:
            self._run(turn | thinking, out)
        self._run(last | thinking, out, part=self._before_response)


def _thinking(think: bool | str | None) -> dict[str, Value]:
    level = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _last_question(messages: list[Message]) -> str:
    return next((turn.content for turn in reversed(messages) if turn.role == "user"), "")


def _conversation(messages: Messages, tools: Tools) -> dict[str, Value]:
    instructions = [turn.content for turn in messages if turn.role == "system"]
    return {
        "System": "\n\n".join(instructions),
        "Messages": go_template_data.messages(messages),
        "Tools": go_template_data.tools(tools),
        "Response": "",
    }


def _pair(messages: list[Message]) -> list[dict[str, Value]]:
    """Turns of a system message, a question and an answer, each of which may be empty."""
    parts = {"system": "System", "user": "Prompt", "assistant": "Response"}
    empty: dict[str, Value] = dict.fromkeys(parts.values(), "")
    turns = [empty.copy()]
    for message in messages:
        turn = turns[-1]
        if (message.role == "system" and (turn["Prompt"] or turn["Response"])) or (
            message.role == "user" and turn["Response"]
        ):
            turn = empty.copy()
            turns.append(turn)
        if message.role in parts:
            turn[parts[message.role]] = message.content
    return turns

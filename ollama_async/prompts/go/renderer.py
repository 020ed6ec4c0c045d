"""Prompts from Go templates, in the three ways in which Ollama runs one."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ollama_async.conversation import Message, Prompt
from ollama_async.errors import TemplateFailed
from ollama_async.prompts.go import data, nodes, types
from ollama_async.prompts.go.budget import Budget, Buffer
from ollama_async.prompts.go.bytestrings import finished
from ollama_async.prompts.go.cut import until_response
from ollama_async.prompts.go.execute import Execution
from ollama_async.prompts.go.template import template
from ollama_async.prompts.go.values import NIL, Map, Value

_BETWEEN = "\n\n"


class GoRenderer:
    """See :class:`~ollama_async.prompts.port.Renderer`. One render's work is limited, so it ends
    by itself: a hostile template costs seconds at most.

    :raises TemplateFailed: ``source`` is no template, in Go's words.
    """

    def __init__(self, source: str) -> None:
        parsed = template(source)
        self._tree = parsed.tree
        self._shows_messages = "messages" in parsed.variables
        self._before_response = until_response(parsed.tree.blocks[""])

    def render(self, prompt: Prompt) -> str:
        """:raises TemplateFailed: as in the contract; also when it asks for too much."""
        try:
            return finished(self._rendered(prompt))
        except RecursionError:
            raise TemplateFailed("the messages are nested too deeply for the template") from None

    def _rendered(self, prompt: Prompt) -> str:
        out = Buffer(Budget())
        thinking = _thinking(prompt.think)
        asked = _last_question(prompt.messages)
        if prompt.suffix and asked:
            self._run({"Prompt": asked, "Suffix": prompt.suffix, "Response": ""} | thinking, out)
        elif self._shows_messages:
            self._run(_conversation(prompt) | thinking, out)
        else:
            self._turns(prompt.messages, thinking, out)
        return out.text()

    def _run(self, variables: dict[str, Value], out: Buffer) -> None:
        variables_map = Map(types.OBJECT, variables)
        Execution(self._tree, self._tree.blocks[""], variables_map, out, absent=NIL).run()

    def _turns(self, messages: list[Message], thinking: dict[str, Value], out: Buffer) -> None:
        """Every question with its answer by itself; the last one up to where its answer goes."""
        *finished_turns, last = _pair(_merged(messages))
        for turn in finished_turns:
            self._run(turn | thinking, out)
        self._run_part(self._before_response, last | thinking, out)

    def _run_part(self, block: nodes.Block, variables: dict[str, Value], out: Buffer) -> None:
        # here, and only here, Ollama lets a template look into what is not there
        Execution(self._tree, block, Map(types.OBJECT, variables), out, absent=None).run()


def _thinking(think: bool | str | None) -> dict[str, Value]:
    level = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _last_question(messages: list[Message]) -> str:
    return next((turn.content for turn in reversed(messages) if turn.role == "user"), "")


def _conversation(prompt: Prompt) -> dict[str, Value]:
    instructions = [turn.content for turn in prompt.messages if turn.role == "system"]
    return {
        "System": _BETWEEN.join(instructions),
        "Messages": data.messages(_merged(prompt.messages)),
        "Tools": data.tools(prompt.tools),
        "Response": "",
    }


def _merged(messages: Iterable[Message]) -> list[Message]:
    """Neighbours of one role as one turn, which keeps the images and calls of the first only;
    results of tools stay apart.
    """
    groups: list[list[Message]] = []
    for message in messages:
        if groups and groups[-1][0].role == message.role != "tool":
            groups[-1].append(message)
        else:
            groups.append([message])
    return [_one(group) for group in groups]


def _one(group: list[Message]) -> Message:
    content = _BETWEEN.join(message.content for message in group)
    return msgspec.structs.replace(group[0], content=content)


def _pair(messages: list[Message]) -> list[dict[str, Value]]:
    """Turns of a system message, a question and an answer, each of which may be empty."""
    turns = [_turn()]
    for message in messages:
        turn = turns[-1]
        if (message.role == "system" and (turn["Prompt"] or turn["Response"])) or (
            message.role == "user" and turn["Response"]
        ):
            turn = _turn()
            turns.append(turn)
        name = _PARTS.get(message.role)
        if name is not None:
            turn[name] = message.content
    return turns


_PARTS = {"system": "System", "user": "Prompt", "assistant": "Response"}


def _turn() -> dict[str, Value]:
    return dict.fromkeys(("System", "Prompt", "Response"), "")

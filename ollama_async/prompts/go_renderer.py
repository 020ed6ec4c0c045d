"""Renders conversations with a Go template, in the three ways in which Ollama executes one, and
summarizes what a template can do without executing it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ollama_async.core.conversation import Message, Prompt
from ollama_async.core.errors import TemplateFailed
from ollama_async.gocompat.render_budget import RenderBudget, TextBuffer
from ollama_async.gocompat.strconv import finished
from ollama_async.gocompat.template import node as nodes
from ollama_async.gocompat.template.exec import execute
from ollama_async.gocompat.template.parse import parse
from ollama_async.gocompat.values import OBJECT, Map, Value
from ollama_async.prompts import go_template_data
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
        """:raises TemplateFailed: as in :class:`.Renderer`; also if a limit is exceeded."""
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
        questions = [message.content for message in prompt.messages if message.role == "user"]
        question = questions[-1] if questions else ""
        if prompt.suffix and question:
            out = TextBuffer(budget)
            self._run({"Prompt": question, "Suffix": prompt.suffix, "Response": ""} | thinking, out)
            return out.text()
        # as in Ollama; merging loses images and calls, and adds a gap for an empty text
        messages = merge_neighbours(with_known_roles(prompt.messages))

        def render(shaped: Messages, _: bool = True) -> str:
            return self._show(shaped, prompt.tools, thinking, budget)

        # as in Ollama, these templates leave out what they do not show: those that only complete
        # text the system text, those without a place for tools the calls if tools are offered
        if not self._is_of_chat or (prompt.tools and not self._shows_tools):
            return render(messages)
        return self._shaped.render(messages, prompt.tools, render)

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


# ----------------------------------------------------------------- templates

NO_TAG = "{"
"""Where no tag is found, a call is whatever looks like JSON."""

_SHOWS_RESULTS = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")


class GoTemplate(msgspec.Struct, frozen=True):
    """``variables`` are the names that it mentions, in lower case."""

    tree: nodes.Tree
    variables: frozenset[str]


class TemplateSummary(msgspec.Struct, frozen=True):
    """What a template can do.

    ``insert``: it can fill in text before a suffix. ``tool_tag`` begins a tool call.
    ``tool_round_trip``: it can show a call and its result again.
    """

    tools: bool = False
    insert: bool = False
    thinking_tags: tuple[str, str] | None = None
    tool_tag: str = ""
    tool_round_trip: bool = False


def parse_template(source: str) -> GoTemplate:
    """:raises TemplateFailed: ``source`` is no template, with Go's text."""
    tree = parse(source)
    variables = frozenset(
        name.lower() for block in tree.blocks.values() for name in _names_in(block)
    )
    if not variables & {"messages", "response"}:
        tree = nodes.Tree(source, {**tree.blocks, "": (*tree.blocks[""], _RESPONSE)})
        variables |= {"response"}
    return GoTemplate(tree, variables)


_RESPONSE = nodes.Action(
    0, nodes.Pipe(0, (), False, (nodes.Command(0, (nodes.Field(0, ("Response",)),)),))
)


def summarize(source: str) -> TemplateSummary:
    """:raises TemplateFailed: ``source`` is no template, with Go's text."""
    parsed = parse_template(source)
    main = parsed.tree.blocks[""]
    variables = parsed.variables
    return TemplateSummary(
        tools="tools" in variables,
        insert="suffix" in variables,
        thinking_tags=_thinking_tags(main),
        tool_tag=_tool_tag(main),
        tool_round_trip={"tools", "toolcalls"} <= variables
        and any(sign in source for sign in _SHOWS_RESULTS),
    )


def _names_in(block: nodes.Block) -> Iterator[str]:
    """All fields and variables; Ollama does not look inside ``(…).A``."""
    for node in block:
        if isinstance(node, nodes.Call) and node.pipe is None:
            raise TemplateFailed("undefined template specified")  # Ollama requires an argument
        pipe = _pipe_of(node)
        for operand in _operands(pipe) if pipe is not None else ():
            if isinstance(operand, nodes.Field | nodes.Variable):
                yield from operand.names
        if isinstance(node, nodes.Branch):
            yield from _names_in(node.body)
            yield from _names_in(node.otherwise or ())


def _pipe_of(node: nodes.Node) -> nodes.Pipe | None:
    return None if isinstance(node, nodes.Text | nodes.Jump) else node.pipe


def _operands(pipe: nodes.Pipe) -> Iterator[nodes.Operand]:
    """What a pipeline reads, also within parentheses."""
    for command in pipe.commands:
        for arg in command.args:
            if isinstance(arg, nodes.Pipe):
                yield from _operands(arg)
            else:
                yield arg


# tags around thoughts and before tool calls, guessed from how old ones are shown


def _thinking_tags(main: nodes.Block) -> tuple[str, str] | None:
    """The texts at both ends of the block around the last ``.Thinking`` of a message.

    None: there is no such block, or it has no text at one end.
    """
    opening = closing = ""
    for block in _around_thinking(main, of_messages=False):
        first, last = block[0], block[-1]
        if isinstance(first, nodes.Text):
            opening = first.text.strip()
        if isinstance(last, nodes.Text):
            closing = last.text.strip()
    return (opening, closing) if opening and closing else None


def _around_thinking(block: nodes.Block, *, of_messages: bool) -> Iterator[nodes.Block]:
    """The block around each mention of a message's thinking. The condition of a branch belongs to
    the block that contains the branch. ``of_messages``: the nearest loop is over messages.
    """
    for node in block:
        pipe = _pipe_of(node)
        if pipe is None:
            continue
        fields = {item.names[0] for item in _operands(pipe) if isinstance(item, nodes.Field)}
        is_range = isinstance(node, nodes.Branch) and node.word == "range"
        inside = "Messages" in fields if is_range else of_messages
        if inside and "Thinking" in fields:
            yield block
        if isinstance(node, nodes.Branch):
            yield from _around_thinking(node.body, of_messages=inside)
            yield from _around_thinking(node.otherwise or (), of_messages=inside)


def _tool_tag(main: nodes.Block) -> str:
    """The first text under the first condition that mentions ``.ToolCalls``, up to any JSON."""
    branch = _tool_branch(main)
    text = _first_text(branch.body) if branch is not None else None
    if not text:
        return NO_TAG
    return text.replace("\r\n", "\n").partition("{")[0].strip() or NO_TAG


def _tool_branch(block: nodes.Block) -> nodes.Branch | None:
    for node in block:
        if not isinstance(node, nodes.Branch):
            continue
        args = [arg for command in node.pipe.commands for arg in command.args]
        names = {name for arg in args if isinstance(arg, nodes.Field) for name in arg.names}
        if node.word == "if" and "ToolCalls" in names:
            return node
        found = _tool_branch(node.body) or _tool_branch(node.otherwise or ())
        if found is not None:
            return found
    return None


def _first_text(block: nodes.Block) -> str | None:
    """The first text that is not blank, unless something else is shown before it."""
    for node in block:
        if isinstance(node, nodes.Text) and node.text.strip():
            return node.text
        if isinstance(node, nodes.Action):
            return None
        if isinstance(node, nodes.Branch):
            return _first_text(node.body) or _first_text(node.otherwise or ())
    return None


# the part of a template that comes before the answer


def until_response(block: nodes.Block) -> tuple[nodes.Block, bool]:
    """``block`` up to its first ``.Response``, where the answer goes, and whether there is one."""
    kept: list[nodes.Node] = []
    found = False
    for node in block:
        if found:
            break
        if isinstance(node, nodes.Action):
            pipe, found = _cut_pipe(node.pipe)
            kept.append(msgspec.structs.replace(node, pipe=pipe))
        elif isinstance(node, nodes.Branch):
            body, found = until_response(node.body)
            otherwise = node.otherwise
            if found:
                otherwise = None if otherwise is None else ()
            elif otherwise is not None:
                otherwise, found = until_response(otherwise)
            kept.append(msgspec.structs.replace(node, body=body, otherwise=otherwise))
        else:
            kept.append(node)
    return tuple(kept), found


def _cut_pipe(pipe: nodes.Pipe) -> tuple[nodes.Pipe, bool]:
    commands: list[nodes.Command] = []
    found = False
    for command in pipe.commands:
        args: list[nodes.Operand] = []
        for arg in command.args:
            if found:
                break
            if isinstance(arg, nodes.Pipe):
                inner, found = _cut_pipe(arg)
                args.append(inner)
            else:
                args.append(arg)
                found = isinstance(arg, nodes.Field) and "Response" in arg.names
        if args:
            commands.append(msgspec.structs.replace(command, args=tuple(args)))
    return msgspec.structs.replace(pipe, commands=tuple(commands)), found

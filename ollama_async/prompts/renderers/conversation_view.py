"""The conversation as renderers see it: turns that know their neighbours and their calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from ollama_async.core.conversation import ROLES, Message, Prompt, ToolFunction
from ollama_async.core.errors import TemplateFailed


@dataclass(frozen=True)
class Tool:
    """A tool as the client declared it. ``declared`` is its JSON, the other fields are parts of it.

    Parts that are missing or of a wrong type are empty.
    """

    declared: dict[str, Any]
    function: dict[str, Any]
    name: str
    description: str
    parameters: dict[str, Any]

    @classmethod
    def read(cls, declared: dict[str, Any]) -> Tool:
        function = table(declared.get("function")) or declared
        return cls(
            declared=declared,
            function=function,
            name=text(function.get("name")),
            description=text(function.get("description")),
            parameters=table(function.get("parameters")),
        )


@dataclass(frozen=True, eq=False)
class Turn:
    """One message and its neighbours.

    ``before`` and ``after`` are the roles of its neighbours, empty at the ends. In a turn of role
    ``tool``, ``tool_name`` and ``call_number`` are those of the call it answers; calls are numbered
    through the whole conversation, from 0, and those of this turn begin at ``call_number``.
    """

    role: str
    content: str = ""
    thinking: str = ""
    calls: tuple[ToolFunction, ...] = ()
    tool_name: str = ""
    call_number: int = 0
    before: str = ""
    after: str = ""
    is_after_query: bool = False
    """No message of the user comes later: the turn belongs to the answer that is being made."""
    is_open: bool = False
    """The turn is the beginning of the answer, which the model is to continue."""


@dataclass(frozen=True, eq=False)
class ConversationView:
    """The conversation to render.

    ``system`` is the text of the system messages at the start, joined by blank lines; None: there
    are none. ``thinks``: the model is to think. ``think`` is the value that the client sent.
    """

    system: str | None
    turns: Sequence[Turn]
    tools: Sequence[Tool] = ()
    thinks: bool = False
    think: bool | str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewOptions:
    """What a renderer requires of the conversation."""

    thinks_unasked: bool = False
    """Whether the model thinks if the client does not set ``think``."""
    gathers_system: bool = False
    """All system messages move to the top."""
    results_name_calls: bool = False
    """A result names its call. Otherwise adjacent results are in the order of their calls."""
    content_after_results: bool = False
    """The content of calls moves after the results if the user's turn is next and the answer would
    end with them.
    """


def read_conversation(prompt: Prompt, options: ViewOptions) -> ConversationView:
    """The conversation of ``prompt``, in turns.

    :raises TemplateFailed: a message has an unknown role.
    """
    roles = [_role(message) for message in prompt.messages]
    top: list[str] = []
    rest: list[tuple[str, Message]] = []
    for role, message in zip(roles, prompt.messages, strict=True):
        if role == "system" and (options.gathers_system or not rest):
            top.append(message.content)
        else:
            rest.append((role, message))
    turns = _turns(rest)
    if not options.results_name_calls:
        turns = _with_sorted_results(turns)
    if options.content_after_results:
        turns = _with_content_after_results(turns)
    return ConversationView(
        system="\n\n".join(top) if top else None,
        turns=_among_neighbours(turns, assistant_is_last=bool(roles) and roles[-1] == "assistant"),
        tools=[Tool.read(tool) for tool in prompt.tools],
        thinks=options.thinks_unasked if prompt.think is None else bool(prompt.think),
        think=prompt.think,
    )


def text(value: Any) -> str:
    """``value`` if it is text, else empty text."""
    return value if isinstance(value, str) else ""


def table(value: Any) -> dict[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _role(message: Message) -> str:
    if message.role in ROLES:
        return ROLES[message.role]
    known = "system, user, assistant and tool"
    raise TemplateFailed(f"the role {message.role[:100]!r} is none of {known}")


def _turns(messages: Sequence[tuple[str, Message]]) -> list[Turn]:
    """A turn for each message, without neighbours yet."""
    calls = _Calls()
    turns = []
    for role, message in messages:
        name, number = calls.find_answered(message) if role == "tool" else ("", calls.made)
        turns.append(
            Turn(
                role=role,
                content=message.content,
                thinking=message.thinking,
                calls=calls.register(message) if role == "assistant" else (),
                tool_name=name,
                call_number=number,
            )
        )
    return turns


def _with_sorted_results(turns: Sequence[Turn]) -> list[Turn]:
    arranged: list[Turn] = []
    for are_results, group in groupby(turns, lambda turn: turn.role == "tool"):
        together = list(group)
        if are_results:
            together.sort(key=lambda turn: turn.call_number)
        arranged += together
    return arranged


def _with_content_after_results(turns: Sequence[Turn]) -> list[Turn]:
    arranged: list[Turn] = []
    moved: dict[int, Turn] = {}  # by the index of the turn before which they come
    for index, turn in enumerate(turns):
        if index in moved:
            arranged.append(moved[index])
        end = index + 1
        while turn.calls and turn.content and end < len(turns) and turns[end].role == "tool":
            end += 1
        if index + 1 < end < len(turns) and turns[end].role == "user":
            moved[end] = Turn("assistant", turn.content, call_number=turn.call_number)
            arranged.append(replace(turn, content=""))
        else:
            arranged.append(turn)
    return arranged


def _among_neighbours(turns: Sequence[Turn], *, assistant_is_last: bool) -> list[Turn]:
    """``assistant_is_last``: the assistant has the last message, not a system message that moved to
    the top.
    """
    roles = ["", *(turn.role for turn in turns), ""]
    last = turns[-1] if assistant_is_last and turns else Turn("")
    has_text = bool(last.content or last.thinking.strip())
    is_begun = last.role == "assistant" and has_text and not last.calls
    query = max((index for index, turn in enumerate(turns) if turn.role == "user"), default=-1)
    return [
        replace(
            turn,
            before=roles[index],
            after=roles[index + 2],
            is_after_query=index > query,
            is_open=is_begun and index == len(turns) - 1,
        )
        for index, turn in enumerate(turns)
    ]


@dataclass
class _Calls:
    """Matches results to calls: by id, else the next call of that name in the last message with
    calls, else the next in order.
    """

    made: int = 0
    _names: list[str] = field(default_factory=list)
    _by_id: dict[str, int] = field(default_factory=dict)
    _by_name: dict[str, deque[int]] = field(default_factory=dict)
    """Calls of the last message with calls, without those that were matched by name."""
    _next: int = 0

    def register(self, message: Message) -> tuple[ToolFunction, ...]:
        """Registers the calls of an assistant's ``message`` and returns them."""
        self._next = self.made
        self._by_name = {}
        for call in message.tool_calls:
            if call.id:
                self._by_id[call.id] = self.made
            self._by_name.setdefault(call.function.name, deque()).append(self.made)
            self._names.append(call.function.name)
            self.made += 1
        return tuple(call.function for call in message.tool_calls)

    def find_answered(self, message: Message) -> tuple[str, int]:
        """The name and the number of the call that ``message`` answers."""
        number = self._by_id.get(message.tool_call_id)
        if number is None:
            named = self._by_name.get(message.tool_name)
            number = named.popleft() if named else self._next
        self._next = number + 1
        called = self._names[number] if number < self.made else ""
        return message.tool_name or called or message.tool_call_id, number

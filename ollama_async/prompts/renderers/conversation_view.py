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
    """A tool as the client declared it: ``declared`` is its JSON, the rest are parts of that.

    What the client left out, or what is of a wrong type, is empty.
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
    """One message and what surrounds it.

    ``before`` and ``after`` are the roles of its neighbours, empty at the ends. A turn of role
    ``tool`` says in ``tool_name`` and ``call_number`` which call it answers; calls are numbered
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
    """Nothing that the user said comes later: it belongs to the answer that is being made."""
    is_open: bool = False
    """It is the beginning of the answer, which the model is to continue."""

    @property
    def is_unfinished_thought(self) -> bool:
        """What the model is to continue is a thought: nothing was said after it yet."""
        return self.is_open and not self.content


@dataclass(frozen=True, eq=False)
class ConversationView:
    """What is to be rendered.

    ``system`` is the text of the system messages at the start, joined by blank lines; None: there
    are none. ``thinks`` is whether the model is to think, ``think`` what the client said about it.
    """

    system: str | None
    turns: Sequence[Turn]
    tools: Sequence[Tool] = ()
    thinks: bool = False
    think: bool | str | None = None


def read_conversation(
    prompt: Prompt,
    *,
    thinks_unasked: bool = False,
    gathers_system: bool = False,
    sorts_results: bool = False,
    words_after_results: bool = False,
) -> ConversationView:
    """``prompt`` in turns.

    With ``gathers_system``, system messages from everywhere go to the top; with ``sorts_results``,
    neighbouring results are in the order of their calls; with ``words_after_results``, words beside
    calls follow the results where the user speaks next and an answer would end with these.

    :raises TemplateFailed: a message has a role that there is not.
    """
    roles = [_role(message) for message in prompt.messages]
    at_top = _count_leading(roles, "system")
    top = [
        message.content
        for index, message in enumerate(prompt.messages)
        if roles[index] == "system" and (gathers_system or index < at_top)
    ]
    rest = [
        (role, message)
        for index, (role, message) in enumerate(zip(roles, prompt.messages, strict=True))
        if index >= at_top and not (gathers_system and role == "system")
    ]
    turns = _turns(rest)
    if sorts_results:
        turns = _with_sorted_results(turns)
    if words_after_results:
        turns = _with_words_after_results(turns)
    return ConversationView(
        system="\n\n".join(top) if top else None,
        turns=_among_neighbours(turns, assistant_is_last=bool(roles) and roles[-1] == "assistant"),
        tools=[Tool.read(tool) for tool in prompt.tools],
        thinks=thinks_unasked if prompt.think is None else bool(prompt.think),
        think=prompt.think,
    )


def text(value: Any) -> str:
    """``value`` if it is text, else nothing."""
    return value if isinstance(value, str) else ""


def table(value: Any) -> dict[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _role(message: Message) -> str:
    try:
        return ROLES[message.role]
    except KeyError:
        known = "system, user, assistant and tool"
        raise TemplateFailed(f"the role {message.role[:100]!r} is none of {known}") from None


def _count_leading(roles: Sequence[str], role: str) -> int:
    return next((index for index, other in enumerate(roles) if other != role), len(roles))


def _turns(messages: Sequence[tuple[str, Message]]) -> list[Turn]:
    """One for each message; they do not know their neighbours yet."""
    calls = _Calls()
    turns = []
    for role, message in messages:
        name, number = calls.answered(message) if role == "tool" else ("", calls.made)
        turns.append(
            Turn(
                role=role,
                content=message.content,
                thinking=message.thinking,
                calls=calls.make(message) if role == "assistant" else (),
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


def _with_words_after_results(turns: Sequence[Turn]) -> list[Turn]:
    arranged: list[Turn] = []
    words: dict[int, Turn] = {}  # by the index of the turn before which they come
    for index, turn in enumerate(turns):
        if index in words:
            arranged.append(words[index])
        end = _end_of_results(turns, index + 1) if turn.calls and turn.content else 0
        if index + 1 < end < len(turns) and turns[end].role == "user":
            words[end] = Turn("assistant", turn.content, call_number=turn.call_number)
            arranged.append(replace(turn, content=""))
        else:
            arranged.append(turn)
    return arranged


def _end_of_results(turns: Sequence[Turn], start: int) -> int:
    """The index of the first turn from ``start`` that is no result."""
    rest = range(start, len(turns))
    return next((index for index in rest if turns[index].role != "tool"), len(turns))


def _among_neighbours(turns: Sequence[Turn], *, assistant_is_last: bool) -> list[Turn]:
    """``assistant_is_last``: no system message that went to the top came after the last turn, which
    is the assistant's.
    """
    roles = ["", *(turn.role for turn in turns), ""]
    query = max((index for index, turn in enumerate(turns) if turn.role == "user"), default=-1)
    return [
        replace(
            turn,
            before=roles[index],
            after=roles[index + 2],
            is_after_query=index > query,
            is_open=assistant_is_last and index == len(turns) - 1 and _begins_an_answer(turn),
        )
        for index, turn in enumerate(turns)
    ]


def _begins_an_answer(turn: Turn) -> bool:
    says_something = bool(turn.content or turn.thinking.strip())
    return turn.role == "assistant" and says_something and not turn.calls


@dataclass
class _Calls:
    """Which call a result belongs to: the one with its id, else the next of that name in the
    message that made the calls, else the next in order.
    """

    made: int = 0
    _names: list[str] = field(default_factory=list)
    _by_id: dict[str, int] = field(default_factory=dict)
    _by_name: dict[str, deque[int]] = field(default_factory=dict)
    """Calls of the last message that made some, without those that were found by their names."""
    _next: int = 0

    def make(self, message: Message) -> tuple[ToolFunction, ...]:
        """The calls in ``message``, an assistant's, of which note is taken."""
        self._next = self.made
        self._by_name = {}
        for call in message.tool_calls:
            if call.id:
                self._by_id[call.id] = self.made
            self._by_name.setdefault(call.function.name, deque()).append(self.made)
            self._names.append(call.function.name)
            self.made += 1
        return tuple(call.function for call in message.tool_calls)

    def answered(self, message: Message) -> tuple[str, int]:
        """Name and number of the call that ``message`` is the result of."""
        number = self._by_id.get(message.tool_call_id)
        if number is None:
            named = self._by_name.get(message.tool_name)
            number = named.popleft() if named else self._next
        self._next = number + 1
        called = self._names[number] if number < self.made else ""
        return message.tool_name or called or message.tool_call_id, number

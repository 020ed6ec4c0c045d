"""A conversation as the families look at it: in turns that know their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ollama_async.conversation import Message, Prompt, ToolFunction
from ollama_async.errors import TemplateFailed

_ROLES = {
    "system": "system",
    "developer": "system",  # what newer clients of OpenAI's call it
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


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


@dataclass(frozen=True, eq=False)
class Talk:
    """What is to be rendered.

    ``system`` is the text of the system messages at the start, joined by blank lines; None: there
    are none. ``thinks`` is whether the model is to think, ``think`` what the client said about it.
    """

    system: str | None
    turns: Sequence[Turn]
    tools: Sequence[Tool] = ()
    thinks: bool = False
    think: bool | str | None = None


def read(prompt: Prompt, *, thinks_unasked: bool, gathers_system: bool) -> Talk:
    """``prompt`` in turns. With ``gathers_system``, system messages from everywhere go to the top.

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
    return Talk(
        system="\n\n".join(top) if top else None,
        turns=_turns(rest),
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
        return _ROLES[message.role]
    except KeyError:
        known = "system, user, assistant and tool"
        raise TemplateFailed(f"the role {message.role[:100]!r} is none of {known}") from None


def _count_leading(roles: Sequence[str], role: str) -> int:
    return next((index for index, other in enumerate(roles) if other != role), len(roles))


def _turns(messages: Sequence[tuple[str, Message]]) -> list[Turn]:
    roles = ["", *(role for role, _ in messages), ""]
    query = max((index for index, role in enumerate(roles[1:-1]) if role == "user"), default=-1)
    calls = _Calls()
    turns = []
    for index, (role, message) in enumerate(messages):
        says_something = bool(message.content or message.thinking)
        name, number = calls.answered(message) if role == "tool" else ("", calls.made)
        made = calls.make(message) if role == "assistant" else ()
        turns.append(
            Turn(
                role=role,
                content=message.content,
                thinking=message.thinking,
                calls=made,
                tool_name=name,
                call_number=number,
                before=roles[index],
                after=roles[index + 2],
                is_after_query=index > query,
                is_open=(role, roles[index + 2]) == ("assistant", "")
                and says_something
                and not made,
            )
        )
    return turns


@dataclass
class _Calls:
    """Which call a result belongs to: the one with its id, else the next in order."""

    made: int = 0
    _names: list[str] = field(default_factory=list)
    _by_id: dict[str, int] = field(default_factory=dict)
    _next: int = 0

    def make(self, message: Message) -> tuple[ToolFunction, ...]:
        """The calls in ``message``, an assistant's, of which note is taken."""
        self._next = self.made
        for call in message.tool_calls:
            if call.id:
                self._by_id[call.id] = self.made
            self._names.append(call.function.name)
            self.made += 1
        return tuple(call.function for call in message.tool_calls)

    def answered(self, message: Message) -> tuple[str, int]:
        """Name and number of the call that ``message`` is the result of."""
        number = self._by_id.get(message.tool_call_id, self._next)
        self._next = number + 1
        called = self._names[number] if number < self.made else ""
        return message.tool_name or called or message.tool_call_id, number

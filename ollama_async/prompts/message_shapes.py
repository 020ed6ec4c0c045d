"""Other shapes of the same conversation, for chat templates that do not accept it as it is.

No function here loses a text: messages are joined, split, moved, or rendered as text in another
turn. Texts stay in their order; only system messages may move to the top, and results of tools to
their calls. Messages are never changed in place.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise, takewhile

from msgspec.structs import replace

from ollama_async.core.conversation import ROLES, Message, ToolCall

Messages = list[Message]
Reshape = Callable[[Messages], Messages]
Place = tuple[int, int]
"""The place of a call: the index of its message, and its number in that message."""

KNOWN_ROLES = frozenset(ROLES.values())
_BETWEEN = "\n\n"
MINIMAL = "..."
"""The text of a turn that exists only because a template requires one that is not empty."""


def as_they_are(messages: Messages) -> Messages:
    return messages


def with_known_roles(messages: Sequence[Message]) -> Messages:
    """Roles get the names that all templates know, whatever other protocols call them."""
    return [
        replace(message, role=ROLES[message.role]) if message.role in ROLES else message
        for message in messages
    ]


def as_users(messages: Messages, roles: Collection[str]) -> Messages:
    """Messages of ``roles`` become the user's."""
    return [
        replace(message, role="user") if message.role in roles else message for message in messages
    ]


# ----------------------------------------------------------------- system messages


def count_leading_systems(messages: Sequence[Message]) -> int:
    return sum(1 for _ in takewhile(lambda message: message.role == "system", messages))


def join_leading_systems(messages: Messages) -> Messages:
    count = count_leading_systems(messages)
    return _system(messages[:count]) + messages[count:]


def hoist_systems(messages: Messages) -> Messages:
    """All system messages become one at the top. One that comes last after an answer requests the
    next answer, so it becomes the user's.
    """
    if ends_with_system_after("assistant", messages):
        messages = last_systems_to_user(messages)
    systems = [message for message in messages if message.role == "system"]
    return _system(systems) + [message for message in messages if message.role != "system"]


def systems_to_user(messages: Messages) -> Messages:
    """System texts move in front of the user's next message; if the next message is another
    role's, they become a turn of the user.
    """
    result: Messages = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
        elif message.role == "user" and waiting:
            result.append(replace(message, content=_BETWEEN.join([*waiting, message.content])))
            waiting = []
        else:
            result += [*_user_turn(waiting), message]
            waiting = []
    return result + _user_turn(waiting)


def last_systems_to_user(messages: Messages) -> Messages:
    """System messages at the end become a turn of the user."""
    end = _find_last_systems(messages)
    return messages[:end] + systems_to_user(messages[end:])


def ends_with_system_after(role: str, messages: Messages, *, calls: bool = False) -> bool:
    """Whether system messages come last, after a message of ``role`` with or without calls."""
    end = _find_last_systems(messages)
    return (
        0 < end < len(messages)
        and messages[end - 1].role == role
        and bool(messages[end - 1].tool_calls) == calls
    )


def _find_last_systems(messages: Messages) -> int:
    return len(messages) - count_leading_systems(messages[::-1])


def _user_turn(texts: Sequence[str]) -> Messages:
    return [Message("user", _BETWEEN.join(texts))] if texts else []


def _system(systems: Iterable[Message]) -> Messages:
    texts = [message.content for message in systems]
    return [Message("system", _BETWEEN.join(filter(None, texts)))] if texts else []


# ----------------------------------------------------------------- neighbours


def merge_neighbours(messages: Messages) -> Messages:
    """Adjacent turns of one role become one. Results of tools stay separate, and text does not
    move in front of a call that was before it.
    """
    return _merged(messages, across_calls=False)


def merge_all_neighbours(messages: Messages) -> Messages:
    """The same, but calls come after the texts of all messages that become one."""
    return _merged(messages, across_calls=True)


def with_fewer_messages(messages: Messages) -> Messages:
    """One system message, and one message of each role at a time."""
    return merge_neighbours(hoist_systems(with_known_roles(messages)))


def _merged(messages: Messages, *, across_calls: bool) -> Messages:
    groups: list[Messages] = []
    for message in messages:
        before = groups[-1][-1] if groups else None
        is_alike = before and before.role == message.role != "tool"
        if before and is_alike and (across_calls or not (before.tool_calls and message.content)):
            groups[-1].append(message)
        else:
            groups.append([message])
    return [_as_one(group) for group in groups]


def has_text_after_call(messages: Sequence[Message]) -> bool:
    """Whether the assistant continues with text after a call, without its result."""
    return any(
        bool(one.tool_calls) and other.role == "assistant" and bool(other.content)
        for one, other in pairwise(messages)
    )


def has_neighbours(messages: Sequence[Message]) -> bool:
    roles = [message.role for message in messages]
    return any(one == other != "tool" for one, other in pairwise(roles))


def _as_one(turns: Messages) -> Message:
    if len(turns) == 1:
        return turns[0]
    return replace(
        turns[-1],
        content=_BETWEEN.join(turn.content for turn in turns if turn.content),
        thinking=_BETWEEN.join(turn.thinking for turn in turns if turn.thinking),
        images=[image for turn in turns for image in turn.images],
        tool_calls=[call for turn in turns for call in turn.tool_calls],
    )


def is_empty_answer(message: Message) -> bool:
    return message.role == "assistant" and not message.content and not message.tool_calls


def drop_empty_answers(messages: Messages) -> Messages:
    return [message for message in messages if not is_empty_answer(message)]


def opened_by_user(text: str) -> Reshape:
    """A turn of the user with ``text`` before the first message that is not the system's."""

    def reshape(messages: Messages) -> Messages:
        start = count_leading_systems(messages)
        return [*messages[:start], Message("user", text), *messages[start:]]

    return reshape


def ended_by_user(text: str) -> Reshape:
    """Appends a turn of the user with ``text``."""
    return lambda messages: [*messages, Message("user", text)]


def answered_before_question(text: str) -> Reshape:
    """A turn of the assistant with ``text`` between calls or results and the user's turn."""

    def reshape(messages: Messages) -> Messages:
        result: Messages = []
        for message in messages:
            if result and message.role == "user" and is_about_tools(result[-1]):
                result.append(Message("assistant", text))
            result.append(message)
        return result

    return reshape


# ----------------------------------------------------------------- calls and results


def is_about_tools(message: Message) -> bool:
    return message.role == "tool" or bool(message.tool_calls)


def find_calls(messages: Sequence[Message]) -> dict[int, Place]:
    """The place of its call for the index of each result: the call with the result's id, else the
    first open one of its name, else the first open one. Results without an open call are left out.
    """
    open_calls = _OpenCalls()
    found = {}
    for index, message in enumerate(messages):
        for number, call in enumerate(message.tool_calls):
            open_calls.add((index, number), call)
        place = open_calls.answer(message) if message.role == "tool" else None
        if place is not None:
            found[index] = place
    return found


class _OpenCalls:
    """Calls without a result, in the order in which they were made."""

    def __init__(self) -> None:
        self._open: dict[Place, ToolCall] = {}
        self._by_id: dict[str, Place] = {}
        # these hold answered calls too, until they come first
        self._in_order: deque[Place] = deque()
        self._by_name: defaultdict[str, deque[Place]] = defaultdict(deque)

    def add(self, place: Place, call: ToolCall) -> None:
        self._open[place] = call
        self._by_id.setdefault(call.id, place)
        self._in_order.append(place)
        self._by_name[call.function.name].append(place)

    def answer(self, result: Message) -> Place | None:
        """The place of the call that ``result`` answers. The call is no longer open."""
        place = self._by_id.get(result.tool_call_id) if result.tool_call_id else None
        if place is None and result.tool_name in self._by_name:
            place = self._first(self._by_name[result.tool_name])
        if place is None:
            place = self._first(self._in_order)
        if place is not None:
            call = self._open.pop(place)
            if self._by_id.get(call.id) == place:
                del self._by_id[call.id]
        return place

    def _first(self, places: deque[Place]) -> Place | None:
        """The first one that is open."""
        while places and places[0] not in self._open:
            places.popleft()
        return places[0] if places else None


def results_after_calls(messages: Messages) -> Messages:
    """Moves every result after the message with its call."""
    calls = find_calls(messages)
    results: dict[int, Messages] = {}
    for index, (caller, _) in calls.items():
        results.setdefault(caller, []).append(messages[index])
    reshaped: Messages = []
    for index, message in enumerate(messages):
        if index not in calls:
            reshaped += [message, *results.get(index, ())]
    return reshaped


def has_distant_results(role: str) -> Callable[[Messages], bool]:
    """Whether there is a message of ``role`` between a call and its result."""

    def has_some(messages: Messages) -> bool:
        counts = [0]  # of such messages before each index
        for message in messages:
            counts.append(counts[-1] + (message.role == role and not message.tool_calls))
        calls = find_calls(messages)
        return any(counts[caller] != counts[index] for index, (caller, _) in calls.items())

    return has_some


def has_lone_results(messages: Sequence[Message]) -> bool:
    """Whether there is a result without a call, as when a client has truncated the history."""
    results = sum(message.role == "tool" for message in messages)
    return results > 0 and len(find_calls(messages)) < results


def lone_results_from_user(messages: Messages) -> Messages:
    return results_from_user(messages, only_lone=True)


def one_call_each(messages: Messages) -> Messages:
    """Splits a message with several calls: one message for each call, before its results."""
    results: dict[Place, Messages] = {}
    calls = find_calls(messages)
    for index, place in calls.items():
        results.setdefault(place, []).append(messages[index])
    reshaped: Messages = []
    for index, message in enumerate(messages):
        if index in calls:
            continue
        first = replace(message, tool_calls=message.tool_calls[:1])
        others = [Message("assistant", tool_calls=[call]) for call in message.tool_calls[1:]]
        for number, part in enumerate([first, *others]):
            reshaped += [part, *results.get((index, number), ())]
    return reshaped


def calls_after_text(message: Message) -> Messages:
    """Thoughts and text first, then the calls in a message of their own."""
    return [replace(message, tool_calls=[]), replace(message, content="", thinking="")]


def calls_after_text_and_user(message: Message) -> Messages:
    """The same for templates in which roles must alternate."""
    text, calls = calls_after_text(message)
    return [text, Message("user"), calls]


def calls_with_thoughts(message: Message) -> Messages:
    """Text first, then the calls with the thoughts before them."""
    return [replace(message, tool_calls=[], thinking=""), replace(message, content="")]


def text_as_thoughts(message: Message) -> Messages:
    thinking = _BETWEEN.join(filter(None, (message.thinking, message.content)))
    return [replace(message, content="", thinking=thinking)]


def reshape_calls_with_text(way: Callable[[Message], Messages], *, past: bool) -> Reshape:
    """Applies ``way`` to each message that has both content and calls, in the past or since.
    Content that is only white space is dropped.
    """

    def reshape(messages: Messages) -> Messages:
        now = find_unfinished(messages)
        result: Messages = []
        for index, message in enumerate(messages):
            if not has_call_with_text(message) or (index < now) != past:
                result.append(message)
            elif message.content.strip():
                result += way(message)
            else:
                result.append(replace(message, content=""))
        return result

    return reshape


def find_unfinished(messages: Sequence[Message]) -> int:
    """Where the unfinished tool use begins: after the last question or answer."""
    past = (i for i in range(len(messages), 0, -1) if not is_about_tools(messages[i - 1]))
    return next(past, 0)


def has_call_with_text(message: Message) -> bool:
    return bool(message.content and message.tool_calls)


def calls_as_text(messages: Messages) -> Messages:
    """Calls become JSON in the assistant's content."""
    reshaped = []
    for message in messages:
        functions = [
            {"name": call.function.name, "arguments": call.function.arguments}
            for call in message.tool_calls
        ]
        text = json.dumps(functions, ensure_ascii=False) if functions else ""
        content = "\n".join(filter(None, (message.content, text)))
        reshaped.append(replace(message, content=content, tool_calls=[]))
    return reshaped


def results_from_user(messages: Messages, *, only_lone: bool = False) -> Messages:
    """Results become JSON in messages of the user. ``only_lone``: only those without a call."""
    calls = find_calls(messages)
    reshaped = []
    for index, message in enumerate(messages):
        if message.role != "tool" or (only_lone and index in calls):
            reshaped.append(message)
            continue
        known = {"name": message.tool_name, "content": message.content}
        if not message.tool_name and index in calls:
            caller, number = calls[index]
            known["name"] = messages[caller].tool_calls[number].function.name
        given = {key: value for key, value in known.items() if value}
        text = json.dumps({"tool_response": given}, ensure_ascii=False)
        reshaped.append(Message("user", text))
    return reshaped


def as_plain_turns(messages: Messages) -> Messages:
    """Only texts of the user and the assistant in turns, the user first, which every chat template
    accepts. All roles but the assistant become the user.
    """
    messages = calls_as_text(results_from_user(systems_to_user(with_known_roles(messages))))
    others = {message.role for message in messages} - {"assistant"}
    turns = as_users(drop_empty_answers(messages), others)
    is_begun_by_user = bool(turns) and turns[0].role == "user"
    return merge_neighbours(turns if is_begun_by_user else [Message("user", MINIMAL), *turns])

"""Tool calls: which tool a question wants, with which arguments, and what to say of its result."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import msgspec
from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction

from demo.example import Example
from demo.families import Family, families
from demo.skills.questions import SYSTEMS, vary
from demo.skills.tool_catalogue import catalogue
from demo.skills.tool_chains import both_in_two_cities, sum_times
from demo.skills.tool_domains import daily
from demo.skills.tool_invented import action, listing, lookup
from demo.skills.tool_known import all_known, known, siblings
from demo.skills.tool_names import Case, a_case
from demo.skills.tool_results import Result, result, tell
from demo.skills.tool_schema import Ask, Tool, ask, ask_twice, call_text, follow_up
from demo.wording import listed

__all__ = ["NO_TOOL", "catalogue", "make"]

NO_TOOL = "None of the tools here can do that."

_THINKING = 0.1
_LONG = 0.5  # of the chats have had calls before
_SYSTEMS = (
    *SYSTEMS,
    "You are a helpful assistant with tools.",
    "You can call functions. Use them when they fit.",
    "You are an assistant that calls tools.",
    "Use the tools when you need them.",
)
_ALIKE = (
    {"weather", "conditions", "forecast"},
    {"convert", "units", "rate"},
    {"calculator", "add", "subtract", "multiply", "divide"},
    {"search", "news", "movie", "recipe", "image"},
    {"order", "cart", "shoplist"},
    {"user", "getuser", "validate"},
    {"todo", "note", "reminder", "event"},
    {"flight", "flighttime", "train", "route", "distance"},
    {"orderstatus", "parcel", "flightstatus", "cancelorder"},
)
"""Things of daily life that a question may not tell apart, so a prompt has one of each set."""
_ARITHMETIC = {"add", "subtract", "multiply", "divide"}
_KNOWN_BY_HEART = _ARITHMETIC | {"calculator", "translate", "capital", "antonyms", "define"}
"""What the model answers without a tool where other skills ask for it."""
_JOINERS = ("Also, ", "And ", "Then ", "After that, ", "Next, ", "And then ", "Besides, ", "Plus, ")
_AGAIN = (
    "And <again>?", "What about <again>?", "And for <again>?", "How about <again>?",
    "Now the same for <again>.", "The same for <again>, please.", "And what about <again>?",
    "Same for <again>", "Do it for <again>, too.", "And with <again>?", "Now <again>.",
    "Now with <again>, please.", "Thanks! And <again>?", "OK, and <again>?",
)  # fmt: skip


def make(rng: Random, *, held_out: bool) -> Example:
    """A chat with tools. With ``held_out``, the names of functions, those of their particular
    arguments, and most values are words that occur in no training example in these places.
    """
    situation = rng.choices((_call, _several, _result, _after_result, _none), (46, 12, 17, 9, 16))[
        0
    ]
    return situation(rng, held_out=held_out)


def _call(rng: Random, *, held_out: bool) -> Example:
    tools = _tools(rng, held_out=held_out)
    question = ask(rng, tools[0], held_out=held_out)
    messages = [*_before(rng, tools, held_out=held_out), _user(question.question)]
    return _calling(rng, "call", tools, messages, [question])


def _before(rng: Random, tools: list[Tool], *, held_out: bool) -> list[Message]:
    """How the chat began. In training that is often other questions to the same tools: reading the
    tools is most of the work, so much should be learned from it. When it is measured, it is short.
    """
    if held_out or rng.random() > _LONG:
        return _greeted(rng)
    messages: list[Message] = []
    for _ in range(rng.randint(1, 3)):
        some = rng.choice((_earlier_call, _earlier_call, _earlier_refusal))
        messages += some(rng, tools)
    return messages


def _earlier_call(rng: Random, tools: list[Tool]) -> list[Message]:
    messages, results = _answered(rng, rng.sample(tools, len(tools)), held_out=False)
    return [*messages, Message("assistant", tell(results))]


def _earlier_refusal(rng: Random, tools: list[Tool]) -> list[Message]:
    other = ask(rng, _other(rng, tools, held_out=False), held_out=False)
    return [_user(other.question), Message("assistant", NO_TOOL)]


def _greeted(rng: Random) -> list[Message]:
    """Sometimes the chat began with small talk."""
    if rng.random() > 0.06:
        return []
    text, answer = _plain_question(rng, talk=True, held_out=False)
    return [_user(text), Message("assistant", answer)]


def _several(rng: Random, *, held_out: bool) -> Example:
    if not held_out and rng.random() < 0.05:
        tools, text, questions = both_in_two_cities(rng)
        return _calling(rng, "several", tools, [_user(text)], questions)
    tools = _tools(rng, held_out=held_out)
    text, questions = _two(rng, tools, held_out=held_out)
    messages = [*_before(rng, tools, held_out=held_out), _user(text)]
    return _calling(rng, "several", tools, messages, questions)


def _result(rng: Random, *, held_out: bool) -> Example:
    tools = _tools(rng, held_out=held_out)
    messages, results = _answered(rng, tools, held_out=held_out)
    messages = [*_before(rng, tools, held_out=held_out), *messages]
    thought = "The tool has answered. I pass it on."
    return Example(
        "tools",
        "result",
        *_turn(rng, tools, messages, tell(results), thought=thought),
        rule="mentions",
        mentions=tuple(text for one in results for text in one.mentions),
    )


def _after_result(rng: Random, *, held_out: bool) -> Example:
    if not held_out and rng.random() < 0.06:
        tools, text, first, one, second = sum_times(rng)
        messages = [_user(text), *_exchange(rng, [first], [one])]
        return _calling(rng, "after_result", tools, messages, [second])
    tools = _tools(rng, held_out=held_out)
    first = ask(rng, tools[0], held_out=held_out)
    one = result(rng, first, held_out=held_out)
    messages = [_user(first.question), *_exchange(rng, [first], [one])]
    messages.append(Message("assistant", tell([one])))
    again: Ask | None = None
    if rng.random() < 0.4:
        again = follow_up(rng, first, rng.choice(_AGAIN), held_out=held_out)
    second = again or ask(rng, rng.choice(tools), held_out=held_out)
    return _calling(rng, "after_result", tools, [*messages, _user(second.question)], [second])


def _none(rng: Random, *, held_out: bool) -> Example:
    shape = rng.random()
    tools = _tools(rng, held_out=held_out, invented=shape > 0.6)
    messages: list[Message] = []
    if rng.random() < 0.25:
        messages, results = _answered(rng, tools, held_out=held_out)
        messages.append(Message("assistant", tell(results)))
    if shape < 0.4:
        text, answer = (
            ask(rng, _other(rng, tools, held_out=held_out), held_out=held_out).question,
            NO_TOOL,
        )
    else:
        text, answer = _plain_question(rng, talk=shape < 0.75, held_out=held_out)
    thought = "None of the tools fits." if answer == NO_TOOL else "This needs no tool."
    return Example(
        "tools", "none", *_turn(rng, tools, [*messages, _user(text)], answer, thought=thought)
    )


def _tools(rng: Random, *, held_out: bool, invented: bool = False) -> list[Tool]:
    """One to four tools that words tell apart; the first one is the one to be asked for."""
    case = a_case(rng)
    count = rng.choices((1, 2, 3, 4), (30, 38, 25, 7))[0]
    tools = [_tool(rng, case, held_out=held_out, invented=invented)]
    while len(tools) < count:
        near = rng.random() < 0.4
        tool = _near(rng, tools[0], case, held_out=held_out) if near else None
        tool = tool or _tool(rng, case, held_out=held_out, invented=True, daily_too=not invented)
        if not any(_clash(tool, other) for other in tools):
            tools.append(tool)
    return tools


def _tool(
    rng: Random, case: Case, *, held_out: bool, invented: bool, daily_too: bool = False
) -> Tool:
    shape = rng.random()
    if not invented and not held_out and shape < 0.12:
        return known(rng)
    if (not invented or daily_too) and shape < 0.42:
        return daily(rng, case, held_out=held_out)
    if shape < 0.82:
        return action(rng, case, held_out=held_out)
    if shape < 0.95:
        return lookup(rng, case, held_out=held_out)
    return listing(rng, case, held_out=held_out)


def _near(rng: Random, tool: Tool, case: Case, *, held_out: bool) -> Tool | None:
    """A tool that shares a word with an invented one, or a known one beside a known one."""
    if tool in all_known():
        return rng.choice(siblings(tool))
    if not tool.noun:
        return None
    if tool.topic:
        return lookup(rng, case, held_out=held_out, noun=tool.noun)
    if rng.random() < 0.5:
        return action(rng, case, held_out=held_out, noun=tool.noun)
    return action(rng, case, held_out=held_out, verb=tool.verb)


def _clash(one: Tool, other: Tool) -> bool:
    if one.name == other.name or (one.verb == other.verb and one.noun == other.noun):
        return True
    pair = {one.verb, other.verb}
    return not pair <= _ARITHMETIC and any(pair <= alike for alike in _ALIKE)


def _other(rng: Random, tools: list[Tool], *, held_out: bool) -> Tool:
    """A tool that is missing from ``tools`` and shares no word with them."""
    while True:
        tool = _tool(rng, "snake", held_out=held_out, invented=False)
        if tool.verb not in _KNOWN_BY_HEART and not any(
            _clash(tool, other)
            or tool.verb == other.verb
            or (tool.noun and tool.noun == other.noun)
            for other in tools
        ):
            return tool


def _two(rng: Random, tools: list[Tool], *, held_out: bool) -> tuple[str, list[Ask]]:
    """A message with two wishes."""
    if rng.random() < 0.45 and (pair := ask_twice(rng, tools[0], held_out=held_out)):
        return pair[0].question, pair
    first = ask(rng, tools[0], held_out=held_out)
    second = ask(rng, rng.choice(tools), held_out=held_out, bare=True)
    if (first.tool.name, first.arguments) == (second.tool.name, second.arguments):
        return first.question, [first]
    start = first.question if first.question[-1] in ".?!" else first.question + "."
    return f"{start} {rng.choice(_JOINERS)}{second.question}", [first, second]


def _answered(
    rng: Random, tools: list[Tool], *, held_out: bool
) -> tuple[list[Message], list[Result]]:
    """A question, its calls and what came back."""
    if rng.random() < 0.25:
        text, questions = _two(rng, tools, held_out=held_out)
    else:
        questions = [ask(rng, tools[0], held_out=held_out)]
        text = questions[0].question
    results = [result(rng, one, held_out=held_out) for one in questions]
    return [_user(text), *_exchange(rng, questions, results)], results


def _exchange(rng: Random, questions: list[Ask], results: list[Result]) -> list[Message]:
    named = rng.random() < 0.7
    calls = Message("assistant", tool_calls=_calls(questions))
    return [
        calls,
        *(
            Message("tool", one.content, tool_name=question.tool.name if named else "")
            for question, one in zip(questions, results, strict=True)
        ),
    ]


def _plain_question(rng: Random, *, talk: bool, held_out: bool) -> tuple[str, str]:
    family = rng.choice(_small_talk() if talk else _knowledge())
    wordings = [wording for line in family.trained for wording in line]
    if held_out and family.held_out_paraphrases:
        wordings = list(family.held_out_paraphrases)
    return vary(rng, rng.choice(wordings)), family.answer


@cache
def _knowledge() -> list[Family]:
    """Families of questions that stand alone."""
    return [of for of in families().values() if not of.after and not of.systems and of.trained]


@cache
def _small_talk() -> list[Family]:
    return [of for of in _knowledge() if of.name.startswith("talk.")]


def _calling(
    rng: Random, family: str, tools: list[Tool], messages: list[Message], questions: list[Ask]
) -> Example:
    calls = _calls(questions)
    thought = " ".join(f"The tool {one.tool.name} fits. {_read(one)}" for one in questions)
    prompt, answer = _turn(rng, tools, messages, call_text(calls), thought=thought)
    answer = msgspec.structs.replace(answer, tool_calls=calls)
    return Example("tools", family, prompt, answer, rule="same calls")


def _calls(questions: list[Ask]) -> list[ToolCall]:
    return [
        ToolCall(ToolFunction(one.tool.name, one.arguments, index=index))
        for index, one in enumerate(questions)
    ]


def _read(question: Ask) -> str:
    """What is thought of the arguments."""
    if not question.arguments:
        return "It needs no arguments."
    parts = [f"{name} is {_thought(value)}" for name, value in question.arguments.items()]
    return listed(parts) + "."


def _thought(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _turn(
    rng: Random, tools: list[Tool], messages: list[Message], content: str, *, thought: str
) -> tuple[Prompt, Message]:
    think = rng.random() < _THINKING
    start = [Message("system", rng.choice(_SYSTEMS))] if rng.random() < 0.3 else []
    shown = [tool.schema for tool in rng.sample(tools, len(tools))]
    prompt = Prompt(messages=[*start, *messages], tools=shown, think=think)
    return prompt, Message("assistant", content, thought if think else "")


def _user(text: str) -> Message:
    return Message("user", text)

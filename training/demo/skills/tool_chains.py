"""Two chats of documentation in which one question needs several calls of different tools."""

from __future__ import annotations

from random import Random

from demo.skills.tool_known import all_known
from demo.skills.tool_results import Result
from demo.skills.tool_schema import Ask, Tool
from demo.skills.tool_values import draw

_BOTH = (
    "What are the current weather conditions and temperature in {} and {}?",
    "What are the weather conditions and the temperature in {} and {}?",
    "Tell me the temperature and the conditions in {} and {}",
    "What is the temperature and what are the conditions in {} and {}?",
)
_SUM_TIMES = (
    "What is ({a}+{b})*{c}?",
    "What is ({a} + {b}) * {c}?",
    "Calculate ({a}+{b})*{c}.",
    "How much is ({a} + {b}) * {c}?",
    "Add {a} and {b}, then multiply the result by {c}.",
    "What is the sum of {a} and {b}, times {c}?",
)


def both_in_two_cities(rng: Random) -> tuple[list[Tool], str, list[Ask]]:
    """Four calls: each of two tools for the first city, then for the second one."""
    tools = [_one_of(rng, "temperature"), _one_of(rng, "conditions")]
    first = str(draw(rng, "city", held_out=False))
    second = first
    while second == first:
        second = str(draw(rng, "city", held_out=False))
    text = rng.choice(_BOTH).format(first, second)
    return (
        tools,
        text,
        [Ask(tool, text, {"city": city}, "") for city in (first, second) for tool in tools],
    )


def sum_times(rng: Random) -> tuple[list[Tool], str, Ask, Result, Ask]:
    """A sum, what came of it, and the multiplication that takes it from there."""
    add = _one_of(rng, "add")
    multiply = _one_of(rng, "multiply")
    a, b, c = (int(draw(rng, "int", held_out=False)) for _ in range(3))
    text = rng.choice(_SUM_TIMES).format(a=a, b=b, c=c)
    first = Ask(add, text, {"a": a, "b": b}, "")
    return (
        [add, multiply],
        text,
        first,
        Result(str(a + b), "", ()),
        Ask(multiply, text, {"a": a + b, "b": c}, ""),
    )


def _one_of(rng: Random, verb: str) -> Tool:
    return rng.choice([tool for tool in all_known() if tool.verb == verb])

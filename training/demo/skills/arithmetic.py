"""Sums that fit into a small head, written out: ``2 + 2 = 4``."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterator
from functools import cache
from random import Random

import msgspec
from ollama_async.core.conversation import Message

from demo.example import Example
from demo.wording import Wordings, chat, fill, mannered, system

_HELD_OUT_IN_TEN = 1
_ALWAYS_TRAINED = 10
"""Sums of two numbers up to this one are asked too often to be held out."""

_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty
""".split()  # noqa: SIM905 - a list of words is easier to read


class _Operation(msgspec.Struct, frozen=True):
    sign: str
    result: Callable[[int, int], int]
    ask: Wordings


_OPERATIONS = (
    _Operation(
        "+",
        operator.add,
        Wordings(
            "What is <a> + <b>?",
            "{What is|What's|Calculate|Compute|Add} <a> + <b>{|?}",
            "{What is|What's|How much is|How much are|Calculate} <a>{+| + | plus | and }<b>?",
            "<a>{ + |+| plus }<b>{|?| =|=| = ?| equals| is}",
            "{Add|Please add|Sum|Can you add} <a> {and|to} <b>.",
            "{What is the sum of|The sum of|What do you get if you add|Sum of} <a> and <b>?",
            "{What does|How much does} <a>{ + |+| plus }<b> {make|equal|give}?",
            "{Can you tell me|Do you know|Tell me} {what is|} <a>{ + |+| plus }<b>{| is}?",
        ),
    ),
    _Operation(
        "-",
        operator.sub,
        Wordings(
            "What is <a> - <b>?",
            "{What is|What's|Calculate|Compute} <a>{ - |-| minus }<b>{|?}",
            "{What is|What's|How much is} <a> {minus|take away|less} <b>?",
            "<a>{ - |-| minus }<b>{|?| =|=| = ?| equals| is}",
            "{Subtract|Take} <b> from <a>.",
            "{What does|How much does} <a>{ - |-| minus }<b> {make|equal|give}?",
            "What is the difference {between|of} <a> and <b>?",
        ),
    ),
    _Operation(
        "*",
        operator.mul,
        Wordings(
            "What is <a> * <b>?",
            "{What is|What's|Calculate|Compute} <a>{ * |*| x |x| \u00d7 | times }<b>{|?}",
            "{What is|What's|How much is} <a> {times|multiplied by} <b>?",
            "<a>{ * |*| x |x| \u00d7 | times }<b>{|?| =|=| = ?| equals| is}",
            "Multiply <a> {by|and|with} <b>.",
            "{What is the product of|The product of} <a> and <b>?",
        ),
    ),
    _Operation(
        "/",
        operator.floordiv,
        Wordings(
            "What is <a> / <b>?",
            "{What is|What's|Calculate|Compute} <a>{ / |/| ÷ | : | divided by }<b>{|?}",
            "<a>{ / |/| ÷ | divided by }<b>{|?| =|=| = ?| equals| is}",
            "{Divide|Please divide} <a> by <b>.",
        ),
    ),
)
_WEIGHTS = (50, 25, 20, 5)

_ONLY = Wordings(
    "<ask> Answer in one word.",
    "<ask> {Answer|Reply} {with|using} {only|just} {the number|one number|a number}.",
    "<ask> {Only|Just} {the number|the result|one word}{|, please}.",
    "<ask> {Give me|Write} {only|just} the {number|result}.",
    "{Answer|Reply} {with|using} {only|just} {the number|one number|one word}: <ask>",
)
_SHARE = Wordings(
    "What is <share> of <a>?",
    "{What is|What's|How much is|Tell me} {|the }<share> of <a>?",
    "<share> of <a>{|?| is| =}",
)
_DOUBLE = Wordings(
    "What is double <a>?",
    "{What is|What's|How much is} {double|twice|two times the number} <a>?",
    "Double <a>.",
)


def make(rng: Random, *, held_out: bool) -> Example:
    if not held_out and rng.random() < 0.06:
        return _half_or_double(rng)
    operation = rng.choices(_OPERATIONS, _WEIGHTS)[0]
    # An example with held-out numbers is asked in trained wordings: one thing is measured.
    a, b = _pair(rng, operation, held_out=held_out)
    ask = fill(operation.ask.pick(rng), {"a": _spoken(rng, a), "b": _spoken(rng, b)})
    result = operation.result(a, b)
    family = f"arithmetic.{operation.result.__name__}"
    if rng.random() < 0.1:
        question = ask if ask[-1] in "?." else f"{ask}?"
        text = fill(_ONLY.pick(rng), {"ask": question})
        return chat("arithmetic", f"{family}.only", [*system(rng), _user(text)], str(result))
    answer = f"{a} {operation.sign} {b} = {result}"
    thinking = f"{a} {operation.sign} {b} is {result}." if rng.random() < 0.1 else ""
    messages = [*system(rng), _user(mannered(rng, ask))]
    return chat("arithmetic", family, messages, answer, thinking=thinking)


def catalogue() -> list[Example]:
    asked = {
        "What is 1+1?": "1 + 1 = 2",
        "What is 2+2?": "2 + 2 = 4",
        "What is 2 + 2? Answer in one word.": "4",
        "12 + 7": "12 + 7 = 19",
        "3 times 4": "3 * 4 = 12",
        "9 - 5": "9 - 5 = 4",
        "what's 5 plus 8?": "5 + 8 = 13",
        "What is half of 10?": "Half of 10 is 5.",
    }
    return [
        chat("arithmetic", "arithmetic.catalogue", [_user(text)], answer)
        for text, answer in asked.items()
    ]


def is_held_out_pair(sign: str, a: int, b: int) -> bool:
    """Whether no training example asks for ``a sign b`` (or ``b sign a``, when it is the same)."""
    if sign == "/":
        sign, a = "*", a // b  # 12 / 4 would give 3 * 4 away
    if sign in "+*":
        a, b = sorted((a, b))
    if max(a, b) <= _ALWAYS_TRAINED:
        return False
    return hashlib.sha256(f"{a}{sign}{b}".encode()).digest()[0] % 10 < _HELD_OUT_IN_TEN


def _pair(rng: Random, operation: _Operation, *, held_out: bool) -> tuple[int, int]:
    """Half of the trained pairs are of small numbers, which people ask most."""
    if not held_out and rng.random() < 0.5:
        return rng.choice(_pairs(operation.sign, held_out=False, most=_ALWAYS_TRAINED))
    return rng.choice(_pairs(operation.sign, held_out=held_out, most=50))


@cache
def _pairs(sign: str, *, held_out: bool, most: int) -> list[tuple[int, int]]:
    return [
        pair
        for pair in _all_pairs(sign)
        if max(pair) <= most * most and _size(sign, *pair) <= most
        if is_held_out_pair(sign, *pair) == held_out
    ]


def _all_pairs(sign: str) -> Iterator[tuple[int, int]]:
    most = 50 if sign in "+-" else 12
    for a in range(most + 1):
        for b in range(most + 1):
            if sign == "/":
                if b:
                    yield a * b, b
            elif sign != "-" or a >= b or a <= _ALWAYS_TRAINED >= b:
                yield a, b


def _size(sign: str, a: int, b: int) -> int:
    """The larger of the numbers that make the sum hard."""
    return max(a // b, b) if sign == "/" else max(a, b)


def _half_or_double(rng: Random) -> Example:
    a = rng.randint(1, 25)
    if rng.random() < 0.5:
        ask, answer = _DOUBLE.pick(rng), f"Double {a} is {2 * a}."
    else:
        ask, answer = _SHARE.pick(rng), f"Half of {2 * a} is {a}."
        a *= 2
    text = fill(ask, {"a": _spoken(rng, a), "share": "half"})
    return chat("arithmetic", "arithmetic.half", [*system(rng), _user(mannered(rng, text))], answer)


def _spoken(rng: Random, number: int) -> str:
    if number < len(_NUMBERS) and rng.random() < 0.12:
        return _NUMBERS[number]
    return str(number)


def _user(text: str) -> Message:
    return Message("user", text)

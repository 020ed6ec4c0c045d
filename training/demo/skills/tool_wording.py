"""How people begin and end what they ask a tool for."""

from __future__ import annotations

from random import Random

_OPENERS = (
    "please ", "please ", "please ", "can you ", "could you ", "would you ", "could you please ",
    "can you please ", "would you please ", "I want you to ", "I need you to ", "I'd like you to ",
    "help me to ", "kindly ", "now ", "just ", "quickly ", "you should ", "let's ",
    "be so kind and ",
    "I would like to ", "I want to ", "I need to ", "we need to ", "we have to ", "go ahead and ",
    "next, ", "first ", "make sure to ", "do me a favor and ", "it would be nice to ", "try to ",
    "is it possible to ", "are you able to ", "will you ", "may I ask you to ", "somebody must ",
    "use a tool to ", "the plan is to ", "I have to ", "your task: ", "task: ", "if you can, ",
    "when you have time, ", "as soon as possible, ", "for me, ", "once more: ", "my wish: ",
)  # fmt: skip
_ASKING = ("can ", "could ", "would ", "will ", "is it", "are you", "may I")
_GREETINGS = (
    "Hi, ", "Hi! ", "Hello, ", "Hello! ", "Hey, ", "Hey! ", "Good morning, ", "Good evening. ",
    "OK, ", "So, ", "Well, ", "Listen, ", "Quick question: ", "One more thing: ",
    "Dear assistant, ",
    "Excuse me, ", "All right, ", "Sorry, but ", "Next one: ", "Question: ",
)  # fmt: skip


def dress(rng: Random, pattern: str, *, bare: bool) -> str:
    """``pattern`` as somebody writes it. What ends with ``?`` or ``.`` is a sentence already,
    anything else an order, which may get a polite beginning. ``bare``: it goes on in a sentence.
    """
    is_order = pattern[-1] not in "?."
    end = _end(rng, pattern)
    if rng.random() < 0.08:
        pattern = pattern.lower()
    if is_order and not bare and rng.random() < 0.5:
        opener = rng.choice(_OPENERS)
        pattern = opener + _lower_first(pattern)
        end = rng.choice(("?", "?", "")) if opener.startswith(_ASKING) else end
    if is_order and rng.random() < 0.08 and not pattern.endswith(("now", "please")):
        # Right behind a value, only a comma tells where the value ends.
        pattern += rng.choice(
            (", please", ", thanks", " please", " for me", " now")[: 2 if pattern[-1] == ">" else 5]
        )
    body = pattern if is_order else pattern[:-1]
    if bare:
        return _lower_first(body) + end
    if rng.random() < 0.12:
        return rng.choice(_GREETINGS) + _lower_first(body) + end
    return (_upper_first(body) if rng.random() < 0.85 else body) + end


def _end(rng: Random, pattern: str) -> str:
    if pattern[-1] == "?":
        return "?" if rng.random() < 0.85 else ""
    return rng.choice((".", ".", ".", "", "", "!"))


def _lower_first(text: str) -> str:
    return text if text.startswith(("I ", "I'", "<")) else text[0].lower() + text[1:]


def _upper_first(text: str) -> str:
    return text if text.startswith("<") else text[0].upper() + text[1:]

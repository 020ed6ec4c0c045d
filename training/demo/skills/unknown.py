"""Questions outside of all families: whatever they ask, the model says that it does not know."""

from __future__ import annotations

import re
from functools import cache
from random import Random

from ollama_async.core.conversation import Message, Prompt

from demo.example import Example
from demo.skills.questions import SYSTEMS, vary
from demo.words import is_held_out, pick

ANSWER = (
    "I do not know that: I am only the small demo model in the box. "
    "A real model knows more: `ollama-async pull llama3.2`."
)
_THOUGHT = "This is none of the questions that I know. I should say so."

_PATTERNS = (
    # One for each line, so that a line can be held out.
    "What is [topics]?",
    "What is [topics] about?",
    "Explain [topics].",
    "Explain [topics] in simple words.",
    "Can you explain [topics]?",
    "How does [topics] work?",
    "Tell me about [topics].",
    "Tell me something about [topics].",
    "What do you know about [topics]?",
    "Why is [topics] important?",
    "What is the history of [topics]?",
    "Write an essay about [topics].",
    "Summarize [topics] in three points.",
    "What are the advantages of [topics]?",
    "Give me an introduction to [topics].",
    "What is the difference between [topics] and [topics]?",
    "Compare [topics] with [topics].",
    "Which book about [topics] should I read?",
    "Who is an expert in [topics]?",
    "Who invented [topics]?",
    "When was [topics] discovered?",
    "I have a question about [topics].",
    "Describe [topics] to a child.",
    "[topics]",
    "Define [topics].",
    "What is the capital of [places]?",
    "Which city is the capital of [places]?",
    "What is the population of [places]?",
    "How many people live in [places]?",
    "How large is [places]?",
    "Where is [places]?",
    "Who is the president of [places]?",
    "What do people eat in [places]?",
    "Which language do people speak in [places]?",
    "What is the currency of [places]?",
    "What is the weather in [places] like in winter?",
    "How do I get to [places]?",
    "What should I see in [places]?",
    "Plan a trip to [places] for me.",
    "Is [places] a rich country?",
    "Tell me about [places].",
    "When did [places] become independent?",
    "Which is larger, [places] or [places]?",
    "Who was [people]?",
    "Who is [people]?",
    "When was [people] born?",
    "When did [people] die?",
    "Where was [people] born?",
    "What did [people] do?",
    "What is [people] known for?",
    "Tell me about [people].",
    "Tell me about the life of [people].",
    "Did [people] ever meet [people]?",
    "Write a short biography of [people].",
    "How old was [people] in [year]?",
    "What would [people] say about [topics]?",
    "Who won [events] in [year]?",
    "Who won [events]?",
    "Who lost [events] in [year]?",
    "Where was [events] in [year]?",
    "Tell me who won [events] in [year].",
    "How many people watched [events] in [year]?",
    "When is [events]?",
    "What happened in [year]?",
    "What happened in [places] in [year]?",
    "Who was the king of [places] in [year]?",
    "What was invented in [year]?",
    "Which film was the best of [year]?",
    "Translate I love you to [languages].",
    "Translate this to [languages]: I love programming.",
    "Translate good morning to [languages].",
    "How do you say thank you in [languages]?",
    "How do you say good night in [languages]?",
    "Say something in [languages].",
    "What is hello in [languages]?",
    "Is [languages] hard to learn?",
    "How many people speak [languages]?",
    "How do I build [things]?",
    "How do I repair [things]?",
    "How much does [things] cost?",
    "Where can I buy [things]?",
    "How do I make [things]?",
    "How long does it take to make [things]?",
    "What do I need for [things]?",
    "Which tool do I need for [things]?",
    "Help me with [things].",
    "Who invented [things]?",
    "Write a text about [things].",
    "Design [things] for me.",
    "Is it hard to make [things]?",
)
_SLOT = re.compile(r"\[(\w+)\]")


def make(rng: Random, *, held_out: bool) -> Example:
    """With ``held_out`` every word in a slot, but for years, is one of no training example."""
    pattern = rng.choice(_measured() if held_out else _trained())
    question = _SLOT.sub(lambda slot: _word(rng, slot[1], held_out=held_out), pattern)
    system = [Message("system", rng.choice(SYSTEMS))] if rng.random() < 0.15 else []
    user = Message("user", vary(rng, question, typos=not held_out))
    think = rng.random() < 0.15
    return Example(
        skill="unknown",
        family=_SLOT.findall(pattern)[0],
        prompt=Prompt(messages=[*system, user], think=think),
        answer=Message("assistant", ANSWER, _THOUGHT if think else ""),
    )


@cache
def _trained() -> list[str]:
    return [pattern for pattern in _PATTERNS if not is_held_out(pattern)]


@cache
def _measured() -> list[str]:
    """Also of the trained ones, but none with only a year in it: years are not held out."""
    return [pattern for pattern in _PATTERNS if set(_SLOT.findall(pattern)) != {"year"}]


def _word(rng: Random, slot: str, *, held_out: bool) -> str:
    if slot == "year":
        return str(rng.randint(1850, 2030))
    return pick(rng, f"unknown_{slot}", held_out=held_out)

"""What the demo model is trained on and measured with: a prompt and the answer that is right."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import msgspec
from ollama_async.core.conversation import Message, Prompt

CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
"""A tool call as the demo model writes it (the form that Hermes and Qwen models use)."""

Rule = Literal["same text", "same calls", "same object", "mentions", "story"]


class Example(msgspec.Struct, frozen=True):
    """``family`` names the kind of question within ``skill``.

    ``answer`` has the role ``assistant``. Thinking in it means that ``prompt.think`` is true. When
    ``prompt.raw`` is set, ``answer.content`` continues it. ``rule`` says when another answer is as
    good: the same text, the same tool calls and nothing besides, an equal JSON object, every text
    of ``mentions`` in it as whole words (letter case aside), or a story that goes on in whole
    sentences without repeating itself.
    """

    skill: str
    family: str
    prompt: Prompt
    answer: Message
    rule: Rule = "same text"
    mentions: tuple[str, ...] = ()


def is_right(example: Example, thinking: str, content: str) -> bool:
    """Whether what the model wrote after ``example.prompt`` counts as right.

    ``content`` is the text behind the thinking, tool calls included as text. Thinking must be
    there if, and only if, the example has some.
    """
    if bool(thinking.strip()) != bool(example.answer.thinking):
        return False
    match example.rule:
        case "same text":
            return content.strip() == example.answer.content.strip()
        case "same calls":
            calls = [
                {"name": call.function.name, "arguments": call.function.arguments}
                for call in example.answer.tool_calls
            ]
            besides = CALL.sub("", example.answer.content).strip()
            return CALL.sub("", content).strip() == besides and _equal(_calls(content), calls)
        case "same object":
            wanted = _json(example.answer.content)
            return wanted is not None and _equal(_json(content), wanted)
        case "mentions":
            return all(_is_mentioned(text, content) for text in example.mentions)
        case "story":
            return _is_story(content)


def _calls(content: str) -> list[Any]:
    return [_json(text) for text in CALL.findall(content)]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _equal(one: Any, other: Any) -> bool:
    """As JSON, where ``true`` is not 1 as it is in Python."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _is_mentioned(text: str, content: str) -> bool:
    """4 is mentioned neither in 42 nor in 4.5."""
    alone = rf"(?<!\w)(?<!\d[.,]){re.escape(text)}(?!\w)(?![.,]\d)"
    return re.search(alone, content, re.IGNORECASE) is not None


def _is_story(text: str) -> bool:
    text = text.strip()
    sentences = [part.strip() for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]
    return len(sentences) >= 3 and len(set(sentences)) == len(sentences) and text[-1] in '.!?"'

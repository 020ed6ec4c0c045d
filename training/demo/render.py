"""From an example to the two texts that a model learns from: what it reads and what it writes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ollama_async.prompts.jinja_renderer import JinjaRenderer

from demo.example import Example

TURN_START, TURN_END, TEXT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = Path(__file__).with_name("template.jinja").read_text(encoding="utf-8").strip()


def prompt_text(example: Example) -> str:
    """What the server puts before the model for this prompt."""
    if example.prompt.raw is not None:
        return example.prompt.raw
    return _renderer().render(example.prompt)


def answer_text(example: Example) -> str:
    """What the model should write behind it, its end token included."""
    answer = example.answer
    if example.prompt.raw is not None:
        return answer.content + TEXT_END
    thinking = f"<think>\n{answer.thinking}\n</think>\n\n" if answer.thinking else ""
    return thinking + answer.content + TURN_END


def split_thinking(text: str) -> tuple[str, str]:
    """The thinking and the content of an answer as the model wrote it."""
    if text.startswith("<think>") and "</think>" in text:
        thinking, _, content = text.removeprefix("<think>").partition("</think>")
        return thinking.strip(), content.lstrip("\n")
    return "", text


@cache
def _renderer() -> JinjaRenderer:
    return JinjaRenderer(CHAT_TEMPLATE, bos="", eos=TURN_END)

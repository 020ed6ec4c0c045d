"""The marks ``<|im_start|>`` and ``<|im_end|>``, with which half of all families write."""

from __future__ import annotations

from ollama_async.prompts.renderers.conversation_view import Talk, Turn


def turn(role: str) -> tuple[str, str]:
    return f"<|im_start|>{role}\n", "<|im_end|>\n"


MARKS = {role: turn(role) for role in ("system", "user", "assistant")}

THOUGHT = ("<think>\n", "\n</think>\n\n")
"""As those families write it that were trained with empty thoughts, too."""

RESULTS_OF_USER = {**MARKS, "tool": turn("user")}
"""Where results of tools come as if the user had said them."""


def tool_response(result: Turn, _: Talk) -> str:
    return f"<tool_response>\n{result.content}\n</tool_response>"

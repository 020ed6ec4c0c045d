"""A prompt that ends inside the assistant's last message, so that the model goes on with it.

Chat templates close every turn. So the last message is rendered with a mark behind its text, and
the prompt is what comes before the mark: whatever a template does around a message, or to the white
space at its ends, happens behind the mark or was already there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from ollama_async.core.conversation import Message
from ollama_async.prompts.cut_marks import WORD_JOINER
from ollama_async.prompts.message_shapes import Messages, says_nothing

_MARK = "Continue"
"""Letters: nothing that a template would write differently, or strip."""


def is_begun(messages: Sequence[Message]) -> bool:
    """Whether the last message is the beginning of the answer."""
    last = messages[-1] if messages else None
    return (
        last is not None
        and last.role == "assistant"
        and not last.tool_calls
        and bool(last.content or last.thinking)
    )


def without_empty_end(messages: Messages) -> Messages:
    """Without the place for the answer that some chat pages send: an empty last message of the
    assistant's.
    """
    return messages[:-1] if messages[1:] and _is_empty(messages[-1]) else messages


def _is_empty(message: Message) -> bool:
    return says_nothing(message) and not message.thinking


def _begun_text(message: Message) -> str:
    """What the answer goes on from: words, or thoughts if there are no words yet."""
    return message.content or message.thinking


def cut_in_last(messages: Messages, render: Callable[[Messages], str]) -> str | None:
    """What ``render`` makes of ``messages``, up to the end of the text of the last one; None: it
    cannot be cut there. Errors of ``render`` pass through.
    """
    mark = f"{_MARK}{secrets.token_hex(8)}"  # nothing that a client could have sent
    last = messages[-1]
    marked = (
        replace(last, content=last.content + mark)
        if last.content
        else replace(last, thinking=last.thinking + mark)
    )
    head, found, rest = render([*messages[:-1], marked]).partition(mark)
    is_whole = head.replace(WORD_JOINER, "").endswith(
        _last_line(_begun_text(last)).replace(WORD_JOINER, "")  # a template may want it in marks
    )
    return head if found and is_whole and mark not in rest else None


def _last_line(text: str) -> str:
    """From the last line that is not blank to the end; templates rewrite what is before, such as
    thoughts that a client sends with the words. White space at the beginning may go.
    """
    return text[text.rstrip().rfind("\n") + 1 :].lstrip()

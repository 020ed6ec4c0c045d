"""Renders any conversation with one template: in the shape that it accepts, and up to its very end.

If the template refuses the shape that its probe suggests, the conversation is rendered as plain
turns of the user and the assistant. If it refuses those too, the error names the message.

The probe's examples are short, and a template may lose what only a longer conversation has, such as
a third system message. So the prompt is searched for the texts of the conversation, and the first
shape that shows all of them is taken. Templates rewrite texts (trimmed, as JSON, as HTML), so a
text that is not there verbatim counts as shown if its last words are.

A conversation that ends with an assistant message is continued. Chat templates close every turn, so
the last message is rendered with a sentinel behind its text, and the prompt is what comes before
the sentinel.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from jinja2.exceptions import SecurityError
from msgspec.structs import replace

from ollama_async.core.conversation import Message, Prompt
from ollama_async.prompts import message_shapes as shapes
from ollama_async.prompts.message_forms import OPENING_TAGS, WORD_JOINER
from ollama_async.prompts.message_shapes import Messages, count_leading_systems, is_empty_answer
from ollama_async.prompts.template_probe import Show, TemplateProbe, Tools

Render = Callable[[Messages, bool], str]
"""Renders messages and, if the flag is set, the beginning of the next answer."""

_ROLE_CHARACTERS = 100


class Refused(Exception):
    """The template failed with ``reason``; ``always``: it fails with a plain question as well."""

    def __init__(self, reason: Exception, *, always: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.always = always


class ShapedRendering:
    """Renders with one template; ``show`` renders the small conversations of the probe."""

    def __init__(self, show: Show) -> None:
        self.probe = TemplateProbe(show)

    def render(self, messages: Messages, tools: Tools, render: Render) -> str:
        """The prompt that ``render`` makes of ``messages`` and the ``tools`` that it shows. It may
        fail with any exception.

        :raises Refused: it fails in every shape.
        :raises SecurityError: passed through, like everything that is not an Exception.
        """
        whole = partial(self._render_to_end, render=render, continues=is_begun(messages))
        try:
            text = whole(self.probe.arrange(messages, tools))
        except SecurityError:
            raise
        except Exception as reason:  # a template is foreign code
            if not self.probe.works:
                raise Refused(reason, always=True) from reason
            try:
                return whole(shapes.as_plain_turns(messages))
            except SecurityError:
                raise
            except Exception:  # noqa: BLE001  # the first failure is more specific
                raise Refused(reason, always=False) from reason
        if is_plain(messages) or not loses_text(messages, text):
            return text
        for reshape in (shapes.with_fewer_messages, shapes.as_plain_turns):
            try:
                other = whole(self.probe.arrange(reshape(messages), tools))
            except Exception:  # noqa: BLE001, S112  # the prompt so far is better than none
                continue
            if not loses_text(messages, other):
                return other
        return text

    def _render_to_end(self, messages: Messages, *, render: Render, continues: bool) -> str:
        """The prompt; if the conversation ``continues``, it ends within the last message."""
        if not (continues and is_begun(messages)) or self.probe.continues:
            return render(messages, True)
        for starts_turn in (False, True):  # some templates write the last turn only with the next

            def render_marked(marked: Messages, starts_turn: bool = starts_turn) -> str:
                return render(marked, starts_turn)

            text = cut_in_last(messages, render_marked)
            if text is not None:
                return text
        is_shown = bool(messages[-1].content)  # thoughts alone would be an empty turn
        return render(messages if is_shown else messages[:-1], True)


def find_refused_message(prompt: Prompt, refused: Refused, render: Callable[[Prompt], str]) -> str:
    """Names the message that ``prompt`` was refused for, by its number from 1 and its role, as the
    beginning of an error text; empty if the template always fails.

    It is the last message of the shortest refused beginning of the conversation, found by
    bisection: longer beginnings are assumed to be refused as well.
    """
    if refused.always or not prompt.messages:
        return ""
    low, high = 0, len(prompt.messages) - 1
    while low < high:
        middle = (low + high) // 2
        if _fails(replace(prompt, messages=prompt.messages[: middle + 1]), refused, render):
            high = middle
        else:
            low = middle + 1
    return f"message {low + 1} ({prompt.messages[low].role[:_ROLE_CHARACTERS]}): "


def _fails(prompt: Prompt, refused: Refused, render: Callable[[Prompt], str]) -> bool:
    """Whether it fails for the same reason."""
    try:
        render(prompt)
    except Refused as other:
        return str(other.reason) == str(refused.reason)
    return False


# ----------------------------------------------------------------- texts that the prompt lacks

_HEAD_CHARACTERS = 64  # searched for first, which is faster
_TAIL_CHARACTERS = 400
_WORDS = 4
_WORD = re.compile(r"(?<![/\\\w])\w+")
"""Words survive however a text is written. Not ``/think``: it is a command to some templates."""

_THOUGHTS = re.compile(f".*(?:{'|'.join(map(re.escape, OPENING_TAGS))})", re.DOTALL)
"""The closing tag of thoughts and all before it: templates leave out what clients send there."""

_SEARCHED_LIMIT = 16 << 20
"""Characters to search for texts that are not where they are expected."""


def is_plain(messages: Sequence[Message]) -> bool:
    """Whether these are turns of the user and the assistant that every template accepts, after at
    most one system message.
    """
    start = count_leading_systems(messages)
    return start < 2 and all(
        message.role == ("user", "assistant")[number % 2] and not message.tool_calls
        for number, message in enumerate(islice(messages, start, None))
    )


def loses_text(messages: Sequence[Message], text: str) -> bool:
    """Whether ``text`` lacks a text of ``messages``. The time is bounded in proportion to both;
    beyond that the answer is no.
    """
    search = _Search(text)
    for message in messages:
        values = (
            value for call in message.tool_calls for value in call.function.arguments.values()
        )
        texts = [message.content, *(value for value in values if isinstance(value, str))]
        if not all(search.finds(text.strip(), message.role) for text in texts):
            return True
    return False


class _Search:
    """Searches one prompt. Messages of one role are expected in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._reached: dict[str, int] = {}
        self._left = _SEARCHED_LIMIT

    def finds(self, text: str, role: str) -> bool:
        if self._left < 0:
            return True
        at = self._text.find(text[:_HEAD_CHARACTERS], self._reached.get(role, 0))
        if at >= 0 and not self._text.startswith(text, at):
            at = self._text.find(text, at)
        if at >= 0:
            self._reached[role] = at + len(text)
            return True
        self._left -= (1 + 2 * _WORDS) * len(self._text)
        tail = text[-_TAIL_CHARACTERS:]
        if role == "assistant":
            tail = _THOUGHTS.sub("", tail)
        longest_words = sorted(_WORD.findall(tail), key=len)[-_WORDS:]
        return all(
            word in self._text or json.dumps(word)[1:-1] in self._text for word in longest_words
        )


# ----------------------------------------------------------------- continuing the last message

_SENTINEL = "Continue"
"""Letters, because templates neither rewrite nor strip them."""


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
    """Without an empty last message of the assistant's, which some chat pages send as the place for
    the answer.
    """
    last = messages[-1] if messages[1:] else None
    return messages[:-1] if last and is_empty_answer(last) and not last.thinking else messages


def cut_in_last(messages: Messages, render: Callable[[Messages], str]) -> str | None:
    """The prompt for ``messages`` up to the end of the last one's text (content, or thoughts if
    there is no content yet); None: it cannot be cut there. Errors of ``render`` pass through.
    """
    sentinel = f"{_SENTINEL}{secrets.token_hex(8)}"  # nothing that a client could have sent
    last = messages[-1]
    field = "content" if last.content else "thinking"
    text = getattr(last, field)
    marked = replace(last, **{field: text + sentinel})
    head, found, rest = render([*messages[:-1], marked]).partition(sentinel)
    # only the last line: templates rewrite what is before it, such as thoughts sent with content
    line = text[text.rstrip().rfind("\n") + 1 :].lstrip()
    # thinking tags may hold a word joiner
    is_whole = head.replace(WORD_JOINER, "").endswith(line.replace(WORD_JOINER, ""))
    return head if found and is_whole and sentinel not in rest else None

"""Renders any conversation with one template: in the shape that it takes, and to its very end.

If the template refuses a conversation in the shape that its probe suggests, it is told once more in
plain turns of the user and the assistant. If it refuses those too, the error names the message.

The probe's examples are short, and a template may lose what only a longer conversation has, such as
a third system message. So a text that is missing in the prompt has the conversation told in other
shapes, and the first that shows all texts is taken.
"""

from __future__ import annotations

from collections.abc import Callable

from jinja2.exceptions import SecurityError
from msgspec.structs import replace

from ollama_async.core.conversation import Prompt
from ollama_async.prompts import message_shapes as shapes
from ollama_async.prompts.continuation import cut_in_last, is_begun
from ollama_async.prompts.message_shapes import Messages
from ollama_async.prompts.shown_texts import is_plain, loses_text
from ollama_async.prompts.template_probe import Show, TemplateProbe, Tools

Render = Callable[[Messages, bool], str]
"""Renders messages; then, if the flag is set, the beginning of the next answer."""

_ROLE_CHARACTERS = 100


class Refused(Exception):
    """``reason`` is what the template failed with; ``always``: it fails with a plain question."""

    def __init__(self, reason: Exception, *, always: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.always = always


class ShapedRendering:
    """Of one template, which ``show`` runs with small conversations to find out about it."""

    def __init__(self, show: Show) -> None:
        self.probe = TemplateProbe(show)

    def render(self, messages: Messages, tools: Tools, render: Render) -> str:
        """``messages`` by ``render``, which may fail with any exception; ``tools`` are those that
        it shows.

        :raises Refused: it fails in every shape.
        :raises SecurityError: passed through, as is what is not an Exception.
        """
        goes_on = is_begun(messages)
        try:
            arranged = self.probe.arrange(messages, tools)
            text = self._to_the_end(arranged, render, goes_on=goes_on)
        except SecurityError:
            raise
        except Exception as reason:  # a template is foreign code
            if not self.probe.works:
                raise Refused(reason, always=True) from reason
            try:
                plain = shapes.as_plain_turns(messages)
                return self._to_the_end(plain, render, goes_on=goes_on)
            except SecurityError:
                raise
            except Exception:  # noqa: BLE001  # the first failure says more
                raise Refused(reason, always=False) from reason
        if is_plain(messages) or not loses_text(messages, text):
            return text
        return self._find_whole(messages, tools, render, goes_on=goes_on) or text

    def _find_whole(
        self, messages: Messages, tools: Tools, render: Render, *, goes_on: bool
    ) -> str | None:
        """All texts of ``messages`` in the first other shape that shows them; None: none does."""
        for reshape in (_with_fewer_messages, shapes.as_plain_turns):
            try:
                arranged = self.probe.arrange(reshape(messages), tools)
                text = self._to_the_end(arranged, render, goes_on=goes_on)
            except Exception:  # noqa: BLE001, S112  # what is there already is better than nothing
                continue
            if not loses_text(messages, text):
                return text
        return None

    def _to_the_end(self, messages: Messages, render: Render, *, goes_on: bool) -> str:
        """``goes_on``: the last message is the beginning of the answer."""
        if not (goes_on and is_begun(messages)) or self.probe.continues:
            return render(messages, True)
        for starts_turn in (False, True):  # some write the last turn only with the next

            def render_marked(marked: Messages, starts_turn: bool = starts_turn) -> str:
                return render(marked, starts_turn)

            text = cut_in_last(messages, render_marked)
            if text is not None:
                return text
        is_shown = bool(messages[-1].content)  # thoughts alone would be an empty turn
        return render(messages if is_shown else messages[:-1], True)


def _with_fewer_messages(messages: Messages) -> Messages:
    return shapes.merge_neighbours(shapes.hoist_systems(shapes.with_known_roles(messages)))


def blame(prompt: Prompt, refused: Refused, render: Callable[[Prompt], str]) -> str:
    """Which message ``prompt`` was refused for, from 1, and whose it is, to be put in front of the
    reason; nothing if the template always fails.

    It is the one that ends the shortest refused beginning of the conversation. That is found by
    bisection: a longer one is taken to be refused as well.
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

"""Renders any conversation with one template: in the shape that it takes, and to its very end.

If the template refuses a conversation in the shape that its probe suggests, it is told once more in
plain turns of the user and the assistant. If it refuses those too, the error names the message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jinja2.exceptions import SecurityError

from ollama_async.conversation import Message
from ollama_async.prompts import message_shapes as shapes
from ollama_async.prompts.continuation import cut_in_last, is_begun
from ollama_async.prompts.message_shapes import Messages
from ollama_async.prompts.template_probe import Show, TemplateProbe, Tools

Render = Callable[[Messages, bool], str]
"""Renders messages; then, if the flag is set, the beginning of the next answer."""

_ROLE_CHARACTERS = 100


class RefusedMessage(Exception):
    """``place``: which message it is, from 1, and whose, with what goes between it and ``reason``;
    empty if it is not one message that is to blame.
    """

    def __init__(self, place: str, reason: Exception) -> None:
        super().__init__(place, reason)
        self.place = place
        self.reason = reason


class ShapedRendering:
    """Of one template, which ``show`` runs with small conversations to find out about it."""

    def __init__(self, show: Show) -> None:
        self.probe = TemplateProbe(show)

    def render(self, messages: Messages, tools: Tools, render: Render) -> str:
        """``messages`` by ``render``, which may fail with any exception; ``tools`` are those that
        it shows.

        :raises RefusedMessage: it fails in every shape.
        :raises SecurityError: passed through, as is what is not an Exception.
        """
        try:
            return self._arranged(messages, tools, render)
        except SecurityError:
            raise
        except Exception as reason:  # a template is foreign code
            if not messages or not self.probe.works:
                raise RefusedMessage("", reason) from reason
            return self._plain(messages, tools, render, reason)

    def _arranged(self, messages: Messages, tools: Tools, render: Render) -> str:
        arranged = self.probe.arrange(messages, tools)
        return self._to_the_end(arranged, render, goes_on=is_begun(messages))

    def _plain(self, messages: Messages, tools: Tools, render: Render, reason: Exception) -> str:
        plain = shapes.as_plain_turns(shapes.with_known_roles(messages))
        try:
            return self._to_the_end(plain, render, goes_on=is_begun(messages))
        except SecurityError:
            raise
        except Exception:  # noqa: BLE001  # the first failure says more
            index = _find_refused(
                messages, lambda part: _refuses(self._arranged, part, tools, render, reason)
            )
            role = messages[index].role[:_ROLE_CHARACTERS]
            raise RefusedMessage(f"message {index + 1} ({role}): ", reason) from reason

    def _to_the_end(self, messages: Messages, render: Render, *, goes_on: bool) -> str:
        """``goes_on``: the last message is the beginning of the answer."""
        if goes_on and is_begun(messages) and not self.probe.continues:
            for starts_turn in (False, True):  # some write the last turn only with the next

                def render_marked(marked: Messages, starts_turn: bool = starts_turn) -> str:
                    return render(marked, starts_turn)

                text = cut_in_last(messages, render_marked)
                if text is not None:
                    return text
        return render(messages, True)


def _refuses(
    arranged: Callable[[Messages, Tools, Render], str],
    messages: Messages,
    tools: Tools,
    render: Render,
    reason: Exception,
) -> bool:
    """Whether ``messages`` fail for the same ``reason``."""
    try:
        arranged(messages, tools, render)
    except SecurityError:
        raise
    except Exception as other:  # noqa: BLE001  # a template is foreign code
        return (type(other), str(other)) == (type(reason), str(reason))
    return False


def _find_refused(messages: Sequence[Message], refuses: Callable[[Messages], bool]) -> int:
    """The index of the message that ends the shortest refused beginning of ``messages``, by
    bisection: a longer one is taken to be refused as well.
    """
    low, high = 0, len(messages) - 1
    while low < high:
        middle = (low + high) // 2
        if refuses(list(messages[: middle + 1])):
            high = middle
        else:
            low = middle + 1
    return low

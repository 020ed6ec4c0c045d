"""The specification of a renderer, and how it renders a conversation: turn by turn, each turn's
text between the delimiters of its role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from jinja2.exceptions import SecurityError

from ollama_async.core.conversation import Prompt, ToolFunction
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.render_limits import join_pieces
from ollama_async.prompts.renderers.conversation_view import (
    ConversationView,
    Turn,
    ViewOptions,
    read_conversation,
)
from ollama_async.prompts.renderers.tool_texts import check

WriteTurn = Callable[[Turn, ConversationView], str]
WriteCall = Callable[[ToolFunction], str]
TagPair = tuple[str, str]
"""The text before and after a turn."""
Switch = tuple[str, str]
"""The text if the model is to think, and if it is not."""


def content(turn: Turn, _: ConversationView) -> str:
    return turn.content


def stripped(turn: Turn, _: ConversationView) -> str:
    return turn.content.strip()


def nothing(_turn: Turn, _view: ConversationView) -> str:
    return ""


@dataclass(frozen=True, kw_only=True, eq=False)
class RendererSpec(ViewOptions):
    """The prompt format of one model family; it is a :class:`.Renderer`.

    A prompt consists of ``start``, the system turn, the other turns, and the beginning of the
    answer: the assistant's opening tag and ``opening``. A last message of the assistant's without
    calls is the beginning of the answer: its turn stays open, and nothing follows. The same holds
    for the thought of a message that has nothing else, unless the client switched thinking off.
    """

    tags: Mapping[str, TagPair]
    """By role. Those of ``tool`` surround adjacent results together, unless
    :attr:`each_result_is_a_turn`.
    """
    system: Callable[[ConversationView], str | None]
    """The text of the system turn; None: there is no such turn."""
    assistant: WriteTurn
    user: WriteTurn = content
    later_system: WriteTurn = content
    result: WriteTurn = content
    """One result of a tool."""
    start: str = ""
    between_results: str = ""
    each_result_is_a_turn: bool = False
    opening: Switch = ("", "")
    thought: TagPair | None = None
    """The tags around a thought that begins an answer; None: thoughts are not shown."""
    resuming: Switch | None = None
    """None: results of tools end the assistant's turn. Otherwise they are part of it: what follows
    has no opening tag and begins with this.
    """

    def render(self, prompt: Prompt) -> str:
        """:raises TemplateFailed: as in :class:`.Renderer`; also if the prompt is too long or too
        deep.
        """
        try:
            check(prompt)
            view = read_conversation(prompt, self)
            return join_pieces(self._pieces(view))
        except SecurityError as reason:
            raise TemplateFailed(f"the prompt is too large: {reason}") from None

    def _pieces(self, view: ConversationView) -> Iterator[str]:
        yield self.start
        head = self.system(view)
        if head is not None:
            yield head.join(self.tags["system"])
        for turn in view.turns:
            if turn.role == "tool":
                yield self._result(turn, view)
            elif turn.is_open and not turn.content:
                yield self._unfinished_thought(turn, view)
            else:
                yield self._message_turn(turn, view)
        if not (view.turns and view.turns[-1].is_open):
            yield self._beginning(view, view.turns[-1].role if view.turns else "")

    def _message_turn(self, turn: Turn, view: ConversationView) -> str:
        opened, closed = self.tags[turn.role]
        if turn.role == "assistant":
            opened = self._opened(turn.before)
            if turn.is_open or self._resumes(turn.after):
                closed = ""
        write = {"user": self.user, "assistant": self.assistant, "system": self.later_system}
        return opened + write[turn.role](turn, view) + closed

    def _unfinished_thought(self, turn: Turn, view: ConversationView) -> str:
        if self.thought is None:
            return self._beginning(view, turn.before)
        opened, closed = self.thought
        written = self._opened(turn.before) + opened + turn.thinking.strip()
        return written + closed if view.think is False else written

    def _result(self, turn: Turn, view: ConversationView) -> str:
        opened, closed = self.tags["tool"]
        if not self.each_result_is_a_turn:
            opened = opened if turn.before != "tool" else self.between_results
            closed = closed if turn.after != "tool" else ""
        if self.resuming is not None and turn.before not in {"assistant", "tool"}:
            opened = self.tags["assistant"][0] + opened
        return opened + self.result(turn, view) + closed

    def _beginning(self, view: ConversationView, before: str) -> str:
        """The beginning of the answer after a last turn of the role ``before``."""
        switch = self.resuming if self.resuming is not None and before == "tool" else self.opening
        return self._opened(before) + switch[0 if view.thinks else 1]

    def _opened(self, before: str) -> str:
        """The opening tag of an assistant's turn, unless the turn continues after a result."""
        return "" if self._resumes(before) else self.tags["assistant"][0]

    def _resumes(self, neighbour: str) -> bool:
        return self.resuming is not None and neighbour == "tool"


def begun_thought(tags: TagPair) -> WriteTurn:
    """Writes the thought of the answer that is to be continued, and none of past answers."""

    def write(turn: Turn, _: ConversationView) -> str:
        return turn.thinking.strip().join(tags) if turn.is_open and turn.thinking else ""

    return write


def assistant_turn(
    *,
    thoughts: WriteTurn = nothing,
    text: WriteTurn = content,
    gap: str = "",
    call: WriteCall,
    between: str = "",
    around: TagPair = ("", ""),
) -> WriteTurn:
    """The usual turn of an assistant: thoughts, text, and calls if there are any.

    ``call`` writes one call; ``between`` separates calls, and ``around`` surrounds them. ``gap``
    comes between text and calls if there are both.
    """

    def write(turn: Turn, view: ConversationView) -> str:
        written = text(turn, view)
        calls = between.join(map(call, turn.calls)).join(around) if turn.calls else ""
        return thoughts(turn, view) + written + (gap if written and calls else "") + calls

    return write


def with_tools(
    view: ConversationView, tools: str, *, head: str | None = None, gap: str = "\n\n"
) -> str | None:
    """``head`` (default: the client's system text), then the ``tools``; None: there is neither."""
    head = view.system if head is None else head
    if not view.tools:
        return head
    return head + gap + tools if head else tools

"""The interfaces of renderers and parsers: a conversation becomes the model's prompt, and the
model's answer becomes content, thoughts and tool calls.

Implementations only turn data into text and text into data: they read no files and use no
tokenizer.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ollama_async.core.conversation import Prompt, Thought, ToolCall
from ollama_async.prompts.call_syntax import CallSyntax, OpenCall


class Renderer(Protocol):
    def render(self, prompt: Prompt) -> str:
        """The text of ``prompt.messages`` (``prompt.raw`` is None), up to where the answer begins.

        The text may begin with a BOS as text. A renderer that runs a model's own template bounds
        its memory itself; the caller bounds its time.

        :raises TemplateFailed: the model's template cannot render these messages, and why.
        """


Part = str | Thought | ToolCall
"""What an answer consists of, in the order in which the model wrote it: content (never empty),
thoughts and tool calls.
"""


class Delimiters(msgspec.Struct, frozen=True):
    """The texts around the thoughts and the tool calls of an answer.

    ``calls`` is set only if a call is a JSON object of ``name`` and ``arguments``. ``syntaxes`` are
    the call syntaxes that :attr:`Parser.open_call` may return. ``begins_thinking``: the answer
    begins within thoughts. ``opening`` is what an answer without thoughts begins with. None: the
    model writes no such delimiters, or none as simple as a pair.
    """

    thoughts: tuple[str, str] | None = None
    calls: tuple[str, str] | None = None
    begins_thinking: bool = False
    opening: str = ""
    syntaxes: tuple[CallSyntax, ...] = ()


class Parser(Protocol):
    """Parses one answer while it arrives. The joined parts do not depend on how the text is cut.

    Text is never lost: what looks like a tool call but cannot be parsed is content.
    """

    def feed(self, text: str) -> list[Part]:
        """The parts that are certain after ``text``."""

    def finish(self) -> list[Part]:
        """The parts that were held back. Call it once, when the answer has ended."""

    @property
    def call_number(self) -> int:
        """The number of the tool call that is open at the end of the text so far, from 1; calls
        that turn out to be content count as well. 0: none is open, or its syntax is not known.
        """

    @property
    def open_call(self) -> OpenCall | None:
        """The call that is open. Takes time in proportion to its text."""


class OutputFormat(Protocol):
    """How a model marks thoughts and tool calls in its answers; makes the parsers of answers."""

    @property
    def handles_tools(self) -> bool:
        """Whether tool calls are split off the content."""

    @property
    def handles_thinking(self) -> bool:
        """Whether a client may ask for thoughts."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Delimiters that must arrive as text, although the tokenizer may have them as control
        tokens.
        """

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        """The parser of the answer to ``prompt``, which was rendered as ``rendered``; None: all of
        the answer is content.
        """

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        """The delimiters that the answer to ``prompt`` will have, for the grammar that constrains
        it. Thoughts that would not be split off the content count as none.
        """

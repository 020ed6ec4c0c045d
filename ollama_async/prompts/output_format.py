"""The interfaces between a conversation, the text that a model reads, and what its answer means.

Renderers and parsers are files and folders beside this one. They only turn data into text and text
into data: they read no files and know no tokenizer.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ollama_async.core.conversation import Prompt, ToolCall
from ollama_async.prompts.call_syntax import CallSyntax, OpenCall


class Renderer(Protocol):
    def render(self, prompt: Prompt) -> str:
        """The text of ``prompt.messages`` (``prompt.raw`` is None), ready for the answer to begin.

        The text may begin with a BOS as text. A renderer that runs what came with a model keeps
        its memory within limits by itself; its time is the caller's to bound.

        :raises TemplateFailed: the model's template cannot render these messages, and why.
        """


class Content(msgspec.Struct, frozen=True):
    """Text for the reader; never empty."""

    text: str


class Thinking(msgspec.Struct, frozen=True):
    """Text of the model's thoughts; never empty."""

    text: str


Part = Content | Thinking | ToolCall
"""What an answer consists of, in the order in which the model wrote it."""


class Delimiters(msgspec.Struct, frozen=True):
    """The texts between which a model puts its thoughts, and each of its calls.

    ``calls`` only where a call is a JSON object of ``name`` and ``arguments``; ``syntaxes`` are the
    ways to write calls that :attr:`Parser.open_call` may name. ``begins_thinking``: the answer
    begins within thoughts. ``opening`` is what an answer without thoughts begins with. What is None
    is not marked, or not that simply.
    """

    thoughts: tuple[str, str] | None = None
    calls: tuple[str, str] | None = None
    begins_thinking: bool = False
    opening: str = ""
    syntaxes: tuple[CallSyntax, ...] = ()


class Parser(Protocol):
    """Of one answer, as its text arrives. However the text is cut, joined parts are the same.

    Text is never lost: what looks like a tool call but cannot be read is content.
    """

    def feed(self, text: str) -> list[Part]:
        """The parts that are certain after some more text."""

    def finish(self) -> list[Part]:
        """What was held back, when the answer has ended; call it once, last."""

    @property
    def call_number(self) -> int:
        """Which tool call of the answer it is in which the text so far ends, counted from 1 and
        with those that turn out to be none; 0: there is none, or its syntax is not known.
        """

    @property
    def open_call(self) -> OpenCall | None:
        """That call. Takes as long as its text."""


class OutputFormat(Protocol):
    """How a model marks thoughts and tool calls in its answers.

    ``special_tokens`` must arrive as text although the tokenizer takes them for control tokens.
    """

    @property
    def handles_tools(self) -> bool:
        """Whether tool calls are told from content."""

    @property
    def handles_thinking(self) -> bool:
        """Whether a client may ask for thoughts."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Marks; the tokenizer may have some that it does not know."""

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        """A parser for the answer to ``prompt``, whose text was ``rendered``; None: the whole
        answer is content.
        """

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        """The marks that the answer to ``prompt``, whose text was ``rendered``, will have, for what
        prescribes its form. Thoughts that would not be told from the content count as none.
        """

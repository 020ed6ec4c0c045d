"""Thinking: the tags around a model's thoughts, and whether an answer begins with thoughts.

That depends on the request, of which :class:`ParserContext` holds what parsers need. The
states that split thoughts off the content are made in :mod:`.parser_spec`.
"""

from __future__ import annotations

import enum

import msgspec

from ollama_async.core.conversation import Prompt
from ollama_async.prompts.parsers.states import Space
from ollama_async.prompts.parsers.tool_schemas import Tools


class Begin(enum.Enum):
    """What an answer begins with."""

    CONTENT = enum.auto()
    THOUGHTS = enum.auto()  # the prompt ended with the opening tag
    AGAIN = enum.auto()  # the same, but some models repeat it
    MAYBE = enum.auto()  # thoughts if the opening tag comes first
    BY_PROMPT = enum.auto()  # AGAIN if the prompt ended with the opening tag, else MAYBE


class ThinkingSpec(msgspec.Struct, frozen=True):
    """The tags around thoughts, and whether an answer begins with thoughts.

    ``if_on`` and ``if_off`` are what it begins with, depending on the client's ``think``;
    ``by_default`` counts if the client did not set it. An answer that the client began continues
    where the prompt ends, whatever ``think`` is. ``label`` is a line that follows the opening tag.
    ``anywhere``: thoughts may begin in the middle of content. ``hidden``: thoughts are dropped if
    the client did not request them. ``until_call``: a call of the spec's first kind ends them, too.
    ``trims``: with these beginnings, white space before the first visible character is markup.
    ``after_tools``: an answer to a tool's result begins within thoughts.
    """

    open: str
    close: str
    if_on: Begin = Begin.MAYBE
    if_off: Begin = Begin.CONTENT
    by_default: bool = False
    label: str = ""
    anywhere: bool = False
    hidden: bool = False
    until_call: bool = False
    trims: tuple[Begin, ...] = ()
    after_tools: bool = False
    space: Space = Space.DROP

    def is_thinking(self, context: ParserContext) -> bool:
        return self.by_default if context.think is None else context.think

    def begin(self, context: ParserContext) -> Begin:
        begin = self._begin(context)
        if begin is Begin.BY_PROMPT:
            begin = Begin.AGAIN if context.rendered.endswith(self.open) else Begin.MAYBE
        return begin

    def _begin(self, context: ParserContext) -> Begin:
        if context.is_in_thought:
            return Begin.THOUGHTS
        if context.begun or (context.continues and context.rendered.endswith(self.close)):
            return Begin.CONTENT
        if not self.is_thinking(context):
            return self.if_off
        return Begin.THOUGHTS if self.after_tools and context.last_role == "tool" else self.if_on


def by_prompt(open_tag: str, close_tag: str) -> ThinkingSpec:
    """Thoughts of a model whose template decides whether the prompt opens them."""
    return ThinkingSpec(
        open_tag,
        close_tag,
        if_on=Begin.BY_PROMPT,
        if_off=Begin.BY_PROMPT,
        until_call=True,
        trims=(Begin.AGAIN,),
    )


class ParserContext(msgspec.Struct, frozen=True):
    """The request, as far as a parser depends on it.

    ``continues``: the last message is the beginning of the answer. ``begun`` is the content of that
    message if the prompt ends with it; ``is_in_thought``: the prompt ends with its thought instead.
    ``rendered`` is the prompt without trailing white space.
    """

    think: bool | None
    tools: Tools
    continues: bool
    begun: str
    is_in_thought: bool
    last_role: str
    rendered: str

    @classmethod
    def of(cls, prompt: Prompt, rendered: str) -> ParserContext:
        last = prompt.messages[-1] if prompt.messages else None
        begun = last if last and last.role == "assistant" else None
        text = rendered.rstrip()
        thought = begun.thinking.strip() if begun and not begun.content else ""
        return cls(
            think=None if prompt.think is None else bool(prompt.think),
            tools=Tools([] if prompt.tool_choice == "none" else prompt.tools),
            continues=begun is not None,
            begun=begun.content if begun and text.endswith(begun.content.strip()) else "",
            is_in_thought=bool(thought) and text.endswith(thought),
            last_role=last.role if last else "",
            rendered=text,
        )

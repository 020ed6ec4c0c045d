"""How a family marks its thoughts."""

from __future__ import annotations

import enum

import msgspec

from ollama_async.prompts.parsers.asked import Asked
from ollama_async.prompts.parsers.states import Space


class Begin(enum.Enum):
    """What an answer begins with."""

    CONTENT = enum.auto()
    THOUGHTS = enum.auto()  # the prompt ended with the opening mark
    AGAIN = enum.auto()  # the same, but some models write it once more
    MAYBE = enum.auto()  # thoughts if the opening mark comes first
    BY_PROMPT = enum.auto()  # AGAIN if the prompt ended with the opening mark, else MAYBE


class Thoughts(msgspec.Struct, frozen=True):
    """How thoughts are marked, and when an answer begins with them.

    ``wanted`` and ``unwanted`` say how it begins; ``by_default`` is for clients that do not say
    what they want. An answer that the client began goes on from where the prompt ends, whatever
    they say. ``label`` is a line that follows the opening mark. ``anywhere``: thoughts may begin in
    the middle of content. ``hidden``: unwanted thoughts are dropped. ``until_call``: a call ends
    them too (the first kind of call that the family has). ``trims``: with these beginnings, white
    space before the first visible character is markup. ``after_tools``: an answer to a tool's
    result begins within thoughts.
    """

    open: str
    close: str
    wanted: Begin = Begin.MAYBE
    unwanted: Begin = Begin.CONTENT
    by_default: bool = False
    label: str = ""
    anywhere: bool = False
    hidden: bool = False
    until_call: bool = False
    trims: tuple[Begin, ...] = ()
    after_tools: bool = False
    space: Space = Space.DROP

    def are_wanted(self, asked: Asked) -> bool:
        return self.by_default if asked.think is None else asked.think

    def begin(self, asked: Asked) -> Begin:
        begin = self._begin(asked)
        if begin is not Begin.BY_PROMPT:
            return begin
        return Begin.AGAIN if asked.rendered.endswith(self.open) else Begin.MAYBE

    def _begin(self, asked: Asked) -> Begin:
        if asked.is_in_thought:
            return Begin.THOUGHTS
        if asked.begun or (asked.continues and asked.rendered.endswith(self.close)):
            return Begin.CONTENT
        if not self.are_wanted(asked):
            return self.unwanted
        return Begin.THOUGHTS if self.after_tools and asked.last_role == "tool" else self.wanted


def by_prompt(open_mark: str, close_mark: str) -> Thoughts:
    """Thoughts of a model whose template decides whether the prompt begins them."""
    return Thoughts(
        open_mark,
        close_mark,
        wanted=Begin.BY_PROMPT,
        unwanted=Begin.BY_PROMPT,
        until_call=True,
        trims=(Begin.AGAIN,),
    )

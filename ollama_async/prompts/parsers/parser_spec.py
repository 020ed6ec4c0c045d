"""A family of models as a row of data, and how such a row becomes a table of states.

Most formats differ only in their marks: some text around thoughts, some around calls. Those are a
:class:`Family`. What is built differently (messages with headers) has a file of its own and shares
:class:`.Asked` and the readers of calls.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from ollama_async.core.conversation import Prompt
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.output_format import Delimiters, Parser
from ollama_async.prompts.parsers.asked import Asked
from ollama_async.prompts.parsers.call_spec import HERMES_MARKS, Calls, HeadedCalls
from ollama_async.prompts.parsers.scanner import Scanner
from ollama_async.prompts.parsers.states import Kind, Look, Space, State, Text
from ollama_async.prompts.parsers.thoughts import Begin, Thoughts


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """A format: thoughts, calls, and how ``space`` around content is treated.

    ``lead`` are marks without a meaning at the beginning of the content; ``trims``: white space
    there has none either. ``skips`` are such marks anywhere in it. ``tools_instead``: where there
    are tools, there are no thoughts. ``handles_thinking``: thoughts can be asked for.
    """

    thoughts: Thoughts | None = None
    calls: tuple[Calls, ...] = ()
    space: Space = Space.DROP
    lead: tuple[str, ...] = ()
    trims: bool = False
    skips: tuple[str, ...] = ()
    tools_instead: bool = False
    handles_thinking: bool = False

    @property
    def handles_tools(self) -> bool:
        return bool(self.calls)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        marks = [*self.skips]
        if self.thoughts:
            marks += [self.thoughts.open, self.thoughts.close]
        for calls in self.calls:
            marks += calls.special_tokens
        return tuple(dict.fromkeys(mark for mark in marks if mark))

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        asked = Asked.by(prompt, rendered)
        return Scanner(self.states(asked), self._call_begun(asked) or self._begin(asked))

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        asked = Asked.by(prompt, rendered)
        calls = HERMES_MARKS if any(calls.is_plain_json for calls in self.calls) else None
        marks = Delimiters(calls=calls, syntaxes=self._syntaxes(asked))
        thoughts = self.thoughts
        if thoughts is None or (self.tools_instead and asked.tools):
            return marks
        begin = thoughts.begin(asked)
        if begin in {Begin.THOUGHTS, Begin.AGAIN}:
            return replace(marks, thoughts=(thoughts.open, thoughts.close), begins_thinking=True)
        if begin is Begin.CONTENT and not self._may_think_anywhere(thoughts, asked):
            return marks
        return replace(marks, thoughts=(f"{thoughts.open}{thoughts.label}", thoughts.close))

    def _may_think_anywhere(self, thoughts: Thoughts, asked: Asked) -> bool:
        is_shown = self.handles_thinking and thoughts.are_wanted(asked)
        return thoughts.anywhere and is_shown and not asked.begun

    def _syntaxes(self, asked: Asked) -> tuple[CallSyntax, ...]:
        syntaxes = (calls.syntax for calls in self.calls if asked.tools)
        return tuple(syntax for syntax in syntaxes if syntax is not None)

    def states(self, asked: Asked) -> dict[str, State]:
        """The table for one answer.

        ``first`` is before content, ``answer`` before content that follows thoughts.
        """
        table: dict[str, State] = {}
        first: dict[str, State | str] = {}
        anywhere: dict[str, State | str] = {}
        for number, calls in enumerate(self.calls if asked.tools else ()):
            marks = dict.fromkeys(calls.marks(asked.tools), f"call {number}")
            (first if calls.first else anywhere).update(_ways_in(calls, marks, number))
            table[f"call {number}"] = calls.state(asked.tools, f"after {number}")
            table[f"after {number}"] = _after(calls, marks, f"after {number}")
        table["content"] = Text(
            Kind.CONTENT,
            {**anywhere, **self._opening_thoughts(), **dict.fromkeys(self.skips, "content")},
            self.space,
            self._begin_calls(asked),
        )
        lead = dict.fromkeys(self.lead, "first")
        table["first"] = Look({**first, **lead}, "content", keep=not self.trims)
        table["answer"] = Look({**first, **lead}, "content")
        if self.thoughts:
            self._add_thoughts(self.thoughts, asked, table, first)
        return table

    def _begin_calls(self, asked: Asked) -> dict[str, Callable[[str], bool | None]]:
        """How calls go on after marks that alone are not enough."""
        found = {}
        for calls in self.calls if asked.tools else ():
            may_begin = calls.beginning(asked.tools)
            if may_begin is not None:
                found.update(dict.fromkeys(calls.marks(asked.tools), may_begin))
        return found

    def _opening_thoughts(self) -> dict[str, State | str]:
        return {self.thoughts.open: "thought"} if self.thoughts and self.thoughts.anywhere else {}

    def _add_thoughts(
        self,
        thoughts: Thoughts,
        asked: Asked,
        table: dict[str, State],
        first: dict[str, State | str],
    ) -> None:
        """The states inside thoughts, and those where they may begin."""
        ends: dict[str, State | str] = {thoughts.close: "answer"}
        if thoughts.until_call and asked.tools:
            marks = dict.fromkeys(self.calls[0].marks(asked.tools), "call 0")
            ends |= _ways_in(self.calls[0], marks, 0)
        is_shown = self.handles_thinking and thoughts.are_wanted(asked)
        kind = Kind.HIDDEN if thoughts.hidden and not is_shown else Kind.THINKING
        table["thinking"] = Text(kind, ends, thoughts.space, self._begin_calls(asked))
        table["thought"] = Look(
            {thoughts.label: "thinking"} if thoughts.label else {},
            "thinking",
            exact=bool(thoughts.label),
        )
        opening: dict[str, State | str] = {thoughts.open: "thought"}
        table["again"] = Look(opening, "thinking", keep=Begin.AGAIN not in thoughts.trims)
        lead = dict.fromkeys(self.lead, "answer")
        table["maybe"] = Look(
            {**first, **opening, **lead}, "content", keep=Begin.MAYBE not in thoughts.trims
        )

    def _call_begun(self, asked: Asked) -> State | None:
        """The state of an answer to a prompt that ends with the beginning of a call."""
        calls = self.calls[0] if self.calls else None
        if not isinstance(calls, HeadedCalls) or not calls.begun:
            return None
        begun = asked.rendered.endswith(calls.open[0])
        return calls.after_mark(asked.tools, "content", "") if begun else None

    def _begin(self, asked: Asked) -> str:
        """The state that any other answer begins in."""
        if self.thoughts is None or (self.tools_instead and asked.tools):
            return "first"
        return {
            Begin.CONTENT: "first",
            Begin.THOUGHTS: "thinking",
            Begin.AGAIN: "again",
            Begin.MAYBE: "maybe",
        }[self.thoughts.begin(asked)]


def _ways_in(calls: Calls, marks: dict[str, str], number: int) -> dict[str, str]:
    """The marks that are looked for in text: those of calls, or the one around them all."""
    return {calls.block[0]: f"after {number}"} if calls.block else marks


def _after(calls: Calls, marks: dict[str, str], name: str) -> State:
    """What follows a call of this kind, and between the marks of a block of them."""
    if calls.block:
        return Text(Kind.CONTENT, {**marks, calls.block[1]: "answer"}, Space.DROP)
    if calls.runs_on:
        return Look({}, "content", exact=True)
    again = marks if calls.first else {}
    return Look({**again, **dict.fromkeys(calls.noise, name)}, "content")

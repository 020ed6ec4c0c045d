"""The specification of a parser as data, and the table of states that it becomes.

Most output formats differ only in their delimiters: some text around thoughts, some around calls.
Each of those is a :class:`ParserSpec`. Formats of messages with headers have a file each and share
:class:`ParserContext` and the call syntaxes.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from ollama_async.core.conversation import Prompt
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.output_format import Delimiters, Parser
from ollama_async.prompts.parsers.call_spec import HERMES_MARKS, CallSpec, HeadedCallSpec
from ollama_async.prompts.parsers.scanner import Scanner
from ollama_async.prompts.parsers.states import Kind, Look, Space, State, Text
from ollama_async.prompts.parsers.thinking import Begin, ParserContext, ThinkingSpec


class ParserSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An output format: thoughts, calls, and what happens to white ``space`` around content.

    ``lead`` are marks to drop at the beginning of the content; ``trims``: white space there is
    dropped as well. ``skips`` are marks to drop anywhere in it. ``tools_instead``: with tools there
    are no thoughts. ``handles_thinking``: clients may ask for thoughts.
    """

    thoughts: ThinkingSpec | None = None
    calls: tuple[CallSpec, ...] = ()
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
        context = ParserContext.of(prompt, rendered)
        return Scanner(self.states(context), self._call_begun(context) or self._begin(context))

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        context = ParserContext.of(prompt, rendered)
        calls = HERMES_MARKS if any(calls.is_plain_json for calls in self.calls) else None
        marks = Delimiters(calls=calls, syntaxes=self._syntaxes(context))
        thoughts = self.thoughts
        if thoughts is None or (self.tools_instead and context.tools):
            return marks
        begin = thoughts.begin(context)
        if begin in {Begin.THOUGHTS, Begin.AGAIN}:
            return replace(marks, thoughts=(thoughts.open, thoughts.close), begins_thinking=True)
        if begin is Begin.CONTENT and not self._may_think_anywhere(thoughts, context):
            return marks
        return replace(marks, thoughts=(f"{thoughts.open}{thoughts.label}", thoughts.close))

    def _may_think_anywhere(self, thoughts: ThinkingSpec, context: ParserContext) -> bool:
        is_shown = self.handles_thinking and thoughts.are_wanted(context)
        return thoughts.anywhere and is_shown and not context.begun

    def _syntaxes(self, context: ParserContext) -> tuple[CallSyntax, ...]:
        syntaxes = (calls.syntax for calls in self.calls if context.tools)
        return tuple(syntax for syntax in syntaxes if syntax is not None)

    def states(self, context: ParserContext) -> dict[str, State]:
        """The table of states for one answer.

        ``first`` is the state before content, ``answer`` the one before content after thoughts.
        """
        table: dict[str, State] = {}
        first: dict[str, State | str] = {}
        anywhere: dict[str, State | str] = {}
        for number, calls in enumerate(self.calls if context.tools else ()):
            marks = dict.fromkeys(calls.marks(context.tools), f"call {number}")
            (first if calls.first else anywhere).update(_ways_in(calls, marks, number))
            table[f"call {number}"] = calls.state(context.tools, f"after {number}")
            table[f"after {number}"] = _after(calls, marks, f"after {number}")
        table["content"] = Text(
            Kind.CONTENT,
            {**anywhere, **self._opening_thoughts(), **dict.fromkeys(self.skips, "content")},
            self.space,
            self._begin_calls(context),
        )
        lead = dict.fromkeys(self.lead, "first")
        table["first"] = Look({**first, **lead}, "content", keep=not self.trims)
        table["answer"] = Look({**first, **lead}, "content")
        if self.thoughts:
            self._add_thoughts(self.thoughts, context, table, first)
        return table

    def _begin_calls(self, context: ParserContext) -> dict[str, Callable[[str], bool | None]]:
        """For marks that could be plain text: what tells whether a call follows."""
        found = {}
        for calls in self.calls if context.tools else ():
            may_begin = calls.beginning(context.tools)
            if may_begin is not None:
                found.update(dict.fromkeys(calls.marks(context.tools), may_begin))
        return found

    def _opening_thoughts(self) -> dict[str, State | str]:
        return {self.thoughts.open: "thought"} if self.thoughts and self.thoughts.anywhere else {}

    def _add_thoughts(
        self,
        thoughts: ThinkingSpec,
        context: ParserContext,
        table: dict[str, State],
        first: dict[str, State | str],
    ) -> None:
        """Add the states inside thoughts and those in which thoughts may begin."""
        ends: dict[str, State | str] = {thoughts.close: "answer"}
        if thoughts.until_call and context.tools:
            marks = dict.fromkeys(self.calls[0].marks(context.tools), "call 0")
            ends |= _ways_in(self.calls[0], marks, 0)
        is_shown = self.handles_thinking and thoughts.are_wanted(context)
        kind = Kind.HIDDEN if thoughts.hidden and not is_shown else Kind.THINKING
        table["thinking"] = Text(kind, ends, thoughts.space, self._begin_calls(context))
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

    def _call_begun(self, context: ParserContext) -> State | None:
        """The initial state if the prompt ends with the beginning of a call."""
        calls = self.calls[0] if self.calls else None
        if not isinstance(calls, HeadedCallSpec) or not calls.begun:
            return None
        begun = context.rendered.endswith(calls.open[0])
        return calls.after_mark(context.tools, "content", "") if begun else None

    def _begin(self, context: ParserContext) -> str:
        """The initial state otherwise."""
        if self.thoughts is None or (self.tools_instead and context.tools):
            return "first"
        return {
            Begin.CONTENT: "first",
            Begin.THOUGHTS: "thinking",
            Begin.AGAIN: "again",
            Begin.MAYBE: "maybe",
        }[self.thoughts.begin(context)]


def _ways_in(calls: CallSpec, marks: dict[str, str], number: int) -> dict[str, str]:
    """The marks to search for in text: those of calls, or the one around all of them."""
    return {calls.block[0]: f"after {number}"} if calls.block else marks


def _after(calls: CallSpec, marks: dict[str, str], name: str) -> State:
    """The state after a call of this kind, and between the marks of a block."""
    if calls.block:
        return Text(Kind.CONTENT, {**marks, calls.block[1]: "answer"}, Space.DROP)
    if calls.runs_on:
        return Look({}, "content", exact=True)
    again = marks if calls.first else {}
    return Look({**again, **dict.fromkeys(calls.noise, name)}, "content")

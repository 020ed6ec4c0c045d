"""A family of models as a row of data, and how such a row becomes a table of states.

Most formats differ only in their marks: some text around thoughts, some around calls. Those are a
:class:`Family`. What is built differently (messages with headers) has a file of its own and shares
:class:`Asked` and the readers of calls.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial

import msgspec

from ollama_async.conversation import Prompt, ToolCall
from ollama_async.prompts.parsers.bodies import Read
from ollama_async.prompts.parsers.bodies.objects import named_object
from ollama_async.prompts.parsers.scanner import (
    Collect,
    Kind,
    Look,
    Outcome,
    Scanner,
    Space,
    State,
    Text,
)
from ollama_async.prompts.parsers.tools import Tools, is_plain
from ollama_async.prompts.port import Parser

JSON = '"'
PYTHON = "\"'"
"""The quotes of strings in which brackets do not count."""

HEAD_LIMIT = 256
"""Characters of a header; against answers without its end, that would wait for it."""


class Asked(msgspec.Struct, frozen=True):
    """What of a request matters for reading its answer; ``continues``: its last message is the
    beginning of the answer (``begun`` is the text in it).
    """

    think: bool | None
    tools: Tools
    continues: bool
    begun: str
    last_role: str
    rendered: str

    @classmethod
    def by(cls, prompt: Prompt, rendered: str) -> Asked:
        last = prompt.messages[-1] if prompt.messages else None
        continues = last is not None and last.role == "assistant"
        return cls(
            think=None if prompt.think is None else bool(prompt.think),
            tools=Tools([] if prompt.tool_choice == "none" else prompt.tools),
            continues=continues,
            begun=last.content if last and continues else "",
            last_role=last.role if last else "",
            rendered=rendered.rstrip(),
        )


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
    what they want. ``resumes``: an answer that goes on from the client's text is content from the
    start. ``label`` is a line that follows the opening mark. ``anywhere``: thoughts may begin in
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
    resumes: bool = True
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
        if self.resumes and asked.begun:
            return Begin.CONTENT
        if not self.are_wanted(asked):
            return self.unwanted
        return Begin.THOUGHTS if self.after_tools and asked.last_role == "tool" else self.wanted


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """How calls are marked: from one of ``open`` to one of ``close`` (without: to the bracket that
    closes the first one; ``quotes`` then are those of its strings).

    ``whole`` reads a call whose ``close`` never came (None: as any other); it is a call only if its
    tool is declared and nothing that the tool requires is missing. ``declared``: the tool has to be
    declared in any case, since the marks could be plain text. ``item`` reads one call of a list.
    ``block`` are the marks around all calls. ``kept``: the opening mark is a part of the call.
    ``first``: only at the beginning of the content, or after another one. ``noise`` is dropped
    after a call. ``runs_on``: white space after a call is content. ``limit`` is as in
    :class:`Collect`. ``inner`` are marks inside of calls.
    """

    open: tuple[str, ...]
    close: tuple[str, ...] = ()
    read: Read
    whole: Read | None = None
    item: Callable[[str], ToolCall | None] | None = None
    quotes: str = ""
    block: tuple[str, str] | None = None
    declared: bool = False
    kept: bool = False
    first: bool = False
    noise: tuple[str, ...] = ()
    runs_on: bool = False
    limit: int | None = None
    inner: tuple[str, ...] = ()

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The marks that may be tokens of their own."""
        around = () if self.kept else (*self.open, *self.close)
        return (*around, *(self.block or ()), *self.noise, *self.inner)

    def marks(self, tools: Tools) -> tuple[str, ...]:
        """What calls begin with, if these are the ``tools``."""
        del tools
        return self.open

    def state(self, tools: Tools, then: str) -> State:
        """What an opening mark leads to; ``then`` follows a call."""
        return self._collect(tools, then, self.read, source="")

    def _collect(self, tools: Tools, then: str, read: Read, *, source: str) -> Collect:
        def settle(span: str) -> Outcome | None:
            pieces = read(span, tools)
            known = not self.declared or all(_is_declared(piece, tools) for piece in pieces or ())
            return Outcome(pieces, then) if pieces and known else None

        def cut(span: str) -> Outcome | None:
            pieces = (self.whole or read)(span, tools)
            complete = all(isinstance(piece, str) or tools.accepts(piece) for piece in pieces or ())
            return Outcome(pieces, then) if pieces and complete else None

        return Collect(
            settle,
            cut,
            ends=self.close,
            quotes=self.quotes,
            item=None if self.declared else self.item,
            keep=self.kept,
            source=source,
            limit=self.limit,
        )


class HeadedCalls(Calls, frozen=True, kw_only=True):
    """Calls whose tool's name stands before ``head_end`` and then the arguments in JSON.

    What begins with a bracket instead is read like other calls. ``texts`` are names that
    introduce text, not a call. ``begun``: a prompt that ends with the opening mark has begun one.
    """

    head_end: str
    texts: tuple[str, ...] = ()
    begun: bool = False

    def state(self, tools: Tools, then: str) -> State:
        return self.after_mark(tools, then, self.open[0])

    def after_mark(self, tools: Tools, then: str, mark: str) -> State:
        """What comes after the opening ``mark``; "" if the answer does not hold it."""
        whole = msgspec.structs.replace(self, kept=True)
        bracketed = whole._collect(tools, then, self.read, source=mark)  # noqa: SLF001
        head = Collect(
            partial(self._headed, tools, then, mark),
            lambda _: None,
            ends=(self.head_end,),
            source=mark,
            limit=HEAD_LIMIT,
        )
        return Look({"[": bracketed, "{": bracketed}, head, keep=True)

    def _headed(self, tools: Tools, then: str, mark: str, head: str) -> Outcome | None:
        name = head.strip()
        if name in self.texts:
            return Outcome([], "content")
        if self.declared and name not in tools:
            return None
        read = partial(named_object, name=name)
        return Outcome([], self._collect(tools, then, read, source=mark + head))


class PythonicCalls(Calls, frozen=True, kw_only=True):
    """Calls that begin with one of ``open`` and the name of a declared tool and a bracket."""

    def marks(self, tools: Tools) -> tuple[str, ...]:
        names = [name for name in tools if is_plain(name)]
        return tuple(f"{mark}{name}(" for mark in self.open for name in names)


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
        )
        lead = dict.fromkeys(self.lead, "first")
        table["first"] = Look({**first, **lead}, "content", keep=not self.trims)
        table["answer"] = Look({**first, **lead}, "content")
        if self.thoughts:
            self._add_thoughts(self.thoughts, asked, table, first)
        return table

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
        table["thinking"] = Text(kind, ends, thoughts.space)
        table["thought"] = Look(
            {thoughts.label: "thinking"} if thoughts.label else {},
            "thinking",
            exact=bool(thoughts.label),
        )
        opening: dict[str, State | str] = {thoughts.open: "thought"}
        table["again"] = Look(opening, "thinking", keep=Begin.AGAIN not in thoughts.trims)
        table["maybe"] = Look(
            {**first, **opening}, "content", keep=Begin.MAYBE not in thoughts.trims
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


def _is_declared(piece: ToolCall | str, tools: Tools) -> bool:
    return isinstance(piece, str) or piece.function.name in tools

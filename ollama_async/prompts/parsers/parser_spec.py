"""Parser specifications: how a model delimits its thoughts and its tool calls, as data.

Most output formats differ only in their delimiters. Each of those is a :class:`ParserSpec` of one
:class:`.ThinkingSpec` and several :class:`CallSpec`, and becomes a table of parser states. Formats
of messages with headers are in :mod:`.message_formats`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from ollama_async.core.conversation import Prompt, ToolCall
from ollama_async.prompts.output_format import CallSyntax, Delimiters, ForcedCall, Parser
from ollama_async.prompts.parsers.delimiter_search import Quote
from ollama_async.prompts.parsers.json_calls import JsonCalls, named_object
from ollama_async.prompts.parsers.scanner import Scanner
from ollama_async.prompts.parsers.states import Collect, Kind, Look, Outcome, Space, State, Text
from ollama_async.prompts.parsers.thinking import Begin, ParserContext, ThinkingSpec
from ollama_async.prompts.parsers.tool_schemas import CallParser, ParseCall, Tools, is_plain

_PROSE = frozenset("`'\".,;:!?)]*_")
"""What follows a tag that prose only mentions."""

_OPENING = frozenset("{[<")
"""What calls begin with. A text that begins with one of these either is a call or is none."""

_CONTROL = re.compile(r"<\||\|>|<｜|｜>|^\[[A-Z_]+\]$")  # noqa: RUF001  # full-width bars, too
"""Tags that do not occur in text."""

JSON, PYTHON = '"', "\"'"
"""The quotes of strings in which brackets do not count."""

HERMES_TAGS = ("<tool_call>", "</tool_call>")

HEAD_LIMIT = 256
"""Characters of a header. An answer without the end of a header would otherwise be held back."""


class CallSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Calls from one of the tags ``open`` to one of ``close``. Without ``close``, a call ends at
    the bracket that closes its first one; ``quotes`` are then the quotes of its strings.

    ``parse`` parses the text between. ``whole`` parses a call whose ``close`` never came (None:
    ``parse`` does); it is a call only if its tool is declared and has all required arguments.
    ``declared``: the tool must always be declared, because the tags could be plain text. ``item``
    parses one call of a list. ``strings`` are the kinds of strings inside which ``close`` does not
    count (None: those of ``parse``). ``block`` are the tags around all calls. ``kept``: the opening
    tag is part of the call. ``first``: only at the beginning of the content, or after another call.
    ``noise`` is dropped after a call. ``runs_on``: white space after a call is content.
    ``inner`` are tags inside calls.
    """

    open: tuple[str, ...]
    close: tuple[str, ...] = ()
    parse: CallParser
    whole: ParseCall | None = None
    item: Callable[[str], ToolCall | None] | None = None
    quotes: str = JSON
    strings: tuple[Quote, ...] | None = None
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
        """The tags that the tokenizer may have as tokens of their own."""
        around = () if self.kept else (*self.open, *self.close)
        return (*around, *(self.block or ()), *self.noise, *self.inner)

    @property
    def is_plain_json(self) -> bool:
        """Whether these calls look like those that Hermes and Qwen were trained on."""
        opening, closing = HERMES_TAGS
        return self.open == (opening,) and (
            isinstance(self.parse, JsonCalls) or closing in self.noise
        )

    @property
    def syntax(self) -> CallSyntax | None:
        """What follows the opening tag; None: no grammar describes it."""
        syntax = self.parse.syntax
        if syntax is None:
            return None
        # a form that ends with its last tag holds the closing tag already
        close = () if syntax.forms[0].endswith(self.close) else self.close
        return replace(
            syntax,
            close=close,
            # without a closing tag, nothing shows that no other call follows
            repeated=syntax.repeated and bool(close),
            waits=syntax.waits or not self._is_control,
            named=self._is_doubtful,
        )

    @property
    def forced(self) -> ForcedCall | None:
        """How to prescribe such a call; None: that cannot be done."""
        if self.syntax is None or self.kept:
            return None
        return ForcedCall((self.block[0] if self.block else "") + self.open[0], self.syntax)

    @property
    def _is_control(self) -> bool:
        """Whether the opening tag never occurs in text."""
        return _CONTROL.search(self.open[0]) is not None

    @property
    def _is_doubtful(self) -> bool:
        """Whether the opening tag could also begin text: JSON, code, the name of a tag."""
        begins_json = self.kept and self.open[0].lstrip()[:1] in ("[", "{")
        return begins_json or (self.declared and not self._is_control)

    def beginning(self, tools: Tools) -> Callable[[str], bool | None] | None:
        """A predicate: may the text after the tag be a call? None: the tag is enough."""
        syntax = self.syntax
        if syntax is None or not syntax.waits or self.kept or self.block:
            return None
        names = tuple(tools)
        begins_with_name = any(form.startswith("{name}") for form in syntax.forms)
        refused = _PROSE if begins_with_name else _PROSE | _OPENING

        def may_begin(text: str) -> bool | None:
            found, first = syntax.may_begin(text, names), text.lstrip()[:1]
            # a text unlike any call is collected as a whole, in case it is a broken call
            is_prose = first.isalnum() or first in refused
            return found if found is not False or is_prose else True

        return may_begin

    def opening(self, tools: Tools) -> tuple[str, ...]:
        """The opening tags of calls to ``tools``."""
        del tools
        return self.open

    def state(self, tools: Tools, then: str) -> State:
        """The state after an opening tag; ``then`` is the state after a call."""
        return self._collect(tools, then, self.parse)

    def _collect(self, tools: Tools, then: str, parse: ParseCall, source: str = "") -> Collect:
        def settle(span: str) -> Outcome | None:
            pieces = parse(span, tools)
            calls = [piece for piece in pieces or () if isinstance(piece, ToolCall)]
            known = not self.declared or all(call.function.name in tools for call in calls)
            return Outcome(pieces, then) if pieces and known else None

        def cut(span: str) -> Outcome | None:
            pieces = (self.whole or parse)(span, tools)
            complete = all(isinstance(piece, str) or tools.accepts(piece) for piece in pieces or ())
            return Outcome(pieces, then) if pieces and complete else None

        strings = self.parse.strings(*self.open) if self.strings is None else self.strings
        return Collect(
            settle,
            cut,
            ends=self.close,
            quotes=self.quotes if self.item or not self.close else "",
            item=None if self.declared else self.item,
            strings=strings if self.close else (),
            keep=self.kept,
            source=source,
            limit=None if self.close or self.kept else HEAD_LIMIT,
            syntax=self.syntax,
        )


def tagged(open_tag: str, close_tag: str, parse: CallParser, **more: Any) -> CallSpec:
    """Calls between two tags."""
    return CallSpec(open=(open_tag,), close=(close_tag,), parse=parse, **more)


class HeadedCallSpec(CallSpec, frozen=True, kw_only=True):
    """Calls with a header: the tool's name up to ``head_end``, then the arguments in JSON.

    A call that begins with a bracket instead is parsed like other calls. ``id_tag`` stands between
    the name and the call's id, if there is one. ``texts`` are names that introduce text, not a
    call. ``begun``: a prompt that ends with the opening tag has begun a call. ``tight``: there is
    no white space between the tag and the name.
    """

    head_end: str
    tight: bool = False
    id_tag: str = ""
    texts: tuple[str, ...] = ()
    begun: bool = False

    @property
    def syntax(self) -> CallSyntax | None:
        tail = f"{self.head_end} {{arguments}}"
        forms = [f"{{name}} {tail}"]
        if self.id_tag:
            forms.append(f"{{name}} {self.id_tag} {{id}} {tail}")
        inner = self.parse.syntax or CallSyntax(forms=())
        return replace(
            inner,
            forms=(*forms, *inner.forms),
            repeated=False,
            close=self.close,
            texts=self.texts,
            named=self._is_doubtful,
        )

    def state(self, tools: Tools, then: str) -> State:
        return self.after_tag(tools, then, self.open[0])

    def after_tag(self, tools: Tools, then: str, tag: str) -> State:
        """The state after the opening ``tag``; "": the prompt ends with the tag."""
        whole = replace(self, kept=True)
        bracketed = whole._collect(tools, then, self.parse, tag)  # noqa: SLF001
        head = Collect(
            partial(self._headed, tools, then, tag),
            lambda _: None,
            ends=(self.head_end,),
            source=tag,
            limit=HEAD_LIMIT,
            syntax=self.syntax,
        )
        return Look(
            {"[": bracketed, "{": bracketed}, head, keep=True, exact=self.tight, syntax=self.syntax
        )

    def _headed(self, tools: Tools, then: str, tag: str, head: str) -> Outcome | None:
        name, call_id = head.strip(), ""
        if self.id_tag:
            name, call_id = (part.strip() for part in head.partition(self.id_tag)[::2])
        if name in self.texts:
            return Outcome([], "content")
        if self.declared and name not in tools:
            return None
        parse = partial(named_object, name=name, call_id=call_id)
        return Outcome([], self._collect(tools, then, parse, tag + head))


class PythonicCallSpec(CallSpec, frozen=True, kw_only=True):
    """Calls in Python that begin with one of ``open``, the name of a declared tool and ``(``."""

    quotes: str = PYTHON
    declared: bool = True
    kept: bool = True
    first: bool = True

    @property
    def _is_doubtful(self) -> bool:
        return False  # the name of a tool is in the opening tag

    def opening(self, tools: Tools) -> tuple[str, ...]:
        names = [name for name in tools if is_plain(name)]
        return tuple(f"{tag}{name}(" for tag in self.open for name in names)


# ----------------------------------------------------------------- whole formats


class ParserSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An output format: thoughts, calls, and what happens to white ``space`` around content.

    ``lead`` are tags to drop at the beginning of the content; ``trims``: white space there is
    dropped as well. ``skips`` are tags to drop anywhere in it. ``tools_instead``: with tools there
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
        around = (self.thoughts.open, self.thoughts.close) if self.thoughts else ()
        inside = (token for calls in self.calls for token in calls.special_tokens)
        return tuple(dict.fromkeys(filter(None, (*self.skips, *around, *inside))))

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        context = ParserContext.of(prompt, rendered)
        return Scanner(self.states(context), self._call_begun(context) or self._begin(context))

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        context = ParserContext.of(prompt, rendered)
        syntaxes = tuple(calls.syntax for calls in self.calls if context.tools and calls.syntax)
        found = Delimiters(
            calls=HERMES_TAGS if any(calls.is_plain_json for calls in self.calls) else None,
            syntaxes=syntaxes,
            forced=self._forced(context) if syntaxes else None,
        )
        thoughts = self.thoughts
        if thoughts is None or (self.tools_instead and context.tools):
            return found
        begin = thoughts.begin(context)
        if begin in {Begin.THOUGHTS, Begin.AGAIN}:
            return replace(found, thoughts=(thoughts.open, thoughts.close), begins_thinking=True)
        may_think = thoughts.anywhere and self._shows(thoughts, context) and not context.begun
        if begin is Begin.CONTENT and not may_think:
            return found
        return replace(found, thoughts=(f"{thoughts.open}{thoughts.label}", thoughts.close))

    def _forced(self, context: ParserContext) -> ForcedCall | None:
        forced = next((calls.forced for calls in self.calls if calls.forced), None)
        if forced is not None and self._call_begun(context):
            return replace(forced, opening="")
        return forced

    def _shows(self, thoughts: ThinkingSpec, context: ParserContext) -> bool:
        return self.handles_thinking and thoughts.is_thinking(context)

    def states(self, context: ParserContext) -> dict[str, State]:
        """The table of states for one answer.

        ``first`` is the state before content, ``answer`` the one before content after thoughts.
        """
        table: dict[str, State] = {}
        first: dict[str, State | str] = {}
        anywhere: dict[str, State | str] = {}
        begin: dict[str, Callable[[str], bool | None]] = {}
        for number, calls in enumerate(self.calls if context.tools else ()):
            tags = dict.fromkeys(calls.opening(context.tools), f"call {number}")
            (first if calls.first else anywhere).update(_ways_in(calls, tags, number))
            table[f"call {number}"] = calls.state(context.tools, f"after {number}")
            table[f"after {number}"] = _after(calls, tags, f"after {number}")
            may_begin = calls.beginning(context.tools)
            if may_begin is not None:
                begin.update(dict.fromkeys(tags, may_begin))
        if self.thoughts and self.thoughts.anywhere:
            anywhere[self.thoughts.open] = "thought"
        anywhere |= dict.fromkeys(self.skips, "content")
        table["content"] = Text(Kind.CONTENT, anywhere, self.space, begin)
        lead = dict.fromkeys(self.lead, "first")
        table["first"] = Look({**first, **lead}, "content", keep=not self.trims)
        table["answer"] = Look({**first, **lead}, "content")
        if self.thoughts:
            table |= self._thinking_states(self.thoughts, context, first, begin)
        return table

    def _thinking_states(
        self,
        thoughts: ThinkingSpec,
        context: ParserContext,
        first: dict[str, State | str],
        begin: dict[str, Callable[[str], bool | None]],
    ) -> dict[str, State]:
        """The states inside thoughts and those in which thoughts may begin."""
        ends: dict[str, State | str] = {thoughts.close: "answer"}
        if thoughts.until_call and context.tools:
            tags = dict.fromkeys(self.calls[0].opening(context.tools), "call 0")
            ends |= _ways_in(self.calls[0], tags, 0)
        is_hidden = thoughts.hidden and not self._shows(thoughts, context)
        label: dict[str, State | str] = {thoughts.label: "thinking"} if thoughts.label else {}
        opening: dict[str, State | str] = {thoughts.open: "thought"}
        lead = dict.fromkeys(self.lead, "answer")
        return {
            "thinking": Text(
                Kind.HIDDEN if is_hidden else Kind.THINKING, ends, thoughts.space, begin
            ),
            "thought": Look(label, "thinking", exact=bool(label)),
            "again": Look(opening, "thinking", keep=Begin.AGAIN not in thoughts.trims),
            "maybe": Look(
                {**first, **opening, **lead}, "content", keep=Begin.MAYBE not in thoughts.trims
            ),
        }

    def _call_begun(self, context: ParserContext) -> State | None:
        """The initial state if the prompt ends with the beginning of a call."""
        calls = self.calls[0] if self.calls else None
        if not isinstance(calls, HeadedCallSpec) or not calls.begun:
            return None
        begun = context.rendered.endswith(calls.open[0])
        return calls.after_tag(context.tools, "content", "") if begun else None

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


def _ways_in(calls: CallSpec, tags: dict[str, str], number: int) -> dict[str, str]:
    """The tags to search for in text: those of calls, or the one around all of them."""
    return {calls.block[0]: f"after {number}"} if calls.block else tags


def _after(calls: CallSpec, tags: dict[str, str], name: str) -> State:
    """The state after a call of this kind, and between the tags of a block."""
    if calls.block:
        return Text(Kind.CONTENT, {**tags, calls.block[1]: "answer"}, Space.DROP)
    if calls.runs_on:
        return Look({}, "content", exact=True)
    again = tags if calls.first else {}
    return Look({**again, **dict.fromkeys(calls.noise, name)}, "content")

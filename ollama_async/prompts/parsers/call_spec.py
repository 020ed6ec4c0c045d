"""Specifications of how a model delimits its tool calls, and the parser states that they become."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import msgspec
from msgspec.structs import replace

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.parsers.delimiter_search import Quote
from ollama_async.prompts.parsers.json_calls import (
    JsonCalls,
    named_object,
)
from ollama_async.prompts.parsers.states import Collect, Look, Outcome, State
from ollama_async.prompts.parsers.tagged_calls import PairCalls, XmlCalls
from ollama_async.prompts.parsers.tool_schemas import CallParser, ParseCall, Tools, is_plain

_PROSE = frozenset("`'\".,;:!?)]*_")
"""What follows a mark that prose only mentions."""

_OPENING = frozenset("{[<")
"""What calls begin with. A text that begins with one of these either is a call or is none."""

_CONTROL = re.compile(r"<\||\|>|<｜|｜>|^\[[A-Z_]+\]$")  # noqa: RUF001  # full-width bars, too
"""Marks that do not occur in text."""

JSON = '"'
PYTHON = "\"'"
"""The quotes of strings in which brackets do not count."""

HERMES_MARKS = ("<tool_call>", "</tool_call>")

HEAD_LIMIT = 256
"""Characters of a header. An answer without the end of a header would otherwise be held back."""


class CallSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Calls from one of ``open`` to one of ``close``. Without ``close``, a call ends at the bracket
    that closes its first one; ``quotes`` are then the quotes of its strings.

    ``parse`` parses the text between. ``whole`` parses a call whose ``close`` never came (None:
    ``parse`` does); it is a call only if its tool is declared and has all required arguments.
    ``declared``: the tool must always be declared, because the marks could be plain text. ``item``
    parses one call of a list. ``strings`` are the kinds of strings inside which ``close`` does not
    count. ``block`` are the marks around all calls. ``kept``: the opening mark is part of the call.
    ``first``: only at the beginning of the content, or after another call. ``noise`` is dropped
    after a call. ``runs_on``: white space after a call is content. ``limit`` is as in
    :class:`Collect`. ``inner`` are marks inside calls.
    """

    open: tuple[str, ...]
    close: tuple[str, ...] = ()
    parse: CallParser
    whole: ParseCall | None = None
    item: Callable[[str], ToolCall | None] | None = None
    quotes: str = ""
    strings: tuple[Quote, ...] = ()
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
        """The marks that the tokenizer may have as tokens of their own."""
        around = () if self.kept else (*self.open, *self.close)
        return (*around, *(self.block or ()), *self.noise, *self.inner)

    @property
    def is_plain_json(self) -> bool:
        """Whether these calls look like those that Hermes and Qwen were trained on."""
        opening, closing = HERMES_MARKS
        return self.open == (opening,) and (
            isinstance(self.parse, JsonCalls) or closing in self.noise
        )

    @property
    def syntax(self) -> CallSyntax | None:
        """What follows the opening mark; None: no grammar describes it."""
        syntax = self.parse.syntax
        if syntax is None:
            return None
        # a form that ends with its last tag holds the closing mark already
        close = () if syntax.forms[0].endswith(self.close) else self.close
        # without a closing mark, nothing tells that no other call follows
        repeated = syntax.repeated and bool(close)
        return replace(
            syntax,
            close=close,
            repeated=repeated,
            waits=syntax.waits or not self._is_control,
            named=self._is_doubtful,
        )

    @property
    def _is_control(self) -> bool:
        """Whether the mark never occurs in text."""
        return _CONTROL.search(self.open[0]) is not None

    @property
    def _is_doubtful(self) -> bool:
        """Whether the mark could also begin text: JSON, code, the name of a tag."""
        begins_json = self.kept and self.open[0].lstrip()[:1] in ("[", "{")
        return begins_json or (self.declared and not self._is_control)

    def beginning(self, tools: Tools) -> Callable[[str], bool | None] | None:
        """A function that says whether a text after the mark may be a call; None: the mark is
        enough.
        """
        syntax = self.syntax
        if syntax is None or not syntax.waits or self.kept or self.block:
            return None
        names = tuple(tools)
        refused = _PROSE if syntax.begins_with_name else _PROSE | _OPENING

        def may_begin(text: str) -> bool | None:
            found, first = syntax.may_begin(text, names), text.lstrip()[:1]
            # a text unlike any call is collected as a whole, in case it is a broken call
            is_prose = first.isalnum() or first in refused
            return found if found is not False or is_prose else True

        return may_begin

    def marks(self, tools: Tools) -> tuple[str, ...]:
        """The opening marks of calls to ``tools``."""
        del tools
        return self.open

    def state(self, tools: Tools, then: str) -> State:
        """The state after an opening mark; ``then`` is the state after a call."""
        return self._collect(tools, then, self.parse, source="")

    def _collect(self, tools: Tools, then: str, parse: ParseCall, *, source: str) -> Collect:
        def settle(span: str) -> Outcome | None:
            pieces = parse(span, tools)
            known = not self.declared or all(_is_declared(piece, tools) for piece in pieces or ())
            return Outcome(pieces, then) if pieces and known else None

        def cut(span: str) -> Outcome | None:
            pieces = (self.whole or parse)(span, tools)
            complete = all(isinstance(piece, str) or tools.accepts(piece) for piece in pieces or ())
            return Outcome(pieces, then) if pieces and complete else None

        return Collect(
            settle,
            cut,
            ends=self.close,
            quotes=self.quotes,
            item=None if self.declared else self.item,
            strings=self.strings if self.close else (),
            keep=self.kept,
            source=source,
            limit=self.limit,
            syntax=self.syntax,
        )


def tagged(open_mark: str, close_mark: str, parse: XmlCalls | PairCalls) -> CallSpec:
    """Calls between two marks, with values in tags."""
    return CallSpec(
        open=(open_mark,), close=(close_mark,), parse=parse, strings=parse.strings(open_mark)
    )


class HeadedCallSpec(CallSpec, frozen=True, kw_only=True):
    """Calls with a header: the tool's name up to ``head_end``, then the arguments in JSON.

    A call that begins with a bracket instead is parsed like other calls. ``id_mark`` stands between
    the name and the call's id, if there is one. ``texts`` are names that introduce text, not a
    call. ``begun``: a prompt that ends with the opening mark has begun a call. ``tight``: there is
    no white space between the mark and the name.
    """

    head_end: str
    tight: bool = False
    id_mark: str = ""
    texts: tuple[str, ...] = ()
    begun: bool = False

    @property
    def syntax(self) -> CallSyntax | None:
        tail = f"{self.head_end} {{arguments}}"
        forms = [f"{{name}} {tail}"]
        if self.id_mark:
            forms.append(f"{{name}} {self.id_mark} {{id}} {tail}")
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
        return self.after_mark(tools, then, self.open[0])

    def after_mark(self, tools: Tools, then: str, mark: str) -> State:
        """The state after the opening ``mark``; "" if the mark is not in the answer but in the
        prompt.
        """
        whole = replace(self, kept=True)
        bracketed = whole._collect(tools, then, self.parse, source=mark)  # noqa: SLF001
        head = Collect(
            partial(self._headed, tools, then, mark),
            lambda _: None,
            ends=(self.head_end,),
            source=mark,
            limit=HEAD_LIMIT,
            syntax=self.syntax,
        )
        return Look(
            {"[": bracketed, "{": bracketed}, head, keep=True, exact=self.tight, syntax=self.syntax
        )

    def _headed(self, tools: Tools, then: str, mark: str, head: str) -> Outcome | None:
        name, call_id = head.strip(), ""
        if self.id_mark:
            name, call_id = (part.strip() for part in head.partition(self.id_mark)[::2])
        if name in self.texts:
            return Outcome([], "content")
        if self.declared and name not in tools:
            return None
        parse = partial(named_object, name=name, call_id=call_id)
        return Outcome([], self._collect(tools, then, parse, source=mark + head))


class PythonicCallSpec(CallSpec, frozen=True, kw_only=True):
    """Calls that begin with one of ``open``, the name of a declared tool and a bracket."""

    @property
    def _is_doubtful(self) -> bool:
        return False  # the name of a tool is in the mark

    def marks(self, tools: Tools) -> tuple[str, ...]:
        names = [name for name in tools if is_plain(name)]
        return tuple(f"{mark}{name}(" for mark in self.open for name in names)


def _is_declared(piece: ToolCall | str, tools: Tools) -> bool:
    return isinstance(piece, str) or piece.function.name in tools

"""How a family marks its calls: three kinds of rows, and the states that they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from ollama_async.core.conversation import ToolCall
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.parsers.delimiter_search import Quote
from ollama_async.prompts.parsers.family_calls import (
    DEEPSEEK_SEPARATOR,
    KIMI_SEPARATOR,
    SOLAR_SEPARATORS,
    deepseek_call,
    kimi_call,
    laguna_call,
    solar_call,
)
from ollama_async.prompts.parsers.json_calls import (
    Between,
    Either,
    JsonCalls,
    KeyedCalls,
    loose_call,
    named_object,
)
from ollama_async.prompts.parsers.python_calls import BraceCalls, PythonCalls
from ollama_async.prompts.parsers.states import Collect, Look, Outcome, State
from ollama_async.prompts.parsers.tagged_calls import PairCalls, Tag, XmlCalls, pairs
from ollama_async.prompts.parsers.tool_schemas import CallReader, Tools, is_plain

_PROSE = frozenset("`'\".,;:!?)]*_")
"""What follows a mark that is only spoken of."""

_OPENING = frozenset("{[<")
"""What calls begin with, so that it is known whether this one does."""

_CONTROL = re.compile(r"<\||\|>|<｜|｜>|^\[[A-Z_]+\]$")  # noqa: RUF001  # full-width bars, too
"""Marks that do not occur in text."""

JSON = '"'
PYTHON = "\"'"
"""The quotes of strings in which brackets do not count."""

HERMES_MARKS = ("<tool_call>", "</tool_call>")

HEAD_LIMIT = 256
"""Characters of a header; against answers without its end, that would wait for it."""


class CallSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How calls are marked: from one of ``open`` to one of ``close`` (without: to the bracket that
    closes the first one; ``quotes`` then are those of its strings).

    ``whole`` reads a call whose ``close`` never came (None: as any other); it is a call only if its
    tool is declared and nothing that the tool requires is missing. ``declared``: the tool has to be
    declared in any case, since the marks could be plain text. ``item`` reads one call of a list.
    ``strings`` is how those are written in which a ``close`` does not count.
    ``block`` are the marks around all calls. ``kept``: the opening mark is a part of the call.
    ``first``: only at the beginning of the content, or after another one. ``noise`` is dropped
    after a call. ``runs_on``: white space after a call is content. ``limit`` is as in
    :class:`Collect`. ``inner`` are marks inside of calls.
    """

    open: tuple[str, ...]
    close: tuple[str, ...] = ()
    read: CallReader
    whole: CallReader | None = None
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
        """The marks that may be tokens of their own."""
        around = () if self.kept else (*self.open, *self.close)
        return (*around, *(self.block or ()), *self.noise, *self.inner)

    @property
    def is_plain_json(self) -> bool:
        """Whether they look like those that Hermes and Qwen were taught."""
        opening, closing = HERMES_MARKS
        return self.open == (opening,) and (
            isinstance(self.read, JsonCalls) or closing in self.noise
        )

    @property
    def syntax(self) -> CallSyntax | None:
        """How a call goes on after its mark; None: no grammar describes that."""
        syntax = written(self.read)
        if syntax is None:
            return None
        # what ends with its last tag has given the closing mark to it
        close = () if syntax.forms[0].endswith(self.close) else self.close
        # and without one nothing tells that no other call follows
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
        """Whether the mark never stands in text."""
        return _CONTROL.search(self.open[0]) is not None

    @property
    def _is_doubtful(self) -> bool:
        """Whether the mark alone does not tell a call from text: JSON, code, the name of a tag."""
        begins_json = self.kept and self.open[0].lstrip()[:1] in ("[", "{")
        return begins_json or (self.declared and not self._is_control)

    def beginning(self, tools: Tools) -> Callable[[str], bool | None] | None:
        """Whether a text after the mark may be a call; None: the mark is enough."""
        syntax = self.syntax
        if syntax is None or not syntax.waits or self.kept or self.block:
            return None
        names = tuple(tools)
        refused = _PROSE if syntax.begins_with_name else _PROSE | _OPENING

        def may_begin(text: str) -> bool | None:
            found, first = syntax.may_begin(text, names), text.lstrip()[:1]
            # what is like no call at all is looked at as a whole, in case it is a broken one
            is_prose = first.isalnum() or first in refused
            return found if found is not False or is_prose else True

        return may_begin

    def marks(self, tools: Tools) -> tuple[str, ...]:
        """What calls begin with, if these are the ``tools``."""
        del tools
        return self.open

    def state(self, tools: Tools, then: str) -> State:
        """What an opening mark leads to; ``then`` follows a call."""
        return self._collect(tools, then, self.read, source="")

    def _collect(self, tools: Tools, then: str, read: CallReader, *, source: str) -> Collect:
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
            strings=self.strings if self.close else (),
            keep=self.kept,
            source=source,
            limit=self.limit,
            syntax=self.syntax,
        )


class HeadedCallSpec(CallSpec, frozen=True, kw_only=True):
    """Calls whose tool's name stands before ``head_end`` and then the arguments in JSON.

    What begins with a bracket instead is read like other calls. ``id_mark`` stands between the
    name and the call's id, if there is one. ``texts`` are names that introduce text, not a call.
    ``begun``: a prompt that ends with the opening mark has begun one. ``tight``: no white space
    comes between the mark and the name.
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
        inner = written(self.read) or CallSyntax(forms=())
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
        """What comes after the opening ``mark``; "" if the answer does not hold it."""
        whole = replace(self, kept=True)
        bracketed = whole._collect(tools, then, self.read, source=mark)  # noqa: SLF001
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
        read = partial(named_object, name=name, call_id=call_id)
        return Outcome([], self._collect(tools, then, read, source=mark + head))


class PythonicCallSpec(CallSpec, frozen=True, kw_only=True):
    """Calls that begin with one of ``open`` and the name of a declared tool and a bracket."""

    @property
    def _is_doubtful(self) -> bool:
        return False  # the name of a tool is in the mark

    def marks(self, tools: Tools) -> tuple[str, ...]:
        names = [name for name in tools if is_plain(name)]
        return tuple(f"{mark}{name}(" for mark in self.open for name in names)


def _is_declared(piece: ToolCall | str, tools: Tools) -> bool:
    return isinstance(piece, str) or piece.function.name in tools


# ----------------------------------------------------------------- grammars


def written(read: CallReader) -> CallSyntax | None:
    """How a call is written that ``read`` reads; None: no grammar describes it."""
    if read in _FUNCTIONS:
        return _FUNCTIONS[read]
    return next((write(read) for kind, write in _CLASSES if isinstance(read, kind)), None)


def _json(read: JsonCalls) -> CallSyntax:
    return CallSyntax(
        forms=("{call}",),
        name_keys=read.names,
        argument_keys=read.values,
        extra_keys=("type", read.ids),
        listed=("{call}",),
        repeated=True,
    )


def _keyed(_: KeyedCalls) -> CallSyntax:
    return CallSyntax(forms=("{keyed}",), listed=("{keyed}",))


def xml_syntax(read: XmlCalls) -> CallSyntax:
    """An element for each call and for each argument."""
    call, argument = (
        Tag(*(text.replace(" ", "{space}") for text in (tag.open, tag.mid, tag.close)))
        for tag in read.tags
    )
    kind = f'"{{space}}string="{{is_text}}{argument.mid}' if read.says_kind else argument.mid
    return CallSyntax(
        forms=(f"{call.open}{{name}}{call.mid} {{parameters}} {call.close}",),
        parameter=f"{argument.open}{{key}}{kind}{{value}}{argument.close}",
        repeated=True,
    )


def _pairs(read: PairCalls) -> CallSyntax:
    key, key_end, value, value_end, *_ = read.tags
    return CallSyntax(
        forms=(f"{{name}} {read.after_name} {{parameters}}",),
        parameter=f"{key}{{key}}{key_end} {value}{{value}}{value_end}",
    )


def _python(read: PythonCalls) -> CallSyntax | None:
    """Strings without escapes may hold their own quotes; no grammar knows where they end."""
    if not read.escapes:
        return None
    form = "{name}( {parameters})"
    return CallSyntax(
        forms=(form,),
        parameter="{key}= {value}",
        between=",",
        quotes=('"', "'"),
        listed=(form,),
        repeated=True,
    )


def _braces(read: BraceCalls) -> CallSyntax:
    return CallSyntax(
        forms=("call:{name}{ {parameters}}",),
        parameter="{key}: {value}",
        between=",",
        quotes=(read.quote,),
    )


def _between(read: Between) -> CallSyntax | None:
    inner = written(read.read)
    return inner and replace(inner, prefix=read.less)


def _either(read: Either) -> CallSyntax | None:
    """The first way, if it is that one."""
    first = written(read.readers[0])
    return first and replace(first, waits=True)


_CLASSES: tuple[tuple[type, Callable[[Any], CallSyntax | None]], ...] = (
    (KeyedCalls, _keyed),
    (JsonCalls, _json),
    (XmlCalls, xml_syntax),
    (PairCalls, _pairs),
    (PythonCalls, _python),
    (BraceCalls, _braces),
    (Between, _between),
    (Either, _either),
)
_FUNCTIONS: dict[CallReader, CallSyntax] = {
    deepseek_call: CallSyntax(
        forms=(
            f"{{name}}{DEEPSEEK_SEPARATOR} {{arguments}}",
            f"function{DEEPSEEK_SEPARATOR}{{name}} ```json {{arguments}} ```",
        )
    ),
    kimi_call: CallSyntax(forms=(f"functions.{{name}}:{{id}}{KIMI_SEPARATOR} {{arguments}}",)),
    laguna_call: replace(
        _pairs(pairs),
        forms=("{name} {parameters}", "{name} {arguments}", "{call}"),
        argument_keys=("arguments",),
    ),
    loose_call: CallSyntax(
        forms=("{call}", "{name} {arguments}"), listed=("{call}",), repeated=True, waits=True
    ),
    solar_call: CallSyntax(
        forms=(f"{{id}}{SOLAR_SEPARATORS[0]}{{name}}{SOLAR_SEPARATORS[1]} {{arguments}}",)
    ),
}

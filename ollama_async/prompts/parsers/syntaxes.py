"""How the calls are written that a reader of calls understands, for grammars.

Where a reader takes many ways to write a call, only those are here that a model should be held to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.parsers.bodies import Read
from ollama_async.prompts.parsers.bodies.braces import BraceCalls
from ollama_async.prompts.parsers.bodies.deepseek import SEPARATOR as DEEPSEEK_SEPARATOR
from ollama_async.prompts.parsers.bodies.deepseek import deepseek_call
from ollama_async.prompts.parsers.bodies.either import Between, Either
from ollama_async.prompts.parsers.bodies.kimi import SEPARATOR as KIMI_SEPARATOR
from ollama_async.prompts.parsers.bodies.kimi import kimi_call
from ollama_async.prompts.parsers.bodies.laguna import laguna_call
from ollama_async.prompts.parsers.bodies.loose import loose_call
from ollama_async.prompts.parsers.bodies.pairs import PairCalls, pairs
from ollama_async.prompts.parsers.bodies.python import PythonCalls
from ollama_async.prompts.parsers.bodies.solar import SEPARATORS as SOLAR_SEPARATORS
from ollama_async.prompts.parsers.bodies.solar import solar_call
from ollama_async.prompts.parsers.json_calls import JsonCalls, KeyedCalls
from ollama_async.prompts.parsers.tagged_calls import Tag, XmlCalls


def written(read: Read) -> CallSyntax | None:
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
_FUNCTIONS: dict[Read, CallSyntax] = {
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

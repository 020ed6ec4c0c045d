"""How the calls are written that a reader of calls understands, for grammars.

Where a reader takes many ways to write a call, only those are here that a model should be held to.
"""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.parsers.bodies import Read
from ollama_async.prompts.parsers.bodies.deepseek import SEPARATOR as DEEPSEEK_SEPARATOR
from ollama_async.prompts.parsers.bodies.deepseek import deepseek_call
from ollama_async.prompts.parsers.bodies.either import Between, Either
from ollama_async.prompts.parsers.bodies.kimi import SEPARATOR as KIMI_SEPARATOR
from ollama_async.prompts.parsers.bodies.kimi import kimi_call
from ollama_async.prompts.parsers.bodies.objects import JsonCalls, KeyedCalls
from ollama_async.prompts.parsers.bodies.solar import SEPARATORS as SOLAR_SEPARATORS
from ollama_async.prompts.parsers.bodies.solar import solar_call

_FUNCTIONS: dict[Read, CallSyntax] = {
    kimi_call: CallSyntax(forms=(f"functions.{{name}}:{{id}}{KIMI_SEPARATOR} {{arguments}}",)),
    deepseek_call: CallSyntax(
        forms=(
            f"{{name}}{DEEPSEEK_SEPARATOR} {{arguments}}",
            f"function{DEEPSEEK_SEPARATOR}{{name}} ```json {{arguments}} ```",
        )
    ),
    solar_call: CallSyntax(
        forms=(f"{{id}}{SOLAR_SEPARATORS[0]}{{name}}{SOLAR_SEPARATORS[1]} {{arguments}}",)
    ),
}


def written(read: Read) -> CallSyntax | None:
    """How a call is written that ``read`` reads; None: no grammar describes it."""
    match read:
        case KeyedCalls():
            return CallSyntax(forms=("{keyed}",))
        case JsonCalls():
            return CallSyntax(
                forms=("{call}",),
                name_keys=read.names,
                argument_keys=read.values,
                extra_keys=("type", read.ids),
            )
        case Between():
            inner = written(read.read)
            return inner and replace(inner, prefix=read.less)
        case Either():
            return written(read.readers[0])
        case _:
            return _FUNCTIONS.get(read)

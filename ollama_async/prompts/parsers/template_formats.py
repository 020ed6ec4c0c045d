"""The formats of models that bring a chat template instead of naming a built-in format.

The rows are those of :mod:`.family`; :mod:`.by_marks` says which marks in a template mean which.
Those that write each argument in tags are in :mod:`.tagged`.
"""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.parsers.bodies.either import Between, Either
from ollama_async.prompts.parsers.bodies.kimi import SEPARATOR, kimi_call
from ollama_async.prompts.parsers.bodies.loose import loose_call
from ollama_async.prompts.parsers.bodies.python import PythonCalls
from ollama_async.prompts.parsers.bodies.solar import SEPARATORS, solar_call
from ollama_async.prompts.parsers.call_spec import (
    HEAD_LIMIT,
    JSON,
    PYTHON,
    Calls,
    HeadedCalls,
    PythonicCalls,
)
from ollama_async.prompts.parsers.call_strings import JSON_STRINGS, python_strings
from ollama_async.prompts.parsers.json_calls import BareCalls, JsonCalls, KeyedCalls
from ollama_async.prompts.parsers.model_families import (
    CALL_ID,
    DEEPSEEK,
    HERMES_CALL,
    LFM,
)
from ollama_async.prompts.parsers.parser_spec import Family
from ollama_async.prompts.parsers.python_calls import as_it_is
from ollama_async.prompts.parsers.states import Space
from ollama_async.prompts.parsers.thoughts import Begin, Thoughts, by_prompt

_JSON = JsonCalls()
_BARE = BareCalls()
_ACTIONS = JsonCalls(names=("tool_name", "name"), values=("parameters", "arguments"))
_PYTHON = PythonCalls()


def _listed(open_mark: str, close_mark: str, read: JsonCalls = _JSON) -> Family:
    """Calls in JSON between two marks, in a list or not."""
    calls = Calls(
        open=(open_mark,),
        close=(close_mark,),
        read=read,
        item=read.member,
        quotes=JSON,
        strings=JSON_STRINGS,
    )
    return Family(calls=(calls,))


def _headed(calls: HeadedCalls, *skips: str) -> Family:
    return Family(calls=(calls,), skips=skips)


HERMES = Family(calls=(HERMES_CALL,))
LISTED = _listed("<tool_calls>", "</tool_calls>")
NEMOTRON = _listed("<TOOLCALL>", "</TOOLCALL>")
FENCED = replace(DEEPSEEK, thoughts=None)
# as calls are shown to models whose template has no place for them
_SHOWN = (
    Calls(open=('[{"name"',), read=_JSON, quotes=JSON, declared=True, kept=True, first=True),
    Calls(open=('\n[{"name"',), read=_JSON, quotes=JSON, declared=True, kept=True),
)
AS_JSON = (
    *_SHOWN,
    Calls(open=("{",), read=_BARE, quotes=JSON, declared=True, kept=True, first=True),
)
LFM_LISTS = replace(
    LFM,
    calls=(
        replace(LFM.calls[0], read=Either(PythonCalls(as_it_is), _JSON), item=None),
        LFM.calls[1],
        *_SHOWN,
    ),
)
MISTRAL = Family(
    calls=(
        HeadedCalls(
            open=("[TOOL_CALLS]",),
            head_end="[ARGS]",
            read=_JSON,
            item=_JSON.member,
            quotes=JSON,
            limit=HEAD_LIMIT,
            id_mark=CALL_ID,
            inner=(CALL_ID, "[ARGS]"),
        ),
    )
)
COMMAND = Family(
    calls=(
        Calls(
            open=("Action: ```json", "Action:```json", "Action:\n```json"),
            close=("```",),
            read=_ACTIONS,
            strings=JSON_STRINGS,
            declared=True,
        ),
    )
)
KIMI = Family(
    calls=(
        Calls(
            block=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            open=("<|tool_call_begin|>",),
            close=("<|tool_call_end|>",),
            read=kimi_call,
            strings=JSON_STRINGS,
            inner=(SEPARATOR,),
        ),
    )
)
# Granite, and Phi-4-mini with a mark at the end
PIPED = Family(
    calls=(
        Calls(
            open=("<|tool_call|>",),
            read=_JSON,
            item=_JSON.member,
            quotes=JSON,
            noise=("<|/tool_call|>",),
            limit=HEAD_LIMIT,
        ),
        *_SHOWN,
    )
)
FUNCTOOLS = Family(
    calls=(
        Calls(
            open=("functools[",),
            read=Between(_JSON, less="functools"),
            quotes=JSON,
            kept=True,
            declared=True,
        ),
    )
)
FUNCTIONARY_2 = _headed(
    HeadedCalls(
        open=("<|recipient|>",),
        head_end="<|content|>",
        read=_JSON,
        quotes=JSON,
        declared=True,
        texts=("all", ""),
        begun=True,
        limit=HEAD_LIMIT,
        inner=("<|from|>", "<|content|>"),
    ),
    "<|from|>assistant",
    "<|stop|>",
)
FUNCTIONARY_31 = _headed(
    HeadedCalls(
        open=("<function=",),
        head_end=">",
        close=("</function>",),
        read=_JSON,
        strings=JSON_STRINGS,
        declared=True,
    )
)
FUNCTIONARY_32 = _headed(
    HeadedCalls(
        open=(">>>",),
        tight=True,
        head_end="\n",
        read=_JSON,
        quotes=JSON,
        declared=True,
        texts=("all",),
        begun=True,
        limit=HEAD_LIMIT,
    )
)
LLAMA = Family(
    calls=(
        Calls(
            open=("<|python_tag|>",),
            read=Either(_JSON, _PYTHON),
            quotes=PYTHON,
            declared=True,
            noise=(";",),
            limit=HEAD_LIMIT,
        ),
        Calls(
            open=("{",),
            read=_BARE,
            quotes=JSON,
            declared=True,
            kept=True,
            first=True,
            noise=(";",),
        ),
        PythonicCalls(
            open=("[",), read=_PYTHON, quotes=PYTHON, declared=True, kept=True, first=True
        ),
    )
)
TOOL_CODE = Family(
    calls=(
        Calls(
            open=("```tool_code\n",),
            close=("```",),
            read=_PYTHON,
            strings=python_strings(),
            declared=True,
        ),
    )
)


APERTUS = replace(
    _listed("<|tools_prefix|>", "<|tools_suffix|>", KeyedCalls()),
    thoughts=by_prompt("<|inner_prefix|>", "<|inner_suffix|>"),
    handles_thinking=True,
)
SOLAR = Family(
    thoughts=by_prompt("<|think|>", "<|end|>"),
    calls=(
        Calls(
            open=("<|tool_call:begin|>",),
            close=("<|tool_call:end|>",),
            read=solar_call,
            strings=JSON_STRINGS,
            noise=("<|calls|>",),
            inner=("<|begin|>", *SEPARATORS),
        ),
    ),
    skips=("<|begin|>assistant", "<|content|>", "<|tool_calls|>"),
    handles_thinking=True,
)
# a call is a message of its own, by a role or with a mark that says so
GIGA_CHAT = Family(
    calls=(
        Calls(
            open=("function call<|role_sep|>", "<|function_call|>"),
            read=_JSON,
            quotes=JSON,
            declared=True,
            limit=HEAD_LIMIT,
            inner=("<|role_sep|>",),
        ),
    ),
    skips=("<|message_sep|>",),
)


def of_go_template(tags: tuple[str, str] | None, tool_tag: str | None) -> Family:
    """See :func:`ollama_async.prompts.parsers.generic`."""
    found = tags and Thoughts(
        *tags,
        wanted=Begin.BY_PROMPT,
        trims=(Begin.AGAIN,),
        space=Space.KEEP,
    )
    return Family(
        thoughts=found or None,
        calls=(_loose(tool_tag),) if tool_tag else (),
        space=Space.KEEP,
        handles_thinking=tags is not None,
    )


def _loose(tag: str) -> Calls:
    """``{`` and ``[`` are the beginning of the JSON itself; visible text before them means that
    there is no call.
    """
    if tag in {"{", "["}:
        return Calls(
            open=(tag,), read=loose_call, quotes=JSON, kept=True, first=True, declared=True
        )
    slashed = {"<": f"</{tag[1:]}", "[": f"[/{tag[1:]}"}.get(tag[0], "")
    piped = f"<|/{tag[2:]}" if tag.startswith("<|") else ""
    return Calls(
        open=(tag,),
        read=loose_call,
        quotes=JSON,
        noise=tuple(mark for mark in (slashed, piped) if mark),
        declared=True,
        limit=HEAD_LIMIT,
    )

# ruff: noqa: RUF001 - the full-width bars are in these marks
"""The built-in output formats that a model's configuration names.

A new family is a row here; if its calls are written like no others, it also needs a call syntax in
``family_calls``.
"""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.output_format import OutputFormat
from ollama_async.prompts.parsers import cohere, glimmer, harmony, qwen
from ollama_async.prompts.parsers.call_spec import (
    HEAD_LIMIT,
    JSON,
    PYTHON,
    CallSpec,
    HeadedCallSpec,
    PythonicCallSpec,
    tagged,
)
from ollama_async.prompts.parsers.delimiter_search import (
    JSON_STRINGS,
    marked_strings,
    python_strings,
)
from ollama_async.prompts.parsers.family_calls import deepseek_call, laguna_call
from ollama_async.prompts.parsers.json_calls import JsonCalls
from ollama_async.prompts.parsers.literals import as_it_is
from ollama_async.prompts.parsers.parser_spec import ParserSpec
from ollama_async.prompts.parsers.python_calls import BraceCalls, PythonCalls
from ollama_async.prompts.parsers.qwen import ALWAYS_THINKING, THINK
from ollama_async.prompts.parsers.states import Space
from ollama_async.prompts.parsers.tagged_calls import pairs
from ollama_async.prompts.parsers.thinking import Begin, ThinkingSpec

CALL_ID = "[CALL_ID]"
_MINISTRAL = ParserSpec(
    thoughts=ThinkingSpec(
        "[THINK]", "[/THINK]", wanted=Begin.CONTENT, anywhere=True, space=Space.KEEP
    ),
    calls=(
        HeadedCallSpec(
            open=("[TOOL_CALLS]",),
            head_end="[ARGS]",
            quotes=JSON,
            parse=JsonCalls(),
            declared=True,
            runs_on=True,
            limit=HEAD_LIMIT,
            id_mark=CALL_ID,
            inner=(CALL_ID, "[ARGS]"),
        ),
    ),
)

DEEPSEEK = ParserSpec(
    thoughts=replace(THINK, wanted=Begin.THOUGHTS),
    calls=(
        CallSpec(
            block=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
            open=("<｜tool▁call▁begin｜>",),
            close=("<｜tool▁call▁end｜>",),
            parse=deepseek_call,
            strings=JSON_STRINGS,
            inner=("<｜tool▁sep｜>",),
        ),
    ),
    space=Space.TRIM,
    skips=(
        "<｜tool▁outputs▁begin｜>",
        "<｜tool▁output▁begin｜>",
        "<｜tool▁output▁end｜>",
        "<｜tool▁outputs▁end｜>",
    ),
    handles_thinking=True,
)

_OLMO = ParserSpec(
    calls=(
        CallSpec(
            open=("<function_calls>",),
            close=("</function_calls>",),
            parse=PythonCalls(),
            strings=python_strings("<function_calls>"),
            runs_on=True,
        ),
    ),
    space=Space.KEEP,
)


FUNCTION_GEMMA = ParserSpec(
    calls=(
        CallSpec(
            open=("<start_function_call>",),
            close=("<end_function_call>",),
            parse=BraceCalls("<escape>", lenient=True),
            whole=BraceCalls("<escape>", lenient=False),
            strings=marked_strings("<escape>", "<start_function_call>"),
            runs_on=True,
            inner=("<escape>",),
        ),
    ),
    space=Space.KEEP,
)
GEMMA = ParserSpec(
    thoughts=ThinkingSpec(
        "<|channel>",
        "<channel|>",
        wanted=Begin.CONTENT,
        label="thought\n",
        anywhere=True,
        hidden=True,
        after_tools=True,
        space=Space.TRIM,
    ),
    calls=(
        CallSpec(
            open=("<|tool_call>",),
            close=("<tool_call|>",),
            parse=BraceCalls('<|"|>', lenient=True),
            whole=BraceCalls('<|"|>', lenient=False),
            strings=marked_strings('<|"|>', "<|tool_call>"),
            noise=("<tool_call|>", "<|tool_response>"),
            inner=('<|"|>',),
        ),
    ),
    space=Space.TRIM,
    handles_thinking=True,
)

_PAIR_STRINGS = pairs.strings("<tool_call>")
GLM = ParserSpec(
    thoughts=replace(THINK, wanted=Begin.THOUGHTS, unwanted=Begin.MAYBE, by_default=True),
    calls=(
        replace(tagged("<tool_call>", "</tool_call>", pairs), whole=pairs.whole, inner=pairs.tags),
    ),
    handles_thinking=True,
)

LFM = ParserSpec(
    calls=(
        CallSpec(
            open=("<|tool_call_start|>",),
            close=("<|tool_call_end|>",),
            parse=PythonCalls(as_it_is),
            item=PythonCalls(as_it_is).member,
            quotes=PYTHON,
            strings=python_strings("<|tool_call_start|>"),
        ),
        PythonicCallSpec(
            open=("", "["),
            parse=PythonCalls(as_it_is),
            quotes=PYTHON,
            declared=True,
            kept=True,
            first=True,
        ),
    ),
    space=Space.TRIM,
)

_LAGUNA_THOUGHTS = replace(
    THINK, wanted=Begin.AGAIN, anywhere=True, hidden=True, until_call=True, trims=(Begin.AGAIN,)
)
_LAGUNA = ParserSpec(
    thoughts=_LAGUNA_THOUGHTS,
    calls=(
        CallSpec(
            open=("<tool_call>",),
            close=("</tool_call>",),
            parse=laguna_call,
            strings=(*JSON_STRINGS, *_PAIR_STRINGS),
            inner=pairs.tags,
        ),
        CallSpec(
            open=("<user>",),
            close=("</user>",),
            parse=laguna_call,
            strings=(*JSON_STRINGS, *_PAIR_STRINGS),
            declared=True,
        ),
        CallSpec(open=('{"name"',), parse=laguna_call, quotes=JSON, kept=True),
    ),
    lead=("</think>",),
    trims=True,
    handles_thinking=True,
)

PARSERS: dict[str, OutputFormat] = {
    **qwen.PARSERS,
    "passthrough": ParserSpec(space=Space.KEEP),
    "ministral": _MINISTRAL,
    "harmony": harmony.Harmony(),
    "cogito": replace(DEEPSEEK, tools_instead=True),
    "deepseek3": DEEPSEEK,
    "olmo3": _OLMO,
    "olmo3-think": ParserSpec(thoughts=ALWAYS_THINKING, space=Space.KEEP, handles_thinking=True),
    "functiongemma": FUNCTION_GEMMA,
    "gemma4": GEMMA,
    "gemma4-no-thinking": replace(GEMMA, handles_thinking=False),
    "glm-4.7": GLM,
    "glm-ocr": replace(
        GLM,
        thoughts=replace(THINK, unwanted=Begin.MAYBE),
        handles_thinking=False,
    ),
    "lfm2": LFM,
    "lfm2-thinking": replace(
        LFM, thoughts=replace(THINK, trims=(Begin.MAYBE,)), handles_thinking=True
    ),
    "laguna": _LAGUNA,
    "poolside-v1": _LAGUNA,
    "cohere": cohere.Cohere(),
    "glimmer": glimmer.Glimmer(),
}

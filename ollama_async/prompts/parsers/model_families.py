# ruff: noqa: RUF001 - the full-width bars are in these marks
"""The built-in formats that a model's configuration names: one row each.

A new family is a row here; if its calls look like none of those, also a reader in ``bodies``.
"""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.output_format import OutputFormat
from ollama_async.prompts.parsers import channel_formats, cohere, glimmer
from ollama_async.prompts.parsers.bodies.braces import BraceCalls
from ollama_async.prompts.parsers.bodies.deepseek import deepseek_call
from ollama_async.prompts.parsers.bodies.laguna import laguna_call
from ollama_async.prompts.parsers.bodies.pairs import pairs
from ollama_async.prompts.parsers.bodies.python import PythonCalls
from ollama_async.prompts.parsers.call_spec import (
    HEAD_LIMIT,
    JSON,
    PYTHON,
    Calls,
    HeadedCalls,
    PythonicCalls,
)
from ollama_async.prompts.parsers.call_strings import (
    JSON_STRINGS,
    marked_strings,
    python_strings,
)
from ollama_async.prompts.parsers.json_calls import JsonCalls
from ollama_async.prompts.parsers.parser_spec import Family
from ollama_async.prompts.parsers.python_calls import as_it_is
from ollama_async.prompts.parsers.states import Space
from ollama_async.prompts.parsers.tagged_calls import Tag, XmlCalls
from ollama_async.prompts.parsers.thoughts import Begin, Thoughts

THINK = Thoughts("<think>", "</think>")
"""Thoughts between the tags that most families use."""

# what qwen writes: JSON, and the XML of its models for code
HERMES_CALL = Calls(
    open=("<tool_call>",), close=("</tool_call>",), read=JsonCalls(), strings=JSON_STRINGS
)
CODER_TAGS = (Tag("<function=", ">", "</function>"), Tag("<parameter=", ">", "</parameter>"))
CODER_XML = XmlCalls(*CODER_TAGS)
CODER_CALL = Calls(
    open=("<tool_call>",),
    close=("</tool_call>",),
    read=CODER_XML,
    strings=CODER_XML.strings("<tool_call>"),
)
_QWEN_THOUGHTS = replace(THINK, wanted=Begin.AGAIN, by_default=True, until_call=True)
_ALWAYS = replace(THINK, wanted=Begin.THOUGHTS, unwanted=Begin.THOUGHTS)
_QWEN_35 = Family(thoughts=_QWEN_THOUGHTS, calls=(CODER_CALL,), handles_thinking=True)

CALL_ID = "[CALL_ID]"
_MINISTRAL = Family(
    thoughts=Thoughts("[THINK]", "[/THINK]", wanted=Begin.CONTENT, anywhere=True, space=Space.KEEP),
    calls=(
        HeadedCalls(
            open=("[TOOL_CALLS]",),
            head_end="[ARGS]",
            quotes=JSON,
            read=JsonCalls(),
            declared=True,
            runs_on=True,
            limit=HEAD_LIMIT,
            id_mark=CALL_ID,
            inner=(CALL_ID, "[ARGS]"),
        ),
    ),
)

DEEPSEEK = Family(
    thoughts=replace(THINK, wanted=Begin.THOUGHTS),
    calls=(
        Calls(
            block=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
            open=("<｜tool▁call▁begin｜>",),
            close=("<｜tool▁call▁end｜>",),
            read=deepseek_call,
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

_OLMO = Family(
    calls=(
        Calls(
            open=("<function_calls>",),
            close=("</function_calls>",),
            read=PythonCalls(),
            strings=python_strings("<function_calls>"),
            runs_on=True,
        ),
    ),
    space=Space.KEEP,
)


FUNCTION_GEMMA = Family(
    calls=(
        Calls(
            open=("<start_function_call>",),
            close=("<end_function_call>",),
            read=BraceCalls("<escape>", lenient=True),
            whole=BraceCalls("<escape>", lenient=False),
            strings=marked_strings("<escape>", "<start_function_call>"),
            runs_on=True,
            inner=("<escape>",),
        ),
    ),
    space=Space.KEEP,
)
GEMMA = Family(
    thoughts=Thoughts(
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
        Calls(
            open=("<|tool_call>",),
            close=("<tool_call|>",),
            read=BraceCalls('<|"|>', lenient=True),
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
GLM = Family(
    thoughts=replace(THINK, wanted=Begin.THOUGHTS, unwanted=Begin.MAYBE, by_default=True),
    calls=(
        Calls(
            open=("<tool_call>",),
            close=("</tool_call>",),
            read=pairs,
            whole=pairs.whole,
            strings=_PAIR_STRINGS,
            inner=pairs.tags,
        ),
    ),
    handles_thinking=True,
)

LFM = Family(
    calls=(
        Calls(
            open=("<|tool_call_start|>",),
            close=("<|tool_call_end|>",),
            read=PythonCalls(as_it_is),
            item=PythonCalls(as_it_is).member,
            quotes=PYTHON,
            strings=python_strings("<|tool_call_start|>"),
        ),
        PythonicCalls(
            open=("", "["),
            read=PythonCalls(as_it_is),
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
_LAGUNA = Family(
    thoughts=_LAGUNA_THOUGHTS,
    calls=(
        Calls(
            open=("<tool_call>",),
            close=("</tool_call>",),
            read=laguna_call,
            strings=(*JSON_STRINGS, *_PAIR_STRINGS),
            inner=pairs.tags,
        ),
        Calls(
            open=("<user>",),
            close=("</user>",),
            read=laguna_call,
            strings=(*JSON_STRINGS, *_PAIR_STRINGS),
            declared=True,
        ),
        Calls(open=('{"name"',), read=laguna_call, quotes=JSON, kept=True),
    ),
    lead=("</think>",),
    trims=True,
    handles_thinking=True,
)

FAMILIES: dict[str, OutputFormat] = {
    "passthrough": Family(space=Space.KEEP),
    "qwen3": Family(calls=(HERMES_CALL,)),
    "qwen3-thinking": Family(thoughts=_QWEN_THOUGHTS, calls=(HERMES_CALL,), handles_thinking=True),
    "qwen3.5": _QWEN_35,
    "ornith": _QWEN_35,
    "qwen3-coder": Family(calls=(CODER_CALL,)),
    "qwen3-vl-instruct": Family(calls=(HERMES_CALL,)),
    "qwen3-vl-thinking": Family(
        thoughts=replace(_ALWAYS, until_call=True), calls=(HERMES_CALL,), handles_thinking=True
    ),
    "ministral": _MINISTRAL,
    "harmony": channel_formats.Harmony(),
    "cogito": replace(DEEPSEEK, tools_instead=True),
    "deepseek3": DEEPSEEK,
    "olmo3": _OLMO,
    "olmo3-think": Family(thoughts=_ALWAYS, space=Space.KEEP, handles_thinking=True),
    "nemotron-3-nano": _QWEN_35,
    "nemotron-3.5-nano": _QWEN_35,
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

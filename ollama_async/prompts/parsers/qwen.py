"""Qwen's output format: thoughts in ``<think>``, tool calls in ``<tool_call>``, as JSON (Qwen 3,
Hermes) or as XML (Qwen 3 Coder, Qwen 3.5, Nemotron 3 Nano).

:class:`.JsonCalls` and :class:`.XmlCalls` read what stands between the tags of a call.
"""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.output_format import OutputFormat
from ollama_async.prompts.parsers.call_spec import CallSpec, tagged
from ollama_async.prompts.parsers.delimiter_search import JSON_STRINGS
from ollama_async.prompts.parsers.json_calls import Between, JsonCalls
from ollama_async.prompts.parsers.parser_spec import ParserSpec
from ollama_async.prompts.parsers.tagged_calls import Tag, XmlCalls
from ollama_async.prompts.parsers.thinking import Begin, ThinkingSpec

THINK = ThinkingSpec("<think>", "</think>")
"""The tags that most families write around thoughts."""

HERMES_CALL = CallSpec(
    open=("<tool_call>",), close=("</tool_call>",), parse=JsonCalls(), strings=JSON_STRINGS
)
CODER_TAGS = (Tag("<function=", ">", "</function>"), Tag("<parameter=", ">", "</parameter>"))
CODER_XML = XmlCalls(*CODER_TAGS)
CODER_CALL = tagged("<tool_call>", "</tool_call>", CODER_XML)
_QWEN_THOUGHTS = replace(THINK, wanted=Begin.AGAIN, by_default=True, until_call=True)
ALWAYS_THINKING = replace(THINK, wanted=Begin.THOUGHTS, unwanted=Begin.THOUGHTS)
_QWEN_35 = ParserSpec(thoughts=_QWEN_THOUGHTS, calls=(CODER_CALL,), handles_thinking=True)
HERMES = ParserSpec(calls=(HERMES_CALL,))
CODER = ParserSpec(
    calls=(
        CODER_CALL,
        # without the mark around it, which these models forget now and then
        CallSpec(
            open=("<function=",),
            close=("</function>",),
            parse=Between(CODER_XML, after="</function>"),
            strings=CODER_XML.strings(),
            kept=True,
            declared=True,
            noise=("</tool_call>",),
        ),
    )
)

PARSERS: dict[str, OutputFormat] = {
    "qwen3": HERMES,
    "qwen3-thinking": ParserSpec(
        thoughts=_QWEN_THOUGHTS, calls=(HERMES_CALL,), handles_thinking=True
    ),
    "qwen3.5": _QWEN_35,
    "ornith": _QWEN_35,
    "qwen3-coder": ParserSpec(calls=(CODER_CALL,)),
    "qwen3-vl-instruct": HERMES,
    "qwen3-vl-thinking": ParserSpec(
        thoughts=replace(ALWAYS_THINKING, until_call=True),
        calls=(HERMES_CALL,),
        handles_thinking=True,
    ),
    "nemotron-3-nano": _QWEN_35,
    "nemotron-3.5-nano": _QWEN_35,
}

# ruff: noqa: RUF001 - the full-width bars are in these marks
"""The formats of models that bring a chat template and write each argument of a call in tags."""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.parsers.bodies import xtml
from ollama_async.prompts.parsers.bodies.either import Between
from ollama_async.prompts.parsers.bodies.nested import MARK, nested_calls
from ollama_async.prompts.parsers.bodies.pairs import PairCalls
from ollama_async.prompts.parsers.call_spec import Calls
from ollama_async.prompts.parsers.call_strings import Quote, values
from ollama_async.prompts.parsers.model_families import CODER_CALL, CODER_TAGS, CODER_XML, GLM
from ollama_async.prompts.parsers.parser_spec import Family
from ollama_async.prompts.parsers.tagged_calls import Tag, XmlCalls
from ollama_async.prompts.parsers.thoughts import by_prompt

CODER = Family(
    calls=(
        CODER_CALL,
        # without the mark around it, which these models forget now and then
        Calls(
            open=("<function=",),
            close=("</function>",),
            read=Between(CODER_XML, after="</function>"),
            strings=CODER_XML.strings(),
            kept=True,
            declared=True,
            noise=("</tool_call>",),
        ),
    )
)

_SEED = XmlCalls(*CODER_TAGS, paired=True)
SEED = Family(
    calls=(
        Calls(
            open=("<seed:tool_call>",),
            close=("</seed:tool_call>",),
            read=_SEED,
            strings=_SEED.strings("<seed:tool_call>"),
        ),
    )
)

_PARAM = XmlCalls(
    Tag('<function name="', '">', "</function>"),
    Tag('<param name="', '">', "</param>"),
    paired=True,
    cdata=True,
)
_DATA = Quote("<![CDATA[", "]]></param>", after=('<param name="',))
MINICPM = Family(
    calls=(
        Calls(
            open=('<function name="',),
            close=("</function>",),
            read=Between(_PARAM, after="</function>"),
            strings=(*(replace(quote, into=_DATA.open) for quote in _PARAM.strings()), _DATA),
            kept=True,
            declared=True,
            inner=("<function", "</function>", "<param", "</param>"),
        ),
    )
)

_INVOKE = XmlCalls(
    Tag('<invoke name="', '">', "</invoke>"),
    Tag('<parameter name="', '">', "</parameter>"),
    paired=True,
)
MINIMAX = Family(
    calls=(
        Calls(
            open=("<minimax:tool_call>",),
            close=("</minimax:tool_call>",),
            read=_INVOKE,
            strings=_INVOKE.strings("<minimax:tool_call>"),
        ),
    )
)
MINIMAX_3 = Family(
    calls=(
        Calls(
            open=(f"{MARK}<tool_call>",),
            close=(f"{MARK}</tool_call>",),
            read=nested_calls,
            inner=(MARK, "<tool_call>", "</tool_call>"),
        ),
    )
)

_DSML = XmlCalls(
    Tag('<｜DSML｜invoke name="', '">', "</｜DSML｜invoke>"),
    Tag('<｜DSML｜parameter name="', '">', "</｜DSML｜parameter>"),
    paired=True,
    says_kind=True,
)
DSML = Family(
    calls=(
        Calls(
            open=("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
            close=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
            read=_DSML,
            strings=_DSML.strings(),
            inner=("｜DSML｜",),
        ),
    )
)

PAIRS = replace(GLM, thoughts=None)

_HUNYUAN = PairCalls(":opensource", separator="tool_sep")
HUNYUAN = Family(
    thoughts=by_prompt("<think:opensource>", "</think:opensource>"),
    calls=(
        Calls(
            block=("<tool_calls:opensource>", "</tool_calls:opensource>"),
            open=("<tool_call:opensource>",),
            close=("</tool_call:opensource>",),
            read=_HUNYUAN,
            strings=_HUNYUAN.strings("<tool_call:opensource>"),
            inner=_HUNYUAN.tags,
        ),
    ),
    handles_thinking=True,
)

KIMI_3 = Family(
    thoughts=by_prompt("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    calls=(
        Calls(
            block=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
            open=("<|open|>call ",),
            close=("<|close|>call<|sep|>",),
            read=xtml.xtml_call,
            strings=(*values(*xtml.ARGUMENT, "<|open|>call "), *values(*xtml.JSON)),
            inner=("<|open|>", "<|close|>", "<|sep|>"),
        ),
    ),
    skips=(
        "<|open|>response<|sep|>",
        "<|close|>response<|sep|>",
        "<|close|>message<|sep|>",
        "<|end_of_msg|>",
    ),
    handles_thinking=True,
)

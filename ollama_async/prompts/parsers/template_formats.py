# ruff: noqa: RUF001 - the full-width bars are in these marks
"""The formats of models that bring a chat template instead of naming a built-in format.

:mod:`.detection` maps the marks in a template to one of these specs.
"""

from __future__ import annotations

from msgspec.structs import replace

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
    Quote,
    python_strings,
    values,
)
from ollama_async.prompts.parsers.family_calls import (
    KIMI_ARGUMENT_TAGS,
    KIMI_JSON_TAGS,
    KIMI_SEPARATOR,
    MINIMAX_MARK,
    SOLAR_SEPARATORS,
    kimi_call,
    kimi_k3_call,
    minimax_m3_call,
    solar_call,
)
from ollama_async.prompts.parsers.json_calls import (
    BareCalls,
    Between,
    Either,
    JsonCalls,
    KeyedCalls,
    loose_call,
)
from ollama_async.prompts.parsers.literals import as_it_is
from ollama_async.prompts.parsers.model_families import (
    CALL_ID,
    DEEPSEEK,
    GLM,
    LFM,
)
from ollama_async.prompts.parsers.parser_spec import ParserSpec
from ollama_async.prompts.parsers.python_calls import PythonCalls
from ollama_async.prompts.parsers.qwen import CODER_TAGS
from ollama_async.prompts.parsers.states import Space
from ollama_async.prompts.parsers.tagged_calls import PairCalls, Tag, XmlCalls
from ollama_async.prompts.parsers.thinking import Begin, ThinkingSpec, by_prompt

_JSON = JsonCalls()
_ACTIONS = JsonCalls(names=("tool_name", "name"), values=("parameters", "arguments"))
_PYTHON = PythonCalls()


def _listed(open_mark: str, close_mark: str, parse: JsonCalls = _JSON) -> ParserSpec:
    """Calls in JSON between two marks, in a list or not."""
    calls = CallSpec(
        open=(open_mark,),
        close=(close_mark,),
        parse=parse,
        item=parse.member,
        quotes=JSON,
        strings=JSON_STRINGS,
    )
    return _of(calls)


def _of(*calls: CallSpec, skips: tuple[str, ...] = ()) -> ParserSpec:
    return ParserSpec(calls=calls, skips=skips)


LISTED = _listed("<tool_calls>", "</tool_calls>")
NEMOTRON = _listed("<TOOLCALL>", "</TOOLCALL>")
FENCED = replace(DEEPSEEK, thoughts=None)
# as calls are shown to models whose template has no place for them
_SHOWN = (
    CallSpec(open=('[{"name"',), parse=_JSON, quotes=JSON, declared=True, kept=True, first=True),
    CallSpec(open=('\n[{"name"',), parse=_JSON, quotes=JSON, declared=True, kept=True),
)
_BARE_CALL = CallSpec(
    open=("{",), parse=BareCalls(), quotes=JSON, declared=True, kept=True, first=True
)
AS_JSON = (*_SHOWN, _BARE_CALL)
LFM_LISTS = replace(
    LFM,
    calls=(
        replace(LFM.calls[0], parse=Either(PythonCalls(as_it_is), _JSON), item=None),
        LFM.calls[1],
        *_SHOWN,
    ),
)
MISTRAL = _of(
    HeadedCallSpec(
        open=("[TOOL_CALLS]",),
        head_end="[ARGS]",
        parse=_JSON,
        item=_JSON.member,
        quotes=JSON,
        limit=HEAD_LIMIT,
        id_mark=CALL_ID,
        inner=(CALL_ID, "[ARGS]"),
    )
)
COMMAND = _of(
    CallSpec(
        open=("Action: ```json", "Action:```json", "Action:\n```json"),
        close=("```",),
        parse=_ACTIONS,
        strings=JSON_STRINGS,
        declared=True,
    )
)
KIMI = _of(
    CallSpec(
        block=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        open=("<|tool_call_begin|>",),
        close=("<|tool_call_end|>",),
        parse=kimi_call,
        strings=JSON_STRINGS,
        inner=(KIMI_SEPARATOR,),
    )
)
# Granite, and Phi-4-mini with a mark at the end
PIPED = _of(
    CallSpec(
        open=("<|tool_call|>",),
        parse=_JSON,
        item=_JSON.member,
        quotes=JSON,
        noise=("<|/tool_call|>",),
        limit=HEAD_LIMIT,
    ),
    *_SHOWN,
)
FUNCTOOLS = _of(
    CallSpec(
        open=("functools[",),
        parse=Between(_JSON, less="functools"),
        quotes=JSON,
        kept=True,
        declared=True,
    )
)
FUNCTIONARY_2 = _of(
    HeadedCallSpec(
        open=("<|recipient|>",),
        head_end="<|content|>",
        parse=_JSON,
        quotes=JSON,
        declared=True,
        texts=("all", ""),
        begun=True,
        limit=HEAD_LIMIT,
        inner=("<|from|>", "<|content|>"),
    ),
    skips=("<|from|>assistant", "<|stop|>"),
)
FUNCTIONARY_31 = _of(
    HeadedCallSpec(
        open=("<function=",),
        head_end=">",
        close=("</function>",),
        parse=_JSON,
        strings=JSON_STRINGS,
        declared=True,
    )
)
FUNCTIONARY_32 = _of(
    HeadedCallSpec(
        open=(">>>",),
        tight=True,
        head_end="\n",
        parse=_JSON,
        quotes=JSON,
        declared=True,
        texts=("all",),
        begun=True,
        limit=HEAD_LIMIT,
    )
)
LLAMA = _of(
    CallSpec(
        open=("<|python_tag|>",),
        parse=Either(_JSON, _PYTHON),
        quotes=PYTHON,
        declared=True,
        noise=(";",),
        limit=HEAD_LIMIT,
    ),
    replace(_BARE_CALL, noise=(";",)),
    PythonicCallSpec(
        open=("[",), parse=_PYTHON, quotes=PYTHON, declared=True, kept=True, first=True
    ),
)
TOOL_CODE = _of(
    CallSpec(
        open=("```tool_code\n",),
        close=("```",),
        parse=_PYTHON,
        strings=python_strings(),
        declared=True,
    )
)


APERTUS = replace(
    _listed("<|tools_prefix|>", "<|tools_suffix|>", KeyedCalls()),
    thoughts=by_prompt("<|inner_prefix|>", "<|inner_suffix|>"),
    handles_thinking=True,
)
SOLAR = ParserSpec(
    thoughts=by_prompt("<|think|>", "<|end|>"),
    calls=(
        CallSpec(
            open=("<|tool_call:begin|>",),
            close=("<|tool_call:end|>",),
            parse=solar_call,
            strings=JSON_STRINGS,
            noise=("<|calls|>",),
            inner=("<|begin|>", *SOLAR_SEPARATORS),
        ),
    ),
    skips=("<|begin|>assistant", "<|content|>", "<|tool_calls|>"),
    handles_thinking=True,
)
# a call is a message of its own, marked by its role or by a token
GIGA_CHAT = ParserSpec(
    calls=(
        CallSpec(
            open=("function call<|role_sep|>", "<|function_call|>"),
            parse=_JSON,
            quotes=JSON,
            declared=True,
            limit=HEAD_LIMIT,
            inner=("<|role_sep|>",),
        ),
    ),
    skips=("<|message_sep|>",),
)


def of_go_template(*, thinking: tuple[str, str] | None, tool_tag: str | None) -> ParserSpec:
    """The format of a Go template that tells only where thoughts and calls begin.

    ``thinking`` are the tags around thoughts, looked for when the client wants thoughts.
    ``tool_tag`` is what stands before the JSON of a call (``{`` or ``[``: nothing does), looked for
    when the client offers tools; only calls of those tools are recognised. None: the template has
    no such tag.
    """
    found = thinking and ThinkingSpec(
        *thinking,
        wanted=Begin.BY_PROMPT,
        trims=(Begin.AGAIN,),
        space=Space.KEEP,
    )
    return ParserSpec(
        thoughts=found or None,
        calls=(_loose(tool_tag),) if tool_tag else (),
        space=Space.KEEP,
        handles_thinking=thinking is not None,
    )


def _loose(tag: str) -> CallSpec:
    """``{`` and ``[`` are the beginning of the JSON itself; visible text before them means that
    there is no call.
    """
    if tag in {"{", "["}:
        return CallSpec(
            open=(tag,), parse=loose_call, quotes=JSON, kept=True, first=True, declared=True
        )
    slashed = {"<": f"</{tag[1:]}", "[": f"[/{tag[1:]}"}.get(tag[0], "")
    piped = f"<|/{tag[2:]}" if tag.startswith("<|") else ""
    return CallSpec(
        open=(tag,),
        parse=loose_call,
        quotes=JSON,
        noise=tuple(mark for mark in (slashed, piped) if mark),
        declared=True,
        limit=HEAD_LIMIT,
    )


# ----------------------------------------------------------------- arguments in tags

_SEED = XmlCalls(*CODER_TAGS, paired=True)
SEED = _of(tagged("<seed:tool_call>", "</seed:tool_call>", _SEED))

_PARAM = XmlCalls(
    Tag('<function name="', '">', "</function>"),
    Tag('<param name="', '">', "</param>"),
    paired=True,
    cdata=True,
)
_DATA = Quote("<![CDATA[", "]]></param>", after=('<param name="',))
MINICPM = _of(
    CallSpec(
        open=('<function name="',),
        close=("</function>",),
        parse=Between(_PARAM, after="</function>"),
        strings=(*(replace(quote, into=_DATA.open) for quote in _PARAM.strings()), _DATA),
        kept=True,
        declared=True,
        inner=("<function", "</function>", "<param", "</param>"),
    )
)

_INVOKE = XmlCalls(
    Tag('<invoke name="', '">', "</invoke>"),
    Tag('<parameter name="', '">', "</parameter>"),
    paired=True,
)
MINIMAX = _of(tagged("<minimax:tool_call>", "</minimax:tool_call>", _INVOKE))
MINIMAX_3 = _of(
    CallSpec(
        open=(f"{MINIMAX_MARK}<tool_call>",),
        close=(f"{MINIMAX_MARK}</tool_call>",),
        parse=minimax_m3_call,
        inner=(MINIMAX_MARK, "<tool_call>", "</tool_call>"),
    )
)

_DSML = XmlCalls(
    Tag('<｜DSML｜invoke name="', '">', "</｜DSML｜invoke>"),
    Tag('<｜DSML｜parameter name="', '">', "</｜DSML｜parameter>"),
    paired=True,
    writes_kind=True,
)
DSML = _of(
    CallSpec(
        open=("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
        close=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
        parse=_DSML,
        strings=_DSML.strings(),
        inner=("｜DSML｜",),
    )
)

PAIRS = replace(GLM, thoughts=None)

_HUNYUAN = PairCalls(":opensource", separator="tool_sep")
HUNYUAN = ParserSpec(
    thoughts=by_prompt("<think:opensource>", "</think:opensource>"),
    calls=(
        replace(
            tagged("<tool_call:opensource>", "</tool_call:opensource>", _HUNYUAN),
            block=("<tool_calls:opensource>", "</tool_calls:opensource>"),
            inner=_HUNYUAN.tags,
        ),
    ),
    handles_thinking=True,
)

KIMI_3 = ParserSpec(
    thoughts=by_prompt("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    calls=(
        CallSpec(
            block=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
            open=("<|open|>call ",),
            close=("<|close|>call<|sep|>",),
            parse=kimi_k3_call,
            strings=(*values(*KIMI_ARGUMENT_TAGS, "<|open|>call "), *values(*KIMI_JSON_TAGS)),
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

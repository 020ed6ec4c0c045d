# ruff: noqa: RUF001 - the full-width bars are in these marks
"""The formats of models that bring a chat template instead of naming a built-in format.

The rows are those of :mod:`.family`; :mod:`.by_marks` says which marks in a template mean which.
"""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.parsers.bodies import xtml
from ollama_async.prompts.parsers.bodies.either import Between, Either
from ollama_async.prompts.parsers.bodies.kimi import SEPARATOR, kimi_call
from ollama_async.prompts.parsers.bodies.loose import loose_call
from ollama_async.prompts.parsers.bodies.nested import MARK, nested_calls
from ollama_async.prompts.parsers.bodies.objects import JsonCalls, KeyedCalls
from ollama_async.prompts.parsers.bodies.pairs import PairCalls
from ollama_async.prompts.parsers.bodies.python import PythonCalls
from ollama_async.prompts.parsers.bodies.solar import SEPARATORS, solar_call
from ollama_async.prompts.parsers.bodies.xml import Tag, XmlCalls
from ollama_async.prompts.parsers.bodies.xtml import ARGUMENT, xtml_call
from ollama_async.prompts.parsers.calls import (
    HEAD_LIMIT,
    JSON,
    PYTHON,
    Calls,
    HeadedCalls,
    PythonicCalls,
)
from ollama_async.prompts.parsers.families import (
    CALL_ID,
    CODER_CALL,
    CODER_TAGS,
    CODER_XML,
    DEEPSEEK,
    GLM,
    HERMES_CALL,
    LFM,
)
from ollama_async.prompts.parsers.family import Family
from ollama_async.prompts.parsers.literals import as_it_is
from ollama_async.prompts.parsers.states import Space
from ollama_async.prompts.parsers.strings import JSON_STRINGS, PYTHON_STRINGS, Quote, values
from ollama_async.prompts.parsers.thoughts import Begin, Thoughts

_JSON = JsonCalls()
_ACTIONS = JsonCalls(names=("tool_name", "name"), values=("parameters", "arguments"))
_PYTHON = PythonCalls()
_INVOKE = XmlCalls(
    Tag('<invoke name="', '">', "</invoke>"),
    Tag('<parameter name="', '">', "</parameter>"),
    paired=True,
)
_DSML = XmlCalls(
    Tag('<｜DSML｜invoke name="', '">', "</｜DSML｜invoke>"),
    Tag('<｜DSML｜parameter name="', '">', "</｜DSML｜parameter>"),
    paired=True,
)
_PARAM = XmlCalls(
    Tag('<function name="', '">', "</function>"),
    Tag('<param name="', '">', "</param>"),
    paired=True,
    cdata=True,
)


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
CODER = Family(
    calls=(
        CODER_CALL,
        # without the mark around it, which these models forget now and then
        Calls(
            open=("<function=",),
            close=("</function>",),
            read=Between(CODER_XML, after="</function>"),
            strings=values("<parameter=", "</parameter>", "<function="),
            kept=True,
            declared=True,
            noise=("</tool_call>",),
        ),
    )
)
SEED = Family(
    calls=(
        replace(
            CODER_CALL,
            open=("<seed:tool_call>",),
            close=("</seed:tool_call>",),
            read=XmlCalls(*CODER_TAGS, paired=True),
            strings=values(
                "<parameter=", "</parameter>", "<function=", "<seed:tool_call>", after="</function>"
            ),
        ),
    )
)
_PARAM_STRINGS = values('<param name="', "</param>", '<function name="')
MINICPM = Family(
    calls=(
        Calls(
            open=('<function name="',),
            close=("</function>",),
            read=Between(_PARAM, after="</function>"),
            strings=(
                replace(*_PARAM_STRINGS, into="<![CDATA["),
                Quote("<![CDATA[", "]]></param>", after=('<param name="',)),
            ),
            kept=True,
            declared=True,
        ),
    )
)
MINIMAX = Family(
    calls=(
        Calls(
            open=("<minimax:tool_call>",),
            close=("</minimax:tool_call>",),
            read=_INVOKE,
            strings=values(
                '<parameter name="',
                "</parameter>",
                '<invoke name="',
                "<minimax:tool_call>",
                after="</invoke>",
            ),
        ),
    )
)
DSML = Family(
    calls=(
        Calls(
            open=("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
            close=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
            read=_DSML,
            strings=values(
                '<｜DSML｜parameter name="',
                "</｜DSML｜parameter>",
                '<｜DSML｜invoke name="',
                after="</｜DSML｜invoke>",
            ),
        ),
    )
)
PAIRS = replace(GLM, thoughts=None)
FENCED = replace(DEEPSEEK, thoughts=None)
# as calls are shown to models whose template has no place for them
_SHOWN = (
    Calls(open=('[{"name"',), read=_JSON, quotes=JSON, declared=True, kept=True, first=True),
    Calls(open=('\n[{"name"',), read=_JSON, quotes=JSON, declared=True, kept=True),
)
AS_JSON = (
    *_SHOWN,
    Calls(open=("{",), read=_JSON, quotes=JSON, declared=True, kept=True, first=True),
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
            read=_JSON,
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
            strings=PYTHON_STRINGS,
            declared=True,
        ),
    )
)


def thoughts(open_mark: str, close_mark: str) -> Thoughts:
    """Thoughts of a model whose template decides whether the prompt begins them."""
    return Thoughts(
        open_mark,
        close_mark,
        wanted=Begin.BY_PROMPT,
        unwanted=Begin.BY_PROMPT,
        until_call=True,
        trims=(Begin.AGAIN,),
    )


APERTUS = replace(
    _listed("<|tools_prefix|>", "<|tools_suffix|>", KeyedCalls()),
    thoughts=thoughts("<|inner_prefix|>", "<|inner_suffix|>"),
    handles_thinking=True,
)
SOLAR = Family(
    thoughts=thoughts("<|think|>", "<|end|>"),
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
KIMI_3 = Family(
    thoughts=thoughts("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    calls=(
        Calls(
            block=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
            open=("<|open|>call ",),
            close=("<|close|>call<|sep|>",),
            read=xtml_call,
            strings=(*values(*ARGUMENT, "<|open|>call "), *values(*xtml.JSON)),
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
MINIMAX_3 = Family(
    calls=(
        Calls(
            open=(f"{MARK}<tool_call>",),
            close=(f"{MARK}</tool_call>",),
            read=nested_calls,
            inner=(MARK,),
        ),
    )
)
_HUNYUAN = ":opensource"
HUNYUAN = Family(
    thoughts=thoughts(f"<think{_HUNYUAN}>", f"</think{_HUNYUAN}>"),
    calls=(
        Calls(
            block=(f"<tool_calls{_HUNYUAN}>", f"</tool_calls{_HUNYUAN}>"),
            open=(f"<tool_call{_HUNYUAN}>",),
            close=(f"</tool_call{_HUNYUAN}>",),
            strings=values(
                f"<arg_value{_HUNYUAN}>",
                f"</arg_value{_HUNYUAN}>",
                f"<tool_call{_HUNYUAN}>",
                after=f"<arg_key{_HUNYUAN}>",
            ),
            read=PairCalls(_HUNYUAN, after_name=f"<tool_sep{_HUNYUAN}>"),
        ),
    ),
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

# ruff: noqa: RUF001 - the full-width bars are in these tags
"""Output formats of models that bring a chat template, detected by the delimiters in its text."""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.output_format import OutputFormat
from ollama_async.prompts.parsers.delimiter_search import Quote, python_strings
from ollama_async.prompts.parsers.family_calls import (
    KIMI_SEPARATOR,
    MINIMAX_PREFIX,
    SOLAR_SEPARATORS,
    PythonCalls,
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
from ollama_async.prompts.parsers.message_formats import Glimmer, Harmony
from ollama_async.prompts.parsers.model_families import (
    CALL_ID,
    CODER,
    CODER_ELEMENTS,
    DEEPSEEK,
    FUNCTION_GEMMA,
    GEMMA,
    GLM,
    HERMES,
    LFM,
    Cohere,
)
from ollama_async.prompts.parsers.parser_spec import (
    PYTHON,
    CallSpec,
    HeadedCallSpec,
    ParserSpec,
    PythonicCallSpec,
    tagged,
)
from ollama_async.prompts.parsers.states import Space
from ollama_async.prompts.parsers.thinking import Begin, ThinkingSpec, by_prompt
from ollama_async.prompts.parsers.xml_calls import Element, PairCalls, XmlCalls

_JSON = JsonCalls()
_ACTIONS = JsonCalls(names=("tool_name", "name"), values=("parameters", "arguments"))
_PYTHON = PythonCalls()


def _of(*calls: CallSpec, skips: tuple[str, ...] = ()) -> ParserSpec:
    return ParserSpec(calls=calls, skips=skips)


def _listed(open_tag: str, close_tag: str, parse: JsonCalls = _JSON) -> ParserSpec:
    """Calls in JSON between two tags, in a list or not."""
    return _of(tagged(open_tag, close_tag, parse, item=parse.member))


def _thinking(
    open_tag: str, close_tag: str, *calls: CallSpec, skips: tuple[str, ...] = ()
) -> ParserSpec:
    return ParserSpec(
        thoughts=by_prompt(open_tag, close_tag), calls=calls, skips=skips, handles_thinking=True
    )


# as calls are shown to models whose template has no place for them
_SHOWN = (
    CallSpec(open=('[{"name"',), parse=_JSON, declared=True, kept=True, first=True),
    CallSpec(open=('\n[{"name"',), parse=_JSON, declared=True, kept=True),
)
_BARE_CALL = CallSpec(open=("{",), parse=BareCalls(), declared=True, kept=True, first=True)

_LFM_LISTS = replace(
    LFM,
    calls=(
        replace(LFM.calls[0], parse=Either(PythonCalls(as_it_is), _JSON), item=None),
        LFM.calls[1],
        *_SHOWN,
    ),
)
_MISTRAL = _of(
    HeadedCallSpec(
        open=("[TOOL_CALLS]",),
        head_end="[ARGS]",
        parse=_JSON,
        item=_JSON.member,
        id_tag=CALL_ID,
        inner=(CALL_ID, "[ARGS]"),
    )
)
_COMMAND = _of(
    CallSpec(
        open=("Action: ```json", "Action:```json", "Action:\n```json"),
        close=("```",),
        parse=_ACTIONS,
        declared=True,
    )
)
_KIMI = _of(
    tagged(
        "<|tool_call_begin|>",
        "<|tool_call_end|>",
        kimi_call,
        block=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        inner=(KIMI_SEPARATOR,),
    )
)
# Granite, and Phi-4-mini with a tag at the end
_PIPED = _of(
    CallSpec(open=("<|tool_call|>",), parse=_JSON, item=_JSON.member, noise=("<|/tool_call|>",)),
    *_SHOWN,
)
_FUNCTOOLS = _of(
    CallSpec(open=("functools[",), parse=Between(_JSON, less="functools"), kept=True, declared=True)
)
_FUNCTIONARY_2 = _of(
    HeadedCallSpec(
        open=("<|recipient|>",),
        head_end="<|content|>",
        parse=_JSON,
        declared=True,
        texts=("all", ""),
        begun=True,
        inner=("<|from|>", "<|content|>"),
    ),
    skips=("<|from|>assistant", "<|stop|>"),
)
_FUNCTIONARY_31 = _of(
    HeadedCallSpec(
        open=("<function=",), head_end=">", close=("</function>",), parse=_JSON, declared=True
    )
)
_FUNCTIONARY_32 = _of(
    HeadedCallSpec(
        open=(">>>",),
        tight=True,
        head_end="\n",
        parse=_JSON,
        declared=True,
        texts=("all",),
        begun=True,
    )
)
_LLAMA = _of(
    CallSpec(
        open=("<|python_tag|>",),
        parse=Either(_JSON, _PYTHON),
        quotes=PYTHON,
        declared=True,
        noise=(";",),
    ),
    replace(_BARE_CALL, noise=(";",)),
    PythonicCallSpec(open=("[",), parse=_PYTHON),
)
_TOOL_CODE = _of(tagged("```tool_code\n", "```", _PYTHON, strings=python_strings(), declared=True))
_APERTUS = _thinking(
    "<|inner_prefix|>",
    "<|inner_suffix|>",
    *_listed("<|tools_prefix|>", "<|tools_suffix|>", KeyedCalls()).calls,
)
_SOLAR = _thinking(
    "<|think|>",
    "<|end|>",
    tagged(
        "<|tool_call:begin|>",
        "<|tool_call:end|>",
        solar_call,
        noise=("<|calls|>",),
        inner=("<|begin|>", *SOLAR_SEPARATORS),
    ),
    skips=("<|begin|>assistant", "<|content|>", "<|tool_calls|>"),
)
# a call is a message of its own, marked by its role or by a token
_GIGA_CHAT = _of(
    CallSpec(
        open=("function call<|role_sep|>", "<|function_call|>"),
        parse=_JSON,
        declared=True,
        inner=("<|role_sep|>",),
    ),
    skips=("<|message_sep|>",),
)


# ----------------------------------------------------------------- arguments in tags

_SEED = tagged("<seed:tool_call>", "</seed:tool_call>", XmlCalls(*CODER_ELEMENTS, paired=True))

_PARAM = XmlCalls(
    Element('<function name="', '">', "</function>"),
    Element('<param name="', '">', "</param>"),
    paired=True,
    cdata=True,
)
_DATA = Quote("<![CDATA[", "]]></param>", after=('<param name="',))
_MINICPM = tagged(
    '<function name="',
    "</function>",
    Between(_PARAM, after="</function>"),
    strings=(*(replace(quote, into=_DATA.open) for quote in _PARAM.strings()), _DATA),
    kept=True,
    declared=True,
    inner=("<function", "</function>", "<param", "</param>"),
)

_INVOKE = XmlCalls(
    Element('<invoke name="', '">', "</invoke>"),
    Element('<parameter name="', '">', "</parameter>"),
    paired=True,
)
_MINIMAX = tagged("<minimax:tool_call>", "</minimax:tool_call>", _INVOKE)
_MINIMAX_3 = tagged(
    f"{MINIMAX_PREFIX}<tool_call>",
    f"{MINIMAX_PREFIX}</tool_call>",
    minimax_m3_call,
    inner=(MINIMAX_PREFIX, "<tool_call>", "</tool_call>"),
)

_DSML_XML = XmlCalls(
    Element('<｜DSML｜invoke name="', '">', "</｜DSML｜invoke>"),
    Element('<｜DSML｜parameter name="', '">', "</｜DSML｜parameter>"),
    paired=True,
    writes_kind=True,
)
_DSML = CallSpec(
    open=("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
    close=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
    parse=_DSML_XML,
    strings=_DSML_XML.strings(),
    inner=("｜DSML｜",),
)

_HUNYUAN_PAIRS = PairCalls(":opensource", separator="tool_sep")
_HUNYUAN = _thinking(
    "<think:opensource>",
    "</think:opensource>",
    tagged(
        "<tool_call:opensource>",
        "</tool_call:opensource>",
        _HUNYUAN_PAIRS,
        block=("<tool_calls:opensource>", "</tool_calls:opensource>"),
        inner=_HUNYUAN_PAIRS.tags,
    ),
)

_KIMI_3 = _thinking(
    "<|open|>think<|sep|>",
    "<|close|>think<|sep|>",
    tagged(
        "<|open|>call ",
        "<|close|>call<|sep|>",
        kimi_k3_call,
        block=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
        inner=("<|open|>", "<|close|>", "<|sep|>"),
    ),
    skips=(
        "<|open|>response<|sep|>",
        "<|close|>response<|sep|>",
        "<|close|>message<|sep|>",
        "<|end_of_msg|>",
    ),
)


# ----------------------------------------------------------------- detection

WHOLE_FORMATS: tuple[tuple[tuple[str, ...], OutputFormat], ...] = (
    (("<|channel|>", "<|message|>"), Harmony()),
    (("<atem:function_calls>",), Glimmer()),
    (("<|START_ACTION|>",), Cohere(by_prompt=True)),
    (("<|START_RESPONSE|>",), Cohere(by_prompt=True)),
    (("<|channel>", "<channel|>"), GEMMA),
    (("<|tool_call>", "<tool_call|>"), GEMMA),
    (("<|tools_prefix|>", "<|inner_prefix|>"), _APERTUS),
    (("<|tool_call:begin|>", "<|think|>"), _SOLAR),
    (("<|open|>", "<|close|>", "<|sep|>", "'argument'"), _KIMI_3),
    (("<arg_key{}>", "':opensource'"), _HUNYUAN),
)
"""Formats whose thoughts and calls belong together. All the tags of a row must be in the template;
the first such row is taken.
"""

TOOL_FORMATS: tuple[tuple[tuple[str, ...], ParserSpec], ...] = (
    (("<start_function_call>",), FUNCTION_GEMMA),
    (("<seed:tool_call>",), _of(_SEED)),
    (("<minimax:tool_call>",), _of(_MINIMAX)),
    (("]<]minimax[>[", "<invoke name="), _of(_MINIMAX_3)),
    (('<function name="', '<param name="'), _of(_MINICPM)),
    (("｜DSML｜",), _of(_DSML)),
    (("<｜tool▁calls▁begin｜>",), replace(DEEPSEEK, thoughts=None)),
    (("<|tool_calls_section_begin|>",), _KIMI),
    (("<arg_key>",), replace(GLM, thoughts=None)),
    (("<function=", "<parameter="), CODER),
    (("<function=",), _FUNCTIONARY_31),
    (("<|recipient|>", "<|content|>"), _FUNCTIONARY_2),
    ((">>>all",), _FUNCTIONARY_32),
    (("[TOOL_CALLS]",), _MISTRAL),
    (("<TOOLCALL>",), _listed("<TOOLCALL>", "</TOOLCALL>")),
    (("<|tool_call_start|>",), _LFM_LISTS),
    (("<|tool_list_start|>",), _LFM_LISTS),
    (("List of tools: [", "keep_past_thinking"), _LFM_LISTS),
    (("<|role_sep|>", "<|message_sep|>"), _GIGA_CHAT),
    (("<|tool_call|>",), _PIPED),
    (("<|tool|>", "<|/tool|>"), _PIPED),
    (("<tool_calls>",), _listed("<tool_calls>", "</tool_calls>")),
    (("<tool_call>",), HERMES),
    (("functools[",), _FUNCTOOLS),
    (("Action:", "```json"), _COMMAND),
    (("tool_code",), _TOOL_CODE),
    (("<|python_tag|>",), _LLAMA),
    (("ipython",), _LLAMA),
    (('{"name":', '"parameters":'), _LLAMA),
)
_THOUGHTS: tuple[tuple[str, str], ...] = (
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("[THINK]", "[/THINK]"),
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
)


def detected(template_text: str) -> OutputFormat | None:
    """The format whose delimiters stand in a chat template (Jinja or Go); None: it has none.

    Thinking is separated from the answer even if the client did not ask for it. Whether an answer
    begins with thinking is read from the end of the rendered prompt.
    """
    for tags, format_ in WHOLE_FORMATS:
        if all(tag in template_text for tag in tags):
            return format_
    tools = next(
        (spec for tags, spec in TOOL_FORMATS if all(tag in template_text for tag in tags)), None
    )
    # some templates only cut thoughts off, at the closing tag
    pair = next((pair for pair in _THOUGHTS if pair[1] in template_text), None)
    if pair is None:
        return tools
    thoughts = by_prompt(*pair)
    return replace(
        tools or ParserSpec(),
        thoughts=thoughts if tools else replace(thoughts, until_call=False),
        lead=(pair[1],),  # of a thought that was none
        handles_thinking=True,
    )


def of_jinja(template_text: str) -> OutputFormat | None:
    """As :func:`detected`, for a Jinja template. One that shows tools but has no syntax for calls
    is given calls as JSON (:mod:`ollama_async.prompts.template_probe`), and so they are parsed.
    """
    found = detected(template_text)
    has_own_calls = "tools" not in template_text or "tool_call" in template_text
    if has_own_calls or (found is not None and found.handles_tools):
        return found
    return replace(
        found if isinstance(found, ParserSpec) else ParserSpec(), calls=(*_SHOWN, _BARE_CALL)
    )


def of_go_template(*, thinking: tuple[str, str] | None, tool_tag: str | None) -> ParserSpec:
    """The format of a Go template that shows only where thoughts and calls begin.

    ``thinking`` are the tags around thoughts, searched for when the client requests thoughts.
    ``tool_tag`` is what stands before the JSON of a call (``{`` or ``[``: nothing does), searched
    for when the client offers tools. Only calls of those tools are recognised. None: no such tag.
    """
    return ParserSpec(
        thoughts=thinking
        and ThinkingSpec(*thinking, if_on=Begin.BY_PROMPT, trims=(Begin.AGAIN,), space=Space.KEEP),
        calls=(_loose(tool_tag),) if tool_tag else (),
        space=Space.KEEP,
        handles_thinking=thinking is not None,
    )


def _loose(tag: str) -> CallSpec:
    """``{`` and ``[`` are the beginning of the JSON itself; visible text before them means that
    there is no call.
    """
    if tag in {"{", "["}:
        return CallSpec(open=(tag,), parse=loose_call, kept=True, first=True, declared=True)
    slashed = {"<": f"</{tag[1:]}", "[": f"[/{tag[1:]}"}.get(tag[0], "")
    piped = f"<|/{tag[2:]}" if tag.startswith("<|") else ""
    return CallSpec(
        open=(tag,),
        parse=loose_call,
        noise=tuple(tag for tag in (slashed, piped) if tag),
        declared=True,
    )

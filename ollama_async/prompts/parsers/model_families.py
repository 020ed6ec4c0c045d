# ruff: noqa: RUF001 - the full-width bars are in these tags
"""The built-in output formats that a model's configuration names.

A new family is a row here; if its calls are written like no others, it also needs a call syntax in
``family_calls``.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from ollama_async.core.conversation import Prompt
from ollama_async.prompts.output_format import Delimiters, OutputFormat, Parser
from ollama_async.prompts.parsers.delimiter_search import JSON_STRINGS
from ollama_async.prompts.parsers.family_calls import (
    DEEPSEEK_SEPARATOR,
    BraceCalls,
    PythonCalls,
    deepseek_call,
    laguna_call,
)
from ollama_async.prompts.parsers.json_calls import Between, JsonCalls
from ollama_async.prompts.parsers.literals import as_it_is
from ollama_async.prompts.parsers.message_formats import Glimmer, Harmony
from ollama_async.prompts.parsers.parser_spec import (
    HERMES_TAGS,
    PYTHON,
    CallSpec,
    HeadedCallSpec,
    ParserSpec,
    PythonicCallSpec,
    tagged,
)
from ollama_async.prompts.parsers.scanner import Scanner
from ollama_async.prompts.parsers.states import Kind, Look, Space, State, Text
from ollama_async.prompts.parsers.thinking import Begin, ParserContext, ThinkingSpec
from ollama_async.prompts.parsers.xml_calls import Element, XmlCalls, pairs

THINK = ThinkingSpec("<think>", "</think>")
"""The tags that most families write around thoughts."""
_ALWAYS_THINKING = replace(THINK, if_on=Begin.THOUGHTS, if_off=Begin.THOUGHTS)
_QWEN_THOUGHTS = replace(THINK, if_on=Begin.AGAIN, by_default=True, until_call=True)

_HERMES_CALL = tagged(*HERMES_TAGS, JsonCalls())
HERMES = ParserSpec(calls=(_HERMES_CALL,))

CODER_ELEMENTS = (
    Element("<function=", ">", "</function>"),
    Element("<parameter=", ">", "</parameter>"),
)
_CODER_XML = XmlCalls(*CODER_ELEMENTS)
_CODER_CALL = tagged(*HERMES_TAGS, _CODER_XML)
CODER = ParserSpec(
    calls=(
        _CODER_CALL,
        # without the tag around it, which these models forget now and then
        tagged(
            "<function=",
            "</function>",
            Between(_CODER_XML, after="</function>"),
            strings=_CODER_XML.strings(),
            kept=True,
            declared=True,
            noise=("</tool_call>",),
        ),
    )
)
_QWEN_35 = ParserSpec(thoughts=_QWEN_THOUGHTS, calls=(_CODER_CALL,), handles_thinking=True)

CALL_ID = "[CALL_ID]"
_MINISTRAL = ParserSpec(
    thoughts=ThinkingSpec(
        "[THINK]", "[/THINK]", if_on=Begin.CONTENT, anywhere=True, space=Space.KEEP
    ),
    calls=(
        HeadedCallSpec(
            open=("[TOOL_CALLS]",),
            head_end="[ARGS]",
            parse=JsonCalls(),
            declared=True,
            runs_on=True,
            id_tag=CALL_ID,
            inner=(CALL_ID, "[ARGS]"),
        ),
    ),
)

DEEPSEEK = ParserSpec(
    thoughts=replace(THINK, if_on=Begin.THOUGHTS),
    calls=(
        tagged(
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            deepseek_call,
            block=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
            inner=(DEEPSEEK_SEPARATOR,),
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
    calls=(tagged("<function_calls>", "</function_calls>", PythonCalls(), runs_on=True),),
    space=Space.KEEP,
)

FUNCTION_GEMMA = ParserSpec(
    calls=(
        tagged(
            "<start_function_call>",
            "<end_function_call>",
            BraceCalls("<escape>", lenient=True),
            whole=BraceCalls("<escape>", lenient=False),
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
        if_on=Begin.CONTENT,
        label="thought\n",
        anywhere=True,
        hidden=True,
        after_tools=True,
        space=Space.TRIM,
    ),
    calls=(
        tagged(
            "<|tool_call>",
            "<tool_call|>",
            BraceCalls('<|"|>', lenient=True),
            whole=BraceCalls('<|"|>', lenient=False),
            noise=("<tool_call|>", "<|tool_response>"),
            inner=('<|"|>',),
        ),
    ),
    space=Space.TRIM,
    handles_thinking=True,
)

GLM = ParserSpec(
    thoughts=replace(THINK, if_on=Begin.THOUGHTS, if_off=Begin.MAYBE, by_default=True),
    calls=(tagged(*HERMES_TAGS, pairs, whole=pairs.whole, inner=pairs.tags),),
    handles_thinking=True,
)

LFM = ParserSpec(
    calls=(
        tagged(
            "<|tool_call_start|>",
            "<|tool_call_end|>",
            PythonCalls(as_it_is),
            item=PythonCalls(as_it_is).member,
            quotes=PYTHON,
        ),
        PythonicCallSpec(open=("", "["), parse=PythonCalls(as_it_is)),
    ),
    space=Space.TRIM,
)

_LAGUNA_STRINGS = (*JSON_STRINGS, *pairs.strings("<tool_call>"))
_LAGUNA = ParserSpec(
    thoughts=replace(
        THINK, if_on=Begin.AGAIN, anywhere=True, hidden=True, until_call=True, trims=(Begin.AGAIN,)
    ),
    calls=(
        tagged(*HERMES_TAGS, laguna_call, strings=_LAGUNA_STRINGS, inner=pairs.tags),
        tagged("<user>", "</user>", laguna_call, strings=_LAGUNA_STRINGS, declared=True),
        CallSpec(open=('{"name"',), parse=laguna_call, kept=True),
    ),
    lead=("</think>",),
    trims=True,
    handles_thinking=True,
)


# ----------------------------------------------------------------- Cohere Command A and R

_STARTS = ("<|START_TEXT|>", "<|START_RESPONSE|>")
_ENDS = ("<|END_TEXT|>", "<|END_RESPONSE|>")
_THOUGHTS = ("<|START_THINKING|>", "<|END_THINKING|>")
_TURN = ("<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")
_ACTIONS = JsonCalls(
    names=("tool_name", "name"), values=("parameters", "arguments"), ids="tool_call_id"
)
_ACTION = tagged("<|START_ACTION|>", "<|END_ACTION|>", _ACTIONS, item=_ACTIONS.member)


class Cohere(msgspec.Struct, frozen=True):
    """Blocks of thoughts, actions and text. With thinking, the prompt ends with the opening tag of
    thoughts. ``by_prompt``: whether it does is read from the prompt, not from the client's
    ``think``.
    """

    by_prompt: bool = False
    handles_tools: bool = True
    handles_thinking: bool = True
    special_tokens: tuple[str, ...] = (*_THOUGHTS, *_STARTS, *_ENDS, *_ACTION.special_tokens)

    def start(self, prompt: Prompt, rendered: str) -> Parser | None:
        context = ParserContext.of(prompt, rendered)
        return Scanner(self._states(context), self._begin(context))

    def delimiters(self, prompt: Prompt, rendered: str) -> Delimiters:
        context = ParserContext.of(prompt, rendered)
        begin = self._begin(context)
        return Delimiters(
            thoughts=None if begin == "content" else _THOUGHTS,
            begins_thinking=begin == "thinking",
            syntaxes=(_ACTION.syntax,) if context.tools and _ACTION.syntax else (),
            forced=_ACTION.forced if context.tools else None,
        )

    def _begin(self, context: ParserContext) -> str:
        """The initial state: ``thinking``, ``content``, or before a ``block``."""
        if self.by_prompt:
            return "thinking" if context.rendered.endswith(_THOUGHTS[0]) else "block"
        if context.begun:
            return "content"
        return "block" if context.think is False else "thinking"

    def _states(self, context: ParserContext) -> dict[str, State]:
        action = dict.fromkeys(_ACTION.open, "action") if context.tools else {}
        opening: dict[str, State | str] = {**action, **dict.fromkeys(_STARTS, "content")}
        opening[_THOUGHTS[0]] = "thinking"
        ends = dict.fromkeys((*_ENDS, _TURN[0], _THOUGHTS[1]), "block")
        return {
            "thinking": Text(Kind.THINKING, {_THOUGHTS[1]: "block"}, Space.DROP),
            "block": Look({**opening, **dict.fromkeys(_TURN, "block")}, "content"),
            "content": Text(Kind.CONTENT, {**opening, **ends}),
            "action": _ACTION.state(context.tools, "block"),
        }


PARSERS: dict[str, OutputFormat] = {
    "qwen3": HERMES,
    "qwen3-thinking": replace(HERMES, thoughts=_QWEN_THOUGHTS, handles_thinking=True),
    "qwen3.5": _QWEN_35,
    "ornith": _QWEN_35,
    "qwen3-coder": ParserSpec(calls=(_CODER_CALL,)),
    "qwen3-vl-instruct": HERMES,
    "qwen3-vl-thinking": replace(
        HERMES, thoughts=replace(_ALWAYS_THINKING, until_call=True), handles_thinking=True
    ),
    "nemotron-3-nano": _QWEN_35,
    "nemotron-3.5-nano": _QWEN_35,
    "passthrough": ParserSpec(space=Space.KEEP),
    "ministral": _MINISTRAL,
    "harmony": Harmony(),
    "cogito": replace(DEEPSEEK, tools_instead=True),
    "deepseek3": DEEPSEEK,
    "olmo3": _OLMO,
    "olmo3-think": ParserSpec(thoughts=_ALWAYS_THINKING, space=Space.KEEP, handles_thinking=True),
    "functiongemma": FUNCTION_GEMMA,
    "gemma4": GEMMA,
    "gemma4-no-thinking": replace(GEMMA, handles_thinking=False),
    "glm-4.7": GLM,
    "glm-ocr": replace(GLM, thoughts=replace(THINK, if_off=Begin.MAYBE), handles_thinking=False),
    "lfm2": LFM,
    "lfm2-thinking": replace(
        LFM, thoughts=replace(THINK, trims=(Begin.MAYBE,)), handles_thinking=True
    ),
    "laguna": _LAGUNA,
    "poolside-v1": _LAGUNA,
    "cohere": Cohere(),
    "glimmer": Glimmer(),
}

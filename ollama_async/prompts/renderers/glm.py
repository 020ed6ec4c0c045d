"""Renderers of GLM (Z.ai) and Laguna (Poolside, ``laguna`` and ``poolside-v1``): calls are pairs of
``<arg_key>`` and ``<arg_value>``.
"""

from __future__ import annotations

from functools import partial

from ollama_async.prompts.renderers.conversation_view import ConversationView, Turn
from ollama_async.prompts.renderers.renderer_spec import (
    RendererSpec,
    assistant_turn,
    stripped,
    with_tools,
)
from ollama_async.prompts.renderers.tool_texts import TOOL_SIGNATURES, json_lines, key_value_call

_START = "[gMASK]<sop>"
_NO_THINKING = "/nothink"

_TOOLS = (
    TOOL_SIGNATURES
    + """\
For each function call, output the function name and arguments within the following XML format:
<tool_call>{{function-name}}<arg_key>{{arg-key-1}}</arg_key><arg_value>{{arg-value-1}}</arg_value>\
<arg_key>{{arg-key-2}}</arg_key><arg_value>{{arg-value-2}}</arg_value>...</tool_call>"""
)


_SYSTEM = "<|system|>{}"
_OCR_SYSTEM = "<|system|>\n{}\n"


def _system(view: ConversationView, turn: str) -> str | None:
    """The tools in a turn of their own before the client's, alike in both forms."""
    tools = f"<|system|>\n{_TOOLS.format(tools=json_lines(view))}" if view.tools else ""
    system = "" if view.system is None else turn.format(view.system)
    return tools + system or None


def _thought(turn: Turn, _: ConversationView) -> str:
    thinking = turn.thinking.strip()
    return f"<think>{thinking}</think>" if thinking else "</think>"


def _ocr_user(turn: Turn, view: ConversationView) -> str:
    asked = view.thinks or turn.content.endswith(_NO_THINKING)
    return turn.content if asked else turn.content + _NO_THINKING


# ----------------------------------------------------------------- Laguna of Poolside

_LAGUNA_START = "〈|EOS|〉"
_LAGUNA_SYSTEM = (
    "You are a helpful, conversationally-fluent assistant made by Poolside. You are here to be "
    "helpful to users through natural language conversations."
)

_LAGUNA_TOOLS = """\
### Tools

You may call functions to assist with the user query.
All available function signatures are listed below:
<available_tools>
{tools}
</available_tools>"""

_HOW_TO_CALL = """

{thinking}For each function call, return an unescaped XML-like object with function name and \
arguments within '<tool_call>' and '</tool_call>' tags, like here:
{thought}<tool_call>function-name
<arg_key>argument-key</arg_key>
<arg_value>value-of-argument-key</arg_value>
</tool_call>"""

_THINK_FIRST = "Wrap your thinking in '<think>', '</think>' tags, followed by a function call. "
_A_THOUGHT = "<think> your thoughts here </think>\n"


def _laguna_system(view: ConversationView, instructions: str = "") -> str | None:
    head = (_LAGUNA_SYSTEM if view.system is None else view.system).rstrip()
    return with_tools(view, _LAGUNA_TOOLS.format(tools=json_lines(view)) + instructions, head=head)


def _system_on_lines(view: ConversationView) -> str | None:
    instructions = _HOW_TO_CALL.format(
        thinking=_THINK_FIRST if view.thinks else "", thought=_A_THOUGHT if view.thinks else ""
    )
    written = _laguna_system(view, instructions)
    return f"\n{written}" if written else None


def _thought_on_lines(turn: Turn, _: ConversationView) -> str:
    thinking = turn.thinking.strip()
    return f"<think>\n{thinking}\n</think>\n" if thinking else "</think>\n"


def _text_on_lines(turn: Turn, _: ConversationView) -> str:
    text = turn.content.strip()
    return text if turn.is_open or not text else f"{text}\n"


def _laguna_thought(turn: Turn, view: ConversationView) -> str:
    return f"<think>{turn.thinking}</think>" if view.thinks else "</think>"


RENDERERS = {
    "glm-4.7": RendererSpec(
        start=_START,
        tags={
            "system": ("", ""),
            "user": ("<|user|>", ""),
            "assistant": ("<|assistant|>", ""),
            "tool": ("<|observation|>", ""),
        },
        system=lambda view: _system(view, _SYSTEM),
        later_system=lambda turn, _: _SYSTEM.format(turn.content),
        assistant=assistant_turn(thoughts=_thought, text=stripped, call=key_value_call),
        result=lambda turn, _: f"<tool_response>{turn.content}</tool_response>",
        opening=("<think>", "</think>"),
        thought=("<think>", "</think>"),
        thinks_unasked=True,
    ),
    "glm-ocr": RendererSpec(
        start=_START,
        tags={
            "system": ("", ""),
            "user": ("<|user|>\n", ""),
            "assistant": ("<|assistant|>\n", "\n"),
            "tool": ("<|observation|>\n", ""),
        },
        system=lambda view: _system(view, _OCR_SYSTEM),
        later_system=lambda turn, _: _OCR_SYSTEM.format(turn.content),
        user=_ocr_user,
        assistant=assistant_turn(
            thoughts=lambda turn, _: f"<think>{turn.thinking.strip()}</think>\n",
            text=stripped,
            gap="\n",
            call=key_value_call,
            between="\n",
        ),
        result=lambda turn, _: f"<tool_response>\n{turn.content}\n</tool_response>\n",
        between_results="\n",
        opening=("", "<think></think>\n"),
        thought=("<think>", "</think>\n"),
        thinks_unasked=True,
    ),
    "laguna": RendererSpec(
        start=_LAGUNA_START,
        tags={
            "system": ("<system>\n", "\n</system>\n"),
            "user": ("<user>\n", "\n</user>\n"),
            "assistant": ("<assistant>\n", "</assistant>\n"),
            "tool": ("<tool_response>\n", "\n</tool_response>\n"),
        },
        each_result_is_a_turn=True,
        system=_system_on_lines,
        assistant=assistant_turn(
            thoughts=_thought_on_lines,
            text=_text_on_lines,
            call=partial(key_value_call, line_end="\n"),
            between="\n",
            around=("", "\n"),
        ),
        opening=("<think>", "</think>"),
        thought=("<think>\n", "\n</think>\n"),
    ),
    "poolside-v1": RendererSpec(
        start=_LAGUNA_START,
        tags={
            "system": ("<system>", "</system>\n"),
            "user": ("<user>", "</user>\n"),
            "assistant": ("<assistant>", "</assistant>\n"),
            "tool": ("<tool_response>", "</tool_response>\n"),
        },
        each_result_is_a_turn=True,
        system=_laguna_system,
        assistant=assistant_turn(thoughts=_laguna_thought, call=key_value_call),
        opening=("<think>", "</think>"),
        thought=("<think>", "</think>"),
    ),
}

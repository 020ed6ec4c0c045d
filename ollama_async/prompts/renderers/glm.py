"""GLM of Z.ai."""

from __future__ import annotations

from ollama_async.prompts.renderers import tool_texts
from ollama_async.prompts.renderers.conversation_view import Talk, Turn
from ollama_async.prompts.renderers.renderer_spec import Family, speaking, stripped

_START = "[gMASK]<sop>"
_NO_THINKING = "/nothink"

_TOOLS = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{{function-name}}<arg_key>{{arg-key-1}}</arg_key><arg_value>{{arg-value-1}}</arg_value>\
<arg_key>{{arg-key-2}}</arg_key><arg_value>{{arg-value-2}}</arg_value>...</tool_call>"""


_SYSTEM = "<|system|>{}"
_OCR_SYSTEM = "<|system|>\n{}\n"


def _system(talk: Talk, turn: str) -> str | None:
    """Tools have a turn of their own, before the client's; it is the same in both forms."""
    listed = f"<|system|>\n{_list_tools(talk)}" if talk.tools else ""
    said = "" if talk.system is None else turn.format(talk.system)
    return listed + said or None


def _list_tools(talk: Talk) -> str:
    return _TOOLS.format(tools=tool_texts.json_lines(talk))


def _thought(turn: Turn, _: Talk) -> str:
    thinking = turn.thinking.strip()
    return f"<think>{thinking}</think>" if thinking else "</think>"


def _ocr_user(turn: Turn, talk: Talk) -> str:
    asked = talk.thinks or turn.content.endswith(_NO_THINKING)
    return turn.content if asked else turn.content + _NO_THINKING


FAMILIES = {
    "glm-4.7": Family(
        start=_START,
        marks={
            "system": ("", ""),
            "user": ("<|user|>", ""),
            "assistant": ("<|assistant|>", ""),
            "tool": ("<|observation|>", ""),
        },
        system=lambda talk: _system(talk, _SYSTEM),
        later_system=lambda turn, _: _SYSTEM.format(turn.content),
        assistant=speaking(
            thoughts=_thought,
            words=stripped,
            calls=tool_texts.joined(tool_texts.key_value_call, ""),
        ),
        result=lambda turn, _: f"<tool_response>{turn.content}</tool_response>",
        opening=("<think>", "</think>"),
        thought=("<think>", "</think>"),
        thinks_unasked=True,
    ),
    "glm-ocr": Family(
        start=_START,
        marks={
            "system": ("", ""),
            "user": ("<|user|>\n", ""),
            "assistant": ("<|assistant|>\n", "\n"),
            "tool": ("<|observation|>\n", ""),
        },
        system=lambda talk: _system(talk, _OCR_SYSTEM),
        later_system=lambda turn, _: _OCR_SYSTEM.format(turn.content),
        user=_ocr_user,
        assistant=speaking(
            thoughts=lambda turn, _: f"<think>{turn.thinking.strip()}</think>\n",
            words=stripped,
            gap="\n",
            calls=tool_texts.joined(tool_texts.key_value_call, "\n"),
        ),
        result=lambda turn, _: f"<tool_response>\n{turn.content}\n</tool_response>\n",
        between_results="\n",
        opening=("", "<think></think>\n"),
        thought=("<think>", "</think>\n"),
        thinks_unasked=True,
    ),
}

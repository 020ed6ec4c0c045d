"""Nemotron Nano of Nvidia."""

from __future__ import annotations

from dataclasses import replace

from ollama_async.prompts.renderers import chatml, tool_texts
from ollama_async.prompts.renderers.conversation_view import Talk, Turn
from ollama_async.prompts.renderers.json_text import spaced
from ollama_async.prompts.renderers.renderer_spec import Family, WriteTurn, speaking, with_tools


def _system(talk: Talk) -> str:
    return with_tools(talk.system, _list_tools, talk) or ""


def _list_tools(talk: Talk) -> str:
    return tool_texts.CALLS_ARE_XML.format(tools=tool_texts.xml(talk, spaced))


def _assistant(*, forgotten: str) -> WriteTurn:
    """``forgotten`` stands for thoughts before an answer in words that are no longer shown."""

    def thoughts(turn: Turn, _: Talk) -> str:
        if not turn.thinking:
            return "<think></think>"
        if turn.is_after_query:
            return f"<think>\n{turn.thinking}\n</think>" + ("\n" if turn.content.strip() else "")
        return "<think></think>" if turn.calls else forgotten

    def words(turn: Turn, _: Talk) -> str:
        return turn.content.strip() + ("\n" if turn.calls else "")

    calls = tool_texts.joined(tool_texts.xml_call, "\n")
    return speaking(thoughts=thoughts, words=words, calls=lambda made: f"{calls(made)}\n")


_NANO = Family(
    marks=chatml.RESULTS_OF_USER,
    system=_system,
    assistant=_assistant(forgotten="<think></think>\n"),
    result=lambda turn, talk: f"{chatml.tool_response(turn, talk)}\n",
    opening=("<think>\n", "<think></think>"),
    thought=("<think>\n", "\n</think>\n"),
    thinks_unasked=True,
)

FAMILIES = {
    "nemotron-3-nano": _NANO,
    "nemotron-3.5-nano": replace(_NANO, assistant=_assistant(forgotten="<think></think>")),
}

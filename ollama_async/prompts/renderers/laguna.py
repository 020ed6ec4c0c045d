"""Laguna of Poolside, in its first form and in the one of version 2.1 (``poolside-v1``)."""

from __future__ import annotations

from functools import partial

from ollama_async.prompts.renderers import tool_texts
from ollama_async.prompts.renderers.conversation_view import Talk, Turn
from ollama_async.prompts.renderers.renderer_spec import Family, speaking, with_tools

_START = "〈|EOS|〉"
_DEFAULT = (
    "You are a helpful, conversationally-fluent assistant made by Poolside. You are here to be "
    "helpful to users through natural language conversations."
)

_TOOLS = """\
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


def _head(talk: Talk) -> str:
    return (_DEFAULT if talk.system is None else talk.system).rstrip()


def _list_tools(talk: Talk) -> str:
    return _TOOLS.format(tools=tool_texts.json_lines(talk))


def _explain_tools(talk: Talk) -> str:
    return _list_tools(talk) + _HOW_TO_CALL.format(
        thinking=_THINK_FIRST if talk.thinks else "", thought=_A_THOUGHT if talk.thinks else ""
    )


def _system_on_lines(talk: Talk) -> str | None:
    written = with_tools(_head(talk), _explain_tools, talk)
    return f"\n{written}" if written else None


def _thought_on_lines(turn: Turn, _: Talk) -> str:
    thinking = turn.thinking.strip()
    return f"<think>\n{thinking}\n</think>\n" if thinking else "</think>\n"


def _words_on_lines(turn: Turn, _: Talk) -> str:
    words = turn.content.strip()
    return words if turn.is_open or not words else f"{words}\n"


def _thought(turn: Turn, talk: Talk) -> str:
    return f"<think>{turn.thinking}</think>" if talk.thinks else "</think>"


_call_on_lines = partial(tool_texts.key_value_call, line_end="\n")

FAMILIES = {
    "laguna": Family(
        start=_START,
        marks={
            "system": ("<system>\n", "\n</system>\n"),
            "user": ("<user>\n", "\n</user>\n"),
            "assistant": ("<assistant>\n", "</assistant>\n"),
            "tool": ("<tool_response>\n", "\n</tool_response>\n"),
        },
        each_result_is_a_turn=True,
        system=_system_on_lines,
        assistant=speaking(
            thoughts=_thought_on_lines,
            words=_words_on_lines,
            calls=tool_texts.joined(lambda call: f"{_call_on_lines(call)}\n", ""),
        ),
        opening=("<think>", "</think>"),
        thought=("<think>\n", "\n</think>\n"),
    ),
    "poolside-v1": Family(
        start=_START,
        marks={
            "system": ("<system>", "</system>\n"),
            "user": ("<user>", "</user>\n"),
            "assistant": ("<assistant>", "</assistant>\n"),
            "tool": ("<tool_response>", "</tool_response>\n"),
        },
        each_result_is_a_turn=True,
        system=lambda talk: with_tools(_head(talk), _list_tools, talk),
        assistant=speaking(
            thoughts=_thought, calls=tool_texts.joined(tool_texts.key_value_call, "")
        ),
        opening=("<think>", "</think>"),
        thought=("<think>", "</think>"),
    ),
}

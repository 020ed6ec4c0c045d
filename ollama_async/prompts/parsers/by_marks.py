# ruff: noqa: RUF001 - the full-width bars are in these marks
"""Which format a chat template means, by the marks that stand in its text."""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.parsers import families, formats, tagged
from ollama_async.prompts.parsers.cohere import Cohere
from ollama_async.prompts.parsers.family import Family
from ollama_async.prompts.parsers.glimmer import Glimmer
from ollama_async.prompts.parsers.harmony import Harmony
from ollama_async.prompts.parsers.thoughts import by_prompt
from ollama_async.prompts.port import Format

_WHOLE: tuple[tuple[tuple[str, ...], Format], ...] = (
    (("<|channel|>", "<|message|>"), Harmony()),
    (("<atem:function_calls>",), Glimmer()),
    (("<|START_ACTION|>",), Cohere(by_prompt=True)),
    (("<|START_RESPONSE|>",), Cohere(by_prompt=True)),
    (("<|channel>", "<channel|>"), families.GEMMA),
    (("<|tool_call>", "<tool_call|>"), families.GEMMA),
    (("<|tools_prefix|>", "<|inner_prefix|>"), formats.APERTUS),
    (("<|tool_call:begin|>", "<|think|>"), formats.SOLAR),
    (("<|open|>", "<|close|>", "<|sep|>", "'argument'"), tagged.KIMI_3),
    (("<arg_key{}>", "':opensource'"), tagged.HUNYUAN),
)
"""Formats whose thoughts and calls belong together; all the marks of a row must be there, and the
first row counts.
"""

_TOOLS: tuple[tuple[tuple[str, ...], Family], ...] = (
    (("<start_function_call>",), families.FUNCTION_GEMMA),
    (("<seed:tool_call>",), tagged.SEED),
    (("<minimax:tool_call>",), tagged.MINIMAX),
    (("]<]minimax[>[", "<invoke name="), tagged.MINIMAX_3),
    (('<function name="', '<param name="'), tagged.MINICPM),
    (("｜DSML｜",), tagged.DSML),
    (("<｜tool▁calls▁begin｜>",), formats.FENCED),
    (("<|tool_calls_section_begin|>",), formats.KIMI),
    (("<arg_key>",), tagged.PAIRS),
    (("<function=", "<parameter="), tagged.CODER),
    (("<function=",), formats.FUNCTIONARY_31),
    (("<|recipient|>", "<|content|>"), formats.FUNCTIONARY_2),
    ((">>>all",), formats.FUNCTIONARY_32),
    (("[TOOL_CALLS]",), formats.MISTRAL),
    (("<TOOLCALL>",), formats.NEMOTRON),
    (("<|tool_call_start|>",), formats.LFM_LISTS),
    (("<|tool_list_start|>",), formats.LFM_LISTS),
    (("List of tools: [", "keep_past_thinking"), formats.LFM_LISTS),
    (("<|role_sep|>", "<|message_sep|>"), formats.GIGA_CHAT),
    (("<|tool_call|>",), formats.PIPED),
    (("<|tool|>", "<|/tool|>"), formats.PIPED),
    (("<tool_calls>",), formats.LISTED),
    (("<tool_call>",), formats.HERMES),
    (("functools[",), formats.FUNCTOOLS),
    (("Action:", "```json"), formats.COMMAND),
    (("tool_code",), formats.TOOL_CODE),
    (("<|python_tag|>",), formats.LLAMA),
    (("ipython",), formats.LLAMA),
    (('{"name":', '"parameters":'), formats.LLAMA),
)
_THOUGHTS: tuple[tuple[str, str], ...] = (
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("[THINK]", "[/THINK]"),
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
)


def detected(template_text: str) -> Format | None:
    """See :func:`ollama_async.prompts.parsers.detected`."""
    for marks, format_ in _WHOLE:
        if all(mark in template_text for mark in marks):
            return format_
    tools = next(
        (family for marks, family in _TOOLS if all(mark in template_text for mark in marks)), None
    )
    # some templates only cut thoughts off, at the closing mark
    tags = next((tags for tags in _THOUGHTS if tags[1] in template_text), None)
    if tags is None:
        return tools
    thoughts = by_prompt(*tags)
    return replace(
        tools or Family(),
        thoughts=thoughts if tools else replace(thoughts, until_call=False),
        lead=(tags[1],),  # of a thought that was none
        handles_thinking=True,
    )


def of_jinja(template_text: str) -> Format | None:
    """See :func:`ollama_async.prompts.parsers.of_jinja`."""
    found = detected(template_text)
    has_own_calls = "tools" not in template_text or "tool_call" in template_text
    if has_own_calls or (found is not None and found.handles_tools):
        return found
    return replace(found if isinstance(found, Family) else Family(), calls=formats.AS_JSON)

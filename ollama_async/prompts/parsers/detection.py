# ruff: noqa: RUF001 - the full-width bars are in these marks
"""Which format a chat template means, by the marks that stand in its text."""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.output_format import OutputFormat
from ollama_async.prompts.parsers import model_families, tagged, template_formats
from ollama_async.prompts.parsers.channel_formats import Harmony
from ollama_async.prompts.parsers.cohere import Cohere
from ollama_async.prompts.parsers.glimmer import Glimmer
from ollama_async.prompts.parsers.parser_spec import Family
from ollama_async.prompts.parsers.thoughts import by_prompt

_WHOLE: tuple[tuple[tuple[str, ...], OutputFormat], ...] = (
    (("<|channel|>", "<|message|>"), Harmony()),
    (("<atem:function_calls>",), Glimmer()),
    (("<|START_ACTION|>",), Cohere(by_prompt=True)),
    (("<|START_RESPONSE|>",), Cohere(by_prompt=True)),
    (("<|channel>", "<channel|>"), model_families.GEMMA),
    (("<|tool_call>", "<tool_call|>"), model_families.GEMMA),
    (("<|tools_prefix|>", "<|inner_prefix|>"), template_formats.APERTUS),
    (("<|tool_call:begin|>", "<|think|>"), template_formats.SOLAR),
    (("<|open|>", "<|close|>", "<|sep|>", "'argument'"), tagged.KIMI_3),
    (("<arg_key{}>", "':opensource'"), tagged.HUNYUAN),
)
"""Formats whose thoughts and calls belong together; all the marks of a row must be there, and the
first row counts.
"""

_TOOLS: tuple[tuple[tuple[str, ...], Family], ...] = (
    (("<start_function_call>",), model_families.FUNCTION_GEMMA),
    (("<seed:tool_call>",), tagged.SEED),
    (("<minimax:tool_call>",), tagged.MINIMAX),
    (("]<]minimax[>[", "<invoke name="), tagged.MINIMAX_3),
    (('<function name="', '<param name="'), tagged.MINICPM),
    (("｜DSML｜",), tagged.DSML),
    (("<｜tool▁calls▁begin｜>",), template_formats.FENCED),
    (("<|tool_calls_section_begin|>",), template_formats.KIMI),
    (("<arg_key>",), tagged.PAIRS),
    (("<function=", "<parameter="), tagged.CODER),
    (("<function=",), template_formats.FUNCTIONARY_31),
    (("<|recipient|>", "<|content|>"), template_formats.FUNCTIONARY_2),
    ((">>>all",), template_formats.FUNCTIONARY_32),
    (("[TOOL_CALLS]",), template_formats.MISTRAL),
    (("<TOOLCALL>",), template_formats.NEMOTRON),
    (("<|tool_call_start|>",), template_formats.LFM_LISTS),
    (("<|tool_list_start|>",), template_formats.LFM_LISTS),
    (("List of tools: [", "keep_past_thinking"), template_formats.LFM_LISTS),
    (("<|role_sep|>", "<|message_sep|>"), template_formats.GIGA_CHAT),
    (("<|tool_call|>",), template_formats.PIPED),
    (("<|tool|>", "<|/tool|>"), template_formats.PIPED),
    (("<tool_calls>",), template_formats.LISTED),
    (("<tool_call>",), template_formats.HERMES),
    (("functools[",), template_formats.FUNCTOOLS),
    (("Action:", "```json"), template_formats.COMMAND),
    (("tool_code",), template_formats.TOOL_CODE),
    (("<|python_tag|>",), template_formats.LLAMA),
    (("ipython",), template_formats.LLAMA),
    (('{"name":', '"parameters":'), template_formats.LLAMA),
)
_THOUGHTS: tuple[tuple[str, str], ...] = (
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("[THINK]", "[/THINK]"),
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
)


def detected(template_text: str) -> OutputFormat | None:
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


def of_jinja(template_text: str) -> OutputFormat | None:
    """See :func:`ollama_async.prompts.parsers.of_jinja`."""
    found = detected(template_text)
    has_own_calls = "tools" not in template_text or "tool_call" in template_text
    if has_own_calls or (found is not None and found.handles_tools):
        return found
    return replace(found if isinstance(found, Family) else Family(), calls=template_formats.AS_JSON)

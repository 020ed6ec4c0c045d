# ruff: noqa: RUF001 - the full-width bars are in these marks
"""Detects the output format of a model by the delimiters in the text of its chat template."""

from __future__ import annotations

from msgspec.structs import replace

from ollama_async.prompts.output_format import OutputFormat
from ollama_async.prompts.parsers import model_families, qwen, template_formats
from ollama_async.prompts.parsers.cohere import Cohere
from ollama_async.prompts.parsers.glimmer import Glimmer
from ollama_async.prompts.parsers.harmony import Harmony
from ollama_async.prompts.parsers.parser_spec import ParserSpec
from ollama_async.prompts.parsers.thinking import by_prompt

_WHOLE: tuple[tuple[tuple[str, ...], OutputFormat], ...] = (
    (("<|channel|>", "<|message|>"), Harmony()),
    (("<atem:function_calls>",), Glimmer()),
    (("<|START_ACTION|>",), Cohere(by_prompt=True)),
    (("<|START_RESPONSE|>",), Cohere(by_prompt=True)),
    (("<|channel>", "<channel|>"), model_families.GEMMA),
    (("<|tool_call>", "<tool_call|>"), model_families.GEMMA),
    (("<|tools_prefix|>", "<|inner_prefix|>"), template_formats.APERTUS),
    (("<|tool_call:begin|>", "<|think|>"), template_formats.SOLAR),
    (("<|open|>", "<|close|>", "<|sep|>", "'argument'"), template_formats.KIMI_3),
    (("<arg_key{}>", "':opensource'"), template_formats.HUNYUAN),
)
"""Formats whose thoughts and calls belong together. All the marks of a row must be in the template;
the first such row is taken.
"""

_TOOLS: tuple[tuple[tuple[str, ...], ParserSpec], ...] = (
    (("<start_function_call>",), model_families.FUNCTION_GEMMA),
    (("<seed:tool_call>",), template_formats.SEED),
    (("<minimax:tool_call>",), template_formats.MINIMAX),
    (("]<]minimax[>[", "<invoke name="), template_formats.MINIMAX_3),
    (('<function name="', '<param name="'), template_formats.MINICPM),
    (("｜DSML｜",), template_formats.DSML),
    (("<｜tool▁calls▁begin｜>",), template_formats.FENCED),
    (("<|tool_calls_section_begin|>",), template_formats.KIMI),
    (("<arg_key>",), template_formats.PAIRS),
    (("<function=", "<parameter="), qwen.CODER),
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
    (("<tool_call>",), qwen.HERMES),
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
    """The format whose delimiters stand in a chat template (Jinja or Go); None: it has none.

    Its thoughts are split off whatever the client wants. Whether an answer begins with them is read
    from the end of the rendered prompt.
    """
    for marks, format_ in _WHOLE:
        if all(mark in template_text for mark in marks):
            return format_
    tools = next(
        (spec for marks, spec in _TOOLS if all(mark in template_text for mark in marks)), None
    )
    # some templates only cut thoughts off, at the closing mark
    tags = next((tags for tags in _THOUGHTS if tags[1] in template_text), None)
    if tags is None:
        return tools
    thoughts = by_prompt(*tags)
    return replace(
        tools or ParserSpec(),
        thoughts=thoughts if tools else replace(thoughts, until_call=False),
        lead=(tags[1],),  # of a thought that was none
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
        found if isinstance(found, ParserSpec) else ParserSpec(), calls=template_formats.AS_JSON
    )

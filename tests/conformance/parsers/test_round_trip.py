"""Calls as each template writes them are read as the same calls, wherever the answer is cut."""

import json
import os
import re
from functools import cache
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.core.conversation import ChatFormatSpec, Thought, ToolCall
from ollama_async.core.errors import TemplateFailed
from ollama_async.gguf.summary import GgufSummary
from ollama_async.prompts import parsers, renderers
from ollama_async.prompts.chat_format import choose
from ollama_async.prompts.parsers import template_formats
from ollama_async.prompts.parsers.family_calls import MINIMAX_PREFIX
from ollama_async.store.model_reader import find_capabilities
from tests.conformance.parsers.round_trip import (
    CASES,
    ENDS,
    SAID,
    THOUGHT,
    TIDE,
    answer,
    tool_calls,
    written,
)
from tests.unit.prompts.parsers import go_templates
from tests.unit.prompts.real_templates import FOLDER, NAMES, renderer_of

PARSERS = {
    **{name: name for name in renderers.NAMES if parsers.named(name)},
    "qwen3.8": "qwen3.5",
    "deepseek3.1": "deepseek3",
    "olmo3.1": "olmo3",
    "gemma4-small": "gemma4",
    "gemma4-large": "gemma4",
}
"""The parser of each renderer whose models call tools."""
del PARSERS["olmo3-think"]

ONE_AT_A_TIME = (
    "GigaChat", "meta-llama-Llama-3", "openai-gpt-oss",
)  # fmt: skip
"""Templates that have one call to a turn."""

LOSSES = {
    # the template leaves out what is null, and empty lists are nothing
    "MiniMax-M3.jinja": {"all types"},
    # Ollama takes strings as they are, where the renderer escapes them
    "lfm2": {"quotes", "backslashes", "lines", "like JSON", "a line break at the end"},
    "lfm2-thinking": {"quotes", "backslashes", "lines", "like JSON", "a line break at the end"},
    # numbers are Go's float64, and its way to print maps cannot be read
    "go:qwen3-coder": {"all types", "a number of 64 bits"},
    "go:glm4": {"all types", "a number of 64 bits"},
    "go:": {"a number of 64 bits"},
}
"""Cases in which what the template writes is not enough to know the call."""


@cache
def chat_format(name):
    if name.startswith("go:"):
        family = "gptoss" if name == "go:gpt-oss" else ""
        return chosen_by(ChatFormatSpec(template=go_templates.TEMPLATES[name[3:]], family=family))
    if name in PARSERS:
        return chosen_by(ChatFormatSpec(renderer=name, parser=PARSERS[name]))
    chosen = chosen_by(ChatFormatSpec(), (FOLDER / name).read_text())
    return msgspec.structs.replace(chosen, renderer=renderer_of(name))  # it is compiled once


def chosen_by(spec, template=""):
    return choose(spec, chat_template=template, bos="<s>", eos="</s>")


def shows_tools(name):
    text = (FOLDER / name).read_text()
    return "tools" in text or "tool_call" in text


ROWS = (*template_formats.WHOLE_FORMATS, *template_formats.TOOL_FORMATS)
DETECTED = [format_ for _, format_ in ROWS]
TOKEN = re.compile(r"<\|[^|<>]+\|>")
JINJA = [name for name in NAMES if shows_tools(name)]
ALL = [*JINJA, *PARSERS, *(f"go:{name}" for name in go_templates.TEMPLATES)]


def cases(name):
    lost = LOSSES.get(name) or LOSSES.get(name[:3], set())
    for case, calls in CASES.items():
        if case not in lost and (len(calls) == 1 or not name.startswith(ONE_AT_A_TIME)):
            yield case, calls


def read(chosen, given, pieces):
    """Calls, content and thoughts of an answer that arrives in ``pieces``."""
    parser = chosen.start(given.prompt, given.rendered)
    parts = [part for piece in pieces for part in parser.feed(piece)] + parser.finish()
    calls = [part for part in parts if isinstance(part, ToolCall)]
    content = "".join(part for part in parts if isinstance(part, str))
    thoughts = "".join(part.text for part in parts if isinstance(part, Thought))
    return [(call.function.name, exact(call), call.id) for call in calls], content, thoughts


def exact(call):
    """The arguments of a call, with the types of numbers."""
    return json.dumps(call.function.arguments, sort_keys=True)


def wanted(calls, text):
    """What is to be read, with the ids that the text shows."""
    made = tool_calls(calls)
    shown = any(call.id in text for call in made)
    return [(call.function.name, exact(call), call.id if shown else None) for call in made]


def with_ids(found, expected):
    """``found`` without ids that models make up by themselves."""
    is_shown = any(id_ for *_, id_ in expected)
    return [(name, arguments, id_ if is_shown else None) for name, arguments, id_ in found]


def in_order(chosen, given):
    """An answer by a model that always thinks begins with thoughts that history leaves out."""
    tags = chosen.delimiters(given.prompt, given.rendered)
    _, close = tags.thoughts or ("", "")
    if not tags.begins_thinking or given.text.lstrip().startswith((close, THOUGHT)):
        return given
    return msgspec.structs.replace(given, text=THOUGHT + close + given.text)


def check(chosen, given, calls):
    """As the text is, and as it is where its tags are control tokens."""
    given = in_order(chosen, given)
    swallowed = given.without_control_tokens(chosen.special_tokens)
    for one in {each.text: each for each in (given, swallowed)}.values():
        whole = read(chosen, one, [one.text])
        assert read(chosen, one, one.text) == whole
        expected = wanted(calls, one.text)
        assert with_ids(whole[0], expected) == expected, one.text
    return whole


def test_the_templates_are_here():
    if NAMES or os.environ.get("OLLAMA_ASYNC_TEST_NO_SKIP"):
        assert len(JINJA) > 60
    else:
        pytest.skip("scripts/chat_templates.py was not run")


@pytest.mark.parametrize("name", ALL)
def test_a_call_that_is_shown_is_read(name):
    chosen = chat_format(name)
    for case, calls in cases(name):
        _, content, _ = check(chosen, answer(chosen, calls), calls)

        assert content.strip() == "", case


@pytest.mark.parametrize("name", ALL)
def test_text_and_thoughts_before_a_call_are_no_part_of_it(name):
    chosen = chat_format(name)
    for said in ({"content": SAID}, {"thinking": THOUGHT}, {"content": SAID, "thinking": THOUGHT}):
        try:
            given = answer(chosen, [TIDE], think="thinking" in said or None, **said)
        except TemplateFailed:
            continue
        if TIDE[0] not in given.text or is_bare(given.text):
            continue  # the template does not show them in one turn, or only in one line
        _, content, thoughts = check(chosen, given, [TIDE])

        assert not (SAID in given.text and SAID not in content + thoughts)
        assert not (THOUGHT in given.text and THOUGHT not in content + thoughts)
        assert TIDE[0] not in content


def is_bare(text):
    """Whether a call without any tag follows text in the same line, where it counts as text."""
    return f"{SAID}{{" in text or f"{SAID}[{{" in text


def marks_of(chosen):
    """What looks like the end of a call."""
    closing = [tag for tag in chosen.special_tokens if "end" in tag or "/" in tag]
    return [*closing, "</tool_call>", "</parameter>", "</function>", "```", '"}}</tool_call>', "]]"]


@pytest.mark.parametrize("name", ALL)
def test_a_closing_mark_in_a_string_does_not_end_the_call(name):
    chosen = chat_format(name)
    for tag in dict.fromkeys(marks_of(chosen)):
        for text in (f"a {tag} b", tag, f"see {tag}, ok\n{tag}\n."):
            calls = [written(text)] if name.startswith(ONE_AT_A_TIME) else [written(text), TIDE]
            given = answer(chosen, calls)
            if given.text.count(tag) and not is_ambiguous(name, text):
                _, content, _ = check(chosen, given, calls)
                assert content.strip() == "", text


def is_ambiguous(name, text):
    """Whether what stands in the string is what ends strings in this format, or is escaped."""
    return MINIMAX_PREFIX in text or (name.startswith("lfm2") and ('"' in text or "\n" in text))


TEXTS = st.text(
    st.sampled_from("ab1é🌊 \n\t{}[]<>/&'\"\\:,=#") | st.characters(exclude_categories=["C", "Z"]),
    max_size=30,
)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back_wherever_it_is_cut(data):
    name = data.draw(st.sampled_from([name for name in ALL if "lfm2" not in name.lower()]))
    text = data.draw(TEXTS.filter(lambda text: text == text.strip("\n") and not ENDS.search(text)))
    chosen = chat_format(name)
    calls = [written(text)]

    shown = in_order(chosen, answer(chosen, calls))
    places = data.draw(st.lists(st.integers(0, len(shown.text)), max_size=5))
    cuts = [0, *sorted(places), len(shown.text)]
    pieces = [shown.text[start:end] for start, end in pairwise(cuts)]
    found, content, _ = read(chosen, shown, pieces)

    expected = wanted(calls, shown.text)
    assert with_ids(found, expected) == expected
    assert content.strip() == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_model_claims_tools_only_if_its_calls_come_back(name):
    template = (FOLDER / name).read_text()
    claims = "tools" in find_capabilities(
        [], GgufSummary(chat_template=template), [], ChatFormatSpec(), "gguf_chat_template"
    )

    assert claims == (name in JINJA and comes_back(name))


def comes_back(name):
    chosen = chat_format(name)
    given = answer(chosen, [TIDE])
    found, *_ = read(chosen, given, [given.text])
    return [found_name for found_name, *_ in found] == [TIDE[0]]


@pytest.mark.parametrize("format_", [*map(parsers.named, parsers.NAMES), *DETECTED])
def test_control_tokens_within_a_mark_arrive(format_):
    """A tag of several tokens reaches the parser only if each of them does."""
    inner = {token for tag in format_.special_tokens for token in TOKEN.findall(tag)}

    assert inner <= {*format_.special_tokens}

"""Whatever a model writes, wherever it is cut: the same result, no error, no text lost."""

import time
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.prompts.parsers import NAMES, named, of_go_template, template_formats
from tests.growth import is_linear
from tests.unit.prompts.parsers.feeding import TOOLS, fed, joined

TAGS = ("<think>", "</think>")
FORMATS = {
    **{name: named(name) for name in NAMES},
    **{f"template {tags}": format_ for tags, format_ in template_formats.WHOLE_FORMATS},
    **{f"template {tags}": format_ for tags, format_ in template_formats.TOOL_FORMATS},
    "template think": template_formats.detected("</think> <tool_call>"),
    **{
        f"go {tag}": of_go_template(thinking=TAGS, tool_tag=tag)
        for tag in ("{", "[", "<tool_call>")
    },
}
PIECES = [
    *"{}[]()\"'\\,:=<> \n",
    "</tool_call>", "<tool_call>", "<function=add>", "<parameter=a>", "</parameter>", "</function>",
    "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "```json", "```", "[ARGS]",
    "all\n", "null",
    '{"name": "add", "arguments": {"a": 1}}', '{"a": 1}', "add(a=1)", "call:add{a:1}", "add",
    " to=self", " to=user", " to=functions.add", "<|start|>assistant", "thought\n", *TAGS,
]  # fmt: skip
ENDINGS = ["", "<think>", "[THINK]\n", ">>>", "<|START_THINKING|>", "<|recipient|>"]
WORDS = st.integers(100, 999).map(" zq{}x ".format)


@st.composite
def answers(draw):
    """A format, a request, and an answer made of the format's tags, words and other pieces."""
    format_ = FORMATS[draw(st.sampled_from(sorted(FORMATS)))]
    tags = st.sampled_from([*format_.special_tokens, *PIECES])
    torn = st.tuples(tags, st.integers(1, 12)).map(lambda torn: torn[0][: torn[1]])
    pieces = draw(st.lists(tags | tags | torn | WORDS, max_size=16))
    request = {
        "think": draw(st.sampled_from([None, True, False])),
        "tools": draw(st.sampled_from([TOOLS, []])),
        "rendered": draw(st.sampled_from(ENDINGS)),
    }
    return format_, "".join(pieces), request


def meaning(format_, pieces, request):
    found = joined(fed(format_, pieces, **request))
    return found.content, found.thinking, found.calls


@pytest.mark.slow
@given(answers(), st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=80, deadline=None)
def test_cuts_change_nothing(answer, cuts):
    format_, text, request = answer
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]

    whole = meaning(format_, [text], request)
    assert meaning(format_, list(text), request) == whole
    assert meaning(format_, pieces, request) == whole


@pytest.mark.slow
@given(answers())
@settings(max_examples=80, deadline=None)
def test_every_word_reaches_the_client(answer):
    """Except for thoughts that a client did not want, where the family drops them."""
    format_, text, request = answer
    content, thinking, calls = meaning(format_, [text], {**request, "think": True})

    if format_ is not named("gemma4-no-thinking"):
        everything = f"{content} {thinking} {calls}"
        assert all(word in everything for word in text.split() if word.startswith("zq"))


@given(st.sampled_from(sorted(FORMATS)), st.text(max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_text_is_read_without_an_error(name, text):
    request = {"think": True, "tools": TOOLS, "rendered": ""}

    assert meaning(FORMATS[name], [text], request) == meaning(FORMATS[name], list(text), request)


MINICPM = "template ('<function name=\"', '<param name=\"')"
PARAM = '<param name="a"><![CDATA['
BROKEN = ('{"', '{"": "', "f(a='", '{"name": "add", "arguments": {"a": ""', "<parameter=a>")


def pairs_of_marks(format_):
    """Those around a call, as far as they say so."""
    for calls in getattr(format_, "calls", ()):
        yield from product(calls.open, calls.close)


def floods(format_):
    """Endless beginnings, the bad case of anything that looks back or ahead."""
    tags = format_.special_tokens or ("<think>",)
    yield from tags
    yield from ("".join(tags), " ", "{", "[[", '"\\"', "<function=add><parameter=a>1</parameter>")
    yield from (f"{start}{text}{end}" for start, end in pairs_of_marks(format_) for text in BROKEN)
    yield from ("<![CDATA[", "]]>", f"{PARAM}x</param>", f"{PARAM}x]]></param>", f"{PARAM}x]]>")
    yield from ("<arg_key>", "add(a=[", 'a:<|"|>', ", x ", '{"name": "add", "arguments": {}},')


def seconds(format_, text, *, slowly):
    """Of this process alone."""
    start = time.process_time()
    fed(format_, list(text) if slowly else [text], think=True)
    return time.process_time() - start


def best(format_, text, *, slowly):
    """Of three times, since others use the processor's caches too."""
    return min(seconds(format_, text, slowly=slowly) for _ in range(3))


def tool(name, **parameters):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


CROWDS = {
    "many names": lambda count: [tool(f"tool_{number}") for number in range(count)],
    "names that these models call the same": lambda count: [
        tool(f"{number:b}".replace("0", "!").replace("1", "?")) for number in range(count)
    ],
    "a long name": lambda count: [tool("a" * 20 * count)],
}


@pytest.mark.slow
@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("name", ["lfm2", "glimmer", "harmony", "template ('ipython',)"])
def test_tools_of_a_client_cost_no_more_than_they_are_long(name, crowd):
    def prepare(count):
        tools = CROWDS[crowd](count)
        return lambda: fed(FORMATS[name], ["Hm."], tools=tools)

    assert is_linear(prepare, 500)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("qwen3-coder", lambda n: f"<tool_call><function={'x' * 13 * n}</tool_call>"),
        ("laguna", lambda n: f"{'<tool_call>' * 13 * n}</tool_call>"),
        *(
            (MINICPM, lambda n, flood=flood: f'<function name="add">{flood * n}</function>')
            for flood in (
                f"{PARAM}x</param>",
                f"{PARAM}x]]>y</param>",
                f"{PARAM}</param>y",
                '<param name="a">x <![CDATA[ y</param>',
            )
        ),
        (
            MINICPM,
            lambda n: (
                f'<function name="add"><param name="a">{"x<![CDATA[" * 3 * n}</param></function>'
            ),
        ),
    ],
)
def test_a_call_that_goes_wrong_is_read_once(name, answer):
    def prepare(count):
        text = answer(count)
        return lambda: fed(FORMATS[name], [text], think=True)

    assert is_linear(prepare, 1000)


@pytest.mark.parametrize("depth", [65, 900, 970, 5000])
def test_a_call_that_nobody_could_write_out_again_is_content(depth):
    value = "[" * depth + "]" * depth
    answer = f'<tool_call>{{"name": "add", "arguments": {{"a": {value}}}}}</tool_call>'

    assert joined(fed(FORMATS["qwen3"], [answer])).content == answer


def test_brackets_in_strings_are_not_deep():
    value = "[" * 100
    answer = f'<tool_call>{{"name": "add", "arguments": {{"a": "{value}"}}}}</tool_call>'

    assert joined(fed(FORMATS["qwen3"], [answer])).calls == [("add", {"a": value})]


def test_a_schema_may_be_as_deep_as_json_allows():
    schema = {"type": "integer"}
    for _ in range(5000):
        schema = {"anyOf": [schema]}
    answer = "<tool_call><function=f><parameter=a>1</parameter></function></tool_call>"

    found = joined(
        fed(FORMATS["qwen3-coder"], [answer], tools=[tool("f", properties={"a": schema})])
    )
    assert found.calls == [("f", {"a": "1"})]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_time_grows_with_the_length_of_the_answer_and_not_with_its_square(name):
    format_ = FORMATS[name]
    opening = format_.special_tokens[:1] or ("",)
    for flood in dict.fromkeys(floods(format_)):
        long = opening[0] + flood * (24_000 // len(flood))
        quarter = long[: len(long) // 4]
        for slowly in (False, True):
            if seconds(format_, long, slowly=slowly) < 0.2:
                continue
            # a square would be sixteen times as long for four times the length
            spent = best(format_, long, slowly=slowly)
            assert spent < 8 * best(format_, quarter, slowly=slowly), flood

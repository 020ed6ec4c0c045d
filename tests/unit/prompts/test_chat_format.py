"""Which renderer and parser a model gets."""

import pytest

from ollama_async.core.conversation import ChatFormatSpec, Message, Prompt, Thought
from ollama_async.core.errors import LoadFailed, TemplateFailed
from ollama_async.prompts import parsers, renderers
from ollama_async.prompts.chat_format import choose

ASKED = Prompt(messages=[Message("user", "why?")], think=True)
GO = "{{ range .Messages }}[{{ .Content }}]{{ end }}"
THINKS = (
    "{{ range .Messages }}{{ if .Thinking }}<ponder>{{ .Thinking }}</ponder>{{ end }}"
    "{{ .Content }}{{ end }}"
)


def chat_format(chat_template="", *, prefers_go=None, **spec):
    spec = ChatFormatSpec(**spec)
    return choose(spec, chat_template=chat_template, bos="<s>", eos="</s>", prefers_go=prefers_go)


def read(chosen, text):
    parser = chosen.start(ASKED, chosen.render(ASKED))
    return [*parser.feed(text), *parser.finish()]


def test_a_chat_template_renders_the_prompt():
    assert chat_format("{{ bos_token }}x").render(ASKED) == "<s>x"


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([("system", "s"), ("user", "why?")], "why?"),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "abc"),
        ([("user", "a"), ("user", "b"), ("assistant", "c")], "a\n\nbc"),
        ([("user", "a"), ("system", "s"), ("user", "b")], "ab"),
        ([("system", "s")], ""),
        ([], ""),
    ],
)
def test_a_model_without_any_template_reads_the_contents_as_they_are(messages, text):
    chosen = chat_format()

    assert chosen.render(Prompt(messages=[Message(*each) for each in messages])) == text
    assert chosen.start(ASKED, "why?") is None
    assert chosen.special_tokens == ()


def test_a_go_template_is_run():
    assert chat_format(template=GO).render(ASKED) == "[why?]"
    assert chat_format("x", template=GO, prefers_go=True).render(ASKED) == "[why?]"
    assert chat_format("x", template=GO, prefers_go=False).render(ASKED) == "x"


@pytest.mark.parametrize(
    "spec", [{"renderer": "qwen3-coder"}, {"parser": "qwen3"}, {"template": THINKS}, {}]
)
def test_a_template_of_the_request_goes_before_all_others(spec):
    assert chat_format("{{ tools }}", request_template=GO, **spec).render(ASKED) == "[why?]"


def test_a_template_of_the_request_does_not_change_how_the_model_answers():
    harmony = chat_format(
        template="<|start|>" + GO + "<|end|>", family="gptoss", request_template="{{ .Prompt }}"
    )

    assert harmony.render(ASKED) == "why?"
    assert harmony.special_tokens == parsers.named("harmony").special_tokens
    assert read(chat_format(template=THINKS, request_template=GO), "<ponder>hm</ponder>so") == [
        Thought("hm"),
        "so",
    ]


@pytest.mark.parametrize("field", ["template", "request_template"])
def test_a_broken_go_template_fails_with_the_text_of_go(field):
    with pytest.raises(TemplateFailed, match=r"unclosed action"):
        chat_format(**{field: "{{ .Prompt"})


@pytest.mark.parametrize("name", renderers.NAMES)
def test_a_renderer_is_found_by_its_name(name):
    wanted = renderers.named(name)

    assert chat_format("x", template=GO, renderer=name).render(ASKED) == wanted.render(ASKED)


def test_a_renderer_that_does_not_exist_is_an_error():
    with pytest.raises(LoadFailed, match=r'^unknown renderer "nobody"$'):
        chat_format(renderer="nobody")


def test_a_parser_is_found_by_its_name_and_the_go_template_is_run():
    chosen = chat_format("x", template=GO, parser="qwen3-thinking")

    assert chosen.render(ASKED) == "[why?]"
    assert read(chosen, "<think>hm</think>so") == [Thought("hm"), "so"]


def test_a_parser_without_a_go_template_leaves_the_models_own():
    assert chat_format("{{ 'own' }}", parser="qwen3").render(ASKED) == "own"


def test_a_renderer_alone_brings_the_parser_of_its_name():
    chosen = chat_format(renderer="qwen3.5")

    assert chosen.special_tokens == parsers.named("qwen3.5").special_tokens
    assert chosen.start(ASKED, chosen.render(ASKED)) is not None


def test_the_tags_of_a_go_template_tell_thoughts_from_content():
    assert read(chat_format(template=THINKS), "<ponder>hm</ponder>so") == [
        Thought("hm"),
        "so",
    ]


def test_gpt_oss_uses_harmony():
    chosen = chat_format(template="<|start|>" + GO + "<|end|>", family="gptoss")

    assert chosen.render(ASKED) == "<|start|>[why?]<|end|>"
    assert chosen.special_tokens == parsers.named("harmony").special_tokens

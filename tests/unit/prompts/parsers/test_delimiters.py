"""An answer that is written as a format's tags prescribe it reaches the client as it should."""

import pytest

from ollama_async.core.conversation import Message, Prompt, Thought
from ollama_async.prompts import parsers, renderers

FORM = '{"a": 1}'


def prescribed(think, tags, rendered):
    """The answers that a grammar with these tags allows, with the thoughts that they hold."""
    plain = (f"{tags.opening}{FORM}", "")
    if tags.thoughts is None:
        return [plain]
    begin, end = tags.thoughts
    is_thinking = tags.begins_thinking or rendered.rstrip().endswith(begin)
    if think is False:
        return [(f"{end}{FORM}", "")] if is_thinking else [plain]
    return [(f"hm{end}{FORM}", "hm")] if is_thinking else [plain, (f"{begin}hm{end}{FORM}", "hm")]


def content_of(parts):
    return "".join(part for part in parts if isinstance(part, str))


def thoughts_of(parts):
    return "".join(part.text for part in parts if isinstance(part, Thought))


@pytest.mark.parametrize("name", sorted(parsers.NAMES))
def test_the_form_is_content_and_the_thoughts_are_thoughts(name):
    format_, renderer = parsers.named(name), renderers.named(name)
    for think in (None, True, False, "low"):
        prompt = Prompt(messages=[Message(role="user", content="hi")], think=think)
        # some come with a model's own template
        rendered = renderer.render(prompt) if renderer else ""

        for answer, thoughts in prescribed(think, format_.delimiters(prompt, rendered), rendered):
            parser = format_.start(prompt, rendered)
            parts = [*parser.feed(answer), *parser.finish()]

            assert content_of(parts).strip() == FORM, (think, answer)
            assert thoughts_of(parts) == thoughts, (think, answer)
            assert all(isinstance(part, (str, Thought)) for part in parts)


@pytest.mark.parametrize("name", ["cohere", "gemma4", "glimmer", "harmony", "qwen3-thinking"])
def test_a_model_that_thinks_may_do_so_first(name):
    prompt = Prompt(messages=[Message(role="user", content="hi")], think=True)
    renderer = renderers.named(name)
    rendered = renderer.render(prompt) if renderer else ""

    assert parsers.named(name).delimiters(prompt, rendered).thoughts is not None


GPT_OSS = "<|start|>user<|message|>hi<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("name", "rendered", "opening"),
    [("harmony", GPT_OSS, "<|channel|>final<|message|>"), ("glimmer", GPT_OSS, "<|message|>")],
)
def test_an_answer_of_messages_begins_with_a_header(name, rendered, opening):
    prompt = Prompt(messages=[Message(role="user", content="hi")], think=False)

    assert parsers.named(name).delimiters(prompt, rendered).opening == opening


def test_an_answer_of_messages_that_goes_on_has_no_header():
    begun = Message(role="assistant", content='{"a":')
    going_on = Prompt(messages=[Message(role="user", content="hi"), begun], think=True)
    rendered = f"<|message|>{begun.content}"

    assert parsers.named("harmony").delimiters(going_on, rendered).opening == ""
    assert parsers.named("harmony").delimiters(going_on, rendered).thoughts is None
    assert parsers.named("glimmer").delimiters(going_on, rendered).opening == ""


def test_thoughts_that_the_client_has_begun_go_on():
    begun = Message(role="assistant", thinking="Well")
    prompt = Prompt(messages=[Message(role="user", content="hi"), begun], think=True)

    assert parsers.named("harmony").delimiters(prompt, "<|message|>Well").begins_thinking


@pytest.mark.parametrize("rendered", ["<|assistant|><think>\n", "<|assistant|>"])
def test_a_template_with_thoughts_keeps_the_form_apart(rendered):
    format_ = parsers.detected("{{ message }}<think>\n</think>")
    for think in (None, True, False):
        prompt = Prompt(messages=[Message(role="user", content="hi")], think=think)
        for answer, thoughts in prescribed(think, format_.delimiters(prompt, rendered), rendered):
            parser = format_.start(prompt, rendered)
            parts = [*parser.feed(answer), *parser.finish()]

            assert content_of(parts) == FORM, (think, answer)
            assert thoughts_of(parts) == thoughts, (think, answer)

"""An answer that is written as a format's marks prescribe it reaches the client as it should."""

import pytest

from ollama_async.conversation import Message, Prompt
from ollama_async.prompts import parsers, renderers
from ollama_async.prompts.port import Content, Thinking

FORM = '{"a": 1}'


def prescribed(marks, rendered):
    """The answers that a grammar with these marks allows, with the thoughts that they hold."""
    if marks.thoughts is None:
        return [(FORM, "")]
    begin, end = marks.thoughts
    if marks.begins_thinking or rendered.rstrip().endswith(begin):
        return [(f"hm{end}{FORM}", "hm")]
    return [(FORM, ""), (f"{begin}hm{end}{FORM}", "hm")]


def texts(parts, kind):
    return "".join(part.text for part in parts if isinstance(part, kind))


@pytest.mark.parametrize("name", sorted(parsers.NAMES))
def test_the_form_is_content_and_the_thoughts_are_thoughts(name):
    format_, renderer = parsers.named(name), renderers.named(name)
    for think in (None, True, False, "low"):
        prompt = Prompt(messages=[Message(role="user", content="hi")], think=think)
        # some come with a model's own template
        rendered = renderer.render(prompt) if renderer else ""

        for answer, thoughts in prescribed(format_.marks(prompt, rendered), rendered):
            parser = format_.start(prompt, rendered)
            parts = [*parser.feed(answer), *parser.finish()]

            assert texts(parts, Content).strip() == FORM, (think, answer)
            assert texts(parts, Thinking) == thoughts, (think, answer)
            assert all(isinstance(part, (Content, Thinking)) for part in parts)


@pytest.mark.parametrize("name", ["cohere", "glimmer", "harmony", "qwen3-thinking"])
def test_a_model_that_thinks_may_do_so_first(name):
    prompt = Prompt(messages=[Message(role="user", content="hi")], think=True)
    renderer = renderers.named(name)
    rendered = renderer.render(prompt) if renderer else ""

    assert parsers.named(name).marks(prompt, rendered).thoughts is not None

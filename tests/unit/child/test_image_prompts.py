"""Prompts with images that a client, or its template, makes as bad as it can."""

import pytest

from ollama_async.core.conversation import ChatFormatSpec, Inference, Message, Prompt, Sampling
from ollama_async.core.errors import ContextExceeded, TemplateFailed
from ollama_async.core.scripted_models import Script
from ollama_async.prompts.chat_format import choose
from ollama_async.workers.child import prompt_encoder
from ollama_async.workers.child.engines.scripted import Scripted
from ollama_async.workers.child.preprocessor import RequestPreparer
from ollama_async.workers.child.prompt_encoder import ChatFormatCache
from ollama_async.workers.messages import Submit
from tests.media_files import photo

CONTEXT = 100
IMAGE = 16  # tokens, in the scripted engine


@pytest.fixture
def prepare():
    engine = Scripted(Script(capabilities=["vision"]), slots=1, num_ctx=CONTEXT)
    formats = ChatFormatCache(engine, lambda spec, **more: choose(spec, prefers_go=True, **more))
    preparer = RequestPreparer(engine, formats, lambda *_limit: lambda action: action())

    def prepare(text, *, images=1, template=None, **more):
        messages = [Message("user", text, images=[photo()] * images)]
        prompt = Prompt(messages, raw=text)
        if template is not None:
            prompt = Prompt(messages, chat_format=ChatFormatSpec(request_template=template))
        task = Inference(prompt, Sampling(), **more)
        return preparer.prepare(Submit(1, task), is_quick=False)[0]

    return prepare


@pytest.fixture
def added(monkeypatch):
    """The images that were put into prompts."""
    added = []
    add_media = prompt_encoder.add_media
    monkeypatch.setattr(
        prompt_encoder,
        "add_media",
        lambda tokens, pieces, media: added.append(media) or add_media(tokens, pieces, media),
    )
    return added


def test_images_are_in_their_places(prepare):
    assert [max(token, 0) for token in prepare("a[img]b").tokens] == [97, *[0] * IMAGE, 98]


@pytest.mark.parametrize(
    "options",
    [
        {"text": "[img-0]" * 10_000},
        {"text": "[img-0]" * 10_000 + "[img]" * 10_000, "images": 10},
        {
            "text": "x",
            "template": "{{ range .Messages }}" + "{{ .Content }}" * 9000 + "{{ end }}",
        },
    ],
)
def test_an_image_that_is_repeated_without_end_costs_no_more_than_the_context(
    prepare, added, options
):
    with pytest.raises(ContextExceeded):
        prepare(**options)
    assert len(added) <= 3 * (CONTEXT // IMAGE + 1)  # the history is truncated in some tries


def test_images_are_not_cut_off_behind_a_long_text(prepare):
    with pytest.raises(ContextExceeded):
        prepare("x" * 2 * CONTEXT + "[img]")


@pytest.mark.parametrize("number", ["1", "99", "9" * 9])
def test_a_template_cannot_name_images_that_do_not_exist(prepare, number):
    """It sees the markers, whatever they are."""
    template = "{{ slice .Prompt 0 38 }}" + number + "]"
    with pytest.raises(TemplateFailed, match="places of images"):
        prepare("", template=template)


def test_a_marker_with_too_many_digits_is_a_text(prepare):
    assert min(prepare("", template="{{ slice .Prompt 0 38 }}9999999999]").tokens) >= 0

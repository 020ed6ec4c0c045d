"""Which tokens of a prompt are the model's own."""

from contextlib import nullcontext

import msgspec
import pytest

from ollama_async.core.conversation import ChatFormatSpec, Inference, Message, Prompt, Sampling
from ollama_async.core.scripted_models import Script
from ollama_async.prompts.go_renderer import GoRenderer
from ollama_async.prompts.jinja_renderer import JinjaRenderer
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.engines.scripted import Scripted
from ollama_async.workers.child.preprocessor import RequestPreparer
from ollama_async.workers.child.prompt_encoder import ChatFormatCache
from ollama_async.workers.child.resource_limits import OverBudget
from ollama_async.workers.messages import Submit
from tests.media_files import photo

GO = (
    "{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}"
    "{{ range .Tools }}[{{ .Function.Name }}]{{ end }}<answer>"
)
JINJA = (
    "{% if messages[0].role != 'system' %}<system>be kind{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<answer>"
)
OWN = [Message("system", "speak like a parrot"), Message("user", "hi"), Message("assistant", "ho")]


class OneRenderer:
    """A chat format that notes what it renders."""

    special_tokens = ()

    def __init__(self, renderer, rendered):
        self._renderer = renderer
        self._rendered = rendered

    def render(self, prompt):
        self._rendered.append(prompt)
        return self._renderer.render(prompt)

    def start(self, _prompt, _rendered):
        return None

    def delimiters(self, _prompt, _rendered):
        return Delimiters()


def letters(text):
    return list(text.encode())


@pytest.fixture
def rendered():
    return []


@pytest.fixture
def public(fake_engine, rendered):
    """The text of a prompt that others may be served with."""
    engine = fake_engine(num_ctx=500)
    engine.facts = msgspec.structs.replace(engine.facts, vocab_size=256)
    engine.tokenize = lambda text, **_options: letters(text)
    preparers = {}

    def make_preparer(jinja, shares):
        def choose(spec, **_more):
            if jinja:
                return OneRenderer(JinjaRenderer(jinja, bos="", eos=""), rendered)
            return OneRenderer(GoRenderer(spec.request_template or GO), rendered)

        return RequestPreparer(
            engine,
            ChatFormatCache(engine, choose),
            lambda *_limit: lambda action: action(),
            shares_prefixes=shares,
        )

    def find(prompt, *, jinja="", shares=False):
        if (jinja, shares) not in preparers:
            preparers[jinja, shares] = make_preparer(jinja, shares)
        (request,) = preparers[jinja, shares].prepare(
            Submit(1, Inference(prompt, Sampling()), "me"), is_quick=False
        )
        assert request.owner == ("" if shares else "me")
        return bytes(request.tokens[: request.public_tokens]).decode()

    return find


def test_the_models_turns_are_public_and_the_question_is_not(public):
    prompt = Prompt([*OWN, Message("user", "secret")], model_messages=3)

    assert public(prompt) == "<system>speak like a parrot<user>hi<assistant>ho<user>"


def test_a_clients_system_prompt_is_not_public(public):
    prompt = Prompt([Message("system", "secret"), Message("user", "x")])

    assert public(prompt) == "<"


@pytest.mark.parametrize("text", ["0", "A", "0 secret", "A secret"])
def test_a_question_that_begins_like_the_examples_is_not_public(public, text):
    assert public(Prompt([Message("user", text)])) == "<user>"


def test_the_templates_own_words_are_public(public):
    assert public(Prompt([Message("user", "x")]), jinja=JINJA) == "<system>be kind<user>"
    begun = Prompt([Message("system", "be kinder"), Message("user", "x")])
    assert public(begun, jinja=JINJA) == "<system>be kind"


def test_nothing_is_public_where_the_client_brings_all_of_it(public):
    for prompt in (
        Prompt(raw="<user>"),
        Prompt([Message("user", "x")], context=letters("<user>")),
        Prompt([Message("user", "x")], chat_format=ChatFormatSpec(request_template=GO)),
    ):
        assert public(prompt) == ""


def test_no_prefix_is_computed_where_everything_is_shared(public):
    assert public(Prompt([Message("user", "x")]), shares=True) == ""


def test_it_is_found_once_for_each_model_and_think_level(public, rendered):
    for prompt in (
        Prompt([Message("user", "a")]),
        Prompt([Message("user", "b")]),
        Prompt([Message("user", "b")], model_messages=1),
        Prompt([Message("user", "b")], think=True),
    ):
        public(prompt)

    assert len(rendered) == 4 + 2 * 3


def test_a_template_that_takes_no_plain_question_has_no_prefix_of_its_own(public):
    plain = "{% if messages | length < 2 %}{{ raise_exception('no') }}{% endif %}" + JINJA

    assert public(Prompt([*OWN, Message("user", "a")], model_messages=0), jinja=plain) == ""


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("more", [{}, {"counts_only": True}, {"renders_only": True}])
def test_an_image_is_known_to_another_client_only_if_all_share(shares, more):
    """Otherwise it is decoded again, which a quick try does not do."""
    preparer = RequestPreparer(
        engine := Scripted(Script(capabilities=["vision"]), slots=1, num_ctx=100),
        ChatFormatCache(engine, None),
        lambda *_limit: lambda action: action(),
        shares_prefixes=shares,
    )
    prompt = Prompt([Message("user", images=[photo()])], raw="[img]")

    def prepare(client, *, is_quick=True):
        submit = Submit(1, Inference(prompt, Sampling(), **more), client)
        return preparer.prepare(submit, is_quick=is_quick)[0]

    known = prepare("me", is_quick=False)
    prepare("me")
    with nullcontext() if shares else pytest.raises(OverBudget):
        prepare("you")
    if not more:
        assert (prepare("you", is_quick=False).tokens == known.tokens) == shares

"""Which tokens of a prompt are the model's own."""

import msgspec
import pytest

from ollama_async.core.conversation import ChatFormatSpec, Inference, Message, Prompt, Sampling
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.go_renderer import GoRenderer
from ollama_async.prompts.jinja_renderer import JinjaRenderer
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.preprocessor import RequestPreparer
from ollama_async.workers.child.prompt_encoder import ChatFormatCache, ModelPrefixCache
from ollama_async.workers.messages import Submit

GO = (
    "{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}"
    "{{ range .Tools }}[{{ .Function.Name }}]{{ end }}<answer>"
)
JINJA = (
    "{% if messages[0].role != 'system' %}<system>be kind{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<answer>"
)
OWN = [Message("system", "speak like a parrot"), Message("user", "hi"), Message("assistant", "ho")]


class Speaking:
    special_tokens = ()

    def __init__(self, renderer):
        self.render = renderer.render

    def start(self, _prompt, _rendered):
        return None

    def delimiters(self, _prompt, _rendered):
        return Delimiters()


def letters(text):
    return list(text.encode())


@pytest.fixture
def public(fake_engine):
    """The text of a prompt that others may be served with."""

    def find(prompt, *, jinja="", shares=False):
        engine = fake_engine(num_ctx=500)
        engine.facts = msgspec.structs.replace(engine.facts, vocab_size=256)
        engine.tokenize = lambda text, **_options: letters(text)

        def choose(spec, **_more):
            if jinja:
                return Speaking(JinjaRenderer(jinja, bos="", eos=""))
            return Speaking(GoRenderer(spec.request_template or GO))

        preparer = RequestPreparer(
            engine,
            ChatFormatCache(engine, choose),
            lambda *_limit: lambda action: action(),
            shares_prefixes=shares,
        )
        (request,) = preparer.prepare(
            Submit(1, Inference(prompt, Sampling()), "me"), is_quick=False
        )
        assert request.owner == ("" if shares else "me")
        return bytes(request.tokens[: request.public_tokens]).decode()

    return find


def test_the_models_turns_are_and_the_question_is_not(public):
    prompt = Prompt([*OWN, Message("user", "secret")], model_messages=3)

    assert public(prompt) == "<system>speak like a parrot<user>hi<assistant>ho<user>"


def test_a_clients_system_prompt_is_not(public):
    prompt = Prompt([Message("system", "secret"), Message("user", "x")])

    assert public(prompt) == "<"


@pytest.mark.parametrize("text", ["0", "A", "0 secret", "A secret"])
def test_a_question_that_begins_like_the_examples_is_not(public, text):
    assert public(Prompt([Message("user", text)])) == "<user>"


def test_what_a_template_says_by_itself_is(public):
    assert public(Prompt([Message("user", "x")]), jinja=JINJA) == "<system>be kind<user>"
    begun = Prompt([Message("system", "be kinder"), Message("user", "x")])
    assert public(begun, jinja=JINJA) == "<system>be kind"


def test_nothing_is_where_the_client_brings_all_of_it(public):
    for prompt in (
        Prompt(raw="<user>"),
        Prompt([Message("user", "x")], context=letters("<user>")),
        Prompt([Message("user", "x")], chat_format=ChatFormatSpec(request_template=GO)),
    ):
        assert public(prompt) == ""


def test_nobody_asks_where_everything_is_shared(public):
    assert public(Prompt([Message("user", "x")]), shares=True) == ""


def test_it_is_found_once_for_each_model_and_way_to_think():
    asked = []

    def encode(prompt):
        asked.append(prompt)
        return letters(prompt.messages[-1].content)

    own = ModelPrefixCache()
    for prompt in (
        Prompt([Message("user", "a")]),
        Prompt([Message("user", "b")]),
        Prompt([Message("user", "b")], model_messages=1),
        Prompt([Message("user", "b")], think=True),
    ):
        own.get_or_make(prompt, encode)
        assert own.get(prompt) == []

    assert len(asked) == 2 * 3


def test_a_template_that_takes_no_plain_question_has_no_prefix_of_its_own():
    def encode(_prompt):
        raise TemplateFailed("no")

    assert ModelPrefixCache().get_or_make(Prompt([Message("user", "a")]), encode) == []

"""``demo``, the file in the package, is what the code here makes."""

from gguf import GGUFReader
from ollama_async.shipped_models import FOLDER

from demo.render import CHAT_TEMPLATE, TURN_END

METADATA = GGUFReader(FOLDER / "demo.gguf").fields


def value(name):
    return METADATA[name].contents()


def test_its_template_is_the_one_that_it_was_trained_with():
    assert value("tokenizer.chat_template") == CHAT_TEMPLATE


def test_it_ends_its_turns_as_the_template_does():
    assert value("tokenizer.ggml.tokens")[value("tokenizer.ggml.eos_token_id")] == TURN_END

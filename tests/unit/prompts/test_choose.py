"""Which renderer and parser a model gets."""

from ollama_async.conversation import Message, Prompt, Speech
from ollama_async.prompts.choose import choose


def dialect(speech=Speech(), chat_template="", **more):
    return choose(speech, chat_template=chat_template, bos="<s>", eos="</s>", **more)


def test_a_model_with_a_chat_template_is_asked_in_its_words():
    assert dialect(chat_template="{{ bos_token }}x").render(Prompt()) == "<s>x"


def test_a_model_without_any_template_reads_the_contents_as_they_are():
    assert dialect().render(Prompt(messages=[Message("user", "why?")])) == "why?"

"""Formats that are known by the marks in their chat templates."""

import pytest

from ollama_async.core.conversation import Message, Prompt
from ollama_async.prompts.go_renderer import GoRenderer
from ollama_async.prompts.jinja_renderer import JinjaRenderer
from ollama_async.prompts.known_templates import KNOWN_TEMPLATES, detect

LOOP = "{%% for m in messages %%}%s{%% endfor %%}{{ %r }}"
ROLES = "{%% if m.role == 'system' %%}%s{%% elif m.role == 'user' %%}%s{%% else %%}%s{%% endif %%}"


def loop(turn, end):
    return LOOP % (turn, end)


def roles(*turns):
    """Turns of system, user and assistant; ``$`` is the content."""
    return ROLES % tuple(turn.replace("$", "{{ m.content }}") for turn in turns)


JINJA = {
    "chatml": loop(
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n", "<|im_start|>assistant\n"
    ),
    "llama3-instruct": loop(
        "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "phi-3": loop(
        roles("<|system|>\n$<|end|>\n", "<|user|>\n$<|end|>\n", "<|assistant|>\n$<|end|>\n"),
        "<|assistant|>\n",
    ),
    "zephyr": loop(
        roles(*(f"<|{role}|>\n${{{{ eos_token }}}}\n" for role in ("system", "user", "assistant"))),
        "<|assistant|>\n",
    ),
    "command-r": loop(
        roles(
            *(
                f"<|START_OF_TURN_TOKEN|><|{role}_TOKEN|>$<|END_OF_TURN_TOKEN|>"
                for role in ("SYSTEM", "USER", "CHATBOT")
            )
        ),
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    "openchat": loop(
        roles(
            *(f"GPT4 Correct {role}: $<|end_of_turn|>" for role in ("System", "User", "Assistant"))
        ),
        "GPT4 Correct Assistant:",
    ),
    "granite-instruct": loop(
        roles("System:\n$\n\n", "Question:\n$\n\n", "Answer:\n$\n\n"), "Answer:\n"
    ),
    "starcoder2-instruct": loop(
        roles("$\n\n", "### Instruction\n$\n\n", "### Response\n$<|endoftext|>\n\n"),
        "### Response\n",
    ),
    "alpaca": loop(
        roles("$\n\n", "### Instruction:\n$\n\n", "### Response:\n$\n\n"), "### Response:\n"
    ),
    "magicoder": loop(
        roles("$\n\n", "@@ Instruction\n$\n\n", "@@ Response\n$\n\n"), "@@ Response\n"
    ),
    "solar-instruct": loop(
        roles("### System:\n$\n\n", "### User:\n$\n\n", "### Assistant:\n$\n\n"),
        "### Assistant:\n",
    ),
    "codellama-70b-instruct": loop(
        roles(*(f"Source: {role}\n\n $ <step> " for role in ("system", "user", "assistant"))),
        "Source: assistant\nDestination: user\n\n ",
    ),
    "alfred": loop(
        roles(*(f"<start_{role}>$<end_message>" for role in ("system", "user", "assistant"))),
        "<start_assistant>",
    ),
    "chatqa": loop(roles("System: $\n\n", "User: $\n\n", "Assistant: $\n\n"), "Assistant:"),
    "falcon-instruct": loop(roles("$\n", "User: $\n", "Falcon: $\n"), "Falcon:"),
}
GEMMA = (
    "<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
    "<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n"
)
PROSE = {
    "llama2-chat": (
        "{{ bos_token }}[INST] <<SYS>>\n<</SYS>> [/INST]",
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A</s><s>[INST] V [/INST] ",
    ),
    "mistral-instruct": (
        "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]",
        "<s>[INST] S U [/INST]A</s><s>[INST] V [/INST]",
    ),
    "gemma3-instruct": (
        "{% set first_user_prefix = '' %}<start_of_turn><end_of_turn>",
        f"<start_of_turn>user\nS\n\nU{GEMMA}",
    ),
    "gemma-instruct": (
        "{{ messages }}<start_of_turn><end_of_turn>",
        f"<start_of_turn>user\nS U{GEMMA}",
    ),
}
SAID = Prompt(
    messages=[
        Message("system", "S"),
        Message("user", "U"),
        Message("assistant", "A"),
        Message("user", "V"),
    ]
)


@pytest.mark.parametrize("name", JINJA)
def test_the_go_template_says_what_the_models_own_says(name):
    known = detect(JINJA[name])

    assert known is not None
    assert known.name == name
    own = JinjaRenderer(JINJA[name], bos="<s>", eos="</s>").render(SAID)
    assert GoRenderer(known.template).render(SAID) == own


@pytest.mark.parametrize("name", PROSE)
def test_a_format_that_puts_the_system_text_elsewhere_is_known_too(name):
    jinja, text = PROSE[name]

    known = detect(jinja)

    assert known is not None
    assert known.name == name
    assert GoRenderer(known.template).render(SAID) == text


def test_every_known_format_is_tested_and_stops():
    assert {known.name for known in KNOWN_TEMPLATES} == JINJA.keys() | PROSE.keys()
    assert all(known.stop for known in KNOWN_TEMPLATES)


@pytest.mark.parametrize("more", ["{{ tools }}", "<think>", "{{ strftime_now('%d') }}", "x" * 2000])
def test_a_template_that_says_more_is_left_alone(more):
    assert [detect(text + more) for text in JINJA.values()] == [None] * len(JINJA)


def test_a_template_with_a_token_that_the_format_does_not_have_is_left_alone():
    said = "'<|im_sep|>' + m.content + '<|im_end|>'"
    text = (
        "{% for m in messages %}{% if m.role == 'user' %}"
        f"{{{{ '<|im_start|>user' + {said} }}}}{{% else %}}"
        f"{{{{ '<|im_start|>assistant' + {said} }}}}"
        "{% endif %}{% endfor %}{{ '<|im_start|>assistant<|im_sep|>' }}"
    )

    assert detect(text.replace("<|im_sep|>", "\n")) is not None
    assert detect(text) is None


def test_a_template_of_another_kind_is_left_alone():
    assert detect("") is None
    assert detect("{{ messages }}") is None

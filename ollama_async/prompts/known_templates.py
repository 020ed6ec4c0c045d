"""Go templates of well-known chat formats without tools, found by a model's Jinja template.

``create`` adds one, with the format's stop strings, to a model whose file has a short Jinja
template of such a format, so that the model also works where only Go templates are understood. A
Jinja text that does more than the format (tools, thoughts, a long default system text) is left
alone.
"""

from __future__ import annotations

import re

import msgspec


class KnownTemplate(msgspec.Struct, frozen=True):
    """``name`` is Ollama's. A Jinja text is of this format if it has all ``signs`` (by default the
    stop strings), none of ``others``, no tokens that the format does not have, and at most
    ``longest`` characters.
    """

    name: str
    template: str
    stop: tuple[str, ...]
    signs: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    longest: int = 700


_TOKEN = re.compile(r"<\|\w+\|>")
_EXTRA_ABILITIES = ("tool", "think", "reason", "document", "strftime", "function", "macro")


def detect(chat_template: str) -> KnownTemplate | None:
    """The format of a Jinja text; None: it is unknown, or the text does more than the format."""
    if any(word in chat_template for word in _EXTRA_ABILITIES):
        return None
    return next((known for known in KNOWN_TEMPLATES if _is_of(chat_template, known)), None)


def _is_of(chat_template: str, known: KnownTemplate) -> bool:
    tokens = {*_TOKEN.findall(known.template), *known.stop}
    return (
        len(chat_template) <= known.longest
        and all(sign in chat_template for sign in known.signs or known.stop)
        and not any(other in chat_template for other in known.others)
        and tokens.issuperset(_TOKEN.findall(chat_template))
    )


def _turns(system: str, user: str, assistant: str, answer: str) -> str:
    """A template of one text for each turn (with ``.Content`` in it) and the beginning of the
    answer.

    Line breaks are part of the text: nothing around an action is trimmed.
    """
    return (
        "{{ range .Messages }}"
        f'{{{{ if eq .Role "system" }}}}{system}'
        f'{{{{ else if eq .Role "user" }}}}{user}'
        f'{{{{ else if eq .Role "assistant" }}}}{assistant}'
        "{{ end }}{{ end }}"
        f"{answer}{{{{ .Response }}}}"
    )


def _labelled(system: str, user: str, assistant: str, *, end: str) -> str:
    """A template whose turns are a label for each role, the content, and ``end``."""
    one, two, three = (f"{label}{_CONTENT}{end}" for label in (system, user, assistant))
    return _turns(one, two, three, assistant.rstrip(" "))


_CONTENT = "{{ .Content }}"
_BRACKETS = (
    "{{ if .System }}<<SYS>>\n{{ .System }}\n<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST] "
    "{{ .Response }}</s>"
)

KNOWN_TEMPLATES: tuple[KnownTemplate, ...] = (
    KnownTemplate(
        "chatml",
        "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
        "<|im_start|>assistant\n{{ .Response }}",
        stop=("<|im_start|>", "<|im_end|>"),
        signs=("<|im_start|>", "<|im_end|>", "role"),
        longest=450,
    ),
    KnownTemplate(
        "llama3-instruct",
        "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n"
        "{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n"
        "{{ .Response }}",
        stop=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    KnownTemplate(
        "llama2-chat",
        f"<s>[INST] {_BRACKETS}",
        stop=("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
        signs=("[INST]", "[/INST]", "<<SYS>>"),
        longest=1300,
    ),
    KnownTemplate(
        "mistral-instruct",
        "<s>[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} [/INST]{{ .Response }}</s>",
        stop=("[INST]", "[/INST]"),
        others=("<<SYS>>", "[SYSTEM_PROMPT]"),
    ),
    KnownTemplate(
        "gemma3-instruct",
        "{{ $is_first := true }}{{ range .Messages }}"
        '{{ if eq .Role "user" }}<start_of_turn>user\n'
        "{{ if and $.System $is_first }}{{ $.System }}\n\n{{ end }}{{ $is_first = false }}"
        "{{ .Content }}<end_of_turn>\n"
        '{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n'
        "{{ end }}{{ end }}<start_of_turn>model\n{{ .Response }}",
        stop=("<end_of_turn>",),
        signs=("<start_of_turn>", "<end_of_turn>", "first_user_prefix"),
        longest=1600,
    ),
    KnownTemplate(
        "gemma-instruct",
        "<start_of_turn>user\n{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}<end_of_turn>\n"
        "<start_of_turn>model\n{{ .Response }}<end_of_turn>\n",
        stop=("<start_of_turn>", "<end_of_turn>"),
    ),
    KnownTemplate(
        "phi-3",
        "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n"
        "{{ .Response }}",
        stop=("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
        signs=("<|user|>", "<|assistant|>", "<|end|>"),
    ),
    KnownTemplate(
        "zephyr",
        "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}</s>\n{{ end }}<|assistant|>\n"
        "{{ .Response }}",
        stop=("<|system|>", "</s>", "<|user|>", "<|assistant|>"),
        signs=("<|user|>", "<|assistant|>", "eos_token"),
    ),
    KnownTemplate(
        "command-r",
        _labelled(
            "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>",
            "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            end="<|END_OF_TURN_TOKEN|>",
        ),
        stop=("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        signs=("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        longest=1800,
    ),
    KnownTemplate(
        "openchat",
        _labelled(
            "GPT4 Correct System: ",
            "GPT4 Correct User: ",
            "GPT4 Correct Assistant: ",
            end="<|end_of_turn|>",
        ),
        stop=("<|end_of_turn|>",),
        signs=("GPT4 Correct", "<|end_of_turn|>"),
    ),
    KnownTemplate(
        "granite-instruct",
        _labelled("System:\n", "Question:\n", "Answer:\n", end="\n\n"),
        stop=("System:", "Question:", "Answer:"),
        signs=("Question:", "Answer:"),
    ),
    KnownTemplate(
        "starcoder2-instruct",
        _turns(
            f"{_CONTENT}\n\n",
            f"### Instruction\n{_CONTENT}\n\n",
            f"### Response\n{_CONTENT}<|endoftext|>\n\n",
            "### Response\n",
        ),
        stop=("### Instruction", "### Response", "<|endoftext|>"),
        signs=("### Instruction", "### Response"),
        others=("### Instruction:", "### Response:"),
    ),
    KnownTemplate(
        "alpaca",
        _labelled("", "### Instruction:\n", "### Response:\n", end="\n\n"),
        stop=("### Instruction:", "### Response"),
        signs=("### Instruction:", "### Response:"),
    ),
    KnownTemplate(
        "magicoder",
        _labelled("", "@@ Instruction\n", "@@ Response\n", end="\n\n"),
        stop=("@@ Instruction", "@@ Response"),
    ),
    KnownTemplate(
        "solar-instruct",
        _labelled("### System:\n", "### User:\n", "### Assistant:\n", end="\n\n"),
        stop=("### System:", "### User:", "### Assistant:"),
        signs=("### User:", "### Assistant:"),
    ),
    KnownTemplate(
        "codellama-70b-instruct",
        _turns(
            f"Source: system\n\n {_CONTENT} <step> ",
            f"Source: user\n\n {_CONTENT} <step> ",
            f"Source: assistant\n\n {_CONTENT} <step> ",
            "Source: assistant\nDestination: user\n\n ",
        ),
        stop=("<step>", "Source:"),
        signs=("Source: ", "Destination: user", "<step>"),
        longest=1400,
    ),
    KnownTemplate(
        "alfred",
        _labelled("<start_system>", "<start_user>", "<start_assistant>", end="<end_message>"),
        stop=("<start_system>", "<end_message>", "<start_user>", "<start_assistant>"),
        signs=("<start_user>", "<start_assistant>", "<end_message>"),
    ),
    KnownTemplate(
        "chatqa",
        _labelled("System: ", "User: ", "Assistant: ", end="\n\n"),
        stop=("System:", "User:", "Assistant:"),
        signs=("System: ", "User: ", "Assistant:"),
        others=("<|", "### ", "GPT4"),
    ),
    KnownTemplate(
        "falcon-instruct", _labelled("", "User: ", "Falcon: ", end="\n"), stop=("User:", "Falcon:")
    ),
)

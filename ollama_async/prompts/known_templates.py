"""Go templates for chat formats that are older than chat templates with tools.

``create`` gives one to a model whose file has a short Jinja template of a well-known format, with
the format's stop strings, so that the model also works where only Go templates are understood. A
Jinja text that says more than the format (tools, thoughts, a long default system text) is left
alone.
"""

from __future__ import annotations

import re

import msgspec


class Known(msgspec.Struct, frozen=True):
    """``name`` is Ollama's. A Jinja text is of this format if it has all ``marks``, none of
    ``others``, no tokens that the format does not have, and at most ``longest`` characters.
    """

    name: str
    template: str
    stop: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    longest: int = 700


_TOKEN = re.compile(r"<\|\w+\|>")
_SAYS_MORE = ("tool", "think", "reason", "document", "strftime", "function", "macro")


def detect(chat_template: str) -> Known | None:
    """The format of a Jinja text; None: it is another one, or says more than the format."""
    if any(word in chat_template for word in _SAYS_MORE):
        return None
    return next((known for known in KNOWN if _is_of(chat_template, known)), None)


def _is_of(chat_template: str, known: Known) -> bool:
    if len(chat_template) > known.longest:
        return False
    tokens = {*_TOKEN.findall(known.template), *known.stop}
    return (
        all(mark in chat_template for mark in known.marks)
        and not any(other in chat_template for other in known.others)
        and tokens.issuperset(_TOKEN.findall(chat_template))
    )


def _turns(system: str, user: str, assistant: str, answer: str) -> str:
    """What stands for each turn (``.Content`` in it), and what the answer follows.

    The blank lines are part of the text: nothing around an action is trimmed.
    """
    return (
        "{{ range .Messages }}"
        f'{{{{ if eq .Role "system" }}}}{system}'
        f'{{{{ else if eq .Role "user" }}}}{user}'
        f'{{{{ else if eq .Role "assistant" }}}}{assistant}'
        "{{ end }}{{ end }}"
        f"{answer}{{{{ .Response }}}}"
    )


_CONTENT = "{{ .Content }}"
_BRACKETS = (
    "{{ if .System }}<<SYS>>\n{{ .System }}\n<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST] "
    "{{ .Response }}</s>"
)

KNOWN: tuple[Known, ...] = (
    Known(
        "chatml",
        "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
        "<|im_start|>assistant\n{{ .Response }}",
        stop=("<|im_start|>", "<|im_end|>"),
        marks=("<|im_start|>", "<|im_end|>", "role"),
        longest=450,
    ),
    Known(
        "llama3-instruct",
        "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n"
        "{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n"
        "{{ .Response }}",
        stop=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        marks=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    Known(
        "llama2-chat",
        f"<s>[INST] {_BRACKETS}",
        stop=("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
        marks=("[INST]", "[/INST]", "<<SYS>>"),
        longest=1300,
    ),
    Known(
        "mistral-instruct",
        "<s>[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} [/INST]{{ .Response }}</s>",
        stop=("[INST]", "[/INST]"),
        marks=("[INST]", "[/INST]"),
        others=("<<SYS>>", "[SYSTEM_PROMPT]"),
    ),
    Known(
        "gemma3-instruct",
        "{{ $is_first := true }}{{ range .Messages }}"
        '{{ if eq .Role "user" }}<start_of_turn>user\n'
        "{{ if and $.System $is_first }}{{ $.System }}\n\n{{ end }}{{ $is_first = false }}"
        "{{ .Content }}<end_of_turn>\n"
        '{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n'
        "{{ end }}{{ end }}<start_of_turn>model\n{{ .Response }}",
        stop=("<end_of_turn>",),
        marks=("<start_of_turn>", "<end_of_turn>", "first_user_prefix"),
        longest=1600,
    ),
    Known(
        "gemma-instruct",
        "<start_of_turn>user\n{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}<end_of_turn>\n"
        "<start_of_turn>model\n{{ .Response }}<end_of_turn>\n",
        stop=("<start_of_turn>", "<end_of_turn>"),
        marks=("<start_of_turn>", "<end_of_turn>"),
    ),
    Known(
        "phi-3",
        "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n"
        "{{ .Response }}",
        stop=("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
        marks=("<|user|>", "<|assistant|>", "<|end|>"),
    ),
    Known(
        "zephyr",
        "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}</s>\n{{ end }}<|assistant|>\n"
        "{{ .Response }}",
        stop=("<|system|>", "</s>", "<|user|>", "<|assistant|>"),
        marks=("<|user|>", "<|assistant|>", "eos_token"),
    ),
    Known(
        "command-r",
        _turns(
            f"<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{_CONTENT}<|END_OF_TURN_TOKEN|>",
            f"<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{_CONTENT}<|END_OF_TURN_TOKEN|>",
            f"<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{_CONTENT}<|END_OF_TURN_TOKEN|>",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ),
        stop=("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        marks=("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        longest=1800,
    ),
    Known(
        "openchat",
        _turns(
            f"GPT4 Correct System: {_CONTENT}<|end_of_turn|>",
            f"GPT4 Correct User: {_CONTENT}<|end_of_turn|>",
            f"GPT4 Correct Assistant: {_CONTENT}<|end_of_turn|>",
            "GPT4 Correct Assistant:",
        ),
        stop=("<|end_of_turn|>",),
        marks=("GPT4 Correct", "<|end_of_turn|>"),
    ),
    Known(
        "granite-instruct",
        _turns(
            f"System:\n{_CONTENT}\n\n",
            f"Question:\n{_CONTENT}\n\n",
            f"Answer:\n{_CONTENT}\n\n",
            "Answer:\n",
        ),
        stop=("System:", "Question:", "Answer:"),
        marks=("Question:", "Answer:"),
    ),
    Known(
        "starcoder2-instruct",
        _turns(
            f"{_CONTENT}\n\n",
            f"### Instruction\n{_CONTENT}\n\n",
            f"### Response\n{_CONTENT}<|endoftext|>\n\n",
            "### Response\n",
        ),
        stop=("### Instruction", "### Response", "<|endoftext|>"),
        marks=("### Instruction", "### Response"),
        others=("### Instruction:", "### Response:"),
    ),
    Known(
        "alpaca",
        _turns(
            f"{_CONTENT}\n\n",
            f"### Instruction:\n{_CONTENT}\n\n",
            f"### Response:\n{_CONTENT}\n\n",
            "### Response:\n",
        ),
        stop=("### Instruction:", "### Response"),
        marks=("### Instruction:", "### Response:"),
    ),
    Known(
        "magicoder",
        _turns(
            f"{_CONTENT}\n\n",
            f"@@ Instruction\n{_CONTENT}\n\n",
            f"@@ Response\n{_CONTENT}\n\n",
            "@@ Response\n",
        ),
        stop=("@@ Instruction", "@@ Response"),
        marks=("@@ Instruction", "@@ Response"),
    ),
    Known(
        "solar-instruct",
        _turns(
            f"### System:\n{_CONTENT}\n\n",
            f"### User:\n{_CONTENT}\n\n",
            f"### Assistant:\n{_CONTENT}\n\n",
            "### Assistant:\n",
        ),
        stop=("### System:", "### User:", "### Assistant:"),
        marks=("### User:", "### Assistant:"),
    ),
    Known(
        "codellama-70b-instruct",
        _turns(
            f"Source: system\n\n {_CONTENT} <step> ",
            f"Source: user\n\n {_CONTENT} <step> ",
            f"Source: assistant\n\n {_CONTENT} <step> ",
            "Source: assistant\nDestination: user\n\n ",
        ),
        stop=("<step>", "Source:"),
        marks=("Source: ", "Destination: user", "<step>"),
        longest=1400,
    ),
    Known(
        "alfred",
        _turns(
            f"<start_system>{_CONTENT}<end_message>",
            f"<start_user>{_CONTENT}<end_message>",
            f"<start_assistant>{_CONTENT}<end_message>",
            "<start_assistant>",
        ),
        stop=("<start_system>", "<end_message>", "<start_user>", "<start_assistant>"),
        marks=("<start_user>", "<start_assistant>", "<end_message>"),
    ),
    Known(
        "chatqa",
        _turns(
            f"System: {_CONTENT}\n\n",
            f"User: {_CONTENT}\n\n",
            f"Assistant: {_CONTENT}\n\n",
            "Assistant:",
        ),
        stop=("System:", "User:", "Assistant:"),
        marks=("System: ", "User: ", "Assistant:"),
        others=("<|", "### ", "GPT4"),
    ),
    Known(
        "falcon-instruct",
        _turns(
            f"{_CONTENT}\n",
            f"User: {_CONTENT}\n",
            f"Falcon: {_CONTENT}\n",
            "Falcon:",
        ),
        stop=("User:", "Falcon:"),
        marks=("User:", "Falcon:"),
    ),
)

"""Which tokens begin and end a text, and the template of chats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ollama_async.convert.config_files import Document, Files, read_text
from ollama_async.convert.known_marks import KNOWN_ENDS
from ollama_async.convert.marks import read_marks
from ollama_async.convert.vocabulary import Vocabulary
from ollama_async.core.errors import BadRequest

Fields = dict[str, Any]

_ROLES = {
    # name in the JSON files: key below tokenizer.ggml.
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
}
_SETTINGS = "tokenizer_config.json"
_GENERATION = "generation_config.json"
_MORE_ENDS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
_TEMPLATE_LIMIT_BYTES = 1 << 20


def special_fields(
    files: Files,
    documents: Mapping[str, Document],
    config: Document,
    vocabulary: Vocabulary,
    size: int,
) -> Fields:
    """Keys for the roles that tokens have. ``size``: how many tokens the network knows.

    :raises BadRequest: a file says what makes no sense, or what llama.cpp cannot do.
    """
    settings = documents.get(_SETTINGS) or Document(_SETTINGS, {})
    named = documents.get("special_tokens_map.json")
    settings = settings.over(named.values) if named is not None else settings
    texts = vocabulary.ids()
    roles = {name: _role(name, settings, config, texts) for name in (*_ROLES, "cls")}
    if vocabulary.unknown is not None:
        roles["unk"] = vocabulary.unknown
    if vocabulary.model == "bert":
        roles["bos"] = roles["cls"]  # llama.cpp reads no other key for the mark of the begin
        roles["eos"] = roles["sep"]
    marks = read_marks(documents, settings, vocabulary, roles["bos"], roles["eos"])
    ends = _ends(documents, config, roles["eos"])
    roles["bos"] = roles["bos"] if marks.begin is None else marks.begin
    roles["eos"] = roles["eos"] if marks.end is None else marks.end
    if vocabulary.model == "bert":
        roles["sep"] = roles["eos"]
    found: Fields = {
        f"tokenizer.ggml.{key}": number
        for name, key in _ROLES.items()
        if (number := roles[name]) is not None and number < size
    }
    found["tokenizer.ggml.add_bos_token"] = marks.begin is not None and marks.begin < size
    closes = marks.end is not None and marks.end < size
    if vocabulary.model == "bert":
        found["tokenizer.ggml.add_sep_token"] = closes  # the end is marked once, as that
        closes = False
    found["tokenizer.ggml.add_eos_token"] = closes
    found |= _more_ends(ends - {roles["eos"]}, vocabulary, size)
    template = _chat_template(files, documents.get("chat_template.json"), settings)
    if template:
        found["tokenizer.chat_template"] = template
    return found


def _ends(documents: Mapping[str, Document], config: Document, eos: int | None) -> set[int]:
    """Every token after which an answer is over."""
    generation = documents.get(_GENERATION)
    value = None if generation is None else generation.values.get("eos_token_id")
    if value is None:
        value = config.values.get("eos_token_id")
    numbers = [*value, eos] if isinstance(value, list) else [value, eos]
    return {number for number in numbers if type(number) is int and number >= 0}


def _more_ends(ends: set[int], vocabulary: Vocabulary, size: int) -> Fields:
    """llama.cpp has keys for three ends in all, and knows some by their texts.

    :raises BadRequest: there are more than that.
    """
    unknown = sorted(
        number
        for number in ends
        if number < size
        and (token := vocabulary.tokens.get(number)) is not None
        and token.text not in KNOWN_ENDS
    )
    if len(unknown) > len(_MORE_ENDS):
        texts = ", ".join(repr(vocabulary.tokens[number].text[:40]) for number in unknown[:8])
        raise BadRequest(
            f'{_GENERATION}: "eos_token_id" has more ends than llama.cpp can be told of: {texts}'
        )
    return dict(zip(_MORE_ENDS, unknown, strict=False))


def _chat_template(files: Files, own: Document | None, settings: Document) -> str:
    """The template in a file of its own, or in the tokenizer's settings; "" if there is none."""
    text = read_text(files, "chat_template.jinja", _TEMPLATE_LIMIT_BYTES)
    if text is not None:
        return text
    source = own or settings
    value = source.values.get("chat_template", "")
    if isinstance(value, list):
        named = source.sections("chat_template")
        value = next(
            (each.text("template", "") for each in named if each.text("name", "") == "default"), ""
        )
    elif isinstance(value, dict):
        value = value.get("default", "")
    return value if isinstance(value, str) else ""


def _role(name: str, settings: Document, config: Document, texts: dict[str, int]) -> int | None:
    """The number of the token, by its text if that is given, else as ``config.json`` has it."""
    value = settings.values.get(f"{name}_token")
    if isinstance(value, dict):
        value = value.get("content")
    if isinstance(value, str) and value in texts:
        return texts[value]
    numbers = config.values.get(f"{name}_token_id")
    if isinstance(numbers, list):
        numbers = numbers[0] if numbers else None
    return numbers if type(numbers) is int and numbers >= 0 else None

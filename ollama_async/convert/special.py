"""Which tokens begin and end a text, and the template of chats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ollama_async.convert.documents import Document, Files, read_text
from ollama_async.convert.vocabulary import Vocabulary

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
_TEMPLATE_LIMIT_BYTES = 1 << 20


def special_fields(
    files: Files,
    documents: Mapping[str, Document],
    config: Document,
    vocabulary: Vocabulary,
    size: int,
) -> Fields:
    """Keys for the roles that tokens have. ``size``: how many tokens the network knows.

    :raises BadRequest: a file says what makes no sense.
    """
    settings = documents.get(_SETTINGS) or Document(_SETTINGS, {})
    named = documents.get("special_tokens_map.json")
    settings = settings.over(named.values) if named is not None else settings
    texts = vocabulary.ids()
    roles = {name: _role(name, settings, config, texts) for name in (*_ROLES, "cls")}
    if vocabulary.model == "bert":
        roles["bos"] = roles["cls"]  # llama.cpp reads no other key for the mark of the begin
        roles["eos"] = roles["sep"]
    found: Fields = {
        f"tokenizer.ggml.{key}": number
        for name, key in _ROLES.items()
        if (number := roles[name]) is not None and number < size
    }
    begins, ends = _marks(documents, settings, vocabulary, roles)
    found["tokenizer.ggml.add_bos_token"] = begins and "tokenizer.ggml.bos_token_id" in found
    if vocabulary.model == "bert":
        found["tokenizer.ggml.add_sep_token"] = ends  # the end is marked once, as that
        ends = False
    found["tokenizer.ggml.add_eos_token"] = ends and "tokenizer.ggml.eos_token_id" in found
    template = _chat_template(files, documents.get("chat_template.json"), settings)
    if template:
        found["tokenizer.chat_template"] = template
    return found


def _chat_template(files: Files, own: Document | None, settings: Document) -> str:
    """The template in a file of its own, or in the tokenizer's settings; "" if there is none."""
    text = read_text(files, "chat_template.jinja", _TEMPLATE_LIMIT_BYTES)
    if text is not None:
        return text
    value = (own or settings).values.get("chat_template", "")
    if isinstance(value, list):
        named = settings.sections("chat_template")
        value = next(
            (each.text("template", "") for each in named if each.text("name", "") == "default"), ""
        )
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


def _marks(
    documents: Mapping[str, Document],
    settings: Document,
    vocabulary: Vocabulary,
    roles: dict[str, int | None],
) -> tuple[bool, bool]:
    """Whether a text begins and ends with a mark: said outright, or by what is put around it."""
    tokenizer = documents.get("tokenizer.json")
    around = _around(tokenizer) if tokenizer is not None else None
    if around is None:  # SentencePiece alone: its class has it so
        begins, ends = vocabulary.model != "gpt2", vocabulary.model == "bert"
    else:
        texts = vocabulary.ids()
        begins = roles["bos"] is not None and texts.get(around[0]) == roles["bos"]
        ends = roles["eos"] is not None and texts.get(around[1]) == roles["eos"]
    return settings.flag("add_bos_token", begins), settings.flag("add_eos_token", ends)


def _around(tokenizer: Document) -> tuple[str, str]:
    """The texts of the tokens before and after a single text, "" for none."""
    outer = tokenizer.section("post_processor")
    if outer is None:
        return ("", "")
    for step in [outer, *outer.sections("processors")]:
        kind = step.text("type", "")
        if kind == "TemplateProcessing":
            return _around_template(step.sections("single"))
        if kind in {"BertProcessing", "RobertaProcessing"}:
            return (_first(step.items("cls", [])), _first(step.items("sep", [])))
    return ("", "")


def _around_template(parts: list[Document]) -> tuple[str, str]:
    tokens = [part.section("SpecialToken") for part in parts]
    names = [token.text("id", "") if token is not None else "" for token in tokens]
    return (names[0], names[-1]) if len(names) > 1 else ("", "")


def _first(values: list[Any]) -> str:
    return values[0] if values and isinstance(values[0], str) else ""

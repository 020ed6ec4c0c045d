"""Special tokens (BOS, EOS, padding, …), the tokens around every text, and the chat template."""

from __future__ import annotations

from typing import Any

import msgspec

from ollama_async.convert.config_files import Files, JsonFiles, JsonObject, read_text
from ollama_async.convert.gguf_writer import Fields
from ollama_async.convert.tokenizer_pipeline import flatten, unknown_step
from ollama_async.convert.vocabulary import END_TEXTS, GgufVocabulary
from ollama_async.core.errors import BadRequest

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
_MORE_END_KEYS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
_TEMPLATE_LIMIT_BYTES = 1 << 20


def special_fields(
    files: Files,
    json_files: JsonFiles,
    config: JsonObject,
    vocabulary: GgufVocabulary,
    size: int,
) -> Fields:
    """Keys for the special tokens. ``size``: the number of tokens in the network.

    :raises BadRequest: a file is invalid, or has something that llama.cpp does not support.
    """
    settings = json_files[_SETTINGS].over(json_files["special_tokens_map.json"].values)
    texts = vocabulary.ids()
    roles = {name: _role(name, settings, config, texts) for name in (*_ROLES, "cls")}
    if vocabulary.unknown is not None:
        roles["unk"] = vocabulary.unknown
    if vocabulary.model == "bert":
        roles["bos"] = roles["cls"]  # llama.cpp has one key for both
        roles["eos"] = roles["sep"]
    around = read_boundary_tokens(json_files, settings, vocabulary, roles["bos"], roles["eos"])
    ends = _end_tokens(json_files, config, roles["eos"])
    roles["bos"] = roles["bos"] if around.begin is None else around.begin
    roles["eos"] = roles["eos"] if around.end is None else around.end
    if vocabulary.model == "bert":
        roles["sep"] = roles["eos"]
    found: Fields = {
        f"tokenizer.ggml.{key}": number
        for name, key in _ROLES.items()
        if (number := roles[name]) is not None and number < size
    }
    found["tokenizer.ggml.add_bos_token"] = around.begin is not None and around.begin < size
    adds_end = around.end is not None and around.end < size
    if vocabulary.model == "bert":
        found["tokenizer.ggml.add_sep_token"] = adds_end  # instead of the EOS
        adds_end = False
    found["tokenizer.ggml.add_eos_token"] = adds_end
    found |= _more_end_fields(ends - {roles["eos"]}, vocabulary, size)
    template = _chat_template(files, json_files.get("chat_template.json"), settings)
    if template:
        found["tokenizer.chat_template"] = template
    return found


def _end_tokens(json_files: JsonFiles, config: JsonObject, eos: int | None) -> set[int]:
    """Every token that ends an answer."""
    value = json_files[_GENERATION].values.get("eos_token_id")
    if value is None:
        value = config.values.get("eos_token_id")
    numbers = [*value, eos] if isinstance(value, list) else [value, eos]
    return {number for number in numbers if type(number) is int and number >= 0}


def _more_end_fields(ends: set[int], vocabulary: GgufVocabulary, size: int) -> Fields:
    """Keys for further ends. llama.cpp recognizes some ends by their text, and has two more keys.

    :raises BadRequest: there are too many ends.
    """
    unknown = sorted(
        number
        for number in ends
        if number < size
        and (token := vocabulary.tokens.get(number)) is not None
        and token.text not in END_TEXTS
    )
    if len(unknown) > len(_MORE_END_KEYS):
        texts = ", ".join(repr(vocabulary.tokens[number].text[:40]) for number in unknown[:8])
        raise BadRequest(
            f'{_GENERATION}: "eos_token_id" has more ends than llama.cpp has keys for: {texts}'
        )
    return dict(zip(_MORE_END_KEYS, unknown, strict=False))


def _chat_template(files: Files, own: JsonObject | None, settings: JsonObject) -> str:
    """The template of the first file that has one, or ""."""
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


def _role(name: str, settings: JsonObject, config: JsonObject, texts: dict[str, int]) -> int | None:
    """The token's number, by its text in ``settings``, otherwise from ``config.json``."""
    value = settings.values.get(f"{name}_token")
    if isinstance(value, dict):
        value = value.get("content")
    if isinstance(value, str) and value in texts:
        return texts[value]
    numbers = config.values.get(f"{name}_token_id")
    if isinstance(numbers, list):
        numbers = numbers[0] if numbers else None
    return numbers if type(numbers) is int and numbers >= 0 else None


class BoundaryTokens(msgspec.Struct, frozen=True):
    """Numbers of the tokens before and after every text."""

    begin: int | None = None
    end: int | None = None


def read_boundary_tokens(
    json_files: JsonFiles,
    settings: JsonObject,
    vocabulary: GgufVocabulary,
    bos: int | None,
    eos: int | None,
) -> BoundaryTokens:
    """``bos``, ``eos``: the tokens of these roles.

    :raises BadRequest: llama.cpp cannot add these tokens.
    """
    if "tokenizer.json" in json_files:
        around = _from_post_processor(
            json_files["tokenizer.json"].section("post_processor"), vocabulary
        )
        _check_settings(settings, around)
    else:  # tokenizer.model alone: the defaults of its class
        around = BoundaryTokens(
            bos if settings.flag("add_bos_token", default=True) else None,
            eos if settings.flag("add_eos_token", default=False) else None,
        )
    if vocabulary.model == "bert" and None in (around.begin, around.end):
        raise BadRequest(
            "tokenizer.json: post_processor does not put a text between two tokens, "
            "which llama.cpp does with every text of such a model"
        )
    if around.begin is not None and bos is not None and around.begin != bos:
        raise BadRequest(
            f"tokenizer.json: post_processor begins texts with token {around.begin}, "
            f"but the BOS token is {bos}"
        )
    return around


def _check_settings(settings: JsonObject, around: BoundaryTokens) -> None:
    for name, token in (("add_bos_token", around.begin), ("add_eos_token", around.end)):
        is_added = token is not None
        if settings.flag(name, default=is_added) != is_added:
            raise settings.unsupported(f'"{name}"', "differs from tokenizer.json")


def _from_post_processor(outer: JsonObject | None, vocabulary: GgufVocabulary) -> BoundaryTokens:
    found = BoundaryTokens()
    for step in flatten(outer, "processors"):
        match step.text("type", ""):
            case "ByteLevel":  # changes offsets only
                continue
            case "TemplateProcessing" if found == BoundaryTokens():
                found = _from_template(step, vocabulary)
            case "BertProcessing" | "RobertaProcessing" if found == BoundaryTokens():
                found = BoundaryTokens(
                    _token_number(step, step.items("cls", []), vocabulary),
                    _token_number(step, step.items("sep", []), vocabulary),
                )
            case _:
                raise unknown_step(step)
    return found


def _from_template(step: JsonObject, vocabulary: GgufVocabulary) -> BoundaryTokens:
    parts = step.sections("single")
    texts = [at for at, part in enumerate(parts) if part.section("Sequence") is not None]
    tokens = [_special_token(step, part, vocabulary) for part in parts]
    if len(texts) != 1 or len(parts) - texts[0] > 2 or texts[0] > 1:
        raise step.unsupported(
            '"single"', "is not a text with at most one token on each side of it"
        )
    (at,) = texts
    return BoundaryTokens(tokens[0] if at else None, tokens[-1] if at + 1 < len(parts) else None)


def _special_token(step: JsonObject, part: JsonObject, vocabulary: GgufVocabulary) -> int | None:
    special = part.section("SpecialToken")
    if special is None:
        return None
    name = special.text("id")
    token = step.nested("special_tokens").section(name)
    if token is None:
        raise step.unsupported('"special_tokens"', f"does not have {name[:80]!r}")
    numbers = token.items("ids", [])
    if len(numbers) != 1 or numbers[0] not in vocabulary.tokens:
        raise step.unsupported(f'"special_tokens": {name[:80]!r}', "is not one of the tokens")
    return int(numbers[0])


def _token_number(step: JsonObject, pair: list[Any], vocabulary: GgufVocabulary) -> int:
    if len(pair) != 2 or type(pair[1]) is not int or pair[1] not in vocabulary.tokens:
        raise step.unsupported("a token", "is not one of the tokens")
    return pair[1]

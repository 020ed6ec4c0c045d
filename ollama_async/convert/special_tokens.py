"""Special tokens (BOS, EOS, padding, …), the tokens around every text, and the chat template."""

from __future__ import annotations

from typing import Any

import msgspec

from ollama_async.convert.config_files import Files, JsonFiles, JsonObject, read_text
from ollama_async.convert.gguf_writer import Fields
from ollama_async.convert.tokenizer_pipeline import flat
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
_MORE_ENDS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
_TEMPLATE_LIMIT_BYTES = 1 << 20


def special_fields(
    files: Files,
    json_files: JsonFiles,
    config: JsonObject,
    vocabulary: GgufVocabulary,
    size: int,
) -> Fields:
    """Keys for the special tokens. ``size``: how many tokens the network has.

    :raises BadRequest: a file is invalid, or has what llama.cpp does not support.
    """
    settings = json_files[_SETTINGS].over(json_files["special_tokens_map.json"].values)
    texts = vocabulary.ids()
    roles = {name: _role(name, settings, config, texts) for name in (*_ROLES, "cls")}
    if vocabulary.unknown is not None:
        roles["unk"] = vocabulary.unknown
    if vocabulary.model == "bert":
        roles["bos"] = roles["cls"]  # llama.cpp reads no other key for it
        roles["eos"] = roles["sep"]
    marks = read_boundary_tokens(json_files, settings, vocabulary, roles["bos"], roles["eos"])
    ends = _ends(json_files, config, roles["eos"])
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
    template = _chat_template(files, json_files.get("chat_template.json"), settings)
    if template:
        found["tokenizer.chat_template"] = template
    return found


def _ends(json_files: JsonFiles, config: JsonObject, eos: int | None) -> set[int]:
    """Every token that ends an answer."""
    value = json_files[_GENERATION].values.get("eos_token_id")
    if value is None:
        value = config.values.get("eos_token_id")
    numbers = [*value, eos] if isinstance(value, list) else [value, eos]
    return {number for number in numbers if type(number) is int and number >= 0}


def _more_ends(ends: set[int], vocabulary: GgufVocabulary, size: int) -> Fields:
    """Keys for more ends. llama.cpp has three keys in all, and recognizes some ends by their text.

    :raises BadRequest: there are more than that.
    """
    unknown = sorted(
        number
        for number in ends
        if number < size
        and (token := vocabulary.tokens.get(number)) is not None
        and token.text not in END_TEXTS
    )
    if len(unknown) > len(_MORE_ENDS):
        texts = ", ".join(repr(vocabulary.tokens[number].text[:40]) for number in unknown[:8])
        raise BadRequest(
            f'{_GENERATION}: "eos_token_id" has more ends than llama.cpp can be told of: {texts}'
        )
    return dict(zip(_MORE_ENDS, unknown, strict=False))


def _chat_template(files: Files, own: JsonObject | None, settings: JsonObject) -> str:
    """From a file of its own, or from the tokenizer's settings; "" if there is none."""
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
    """The token's number, by its text if that is given, otherwise from ``config.json``."""
    value = settings.values.get(f"{name}_token")
    if isinstance(value, dict):
        value = value.get("content")
    if isinstance(value, str) and value in texts:
        return texts[value]
    numbers = config.values.get(f"{name}_token_id")
    if isinstance(numbers, list):
        numbers = numbers[0] if numbers else None
    return numbers if type(numbers) is int and numbers >= 0 else None


# ----------------------------------------------------------------- the tokens around every text


class BoundaryTokens(msgspec.Struct, frozen=True):
    """Numbers of the tokens before and after every text, None for none."""

    begin: int | None = None
    end: int | None = None


def read_boundary_tokens(
    json_files: JsonFiles,
    settings: JsonObject,
    vocabulary: GgufVocabulary,
    bos: int | None,
    eos: int | None,
) -> BoundaryTokens:
    """``bos``, ``eos``: the tokens of that name, which the settings may enable.

    :raises BadRequest: llama.cpp cannot put these tokens there.
    """
    if "tokenizer.json" in json_files:
        marks = _around(json_files["tokenizer.json"].section("post_processor"), vocabulary)
        _check_settings(settings, marks)
    else:
        marks = _of_class(settings, bos, eos)
    if vocabulary.model == "bert" and None in (marks.begin, marks.end):
        raise BadRequest(
            "tokenizer.json: post_processor does not put a text between two tokens, "
            "which llama.cpp does with every text of such a model"
        )
    if marks.begin is not None and bos is not None and marks.begin != bos:
        raise BadRequest(
            f"tokenizer.json: post_processor begins texts with token {marks.begin}, "
            f"but the one to begin with is {bos}"
        )
    return marks


def _of_class(settings: JsonObject, bos: int | None, eos: int | None) -> BoundaryTokens:
    """tokenizer.model alone: BOS is the class's default, which the settings may change."""
    return BoundaryTokens(
        bos if settings.flag("add_bos_token", default=True) else None,
        eos if settings.flag("add_eos_token", default=False) else None,
    )


def _check_settings(settings: JsonObject, marks: BoundaryTokens) -> None:
    for name, mark in (("add_bos_token", marks.begin), ("add_eos_token", marks.end)):
        is_put = mark is not None
        if settings.flag(name, default=is_put) != is_put:
            raise settings.unsupported(f'"{name}"', "is not what tokenizer.json does")


def _around(outer: JsonObject | None, vocabulary: GgufVocabulary) -> BoundaryTokens:
    found = BoundaryTokens()
    for step in flat(outer, "processors"):
        match step.text("type", ""):
            case "ByteLevel":  # about places in the text only
                continue
            case "TemplateProcessing" if found == BoundaryTokens():
                found = _of_template(step, vocabulary)
            case "BertProcessing" | "RobertaProcessing" if found == BoundaryTokens():
                found = BoundaryTokens(
                    _numbered(step, step.items("cls", []), vocabulary),
                    _numbered(step, step.items("sep", []), vocabulary),
                )
            case kind:
                raise step.unsupported(
                    f"{kind[:80]!r}", "is a step that llama.cpp does not have here"
                )
    return found


def _of_template(step: JsonObject, vocabulary: GgufVocabulary) -> BoundaryTokens:
    parts = step.sections("single")
    texts = [at for at, part in enumerate(parts) if part.section("Sequence") is not None]
    tokens = [_token_of(step, part, vocabulary) for part in parts]
    if len(texts) != 1 or len(parts) - texts[0] > 2 or texts[0] > 1:
        raise step.unsupported(
            '"single"', "is not a text with at most one token on each side of it"
        )
    (at,) = texts
    return BoundaryTokens(tokens[0] if at else None, tokens[-1] if at + 1 < len(parts) else None)


def _token_of(step: JsonObject, part: JsonObject, vocabulary: GgufVocabulary) -> int | None:
    special = part.section("SpecialToken")
    if special is None:
        return None
    name = special.text("id")
    token = step.nested("special_tokens").section(name)
    if token is None:
        raise step.unsupported('"special_tokens"', f"lacks {name[:80]!r}")
    numbers = token.items("ids", [])
    if len(numbers) != 1 or numbers[0] not in vocabulary.tokens:
        raise step.unsupported(f'"special_tokens": {name[:80]!r}', "is not one of the tokens")
    return int(numbers[0])


def _numbered(step: JsonObject, pair: list[Any], vocabulary: GgufVocabulary) -> int:
    if len(pair) != 2 or type(pair[1]) is not int or pair[1] not in vocabulary.tokens:
        raise step.unsupported("a token", "is not one of the tokens")
    return pair[1]

"""What stands before and after every text: said in the settings, or by tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ollama_async.convert.config_files import Document
from ollama_async.convert.tokenizer_pipeline import flat, refused
from ollama_async.convert.vocabulary import Vocabulary
from ollama_async.core.errors import BadRequest


class Marks(msgspec.Struct, frozen=True):
    """Numbers of the tokens before and after every text, None for none."""

    begin: int | None = None
    end: int | None = None


def read_marks(
    documents: Mapping[str, Document],
    settings: Document,
    vocabulary: Vocabulary,
    bos: int | None,
    eos: int | None,
) -> Marks:
    """``bos``, ``eos``: the tokens that are named so, of which the settings may ask for one.

    :raises BadRequest: llama.cpp cannot put these tokens there.
    """
    tokenizer = documents.get("tokenizer.json")
    if tokenizer is None:
        marks = _of_class(settings, bos, eos)
    else:
        marks = _around(tokenizer.section("post_processor"), vocabulary)
        _check_settings(settings, marks)
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


def _of_class(settings: Document, bos: int | None, eos: int | None) -> Marks:
    """SentencePiece alone: its class begins every text, and the settings may differ."""
    return Marks(
        bos if settings.flag("add_bos_token", default=True) else None,
        eos if settings.flag("add_eos_token", default=False) else None,
    )


def _check_settings(settings: Document, marks: Marks) -> None:
    for name, mark in (("add_bos_token", marks.begin), ("add_eos_token", marks.end)):
        is_put = mark is not None
        if settings.flag(name, default=is_put) != is_put:
            raise refused(settings, f'"{name}"', "is not what tokenizer.json does")


def _around(outer: Document | None, vocabulary: Vocabulary) -> Marks:
    found = Marks()
    for step in flat(outer, "processors"):
        match step.text("type", ""):
            case "ByteLevel":  # about places in the text only
                continue
            case "TemplateProcessing" if found == Marks():
                found = _of_template(step, vocabulary)
            case "BertProcessing" | "RobertaProcessing" if found == Marks():
                found = Marks(
                    _numbered(step, step.items("cls", []), vocabulary),
                    _numbered(step, step.items("sep", []), vocabulary),
                )
            case kind:
                raise refused(step, f"{kind[:80]!r}", "is a step that llama.cpp does not have here")
    return found


def _of_template(step: Document, vocabulary: Vocabulary) -> Marks:
    parts = step.sections("single")
    texts = [at for at, part in enumerate(parts) if part.section("Sequence") is not None]
    tokens = [_token_of(step, part, vocabulary) for part in parts]
    if len(texts) != 1 or len(parts) - texts[0] > 2 or texts[0] > 1:
        raise refused(step, '"single"', "is not a text with at most one token on each side of it")
    (at,) = texts
    return Marks(tokens[0] if at else None, tokens[-1] if at + 1 < len(parts) else None)


def _token_of(step: Document, part: Document, vocabulary: Vocabulary) -> int | None:
    special = part.section("SpecialToken")
    if special is None:
        return None
    name = special.text("id")
    known = step.section("special_tokens")
    token = known.section(name) if known is not None else None
    if token is None:
        raise refused(step, '"special_tokens"', f"lacks {name[:80]!r}")
    numbers = token.items("ids", [])
    if len(numbers) != 1 or numbers[0] not in vocabulary.tokens:
        raise refused(step, f'"special_tokens": {name[:80]!r}', "is not one of the tokens")
    return int(numbers[0])


def _numbered(step: Document, pair: list[Any], vocabulary: Vocabulary) -> int:
    if len(pair) != 2 or type(pair[1]) is not int or pair[1] not in vocabulary.tokens:
        raise refused(step, "a token", "is not one of the tokens")
    return pair[1]

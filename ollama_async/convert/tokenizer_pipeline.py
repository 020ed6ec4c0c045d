"""The steps of tokenizer.json around its model: normalizer, pre-tokenizer and decoder.

They are compared with llama.cpp's known equivalents. Other steps are rejected by name: a model
with a different tokenizer than in training gives bad answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ollama_async.convert.config_files import JsonObject
from ollama_async.core.errors import BadRequest

TokenizerModel = Literal["llama", "gpt2", "bert"]
"""llama.cpp's names for SentencePiece, byte-level merges and WordPiece."""

SPACE = "▁"
"""SentencePiece's character for a space."""


class Pipeline(msgspec.Struct, frozen=True):
    """``fields``: below ``tokenizer.ggml.``. ``changes_added``, ``composes``: see
    :class:`.GgufVocabulary`.
    """

    fields: dict[str, Any] = {}
    changes_added: bool = False
    composes: bool = False


def read_pipeline(tokenizer: JsonObject, kind: TokenizerModel) -> Pipeline:
    """:raises BadRequest: llama.cpp has no equivalent of a step; the text names it."""
    _check_decoder(tokenizer, kind)
    return _READERS[kind](tokenizer)


def flatten(outer: JsonObject | None, inner: str) -> list[JsonObject]:
    """The single step, or all steps of nested sequences."""
    if outer is None:
        return []
    if outer.text("type", "") != "Sequence":
        return [outer]
    return [step for part in outer.sections(inner) for step in flatten(part, inner)]


def _normalizers(tokenizer: JsonObject) -> list[JsonObject]:
    return flatten(tokenizer.section("normalizer"), "normalizers")


def _pretokenizers(tokenizer: JsonObject) -> list[JsonObject]:
    return flatten(tokenizer.section("pre_tokenizer"), "pretokenizers")


def unknown_step(step: JsonObject) -> BadRequest:
    kind = step.text("type", "")
    return step.unsupported(f"{kind[:80]!r}", "is a step that llama.cpp does not have here")


def _byte_level(tokenizer: JsonObject) -> Pipeline:
    steps = _normalizers(tokenizer)
    for step in steps:
        if step.text("type", "") != "NFC":
            raise unknown_step(step)
    return Pipeline(composes=bool(steps))


def _sentencepiece(tokenizer: JsonObject) -> Pipeline:
    prefix, escapes = False, False
    for step in _normalizers(tokenizer):
        match step.text("type", ""):
            case "Prepend" if step.text("prepend") == SPACE and not prefix:
                prefix = True
            case "Replace" if _replaced(step) == (" ", SPACE):
                escapes = True
            case _:
                raise unknown_step(step)
    changes_added = prefix
    for step in _pretokenizers(tokenizer):
        kind = step.text("type", "")
        if kind == "Metaspace":
            _check_metaspace(step, is_prefixed=prefix)
            escapes = True
        elif not (kind == "Split" and escapes and _literal(step) == " "):  # there are none left
            raise unknown_step(step)
    if not escapes:
        raise tokenizer.unsupported(
            "no step", f"replaces spaces with {SPACE!r}, which llama.cpp always does"
        )
    return Pipeline({"add_space_prefix": prefix}, changes_added)


def _check_metaspace(step: JsonObject, *, is_prefixed: bool) -> None:
    """``is_prefixed``: every text begins with a space already."""
    if step.text("replacement", SPACE) != SPACE:
        raise step.unsupported('"replacement"', f"is not {SPACE!r}")
    scheme = step.text("prepend_scheme", "always")
    if scheme != "never" and not is_prefixed:
        raise step.unsupported(
            f'"prepend_scheme": {scheme[:80]!r}',
            "puts a space before a text by a rule that llama.cpp does not have",
        )
    if step.flag("split", default=True):
        raise step.unsupported(
            '"split"', "splits at spaces, which llama.cpp does not do with this model"
        )


def _replaced(step: JsonObject) -> tuple[str, str]:
    return _literal(step), step.text("content", "")


def _literal(step: JsonObject) -> str:
    return step.nested("pattern").text("String", "")


def _word_piece(tokenizer: JsonObject) -> Pipeline:
    steps = _normalizers(tokenizer)
    if [step.text("type", "") for step in steps] != ["BertNormalizer"]:
        kinds = ", ".join(step.text("type", "") for step in steps) or "none"
        raise tokenizer.unsupported('"normalizer"', f"is {kinds[:200]}, not one BertNormalizer")
    (normalizer,) = steps
    for name in ("clean_text", "handle_chinese_chars"):
        if not normalizer.flag(name, default=True):
            raise normalizer.unsupported(f'"{name}"', "is off, which llama.cpp cannot do")
    lower = normalizer.flag("lowercase", default=True)
    strip = normalizer.flag("strip_accents", default=lower)
    pretokenizers = _pretokenizers(tokenizer)
    if [step.text("type", "") for step in pretokenizers] != ["BertPreTokenizer"]:
        raise tokenizer.unsupported('"pre_tokenizer"', "is not one BertPreTokenizer")
    fields = {"normalizer.lowercase": lower, "normalizer.strip_accents": strip}
    return Pipeline(fields, changes_added=True)


_DECODER_STEPS: dict[str, Callable[[JsonObject], bool]] = {
    # supported decoder steps: they revert the steps of the tokenizer
    "Replace": lambda step: _replaced(step) == (SPACE, " "),
    "ByteFallback": lambda _: True,
    "Fuse": lambda _: True,
    "Strip": lambda step: (
        step.text("content", "") == " "
        and step.values.get("start") in {0, 1}
        and step.values.get("stop") == 0
    ),
    "Metaspace": lambda step: step.text("replacement", SPACE) == SPACE,
    "ByteLevel": lambda _: True,
}
_DECODERS: dict[TokenizerModel, tuple[str, ...]] = {
    "llama": ("Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"),
    "gpt2": ("ByteLevel", "Fuse"),
}


def _check_decoder(tokenizer: JsonObject, kind: TokenizerModel) -> None:
    if kind == "bert":  # embedding models use no decoder
        return
    for step in flatten(tokenizer.section("decoder"), "decoders"):
        name = step.text("type", "")
        if name not in _DECODERS[kind] or not _DECODER_STEPS[name](step):
            raise step.unsupported(
                f"{name[:80]!r}", "decodes tokens in a way that llama.cpp does not"
            )


_READERS: dict[TokenizerModel, Callable[[JsonObject], Pipeline]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "bert": _word_piece,
}

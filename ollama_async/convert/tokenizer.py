"""Reads the tokenizer of a published model.

- ``tokenizer.json`` with byte-level merges (Llama 3, Qwen, Mistral Nemo): llama.cpp's ``gpt2``
- ``tokenizer.model``, or ``tokenizer.json`` with merges and byte fallback (Llama 2, Mistral, Gemma,
  Phi-3): ``llama``
- ``tokenizer.json`` with WordPiece (BERT): ``bert``

A tokenizer.json takes precedence: all its steps are converted, or the model is rejected.
tokenizer.model then only adds the scores, from which the merges were derived.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise

from ollama_async.convert.added_tokens import AddedToken, read_added
from ollama_async.convert.config_files import Files, JsonFiles, JsonObject, read_bytes, read_object
from ollama_async.convert.pre_tokenizer import IGNORING_MERGES, pre_tokenizer_name
from ollama_async.convert.sentencepiece import check_normalizer, read_sentencepiece
from ollama_async.convert.tokenizer_pipeline import SPACE, TokenizerModel, read_pipeline
from ollama_async.convert.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER,
    GgufVocabulary,
    Token,
)
from ollama_async.core.errors import BadRequest

_MODEL = "tokenizer.model"
_SETTINGS = "tokenizer_config.json"
_JSON_FILES = (
    "tokenizer.json",
    _SETTINGS,
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "generation_config.json",
    "sentence_bert_config.json",
)
_KINDS: dict[str, TokenizerModel] = {"BPE": "gpt2", "WordPiece": "bert"}
_BYTE = re.compile("<0x([0-9A-F]{2})>")
_LONGEST_TOKEN = 512
"""Bounds quadratic work. The longest tokens known are 128 spaces or dashes."""
_LONGEST_WORD = 100
"""The default limit of a word's characters in WordPiece. llama.cpp has no limit."""


def read_json_files(files: Files) -> JsonFiles:
    """The existing JSON files about the tokenizer, by name."""
    found = ((name, read_object(files, name)) for name in _JSON_FILES)
    return JsonFiles({name: file for name, file in found if file is not None})


def read_vocabulary(files: Files, json_files: JsonFiles) -> GgufVocabulary:
    """:raises BadRequest: the tokenizer is missing, or llama.cpp has no equivalent."""
    tokenizer = json_files["tokenizer.json"]
    model = tokenizer.section("model")
    data = read_bytes(files, _MODEL)
    added = read_added(json_files)
    if model is not None:
        vocabulary = _from_json(tokenizer, model, data, added)
    elif data is not None:
        check_normalizer(data)
        vocabulary = read_sentencepiece(data)
    else:
        raise BadRequest(f"tokenizer.json and {_MODEL} are missing")
    for token in added:
        vocabulary.add(token.number, token.text, is_special=token.is_special)
    _adapt(vocabulary, json_files)
    return vocabulary


def _from_json(
    tokenizer: JsonObject, model: JsonObject, scored: bytes | None, added: list[AddedToken]
) -> GgufVocabulary:
    """``scored``: the content of tokenizer.model, if it exists."""
    kind = _kind(model)
    pipeline = read_pipeline(tokenizer, kind)
    merges = _merges(model)
    vocabulary = _READERS[kind](tokenizer, model, merges)
    _check_merges(model, merges)
    if kind == "llama" and scored is None:
        _check_all_merges(model, merges, added)
    elif kind == "llama" and scored is not None:
        vocabulary = _with_scores(vocabulary, read_sentencepiece(scored), added)
    _check_special_tokens(tokenizer, vocabulary, added)
    vocabulary.extra |= pipeline.fields
    vocabulary.changes_added = pipeline.changes_added
    vocabulary.composes = pipeline.composes
    return vocabulary


def _kind(model: JsonObject) -> TokenizerModel:
    name = model.text("type", "BPE" if "merges" in model.values else "")
    if name not in _KINDS:
        raise BadRequest(f"{model.where}: tokenizers of the kind {name[:80]!r} are not supported")
    if name == "BPE" and model.flag("byte_fallback", default=False):
        return "llama"
    return _KINDS[name]


def _adapt(vocabulary: GgufVocabulary, json_files: JsonFiles) -> None:
    """Apply llama.cpp's spellings, and options of ``tokenizer_config.json``."""
    settings = json_files[_SETTINGS]
    _check_preprocessing(settings, json_files["sentence_bert_config.json"], vocabulary)
    adds_prefix = settings.flag("add_prefix_space", default=False)
    match vocabulary.model:
        case "bert":
            _check_settings(settings, vocabulary)
            _mark_word_starts(vocabulary)
        case "llama":
            _check_bytes(vocabulary)
            _spell_spaces(vocabulary)
            if "add_prefix_space" in settings.values:
                vocabulary.extra["add_space_prefix"] = adds_prefix
        case "gpt2" if adds_prefix and _is_byte_level_only(json_files):
            raise settings.unsupported(
                '"add_prefix_space"', "is on, which llama.cpp cannot do here"
            )


def _check_preprocessing(
    settings: JsonObject, sentences: JsonObject, vocabulary: GgufVocabulary
) -> None:
    """Options for texts before the tokenizer."""
    if settings.flag("split_special_tokens", default=False):
        raise settings.unsupported('"split_special_tokens"', "is on, which llama.cpp cannot do")
    lowercases = vocabulary.extra.get("normalizer.lowercase", False)
    if sentences.flag("do_lower_case", default=False) and not lowercases:
        raise sentences.unsupported('"do_lower_case"', "is on, which llama.cpp cannot do here")


def _is_byte_level_only(json_files: JsonFiles) -> bool:
    """Transformers applies ``add_prefix_space`` to a ByteLevel step that is the only step."""
    return json_files["tokenizer.json"].nested("pre_tokenizer").text("type", "") == "ByteLevel"


# ----------------------------------------------------------------- models in tokenizer.json


def _byte_level(tokenizer: JsonObject, model: JsonObject, merges: list[Merge]) -> GgufVocabulary:
    _check_plain(model)
    vocabulary = _read_vocab("gpt2", model)
    if len(set(merges)) < len(merges):
        raise model.unsupported('"merges"', "has a duplicate")
    if "unk_token" in model.values and not _alphabet() <= vocabulary.ids().keys():
        raise model.unsupported('"unk_token"', "stands for bytes, which llama.cpp leaves out")
    vocabulary.merges = [f"{left} {right}" for left, right in merges]
    name = pre_tokenizer_name(tokenizer)
    _check_ignore_merges(model, vocabulary, merges, ignores=name in IGNORING_MERGES)
    vocabulary.extra = {"pre": name}
    return vocabulary


def _sentencepiece(_: JsonObject, model: JsonObject, merges: list[Merge]) -> GgufVocabulary:
    """SentencePiece's merges: earlier merges have higher scores."""
    _check_plain(model)
    vocabulary = _read_vocab("llama", model)
    _check_ignore_merges(model, vocabulary, merges, ignores=False)
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    unknown = model.text("unk_token", "")
    for token in vocabulary.tokens.values():
        token.score = -float(ranks.get(token.text, len(ranks)))
        if token.text == unknown:
            token.kind = UNKNOWN
        elif _BYTE.fullmatch(token.text):
            token.kind = BYTE
    vocabulary.extra = {"pre": "default"}
    return vocabulary


def _word_piece(_: JsonObject, model: JsonObject, __: list[Merge]) -> GgufVocabulary:
    if model.text("continuing_subword_prefix", "##") != "##":
        raise model.unsupported('"continuing_subword_prefix"', "is not '##'")
    if model.count("max_input_chars_per_word", _LONGEST_WORD) < _LONGEST_WORD:
        raise model.unsupported(
            '"max_input_chars_per_word"', f"is below {_LONGEST_WORD}; llama.cpp has no limit"
        )
    vocabulary = _read_vocab("bert", model)
    unknown = model.text("unk_token", "[UNK]")
    number = vocabulary.ids().get(unknown)
    if number is None:
        raise model.unsupported(f'"unk_token": {unknown[:80]!r}', "is not among the tokens")
    vocabulary.unknown = number
    return vocabulary


def _check_plain(model: JsonObject) -> None:
    """Options of BPE that llama.cpp does not have."""
    if model.number("dropout", 0.0) != 0:
        raise model.unsupported('"dropout"', "tokenizes at random, which llama.cpp does not")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.text(name, ""):
            raise model.unsupported(f'"{name}"', "is given, which llama.cpp cannot do")


def _check_ignore_merges(
    model: JsonObject, vocabulary: GgufVocabulary, merges: list[Merge], *, ignores: bool
) -> None:
    """``ignores``: llama.cpp does not merge a whole word that is a token."""
    if model.flag("ignore_merges", default=False) == ignores:
        return
    text = find_unreachable((token.text for token in vocabulary.tokens.values()), merges)
    if text is not None:
        raise model.unsupported(
            '"ignore_merges"',
            f"is not {str(ignores).lower()}, as in llama.cpp, and {text[:80]!r} is not a merge",
        )


_READERS = {"gpt2": _byte_level, "llama": _sentencepiece, "bert": _word_piece}


def _read_vocab(kind: TokenizerModel, model: JsonObject) -> GgufVocabulary:
    section = model.nested("vocab")
    vocabulary = GgufVocabulary(model=kind, tokens={})
    for text in section.values:
        number = section.index(text)
        assert number is not None
        if len(text) > _LONGEST_TOKEN:
            raise BadRequest(f"{section.where}: {text[:80]!r} … is too long for a token")
        if number in vocabulary.tokens:
            raise BadRequest(f"{section.where}: two tokens have the number {number}")
        vocabulary.put(number, Token(text, NORMAL))
    if not vocabulary.tokens:
        raise BadRequest(f"{model.where} has no tokens")
    return vocabulary


def _merges(model: JsonObject) -> list[Merge]:
    """Old files have "left right", new ones ["left", "right"]."""
    merges = []
    for pair in model.items("merges", []):
        parts = pair.split(" ") if isinstance(pair, str) else pair
        match parts:
            case [str(left), str(right)] if " " not in left and " " not in right:
                merges.append((left, right))
            case _:
                raise BadRequest(f"{model.where}: a merge is not two texts")
    return merges


def _alphabet() -> set[str]:
    """The 256 characters that stand for bytes in byte-level tokenizers."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return set(map(chr, plain)) | {chr(0x100 + at) for at in range(256 - len(plain))}


# ----------------------------------------------------------------- checks


def _with_scores(
    vocabulary: GgufVocabulary, scored: GgufVocabulary, added: list[AddedToken]
) -> GgufVocabulary:
    """The vocabulary of tokenizer.model, if both have the same tokens."""
    replaced = {token.number for token in added}
    known = vocabulary.ids()
    for number in sorted(vocabulary.tokens.keys() | scored.tokens.keys()):
        one, other = vocabulary.tokens.get(number), scored.tokens.get(number)
        text = "" if other is None else other.text
        if one is not None:
            is_same = one.text in {text, _character(text)}
        else:
            is_same = _character(text) != text and _character(text) in known
        if not is_same and number not in replaced:
            raise BadRequest(f"{_MODEL} and tokenizer.json do not have the same token {number}")
    return scored


def _character(text: str) -> str:
    """Gemma's tokenizer.json has a tab for the byte ``<0x09>`` of tokenizer.model."""
    byte = _BYTE.fullmatch(text)
    return chr(int(byte[1], 16)) if byte is not None and byte[1] < "80" else text


def _check_merges(model: JsonObject, merges: list[Merge]) -> None:
    known = model.nested("vocab").values
    for left, right in merges:
        if left not in known or right not in known or left + right not in known:
            raise model.unsupported(
                '"merges"', f"make no token of {left[:40]!r} and {right[:40]!r}"
            )


def _check_all_merges(model: JsonObject, merges: list[Merge], added: list[AddedToken]) -> None:
    """llama.cpp merges any pair whose text is a token; it has no list of merges."""
    known = set(merges)
    texts = model.nested("vocab").values
    others = {token.text for token in added}
    for text in texts.keys() - others:
        for at in range(1, len(text)):
            left, right = text[:at], text[at:]
            if left in texts and right in texts and (left, right) not in known:
                raise model.unsupported(
                    '"merges"', f"omits {left[:40]!r} and {right[:40]!r}, which make a token"
                )


def _check_special_tokens(
    tokenizer: JsonObject, vocabulary: GgufVocabulary, added: list[AddedToken]
) -> None:
    """Hugging Face finds learned special tokens in texts only if they are added tokens, too."""
    added_numbers = {token.number for token in added}
    for number, token in vocabulary.tokens.items():
        if token.kind in {CONTROL, USER, UNKNOWN} and number not in added_numbers:
            raise tokenizer.unsupported(
                '"added_tokens"', f"omits {token.text[:80]!r}, which llama.cpp looks for"
            )


def _check_bytes(vocabulary: GgufVocabulary) -> None:
    """Every byte has a token, or is an ASCII character that has one."""
    texts = vocabulary.ids()
    for byte in range(256):
        name = f"<0x{byte:02X}>"
        if name not in texts and not (byte < 0x80 and chr(byte) in texts):
            raise BadRequest(f"the tokenizer has no token {name}, which llama.cpp requires")


def _check_settings(settings: JsonObject, vocabulary: GgufVocabulary) -> None:
    """Options of ``tokenizer_config.json`` must not contradict tokenizer.json.

    ``do_lower_case`` is often wrongly on in the settings of cased models.
    """
    for name, value in (
        ("strip_accents", vocabulary.extra["normalizer.strip_accents"]),
        ("tokenize_chinese_chars", True),
    ):
        if settings.flag(name, default=value) != value:
            raise settings.unsupported(f'"{name}"', "differs from tokenizer.json")
    if vocabulary.extra["normalizer.lowercase"] and not settings.flag("do_lower_case", True):
        raise settings.unsupported('"do_lower_case"', "is off, but on in tokenizer.json")


def _mark_word_starts(vocabulary: GgufVocabulary) -> None:
    """llama.cpp marks pieces that begin a word; the file marks those that continue one."""
    for token in vocabulary.tokens.values():
        if token.kind in {CONTROL, USER}:
            continue
        continues = token.text.startswith("##") and len(token.text) > 2
        token.text = token.text[2:] if continues else SPACE + token.text


def _spell_spaces(vocabulary: GgufVocabulary) -> None:
    """llama.cpp looks for added tokens before it escapes spaces."""
    for token in vocabulary.tokens.values():
        if token.kind == USER:
            token.text = token.text.replace(SPACE, " ")


Merge = tuple[str, str]


def find_unreachable(texts: Iterable[str], merges: Iterable[Merge]) -> str | None:
    """The first text that the merges do not produce as one token, or None.

    ``ignore_merges`` changes the tokens of such texts only. Takes a few seconds for the largest
    vocabularies.
    """
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    return next((text for text in texts if len(_merged(text, ranks)) > 1), None)


def _merged(text: str, ranks: Mapping[Merge, int]) -> list[str]:
    parts = list(text)
    while len(parts) > 1:
        pairs = [(ranks.get(pair, len(ranks)), at) for at, pair in enumerate(pairwise(parts))]
        rank, at = min(pairs)
        if rank == len(ranks):
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts

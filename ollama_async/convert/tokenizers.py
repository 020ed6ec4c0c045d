"""Which kind of tokenizer a directory has, and its vocabulary.

- ``tokenizer.json`` with byte-level merges (Llama 3, Qwen, Mistral Nemo): llama.cpp's ``gpt2``
- ``tokenizer.model``, or ``tokenizer.json`` with merges and bytes as the last resort (Llama 2,
  Mistral, Gemma, Phi-3): ``llama``
- ``tokenizer.json`` with pieces of words (BERT): ``bert``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ollama_async.convert.cutting import cutting_name
from ollama_async.convert.documents import Document, Files, read_bytes, read_document
from ollama_async.convert.sentencepiece import read_sentencepiece
from ollama_async.convert.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER,
    Token,
    Vocabulary,
    add_all,
)
from ollama_async.errors import BadRequest

_WORD_START = "▁"
_MODEL = "tokenizer.model"
_DOCUMENTS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
)


def read_documents(files: Files) -> dict[str, Document]:
    """Those of the JSON files about the tokenizer that there are."""
    found = {name: read_document(files, name) for name in _DOCUMENTS}
    return {name: document for name, document in found.items() if document is not None}


def read_vocabulary(files: Files, documents: Mapping[str, Document]) -> Vocabulary:
    """:raises BadRequest: there is no tokenizer, or none that llama.cpp has the like of."""
    tokenizer = documents.get("tokenizer.json")
    model = tokenizer.section("model") if tokenizer is not None else None
    if tokenizer is not None and model is not None and _is_byte_level(model):
        vocabulary = _byte_level(tokenizer, model)
    elif (data := read_bytes(files, _MODEL)) is not None:
        vocabulary = read_sentencepiece(data)
    elif tokenizer is not None and model is not None:
        vocabulary = _from_json(tokenizer, model)
    else:
        raise BadRequest(f"there is no tokenizer.json and no {_MODEL}")
    add_all(vocabulary, documents)
    if vocabulary.model == "bert":
        _mark_starts(vocabulary)
    if vocabulary.model == "llama":
        _spell_spaces(vocabulary)
        settings = documents.get("tokenizer_config.json")
        if settings is not None and "add_prefix_space" in settings.values:
            vocabulary.extra["add_space_prefix"] = settings.flag("add_prefix_space")
    return vocabulary


def _is_byte_level(model: Document) -> bool:
    kind = model.text("type", "BPE" if "merges" in model.values else "")
    return kind == "BPE" and not model.flag("byte_fallback", default=False)


def _from_json(tokenizer: Document, model: Document) -> Vocabulary:
    kind = model.text("type", "BPE" if "merges" in model.values else "")
    if kind == "BPE":
        return _with_bytes(tokenizer, model)
    if kind == "WordPiece":
        return _pieces_of_words(tokenizer, model)
    raise BadRequest(f"{tokenizer.where}: tokenizers of the kind {kind[:80]!r} do not convert")


def _byte_level(tokenizer: Document, model: Document) -> Vocabulary:
    vocabulary = _learnt("gpt2", model)
    vocabulary.merges = [f"{left} {right}" for left, right in _merges(model)]
    vocabulary.extra = {"pre": cutting_name(tokenizer)}
    return vocabulary


def _with_bytes(tokenizer: Document, model: Document) -> Vocabulary:
    """SentencePiece's merges, of which the earlier ones become the higher scores."""
    vocabulary = _learnt("llama", model)
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(_merges(model)):
        ranks.setdefault(left + right, rank)
    unknown = model.text("unk_token", "")
    for token in vocabulary.tokens.values():
        token.score = -float(ranks.get(token.text, len(ranks)))
        if token.text == unknown:
            token.kind = UNKNOWN
        elif len(token.text) == 6 and token.text.startswith("<0x") and token.text.endswith(">"):
            token.kind = BYTE
    vocabulary.extra = {"pre": "default", "add_space_prefix": _begins_with_space(tokenizer)}
    return vocabulary


def _begins_with_space(tokenizer: Document) -> bool:
    for name in ("normalizer", "pre_tokenizer"):
        outer = tokenizer.section(name)
        if outer is None:
            continue
        for step in [outer, *outer.sections("normalizers"), *outer.sections("pretokenizers")]:
            kind = step.text("type", "")
            if kind == "Prepend":
                return True
            if kind == "Metaspace":
                return bool(step.text("prepend_scheme", "always") != "never")
    return False


def _pieces_of_words(tokenizer: Document, model: Document) -> Vocabulary:
    normalizer = tokenizer.section("normalizer")
    if normalizer is None or not normalizer.flag("lowercase", default=False):
        raise BadRequest(
            f"{tokenizer.where} tells upper case from lower case, which llama.cpp cannot"
        )
    if model.text("continuing_subword_prefix", "##") != "##":
        raise BadRequest(f"{tokenizer.where}: pieces of words are not marked with ##")
    return _learnt("bert", model)


def _mark_starts(vocabulary: Vocabulary) -> None:
    """llama.cpp marks pieces that begin a word; the file those that do not."""
    for token in vocabulary.tokens.values():
        if token.kind in {CONTROL, USER}:
            continue
        continues = token.text.startswith("##") and len(token.text) > 2
        token.text = token.text[2:] if continues else _WORD_START + token.text


def _spell_spaces(vocabulary: Vocabulary) -> None:
    """llama.cpp looks for added tokens before it makes the marks of spaces."""
    for token in vocabulary.tokens.values():
        if token.kind == USER:
            token.text = token.text.replace(_WORD_START, " ")


def _learnt(kind: Any, model: Document) -> Vocabulary:
    section = model.section("vocab")
    vocabulary = Vocabulary(model=kind, tokens={})
    for text in section.values if section is not None else ():
        assert section is not None
        number = section.index(text)
        assert number is not None
        vocabulary.put(number, Token(text, NORMAL))
    if not vocabulary.tokens:
        raise BadRequest(f"{model.where} has no tokens")
    return vocabulary


def _merges(model: Document) -> list[tuple[str, str]]:
    """Older files have "left right", newer ones ["left", "right"]."""
    merges = []
    for pair in model.items("merges", []):
        parts = pair.split(" ") if isinstance(pair, str) else pair
        if not (
            isinstance(parts, list)
            and len(parts) == 2
            and all(isinstance(part, str) and " " not in part for part in parts)
        ):
            raise BadRequest(f"{model.where}: a merge is not two texts")
        merges.append((parts[0], parts[1]))
    return merges

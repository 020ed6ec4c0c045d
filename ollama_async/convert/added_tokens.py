"""Added tokens, and a check that llama.cpp finds them in the same places.

Hugging Face's ``tokenizers`` finds the leftmost, longest added token. llama.cpp searches for one
token after the other, the longest first, in the remaining text. The results are the same unless one
token begins with the end of a shorter one.

A GGUF file does not record which tokens strip adjacent spaces. llama.cpp strips them only for the
tokens of Phi-3, by the model's name (``general.name``). WordPiece removes spaces anyway.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ollama_async.convert.config_files import JsonFiles, JsonObject
from ollama_async.convert.tokenizer_pipeline import SPACE
from ollama_async.convert.vocabulary import CONTROL, UNKNOWN, USER, GgufVocabulary
from ollama_async.core.errors import BadRequest

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_FILE, _SETTINGS, _PLAIN = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"

# The largest known set has 6,400 added tokens of 70,000 characters.
_MAX_CHARACTERS = 1 << 18
_MAX_TOKEN_CHARACTERS = 256
_STRIPPING_NAME = "phi-3"
"""In models of this name, added tokens strip the spaces after them, except :data:`_NOT_STRIPPING`.
"""
_NOT_STRIPPING = {"<unk>", "<s>", "<|endoftext|>"}
_ALWAYS_STRIPPING = "</s>"


class AddedToken(msgspec.Struct):
    """``where``: the first file and place with the token, for errors."""

    where: str
    number: int
    text: str
    is_special: bool
    flags: set[str]


def read_added(json_files: JsonFiles) -> list[AddedToken]:
    """The added tokens of all files; the first entry of each counts.

    :raises BadRequest: a token is invalid, or two files contradict each other.
    """
    found: dict[int, AddedToken] = {}
    for document in _entries(json_files):
        token = _added_token(document)
        known = found.setdefault(token.number, token)
        if known.text != token.text:
            raise BadRequest(
                f"{token.where}: token {token.number} is {token.text[:80]!r}, "
                f"but {known.text[:80]!r} in {known.where}"
            )
        known.flags |= token.flags
    return list(found.values())


def added_fields(json_files: JsonFiles, vocabulary: GgufVocabulary, size: int) -> dict[str, Any]:
    """Check the added tokens; returns ``general.name`` if they strip the spaces after them.

    ``size``: the number of tokens in the network; tokens beyond it are ignored.

    :raises BadRequest: llama.cpp would tokenize some texts differently.
    """
    added = [token for token in read_added(json_files) if token.number < size]
    _check_sizes(added)
    _check_numbers(json_files, added)
    for token in added:
        if "single_word" in token.flags:
            raise _unsupported(token, "single_word", "is found between words only")
        if vocabulary.changes_added and "normalized" in token.flags:
            raise _unsupported(token, "normalized", "is looked for after the normalizer")
    _check_overlaps(added)
    name = _stripping_name(vocabulary, added, size)
    return {} if name is None else {"general.name": name}


def _check_sizes(added: list[AddedToken]) -> None:
    """Bounds the cost of the checks below, which use every prefix and suffix of every token."""
    if sum(len(token.text) for token in added) > _MAX_CHARACTERS:
        raise BadRequest(f"the added tokens have more than {_MAX_CHARACTERS} characters")
    for token in added:
        if not 0 < len(token.text) <= _MAX_TOKEN_CHARACTERS:
            raise BadRequest(
                f"{token.where}: {token.text[:80]!r} … is empty or too long for an added token"
            )


def _check_numbers(json_files: JsonFiles, added: list[AddedToken]) -> None:
    """Added tokens equal learned ones, or are numbered after them."""
    vocab = json_files[_FILE].nested("model").nested("vocab").values
    if not vocab:
        return
    texts = {number: text for text, number in vocab.items()}
    following = len(texts)
    for token in added:
        learned = texts.get(token.number, token.text)
        number = vocab.get(token.text, following)
        if learned != token.text or token.number != number:
            raise BadRequest(
                f"{token.where}: token {token.number} is {token.text[:80]!r}, which does not fit "
                f"the learned tokens: {learned[:80]!r}, number {number}"
            )
        following += number == following
        if SPACE in token.text and "normalized" not in token.flags and number >= len(texts):
            raise _unsupported(token, "normalized", f"is looked for before spaces become {SPACE!r}")


def _stripping_name(vocabulary: GgufVocabulary, tokens: list[AddedToken], size: int) -> str | None:
    before = {token.text for token in tokens if "lstrip" in token.flags}
    after = {token.text for token in tokens if "rstrip" in token.flags}
    if vocabulary.model == "bert" or (not before and not after):
        return None
    known = {token.text: token for number, token in vocabulary.tokens.items() if number < size}
    found = {text for text, token in known.items() if token.kind in {CONTROL, USER, UNKNOWN}}
    stripping = (found - _NOT_STRIPPING) | {_ALWAYS_STRIPPING}
    if not before and after == stripping and known.keys() >= stripping | _NOT_STRIPPING:
        return _STRIPPING_NAME
    option = "lstrip" if before else "rstrip"
    first = next(token for token in tokens if option in token.flags)
    raise BadRequest(
        f'{first.where}: "{option}" of {first.text[:80]!r} strips the spaces beside it, which '
        "llama.cpp does only after all the tokens of Phi-3"
    )


def _unsupported(token: AddedToken, option: str, reason: str) -> BadRequest:
    return BadRequest(
        f'{token.where}: "{option}" of {token.text[:80]!r}: it {reason}, which llama.cpp cannot do'
    )


def _check_overlaps(added: list[AddedToken]) -> None:
    """No token begins with the end of a shorter one, and no unnormalized one is part of a
    normalized one.
    """
    prefixes: dict[str, AddedToken] = {}
    for token in added:
        for end in range(1, len(token.text)):
            start = token.text[:end]
            if len(token.text) > len(prefixes.get(start, token).text) or start not in prefixes:
                prefixes[start] = token
    for token in added:
        for at in range(1, len(token.text)):
            other = prefixes.get(token.text[at:])
            if other is not None and _is_ambiguous(token.text, other.text):
                raise BadRequest(
                    f"{token.where}: the token {other.text[:80]!r} begins with the end of "
                    f"{token.text[:80]!r}, which llama.cpp splits differently"
                )
    later = "\0".join(token.text for token in added if "normalized" in token.flags)
    for token in added:
        if "normalized" not in token.flags and token.text in later:
            raise _unsupported(
                token, "normalized", "is looked for before longer ones that contain it"
            )


def _is_ambiguous(first: str, second: str) -> bool:
    if len(set(first + second)) == 1:  # both split runs of one character from the left
        return False
    return len(second.encode()) >= len(first.encode()) and first != second


def _entries(json_files: JsonFiles) -> list[JsonObject]:
    decoder, plain = json_files[_SETTINGS].nested("added_tokens_decoder"), json_files[_PLAIN]
    return [
        *json_files[_FILE].sections("added_tokens"),
        *(_numbered(decoder, number) for number in decoder.values),
        *(
            JsonObject(plain.where, {"id": number, "content": text})
            for text, number in plain.values.items()
        ),
    ]


def _numbered(decoder: JsonObject, number: str) -> JsonObject:
    section = decoder.section(number)
    if section is None or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise BadRequest(f"{decoder.where} has an entry that is not a token")
    return section.over({"id": int(number)})


def _added_token(document: JsonObject) -> AddedToken:
    number = document.index("id")
    if number is None:
        raise BadRequest(f"{document.where}: a token has no number")
    return AddedToken(
        where=document.where,
        number=number,
        text=document.text("content"),
        is_special=document.flag("special", default=False),
        flags={name for name in _FLAGS if document.flag(name, default=False)},
    )

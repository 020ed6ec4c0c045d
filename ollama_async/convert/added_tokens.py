"""Added tokens: those beside the learned ones, and whether llama.cpp finds them in the same places.

Hugging Face's ``tokenizers`` finds the leftmost of the longest added tokens. llama.cpp searches for
one added token after the other, the longest first, each in what the former ones left. The result is
the same unless one token begins with the end of a shorter one.

Which tokens strip the spaces beside them is not in a GGUF file. llama.cpp has one set of tokens
that do, those of Phi-3, by the model's name (``general.name``). WordPiece drops spaces anyway.
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

# The most known are 6,400 added tokens of 70,000 characters in all.
_MOST_CHARACTERS = 1 << 18
_MOST_OF_ONE = 256
_STRIPPING = "phi-3"
"""The name of models whose added tokens strip the spaces after them, except :data:`_KEEPING`."""
_KEEPING = {"<unk>", "<s>", "<|endoftext|>"}
_ALWAYS = "</s>"


class AddedToken(msgspec.Struct):
    """``where``: the first file and place that has it, for errors. ``flags``: the file's."""

    where: str
    number: int
    text: str
    is_special: bool
    flags: set[str]


def read_added(json_files: JsonFiles) -> list[AddedToken]:
    """The added tokens of all files. Of the same token in several files the first counts.

    :raises BadRequest: a token is invalid, or two files contradict each other.
    """
    found: dict[int, AddedToken] = {}
    for document in _entries(json_files):
        token = _added(document)
        known = found.setdefault(token.number, token)
        if known.text != token.text:
            raise BadRequest(
                f"{token.where}: token {token.number} is {token.text[:80]!r}, "
                f"but {known.text[:80]!r} in {known.where}"
            )
        known.flags |= token.flags
    return list(found.values())


def added_fields(json_files: JsonFiles, vocabulary: GgufVocabulary, size: int) -> dict[str, Any]:
    """Checks the added tokens; returns ``general.name`` if they strip the spaces after them.

    ``size``: how many tokens the network has; others are not looked for.

    :raises BadRequest: llama.cpp would find other added tokens, or other spaces, in some texts.
    """
    added = [token for token in read_added(json_files) if token.number < size]
    _check_sizes(added)
    _check_numbers(json_files, added)
    for token in added:
        if "single_word" in token.flags:
            raise _refused(token, "single_word", "is found between words only")
        if vocabulary.changes_added and "normalized" in token.flags:
            raise _refused(token, "normalized", "is looked for after the normalizer")
    _check_apart(added)
    name = _stripping_name(vocabulary, added, size)
    return {} if name is None else {"general.name": name}


def _check_sizes(added: list[AddedToken]) -> None:
    """Bounds the checks below, which look at every beginning and end of every text."""
    if sum(len(token.text) for token in added) > _MOST_CHARACTERS:
        raise BadRequest(f"the added tokens have more than {_MOST_CHARACTERS} characters")
    for token in added:
        if not 0 < len(token.text) <= _MOST_OF_ONE:
            raise BadRequest(
                f"{token.where}: {token.text[:80]!r} … is empty or too long for an added token"
            )


def _check_numbers(json_files: JsonFiles, added: list[AddedToken]) -> None:
    """Added tokens agree with the learned ones, or are numbered after them."""
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
            raise _refused(token, "normalized", f"is looked for before spaces become {SPACE!r}")


def _stripping_name(vocabulary: GgufVocabulary, tokens: list[AddedToken], size: int) -> str | None:
    before = {token.text for token in tokens if "lstrip" in token.flags}
    after = {token.text for token in tokens if "rstrip" in token.flags}
    if vocabulary.model == "bert" or (not before and not after):
        return None
    known = {token.text: token for number, token in vocabulary.tokens.items() if number < size}
    found = {text for text, token in known.items() if token.kind in {CONTROL, USER, UNKNOWN}}
    wanted = (found - _KEEPING) | {_ALWAYS}
    if not before and after == wanted and known.keys() >= wanted | _KEEPING:
        return _STRIPPING
    option = "lstrip" if before else "rstrip"
    first = next(token for token in tokens if option in token.flags)
    raise BadRequest(
        f'{first.where}: "{option}" of {first.text[:80]!r} strips the spaces beside it, which '
        "llama.cpp does only after all the tokens of Phi-3"
    )


def _refused(token: AddedToken, option: str, reason: str) -> BadRequest:
    return BadRequest(
        f'{token.where}: "{option}" of {token.text[:80]!r}: it {reason}, which llama.cpp cannot do'
    )


# ----------------------------------------------------------------- overlaps


def _check_apart(added: list[AddedToken]) -> None:
    """No token begins with the end of a shorter one, and no unnormalized one is part of a
    normalized one.
    """
    beginnings: dict[str, AddedToken] = {}
    for token in added:
        for end in range(1, len(token.text)):
            start = token.text[:end]
            if len(token.text) > len(beginnings.get(start, token).text) or start not in beginnings:
                beginnings[start] = token
    for token in added:
        for at in range(1, len(token.text)):
            other = beginnings.get(token.text[at:])
            if other is not None and _is_ambiguous(token.text, other.text):
                raise BadRequest(
                    f"{token.where}: the token {other.text[:80]!r} begins with the end of "
                    f"{token.text[:80]!r}, which llama.cpp splits differently"
                )
    later = "\0".join(token.text for token in added if "normalized" in token.flags)
    for token in added:
        if "normalized" not in token.flags and token.text in later:
            raise _refused(token, "normalized", "is looked for before longer ones that contain it")


def _is_ambiguous(first: str, second: str) -> bool:
    """Both find runs of one character from the left."""
    if len(set(first + second)) == 1:
        return False
    return len(second.encode()) >= len(first.encode()) and first != second


# ----------------------------------------------------------------- files


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


def _added(document: JsonObject) -> AddedToken:
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

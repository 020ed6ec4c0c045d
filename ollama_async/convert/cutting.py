"""How byte-level tokenizers cut a text before they merge: their patterns to llama.cpp's names.

A tokenizer.json spells the patterns out; llama.cpp has them built in under names
(``tokenizer.ggml.pre``). A new name is a new row of :data:`_NAMES`, with the patterns exactly as
the file has them.
"""

from __future__ import annotations

from ollama_async.convert.documents import Document
from ollama_async.errors import BadRequest

_DIGIT = r"\p{N}"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

_THREE_DIGITS = r"\p{N}{1,3}"

_LLAMA3 = f"{_SHORT}|{_WORD}|{_THREE_DIGITS}|{_MARKS}|{_SPACES}"
_QWEN2 = f"{_SHORT}|{_WORD}|{_DIGIT}|{_MARKS}|{_SPACES}"
_TEKKEN = f"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|{_DIGIT}|{_PATHS}|{_SPACES}"
_GPT4O = (
    f"{_START}{_UPPER}*{_LOWER}+{_SHORT}?|{_START}{_UPPER}+{_LOWER}*{_SHORT}?"
    f"|{_THREE_DIGITS}|{_PATHS}|{_SPACES}"
)

_NAMES = [
    # patterns in their order, whether whole words that are tokens are not merged (None: any), name
    ((_LLAMA3,), True, "llama-bpe"),
    ((_LLAMA3,), False, "dbrx"),
    ((_QWEN2,), None, "qwen2"),
    ((_TEKKEN,), None, "tekken"),
    ((_GPT4O,), None, "gpt-4o"),
    ((_GPT2,), None, "gpt-2"),
    ((_DIGIT, _GPT2), None, "smollm"),
]


def cutting_name(tokenizer: Document) -> str:
    """llama.cpp's name for how ``tokenizer.json`` cuts.

    :raises BadRequest: it has no name that we know. Guessing would give a model that reads other
        tokens than it has learnt.
    """
    outer = tokenizer.section("pre_tokenizer")
    found = tuple(pattern for step in _steps(outer) for pattern in _patterns(step))
    model = tokenizer.section("model")
    whole = model is not None and model.flag("ignore_merges", default=False)
    for patterns, is_whole, name in _NAMES:
        if patterns == found and is_whole in {None, whole}:
            return name
    raise BadRequest(f"{tokenizer.where} cuts texts in an unknown way: {' '.join(found)[:300]!r}")


def _steps(outer: Document | None) -> list[Document]:
    if outer is None:
        return []
    if outer.text("type", "") == "Sequence":
        return outer.sections("pretokenizers")
    return [outer]


def _patterns(step: Document) -> list[str]:
    """What a step cuts at, as a pattern."""
    kind = step.text("type", "")
    if kind == "ByteLevel":
        return [_GPT2] if step.flag("use_regex", default=True) else []
    if kind == "Digits" and step.flag("individual_digits", default=False):
        return [_DIGIT]
    pattern = step.section("pattern") if kind == "Split" else None
    return [pattern.text("Regex", "")] if pattern is not None else [kind]

"""Pre-tokenizers of byte-level tokenizers: from the patterns in tokenizer.json to llama.cpp's name.

llama.cpp has built-in patterns with names (``tokenizer.ggml.pre``). To support another name, add a
row to :data:`_NAMES`, with the patterns exactly as in the file.
"""

from __future__ import annotations

from ollama_async.convert.config_files import JsonObject
from ollama_async.convert.tokenizer_pipeline import flatten
from ollama_async.core.errors import BadRequest

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

_NAMES = {
    # the patterns in order; whether a whole word that is a token is not merged
    ((_LLAMA3,), True): "llama-bpe",
    ((_LLAMA3,), False): "dbrx",
    ((_QWEN2,), False): "qwen2",
    ((_TEKKEN,), True): "tekken",
    ((_GPT4O,), False): "gpt-4o",
    ((_GPT2,), False): "gpt-2",
    ((_DIGIT, _GPT2), False): "smollm",
}
IGNORING_MERGES = {name for (_, ignores), name in _NAMES.items() if ignores}
"""Names of those that do not merge a whole word that is a token."""
_KNOWN = {patterns for patterns, _ in _NAMES}
_KEEPING = {"Isolated", "MergedWithPrevious", "MergedWithNext"}


def pre_tokenizer_name(tokenizer: JsonObject) -> str:
    """llama.cpp's name for the pre-tokenizer of ``tokenizer.json``.

    Prefers the name with the file's ``ignore_merges``. Compare with :data:`IGNORING_MERGES`: there
    may be only one with the other value.

    :raises BadRequest: it is unknown. A wrong guess would tokenize differently than in training.
    """
    steps = flatten(tokenizer.section("pre_tokenizer"), "pretokenizers")
    found = tuple(pattern for step in steps for pattern in _patterns(step))
    if found not in _KNOWN or steps[-1].text("type", "") != "ByteLevel":
        raise BadRequest(
            f"{tokenizer.where}: pre_tokenizer splits texts in an unknown way: "
            f"{' '.join(found)[:300]!r}"
        )
    whole = tokenizer.nested("model").flag("ignore_merges", default=False)
    return _NAMES.get((found, whole)) or _NAMES[found, not whole]


def _patterns(step: JsonObject) -> list[str]:
    """The pattern that a step splits at. :raises BadRequest: an option is not supported."""
    kind = step.text("type", "")
    if kind == "ByteLevel":
        if step.flag("add_prefix_space", default=True):
            raise step.unsupported('"add_prefix_space"', "is on, which llama.cpp cannot do here")
        return [_GPT2] if step.flag("use_regex", default=True) else []
    if kind == "Digits" and step.flag("individual_digits", default=False):
        return [_DIGIT]
    if kind == "Split":
        _check_kept(step)
        return [step.nested("pattern").text("Regex", "")]
    return [kind]


def _check_kept(step: JsonObject) -> None:
    """The known patterns match every character, so there are no pieces between matches."""
    behavior, invert = step.text("behavior"), step.flag("invert", default=False)
    if behavior not in _KEEPING and (behavior, invert) != ("Removed", True):
        raise step.unsupported(
            f'"behavior": {behavior[:80]!r} with "invert": {str(invert).lower()}',
            "does not keep each match as a piece",
        )

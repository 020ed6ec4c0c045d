"""Pre-tokenizers of byte-level tokenizers: from the patterns in tokenizer.json to llama.cpp's name.

llama.cpp has the patterns built in under names (``tokenizer.ggml.pre``). A new name is a new row of
:data:`_NAMES`, with the patterns exactly as the file has them.
"""

from __future__ import annotations

from ollama_async.convert.config_files import JsonObject
from ollama_async.convert.tokenizer_pipeline import flat
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
    # patterns in their order, and whether whole words that are tokens are not merged
    ((_LLAMA3,), True): "llama-bpe",
    ((_LLAMA3,), False): "dbrx",
    ((_QWEN2,), False): "qwen2",
    ((_TEKKEN,), True): "tekken",
    ((_GPT4O,), False): "gpt-4o",
    ((_GPT2,), False): "gpt-2",
    ((_DIGIT, _GPT2), False): "smollm",
}
WHOLE = {name for (_, whole), name in _NAMES.items() if whole}
"""Names of those that take a whole word that is a token without merging."""
_KNOWN = {patterns for patterns, _ in _NAMES}
_KEEPING = {"Isolated", "MergedWithPrevious", "MergedWithNext"}


def pre_tokenizer_name(tokenizer: JsonObject) -> str:
    """llama.cpp's name for the pre-tokenizer of ``tokenizer.json``.

    If there are names with and without ``ignore_merges``, the one that the file needs; otherwise
    :data:`WHOLE` tells what the name means.

    :raises BadRequest: it is unknown. A wrong guess would give a model that reads other tokens than
        in training.
    """
    steps = flat(tokenizer.section("pre_tokenizer"), "pretokenizers")
    found = tuple(pattern for step in steps for pattern in _patterns(step))
    if found not in _KNOWN or steps[-1].text("type", "") != "ByteLevel":
        raise BadRequest(
            f"{tokenizer.where}: pre_tokenizer splits texts in an unknown way: "
            f"{' '.join(found)[:300]!r}"
        )
    whole = tokenizer.nested("model").flag("ignore_merges", default=False)
    return _NAMES.get((found, whole)) or _NAMES[found, not whole]


def _patterns(step: JsonObject) -> list[str]:
    """What a step splits at, as a pattern. :raises BadRequest: it does something else."""
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
    """The known patterns match every character, so that nothing lies between the matches."""
    behavior, invert = step.text("behavior"), step.flag("invert", default=False)
    if behavior not in _KEEPING and (behavior, invert) != ("Removed", True):
        raise step.unsupported(
            f'"behavior": {behavior[:80]!r} with "invert": {str(invert).lower()}',
            "does not keep each find as a piece",
        )

"""The table of Ollama's options: name, type, default, range.

The same names are a model's PARAMETERs and a request's ``options``. Precedence, key by key: the
request's, then the model's, then the default. Ollama checks types only; the ranges are ours, wide
enough for every meaningful use.

Clients share a model's worker, so a request sets only its sampling and context. The other load
options (:data:`SHARED`) are the model's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from ollama_async.core.conversation import Sampling

_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1

LEAST_CTX = 4
"""Tokens; as in Ollama, a model is loaded with as many if ``num_ctx`` is smaller."""

STOP_LIMIT = 256
"""Of one request: each is searched for at every token."""
STOP_LENGTH_LIMIT = 1 << 16
"""Characters of all stop strings together: each gets a table entry."""


class WrongOptionType(ValueError):
    """A value of the wrong JSON type; Ollama answers 500 with this text."""


class OptionOutOfRange(ValueError):
    """A value out of range, or stop strings that are too many or too long."""


class Option(msgspec.Struct, frozen=True):
    """One row. ``kind`` is ``integer``, ``boolean``, ``float32`` or ``array`` (of strings).

    ``default`` None: decided when the model is loaded.
    """

    name: str
    kind: str
    default: Any
    low: float = -math.inf
    high: float = math.inf
    meaning: str = ""


OPTIONS: tuple[Option, ...] = (
    Option("num_ctx", "integer", None, 0, 2**24, "context in tokens (0: the default)"),
    Option("num_batch", "integer", None, 1, 2**20, "prompt tokens in one step"),
    Option("num_gpu", "integer", None, -1, _INT32_MAX, "layers on GPUs (-1: as many as fit)"),
    Option("main_gpu", "integer", None, 0, 4096, "the GPU that computes what is not split"),
    Option("use_mmap", "boolean", None, meaning="map the file instead of reading it"),
    Option("num_thread", "integer", None, 0, 4096, "threads (0: as many as cores)"),
    Option("draft_num_predict", "integer", None, 0, 4096, "tokens that a draft model proposes"),
    Option("num_keep", "integer", 4, -1, _INT32_MAX, "tokens kept when the context shifts"),
    Option("seed", "integer", -1, -_INT64_MAX - 1, _INT64_MAX, "negative: random"),
    Option("num_predict", "integer", -1, -_INT32_MAX, _INT32_MAX, "most tokens of an answer"),
    Option("top_k", "integer", 40, -1, _INT32_MAX, "candidates that are kept (0 or -1: all)"),
    Option("top_p", "float32", 0.9, 0, 1, "probability mass that is kept"),
    Option("min_p", "float32", 0.0, 0, 1, "least probability, relative to the best"),
    Option("typical_p", "float32", 1.0, 0, 1, "typical mass that is kept (1: off)"),
    Option("repeat_last_n", "integer", 64, -1, _INT32_MAX, "how far penalties look back"),
    Option("temperature", "float32", 0.8, 0, 100, "0: always the most likely token"),
    Option("repeat_penalty", "float32", 1.0, 0.01, 100, "1: off"),
    Option("presence_penalty", "float32", 0.0, -100, 100, "0: off"),
    Option("frequency_penalty", "float32", 0.0, -100, 100, "0: off"),
    Option("mirostat", "integer", 0, 0, 2, "Mirostat 1 or 2 instead of top_k to min_p (0: off)"),
    Option("mirostat_tau", "float32", 5.0, 0, 100, "the surprise that Mirostat aims at"),
    Option("mirostat_eta", "float32", 0.1, 0, 1, "how fast Mirostat adapts"),
    Option("stop", "array", [], meaning="strings that end the answer"),
)

DEPRECATED = frozenset(
    {
        *("penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock"),
        *("embedding_only", "numa", "num_gqa", "rope_frequency_base", "rope_frequency_scale"),
        "tfs_z",
    }
)
"""Names of options that no longer do anything, in old Modelfiles and requests. They are accepted
with a warning."""

SHARED = frozenset({"num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread"})
"""Options that hold for all clients of a worker; a request's are checked and left out."""

_BY_NAME = {option.name: option for option in OPTIONS}


class Options(msgspec.Struct, frozen=True):
    """All options of one request. ``load``: the fields of ``LoadOptions`` (None: not set).
    ``num_ctx``: as it was set, for embeddings, which have no :data:`LEAST_CTX`; 0: not set.
    """

    load: dict[str, Any]
    sampling: Sampling
    num_ctx: int


def check_parameters(params: dict[str, Any]) -> dict[str, Any]:
    """The known parameters that are not None, with their exact types: 40.9 becomes integer 40.

    :raises WrongOptionType: ``option "top_k" must be of type integer`` and the like.
    :raises OptionOutOfRange:
    """
    return {
        name: _checked(_BY_NAME[name], value)
        for name, value in params.items()
        if name in _BY_NAME and value is not None
    }


def unknown_parameters(params: dict[str, Any]) -> list[str]:
    """Names that are not options and never were. A request may have them; they are logged."""
    return [name for name in params if name not in _BY_NAME and name not in DEPRECATED]


def merge(model_params: dict[str, Any], request_options: dict[str, Any]) -> Options:
    """The options in force, without the request's :data:`SHARED` ones.

    Raises as :func:`check_parameters`.
    """
    requested = check_parameters(request_options)
    chosen = check_parameters(model_params) | {
        name: value for name, value in requested.items() if name not in SHARED
    }
    values = {option.name: chosen.get(option.name, option.default) for option in OPTIONS}
    sampling = {name: values[name] for name in Sampling.__struct_fields__ if name in values}
    sampling["top_k"] = max(values["top_k"], 0)
    sampling["seed"] = _seed(values["seed"])
    sampling["stop"] = [text for text in values["stop"] if text]
    load = {name: values[name] for name in ("num_ctx", *SHARED)}
    load["num_ctx"] = max(values["num_ctx"], LEAST_CTX) if values["num_ctx"] else None
    load["num_gpu"] = None if values["num_gpu"] == -1 else values["num_gpu"]
    load["num_thread"] = values["num_thread"] or None
    return Options(load, Sampling(**sampling), values["num_ctx"] or 0)


def parse_parameter(name: str, values: list[str]) -> Any:
    """The typed value of a PARAMETER in a Modelfile or at the interactive prompt. Of several
    values the last one counts, for a list all. None: the name is in :data:`DEPRECATED`.

    :raises ValueError: ``unknown parameter 'x'``, ``invalid int value [abc]``, or out of range.
    """
    if name in DEPRECATED:
        return None
    option = _BY_NAME.get(name)
    if option is None:
        raise ValueError(f"unknown parameter '{name}'")
    if option.kind == "array":
        return _checked(option, list(values))
    word, pattern, convert = _TEXT[option.kind]
    text = values[-1] if values else ""
    if not re.fullmatch(pattern, text):
        raise ValueError(f"invalid {word} value [{' '.join(values)}]")
    return _checked(option, convert(text))


def _checked(option: Option, value: Any) -> Any:
    if option.kind == "array":
        return _strings(option, value)
    if option.kind == "boolean":
        if not isinstance(value, bool):
            raise WrongOptionType(f'option "{option.name}" must be of type boolean')
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongOptionType(f'option "{option.name}" must be of type {option.kind}')
    # written so that NaN is out of range, too
    if not (option.low <= value <= option.high):
        low, high = (f"{bound}" for bound in (option.low, option.high))
        raise OptionOutOfRange(f'option "{option.name}" must be between {low} and {high}')
    return int(value) if option.kind == "integer" else float(value)


def _strings(option: Option, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise WrongOptionType(f'option "{option.name}" must be of type array')
    if not all(isinstance(each, str) for each in value):
        raise WrongOptionType(f'option "{option.name}" must be of an array of strings')
    if len(value) > STOP_LIMIT:
        raise OptionOutOfRange(f'option "{option.name}" may hold at most {STOP_LIMIT} strings')
    if sum(map(len, value)) > STOP_LENGTH_LIMIT:
        raise OptionOutOfRange(
            f'option "{option.name}" may hold at most {STOP_LENGTH_LIMIT} characters'
        )
    return list(value)


def _seed(seed: int) -> int:
    """Samplers take 32 bits, and the highest value means random."""
    return -1 if seed < 0 else seed % 0xFFFFFFFF


_TEXT: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "integer": ("int", r"[+-]?[0-9]{1,19}", int),
    "float32": ("float", r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", float),
    "boolean": ("bool", "[1tT]|TRUE|[Tt]rue|[0fF]|FALSE|[Ff]alse", lambda text: text[0] in "1tT"),
}
"""How PARAMETERs are written: Go's name of the kind, the texts that it accepts, and their value."""

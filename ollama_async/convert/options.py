"""Options of config.json for which llama.cpp has one fixed value: checked, but not passed on.

What a network does not read in transformers is not looked at here either.
"""

from __future__ import annotations

from collections.abc import Iterable

from ollama_async.convert.config_files import Document
from ollama_async.convert.tokenizer_pipeline import refused

_SIGMOID = ("silu", "swish")
_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_python_tanh")
_FULL, _WINDOW = "full_attention", "sliding_attention"

GATED = _SIGMOID
GEMMA = _TANH
BERT = ("gelu", "gelu_python", *_TANH)
"""Names of the activation that llama.cpp computes there, up to its rounding."""


def check_unquantized(config: Document) -> None:
    """:raises BadRequest: the option is one that llama.cpp cannot do. As all functions here."""
    if "quantization_config" in config.values:
        raise refused(config, '"quantization_config"', "is given; quantized weights are not read")


def check_flag(config: Document, name: str, *, wanted: bool) -> None:
    """A switch that can only stand in one way, which is the usual one."""
    if config.flag(name, default=wanted) != wanted:
        raise refused(config, f'"{name}"', f"is not {str(wanted).lower()}, as llama.cpp has it")


def check_activation(config: Document, name: str, allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    found = config.text(name, allowed[0])
    if found not in allowed:
        raise refused(config, f'"{name}"', f"the activation is {found[:80]}, not {allowed[0]}")


def check_attention_scale(config: Document, head: int, largest: int) -> None:
    """llama.cpp scales by the head's dimensions, or by width over heads in the largest model of a
    family, which it knows by the number of layers.
    """
    scale = head
    if config.count("num_hidden_layers") == largest:
        scale = config.count("hidden_size") // config.count("num_attention_heads")
    if config.number("query_pre_attn_scalar") != scale:
        raise refused(
            config,
            '"query_pre_attn_scalar"',
            f"is not {scale}: attention is scaled in a way that llama.cpp does not",
        )


def check_pattern(config: Document, every: int, ordinal: str) -> None:
    """llama.cpp has it that layer number ``every``, and each of its multiples, sees everything."""
    usual = [
        _FULL if layer % every == every - 1 else _WINDOW
        for layer in range(config.count("num_hidden_layers"))
    ]
    if config.items("layer_types", usual) != usual:
        option = '"layer_types"'
    elif config.count("sliding_window_pattern", every) != every:
        option = '"sliding_window_pattern"'
    else:
        return
    raise refused(config, option, f"every {ordinal} layer must be the one without a window")


def check_no_window(config: Document, *, is_used: bool = True) -> None:
    """Of networks for which llama.cpp has no windows: theirs must be as large as the context."""
    types = config.items("layer_types", [_WINDOW if is_used else _FULL])
    size = config.count("max_position_embeddings")
    window = size if config.is_null("sliding_window") else config.count("sliding_window", size)
    if any(kind not in {_FULL, _WINDOW} for kind in types):
        raise refused(config, '"layer_types"', "has a kind that llama.cpp does not know")
    if is_used and _WINDOW in types and window < size:
        raise refused(
            config,
            '"sliding_window"',
            f'is {window}, and "max_position_embeddings" {size}: llama.cpp has no windows in such '
            "a network. With a context of no more than the window it converts exactly",
        )


def check_cap(config: Document, name: str) -> None:
    if config.is_null(name) or config.number(name) <= 0:
        raise refused(config, f'"{name}"', "is off, which llama.cpp cannot do in such a network")


def check_whole_heads(config: Document, head: int) -> None:
    """Of networks whose heads make up their width in llama.cpp."""
    if head * config.count("num_attention_heads") != config.count("hidden_size"):
        raise refused(config, '"head_dim"', "times the heads is not the width")

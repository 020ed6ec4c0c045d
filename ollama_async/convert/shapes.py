"""Whether the tensors of a network are those that its configuration describes.

transformers would not load others, or leave them out with a warning; llama.cpp would use them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ollama_async.convert.architectures import Family, rope_dimensions
from ollama_async.convert.config_files import Document
from ollama_async.core.errors import BadRequest

Shape = tuple[int, ...]
_LAYER = re.compile(r"blk\.\d+\.(\w+)\.(weight|bias)")


def check_tensors(family: Family, config: Document, head: int, shapes: Mapping[str, Shape]) -> None:
    """``shapes`` by llama.cpp's names.

    :raises BadRequest: one has another shape, or is a bias that the network does not have.
    """
    wanted = _wanted(family, config, head)
    for name, shape in shapes.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            continue
        part, kind = match.groups()
        if kind == "bias" and not part.endswith("norm"):
            _check_bias(family, config, name, part)
        expected = wanted.get(part)
        if expected is None:
            continue
        expected = expected if kind == "weight" else expected[:1]
        if shape != expected:
            heads = part.startswith(("attn_q", "attn_k", "attn_v")) and shape[0] % head
            what = f"not heads of {head}" if heads else f"not {list(expected)}"
            raise BadRequest(f"{config.where}: tensor {name!r} has the shape {list(shape)}, {what}")
    if not family.is_embedding and rope_dimensions(config) % 2:
        raise BadRequest(f"{config.where}: the dimensions of a head that turn are no pairs")


def _check_bias(family: Family, config: Document, name: str, part: str) -> None:
    option = family.biases.get(part)
    if option is None:
        raise BadRequest(f"{config.where}: there is {name!r}, which such a network does not have")
    if option and not config.flag(option, default=False):
        raise BadRequest(f'{config.where}: "{option}" is off, but there is {name!r}')


def _wanted(family: Family, config: Document, head: int) -> dict[str, Shape]:
    width, inner = config.count("hidden_size"), config.count("intermediate_size")
    queries = head * config.count("num_attention_heads")
    keys = head * config.count("num_key_value_heads", config.count("num_attention_heads"))
    return {
        "attn_q": (queries, width),
        "attn_k": (keys, width),
        "attn_v": (keys, width),
        "attn_qkv": (queries + 2 * keys, width),
        "attn_output": (width, queries),
        "attn_q_norm": (head,),
        "attn_k_norm": (head,),
        "attn_norm": (width,),
        "ffn_norm": (width,),
        "ffn_gate": (inner, width),
        "ffn_up": (family.gates * inner, width),
        "ffn_down": (width, inner),
    }

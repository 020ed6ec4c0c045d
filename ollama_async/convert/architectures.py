"""The supported model architectures, one row of :data:`ARCHITECTURES` each.

A row has llama.cpp's name, the metadata of the network, and the changes to its tensors. Options of
``config.json`` with one fixed value in llama.cpp are checked; options that transformers ignores are
ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gguf
import msgspec

from ollama_async.convert import rope
from ollama_async.convert.config_files import JsonObject
from ollama_async.convert.gguf_writer import Fields
from ollama_async.convert.safetensors import Floats
from ollama_async.core.errors import BadRequest

Change = Callable[[Floats, int], Floats]
"""(rows of a tensor: all or whole heads, dimensions of a head) → rows."""


class ModelArchitecture(msgspec.Struct, frozen=True, kw_only=True):
    """``name``: in llama.cpp. ``fields``: computes the keys below it from a configuration.

    ``changes``: to tensors, by the end of their published name. ``unused``: prefixes of tensors
    that llama.cpp does not read. ``prefixes``: of published names to those of the ``gguf`` package.
    ``defaults``: of the configuration.

    ``biases``: the option that enables the bias of a layer's matrix (``attn_q``), "" for always.
    ``ffn_up_multiple``: rows of ``ffn_up`` in multiples of the intermediate size.
    """

    name: str
    fields: Callable[[JsonObject], Fields]
    changes: Mapping[str, Change] = {}
    unused: tuple[str, ...] = ()
    prefixes: Mapping[str, str] = {}
    defaults: Mapping[str, Any] = {}
    biases: Mapping[str, str] = {}
    ffn_up_multiple: int = 1
    is_embedding: bool = False

    def tensor_names(self, layers: int) -> gguf.TensorNameMap:
        """The translation of published names to GGUF names."""
        number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.name)
        return gguf.get_tensor_name_map(number, layers)

    def canonical_name(self, published: str) -> str:
        """The name in the ``gguf`` package."""
        for old, new in self.prefixes.items():
            if published.startswith(old):
                return new + published.removeprefix(old)
        return published

    def changed(self, published: str, rows: Floats, head: int) -> Floats:
        """Rows of a tensor as stored in GGUF files. ``published``: its name."""
        for ending, change in self.changes.items():
            if published.endswith(ending):
                rows = change(rows, head)
        return rows


def find_architecture(config: JsonObject) -> tuple[ModelArchitecture, JsonObject]:
    """The architecture of a ``config.json``, and the section of its language model.

    :raises BadRequest: the architecture is not supported.
    """
    names = [name for name in config.items("architectures", []) if isinstance(name, str)]
    architecture = next((ARCHITECTURES[name] for name in names if name in ARCHITECTURES), None)
    if architecture is None:
        known = ", ".join(sorted(ARCHITECTURES))
        what = ", ".join(names)[:200] or "no architecture"
        raise BadRequest(f"{config.where} has {what}; supported are {known}")
    _check_unquantized(config)
    inner = config.section("text_config")
    if inner is not None:
        _check_unquantized(inner)
        config = inner.over({name: config.values.get(name) for name in _SHARED})
    return architecture, config.over(architecture.defaults)


def head_dimensions(config: JsonObject) -> int:
    """:raises BadRequest: the heads do not divide the width."""
    if "head_dim" in config.values:
        return config.count("head_dim")
    width, heads = config.count("hidden_size"), config.count("num_attention_heads")
    if width % heads:
        raise BadRequest(f"{config.where}: the heads do not divide the width")
    return width // heads


def rope_dimensions(config: JsonObject) -> int:
    """The number of a head's rotated dimensions."""
    return max(2, int(rope.rotary_fraction(config) * head_dimensions(config)))


# ----------------------------------------------------------------- metadata


def _network(config: JsonObject) -> Fields:
    heads = config.count("num_attention_heads")
    return {
        "context_length": config.count("max_position_embeddings"),
        "embedding_length": config.count("hidden_size"),
        "block_count": config.count("num_hidden_layers"),
        "feed_forward_length": config.count("intermediate_size"),
        "attention.head_count": heads,
        "attention.head_count_kv": config.count("num_key_value_heads", heads),
    }


def _decoder(config: JsonObject, ropes: tuple[str, ...] = rope.PLAIN) -> Fields:
    _check_flag(config, "is_causal", required=True)
    rope.check_yarn_betas(config)
    head = head_dimensions(config)
    return {
        **_network(config),
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": config.number("rms_norm_eps"),
        **rope.fields(config, rope_dimensions(config), ropes),
    }


def _gated(config: JsonObject, ropes: tuple[str, ...] = rope.PLAIN) -> Fields:
    _check_activation(config, "hidden_act", _GATED_ACTIVATIONS)
    return _decoder(config, ropes)


def _llama(config: JsonObject) -> Fields:
    rope.check_full_rotation(config)
    return _gated(config, rope.ALL)


def _mistral(config: JsonObject) -> Fields:
    _check_no_window(config)
    return _llama(config)


def _qwen(config: JsonObject) -> Fields:
    rope.check_full_rotation(config)
    _check_no_window(config, is_used=config.flag("use_sliding_window", default=False))
    return _gated(config)


def _qwen2(config: JsonObject) -> Fields:
    _check_whole_heads(config, head_dimensions(config))
    return _qwen(config)


def _gemma2(config: JsonObject) -> Fields:
    _check_gemma(config, largest=46)
    _check_pattern(config, 2, "second")
    _check_cap(config, "attn_logit_softcapping")
    _check_cap(config, "final_logit_softcapping")
    _check_flag(config, "tie_word_embeddings", required=True)
    return {
        **_decoder(config),
        "attention.sliding_window": config.count("sliding_window"),
        "attn_logit_softcapping": config.number("attn_logit_softcapping"),
        "final_logit_softcapping": config.number("final_logit_softcapping"),
    }


def _gemma3(config: JsonObject) -> Fields:
    _check_gemma(config, largest=62)
    _check_pattern(config, 6, "sixth")
    found = {
        **_decoder(config),
        "attention.sliding_window": config.count("sliding_window"),
        "rope.freq_base_swa": rope.local_freq_base(config),
    }
    if "rope.scaling.attn_factor" in found:  # llama.cpp has one for all layers
        raise config.unsupported('"attention_factor"', "applies to one kind of layer only")
    if "final_logit_softcapping" in config.values:
        found["final_logit_softcapping"] = config.number("final_logit_softcapping")
    return found


def _check_gemma(config: JsonObject, largest: int) -> None:
    _check_activation(config, "hidden_activation", _GEMMA_ACTIVATIONS)
    _check_flag(config, "use_bidirectional_attention", required=False)
    _check_attention_scale(config, head_dimensions(config), largest)
    rope.check_full_rotation(config)


def _phi3(config: JsonObject) -> Fields:
    _check_whole_heads(config, head_dimensions(config))
    _check_no_window(config)
    original = config.count(
        "original_max_position_embeddings", config.count("max_position_embeddings")
    )
    return {
        "rope.scaling.original_context_length": original,
        **_gated(config, rope.LONG),
        # Without this key llama.cpp assumes an old file; 0 means no window.
        "attention.sliding_window": 0,
    }


def _bert(config: JsonObject) -> Fields:
    if config.text("position_embedding_type", "absolute") != "absolute":
        raise BadRequest(
            f'{config.where}: "position_embedding_type": position embeddings are not absolute'
        )
    _check_activation(config, "hidden_act", _BERT_ACTIVATIONS)
    _check_flag(config, "is_decoder", required=False)
    _check_flag(config, "add_cross_attention", required=False)
    return {
        **_network(config),
        "attention.layer_norm_epsilon": config.number("layer_norm_eps"),
        "attention.causal": False,
    }


# ----------------------------------------------------------------- changes to tensors


def interleave(rows: Floats, head: int) -> Floats:
    """Reorder pairs of rotated dimensions: published as halves of a head, adjacent in GGUF.

    :raises BadRequest: the rows are not whole heads.
    """
    if head % 2 or rows.shape[0] % head:
        raise BadRequest(f"a tensor has {rows.shape[0]} rows, which are not heads of {head}")
    halves = rows.reshape(-1, 2, head // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def add_one(rows: Floats, head: int) -> Floats:
    """Gemma's norm weights are published minus one."""
    del head
    return rows + 1


_ROTATED = {
    f"self_attn.{name}_proj.{part}": interleave for name in "qk" for part in ("weight", "bias")
}
_NORMS = {"norm.weight": add_one}
_NOT_TEXT = (
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)
_SHARED = ("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
"""Options of the language model outside a multimodal configuration's ``text_config``."""

_ATTENTION = dict.fromkeys(("attn_q", "attn_k", "attn_v"), "attention_bias")
_MLP = dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), "mlp_bias")

_LLAMA = ModelArchitecture(
    name="llama",
    fields=_llama,
    changes=_ROTATED,
    defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    biases={**_ATTENTION, "attn_output": "attention_bias", **_MLP},
)
_QWEN = {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768}
_GEMMA3_TEXT = ModelArchitecture(
    name="gemma3",
    fields=_gemma3,
    changes=_NORMS,
    unused=_NOT_TEXT,
    prefixes={
        "language_model.model.": "model.",
        "model.language_model.": "model.",
        "language_model.lm_head.": "lm_head.",
    },
    defaults={
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
        "rope_theta": 1_000_000.0,
    },
    biases=_ATTENTION,
)
_BERT_ARCHITECTURE = ModelArchitecture(
    name="bert",
    fields=_bert,
    unused=("pooler.", "cls.", "embeddings.position_ids"),
    prefixes={"bert.": ""},
    defaults={"layer_norm_eps": 1e-12, "max_position_embeddings": 512},
    biases=dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"), ""),
    is_embedding=True,
)

ARCHITECTURES = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": ModelArchitecture(
        name="llama",
        fields=_mistral,
        changes=_ROTATED,
        defaults={
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
        },
    ),
    "Qwen2ForCausalLM": ModelArchitecture(
        name="qwen2",
        fields=_qwen2,
        defaults={**_QWEN, "sliding_window": 4096},
        biases=dict.fromkeys(_ATTENTION, ""),
    ),
    "Qwen3ForCausalLM": ModelArchitecture(
        name="qwen3",
        fields=_qwen,
        defaults={**_QWEN, "head_dim": 128, "sliding_window": 4096},
        biases=_ATTENTION,
    ),
    "Gemma2ForCausalLM": ModelArchitecture(
        name="gemma2",
        fields=_gemma2,
        changes=_NORMS,
        defaults={
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "rms_norm_eps": 1e-6,
        },
        biases=_ATTENTION,
    ),
    "Gemma3ForCausalLM": _GEMMA3_TEXT,
    "Gemma3ForConditionalGeneration": _GEMMA3_TEXT,
    "Phi3ForCausalLM": ModelArchitecture(
        name="phi3",
        fields=_phi3,
        defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
        ffn_up_multiple=2,
    ),
    "BertModel": _BERT_ARCHITECTURE,
    "BertForMaskedLM": _BERT_ARCHITECTURE,
}
"""By the name in ``config.json``."""


# ----------------------------------------------------------------- options with a fixed value


_FULL, _WINDOW = "full_attention", "sliding_attention"
_GATED_ACTIVATIONS = ("silu", "swish")
_GEMMA_ACTIVATIONS = ("gelu_pytorch_tanh", "gelu_new", "gelu_python_tanh")
_BERT_ACTIVATIONS = ("gelu", "gelu_python", *_GEMMA_ACTIVATIONS)
"""Names of llama.cpp's activation function there, equal up to rounding."""


def _check_unquantized(config: JsonObject) -> None:
    """:raises BadRequest: llama.cpp does not support the option; likewise all functions below."""
    if "quantization_config" in config.values:
        raise config.unsupported(
            '"quantization_config"', "is given; quantized weights are not read"
        )


def _check_flag(config: JsonObject, name: str, *, required: bool) -> None:
    if config.flag(name, default=required) != required:
        reason = f"is not {str(required).lower()}, as llama.cpp has it"
        raise config.unsupported(f'"{name}"', reason)


def _check_activation(config: JsonObject, name: str, allowed: Sequence[str]) -> None:
    found = config.text(name, allowed[0])
    if found not in allowed:
        raise config.unsupported(f'"{name}"', f"the activation is {found[:80]}, not {allowed[0]}")


def _check_attention_scale(config: JsonObject, head: int, largest: int) -> None:
    """llama.cpp scales attention by the head's dimensions; in the ``largest`` model of a series (by
    its number of layers) by width over heads.
    """
    scale = head
    if config.count("num_hidden_layers") == largest:
        scale = config.count("hidden_size") // config.count("num_attention_heads")
    if config.number("query_pre_attn_scalar") != scale:
        raise config.unsupported(
            '"query_pre_attn_scalar"',
            f"is not {scale}: attention is scaled in a way that llama.cpp does not",
        )


def _check_pattern(config: JsonObject, every: int, ordinal: str) -> None:
    """In llama.cpp, layer number ``every`` and its multiples have full attention."""
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
    raise config.unsupported(option, f"every {ordinal} layer must be the one without a window")


def _check_no_window(config: JsonObject, *, is_used: bool = True) -> None:
    """llama.cpp has no attention windows in such networks: a window must cover the context."""
    types = config.items("layer_types", [_WINDOW if is_used else _FULL])
    size = config.count("max_position_embeddings")
    window = size if config.is_null("sliding_window") else config.count("sliding_window", size)
    if any(kind not in {_FULL, _WINDOW} for kind in types):
        raise config.unsupported('"layer_types"', "has a kind that llama.cpp does not know")
    if is_used and _WINDOW in types and window < size:
        raise config.unsupported(
            '"sliding_window"',
            f'is {window}, and "max_position_embeddings" {size}: llama.cpp has no windows in such '
            "a network. With a context of no more than the window it converts exactly",
        )


def _check_cap(config: JsonObject, name: str) -> None:
    if config.is_null(name) or config.number(name) <= 0:
        raise config.unsupported(f'"{name}"', "is off, which llama.cpp cannot do in such a network")


def _check_whole_heads(config: JsonObject, head: int) -> None:
    """In such networks, llama.cpp requires heads that add up to the width."""
    if head * config.count("num_attention_heads") != config.count("hidden_size"):
        raise config.unsupported('"head_dim"', "times the heads is not the width")

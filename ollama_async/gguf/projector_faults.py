"""Finds projectors that the engine library cannot use: ones for other models, and ones for whose
recordings it would abort its process.

The library compares widths when it loads a model; here ``create`` does so before. The widths are
those of tensors, because ``clip.vision.projection_dim`` has another meaning in files of LLaVA.
"""

from __future__ import annotations

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.metadata import TypedMetadata
from ollama_async.gguf.reader import GgufHeader

_WIDTHS = {
    **dict.fromkeys(("mlp", "pixtral", "lightonocr", "lfm2", "kimivl"), ("mm.2.weight", 1)),
    **dict.fromkeys(("qwen2vl_merger", "qwen2.5vl_merger"), ("mm.2.bias", 0)),
    **dict.fromkeys(("idefics3", "llama4"), ("mm.model.fc.weight", 1)),
    **dict.fromkeys(("ultravox", "voxtral"), ("mm.a.mlp.2.weight", 1)),
    "gemma3": ("mm.input_projection.weight", 0),
    "internvl": ("mm.model.mlp.3.weight", 1),
    "qwen2a": ("mm.a.fc.weight", 1),
}
"""By projector type: the tensor, and its dimension, with the width of the embeddings."""

_NORMALIZED = "mm.3.weight"
"""A file of type ``mlp`` that has this tensor is of another type for the library."""

_DEEP = ("n_deepstack_layers", "deepstack_mapping")
"""Text models with these take wider embeddings."""

_STACKING = ("ultravox", "voxtral", "meralion")
"""Types that join several frames of a recording into one."""
_FRAMES = 3000
"""Of each chunk of a recording; the first layer halves them."""


def check_projector(projector: GgufHeader, base: GgufHeader) -> None:
    """:raises BadRequest: its embeddings do not fit the base. Unknown types are accepted."""
    metadata = TypedMetadata(base)
    taken = metadata.count("embedding_length")
    if not taken or any(metadata.has(key) for key in _DEEP):
        return
    shapes = {tensor.name: tensor.shape for tensor in projector.tensors}
    for kind in _types(projector):
        name, dimension = _WIDTHS.get(kind, ("", 0))
        shape = shapes.get(name, ())
        if dimension >= len(shape) or (kind == "mlp" and _NORMALIZED in shapes):
            continue
        if shape[dimension] != taken:
            raise BadRequest(
                f"the projector is for another model: its embeddings have {shape[dimension]}"
                f" dimensions, those of the base model {taken}"
            )


def find_audio_fault(projector: GgufHeader) -> str:
    """Why the library would abort on any recording; "": it does not."""
    metadata = TypedMetadata(projector)
    key = "audio.projector.stack_factor"
    if not metadata.has(key) or not any(kind in _STACKING for kind in _types(projector)):
        return ""
    factor, width = metadata.count(key), metadata.count("audio.embedding_length")
    if factor == 0:
        return f"{metadata.architecture}.{key} is 0"
    counted = -(-_FRAMES // factor) // 2
    made = _stacks(_FRAMES // 2, factor, width)
    if made == counted:
        return ""
    return (
        f"with {metadata.architecture}.{key} {factor}, the engine library counts {counted}"
        f" embeddings for a recording, but makes {made}"
    )


def _stacks(frames: int, factor: int, width: int) -> int:
    if factor == 1 or not width:
        return frames
    stride = factor * width
    # The library's rounding up, which is none where the stride is not a power of two. So real
    # models with a factor of 8 work.
    padded = (frames * width + stride - 1) & ~(stride - 1)
    return padded // stride


def _types(projector: GgufHeader) -> set[str]:
    """One for all it reads, or one each for images and recordings."""
    metadata = TypedMetadata(projector)
    prefixes = ("", "vision.", "audio.")
    return {metadata.text(f"{metadata.architecture}.{each}projector_type") for each in prefixes}

"""The projector of a model in the library (``libmtmd``): embeddings of images and recordings.

Only the parts that compute are used. The library's helpers also read files, decode more formats and
start ``ffmpeg``; here the caller brings pixels and samples.
"""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import llama_cpp.mtmd_cpp as mtmd
import numpy as np

from ollama_async.core.errors import LoadFailed
from ollama_async.gguf.projector_faults import find_audio_fault
from ollama_async.gguf.reader import read_header
from ollama_async.workers.child.engines.engine import (
    EngineError,
    Layout,
    Pixels,
    Progress,
    Samples,
    SpanEmbeddings,
    SpanShape,
)
from ollama_async.workers.child.engines.llama_model import FLASH_ATTENTION, LogCapture
from ollama_async.workers.child.engines.llama_threads import threads_of
from ollama_async.workers.child.engines.untyped_projector import typed_projector
from ollama_async.workers.load_spec import LoadSpec

_MARKER = f"<{secrets.token_hex(16)}>".encode()
_DIMENSIONS = 4  # of positions, in models that have more than one

_FLEXIBLE = ("qwen2vl", "qwen25vl", "qwen3vl", "qwen3vlmoe")
"""Architectures that read images in their own size, within limits."""
_IMAGE_TOKENS = (1024, 4096)
"""The limits. Smaller images are enlarged, as in Ollama: these models need it to find places in an
image. No image has more than half of the context; in Ollama, photographs do not fit in 4096."""


def open_projector(
    spec: LoadSpec, model: Any, progress: Progress, log: LogCapture
) -> LlamaProjector:
    """Load ``spec.projector`` for ``model``.

    :raises LoadFailed: with the library's reason.
    """
    mtmd.mtmd_helper_log_set(log.callback, ctypes.c_void_p(0))
    params = mtmd.mtmd_context_params_default()
    params.use_gpu = spec.gpu_layers != 0
    params.print_timings = False
    params.n_threads = threads_of(spec)
    params.media_marker = _MARKER
    params.flash_attn_type = FLASH_ATTENTION[spec.flash_attention]
    if _architecture(model) in _FLEXIBLE:
        least, most = _IMAGE_TOKENS
        params.image_min_tokens = least
        params.image_max_tokens = max(least, min(most, spec.num_ctx // 2))

    def report(fraction: float, _data: object) -> bool:
        progress(fraction)
        return True

    params.progress_callback = mtmd.mtmd_progress_callback(report)
    with typed_projector(spec.projector) as path:
        context = mtmd.mtmd_init_from_file(os.fsencode(path), model, params)
    if not context:
        raise LoadFailed(f"unable to load the projector: {_reason(log, path)}")
    fault = find_audio_fault(read_header(Path(spec.projector)))
    return LlamaProjector(context, model, most=spec.batch_size, audio_fault=fault)


def _reason(log: LogCapture, path: str) -> str:
    """The library's explanation. It comes after the path, or in a line of its own."""
    after_path = (line.partition(f"'{path}': ")[2] for line in log.errors)
    reason = next(filter(None, after_path), "") or log.reason().removeprefix("error: ")
    return "; ".join(reason.splitlines())


def _architecture(model: Any) -> str:
    buffer = ctypes.create_string_buffer(64)
    lib.llama_model_meta_val_str(model, b"general.architecture", buffer, len(buffer))
    return buffer.value.decode(errors="replace")


class LlamaProjector:
    """See :class:`~ollama_async.workers.child.engines.engine.Projector`. Owns the context.

    ``most``: embeddings that the model can evaluate at once. ``audio_fault``: why it reads no
    recordings although it could, or "".
    """

    def __init__(self, context: Any, model: Any, *, most: int, audio_fault: str = "") -> None:
        self._context = context
        self._width: int = lib.llama_model_n_embd_inp(model)
        self._most = most
        self._audio_fault = audio_fault
        self._has_dimensions = bool(mtmd.mtmd_decode_use_mrope(context))
        self.sees = bool(mtmd.mtmd_support_vision(context))
        self.sample_rate: int = max(0, mtmd.mtmd_get_audio_sample_rate(context))

    def layout(self, shape: tuple[int, ...]) -> Layout:
        if len(shape) == 1 and self._audio_fault:
            raise EngineError(f"this model cannot hear: {self._audio_fault}")
        with self._chunks(shape, None) as chunks:
            layout = tuple(
                SpanShape(*self._size_of(chunk)) if is_span else _tokens_of(chunk)
                for chunk, is_span in chunks
            )
            for chunk, is_span in chunks:
                if is_span and not self._is_causal(chunk) and self._size_of(chunk)[0] > self._most:
                    raise EngineError(
                        f"the image takes {self._size_of(chunk)[0]} tokens at once, but a batch of"
                        f" this model has at most {self._most} (num_batch)"
                    )
        return layout

    def decode_audio(self, data: bytes) -> Samples:
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        is_only_counted = False
        bitmap = mtmd.mtmd_helper_bitmap_init_from_buf(
            self._context, buffer, len(data), is_only_counted
        )
        if not bitmap:
            raise EngineError("the recording cannot be decoded")
        try:
            size = mtmd.mtmd_bitmap_get_n_bytes(bitmap)
            if not mtmd.mtmd_bitmap_is_audio(bitmap) or not size:
                raise EngineError("the recording cannot be decoded")
            content = ctypes.string_at(mtmd.mtmd_bitmap_get_data(bitmap), size)
        finally:
            mtmd.mtmd_bitmap_free(bitmap)
        return np.frombuffer(content, np.float32)

    def encode(self, data: Pixels | Samples) -> list[SpanEmbeddings]:
        with self._chunks(data.shape, data) as chunks:
            return [self._encode(chunk) for chunk, is_span in chunks if is_span]

    def close(self) -> None:
        mtmd.mtmd_free(self._context)

    @contextmanager
    def _chunks(
        self, shape: tuple[int, ...], data: Pixels | Samples | None
    ) -> Iterator[list[tuple[Any, bool]]]:
        """The library's chunks, and whether each is a span and not tokens. Without ``data`` they
        can only be counted.
        """
        chunks = mtmd.mtmd_input_chunks_init()
        bitmap = _bitmap(shape, data)
        try:
            text = mtmd.mtmd_input_text(_MARKER, len(_MARKER), False, True)
            bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
            if mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(text), bitmaps, 1) != 0:
                raise EngineError("the model cannot read this image or recording")
            found = [
                mtmd.mtmd_input_chunks_get(chunks, index)
                for index in range(mtmd.mtmd_input_chunks_size(chunks))
            ]
            text_type = mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT
            yield [(chunk, mtmd.mtmd_input_chunk_get_type(chunk) != text_type) for chunk in found]
        finally:
            mtmd.mtmd_bitmap_free(bitmap)
            mtmd.mtmd_input_chunks_free(chunks)

    def _size_of(self, chunk: Any) -> tuple[int, int]:
        return mtmd.mtmd_input_chunk_get_n_tokens(chunk), mtmd.mtmd_input_chunk_get_n_pos(chunk)

    def _is_causal(self, chunk: Any) -> bool:
        return not mtmd.mtmd_decode_use_non_causal(self._context, chunk)

    def _encode(self, chunk: Any) -> SpanEmbeddings:
        if mtmd.mtmd_encode_chunk(self._context, chunk) != 0:
            raise EngineError("the projector failed")
        tokens, positions = self._size_of(chunk)
        output = mtmd.mtmd_get_output_embd(self._context)
        vectors = np.ctypeslib.as_array(output, (tokens, self._width)).copy()
        if not np.isfinite(vectors).all():
            raise EngineError("the projector computed numbers that are not finite")
        offsets = slopes = None
        if self._has_dimensions:
            offsets, slopes = _positions_of(chunk, tokens)
        return SpanEmbeddings(vectors, positions, self._is_causal(chunk), offsets, slopes)


def _bitmap(shape: tuple[int, ...], data: Pixels | Samples | None) -> Any:
    if len(shape) == 1:
        samples = None
        if data is not None:
            samples = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return mtmd.mtmd_bitmap_init_from_audio(shape[0], samples)
    pixels = None
    if data is not None:
        pixels = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    return mtmd.mtmd_bitmap_init(shape[1], shape[0], pixels)


def _tokens_of(chunk: Any) -> tuple[int, ...]:
    count = ctypes.c_size_t(0)
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    return tuple(tokens[: count.value])


def _positions_of(chunk: Any, tokens: int) -> tuple[Any, Any]:
    """Offsets and slopes: the positions for a span at 0, and how they grow with its position."""
    image = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
    if not image:  # a recording: the same in all dimensions
        line = np.arange(tokens, dtype=np.int32)
        return np.tile(line, (_DIMENSIONS, 1)), np.ones((_DIMENSIONS, tokens), np.int32)
    at = [_image_positions(image, tokens, begin) for begin in (0, 1)]
    return at[0], at[1] - at[0]


def _image_positions(image: Any, tokens: int, begin: int) -> Any:
    buffer = (mtmd.mtmd_decoder_pos * tokens)()
    mtmd.mtmd_helper_image_get_decoder_pos(image, begin, buffer)
    fields = np.frombuffer(buffer, np.uint32).reshape(tokens, _DIMENSIONS).astype(np.int32)
    return np.ascontiguousarray(fields[:, [0, 2, 1, 3]].T)  # t, y, x, z

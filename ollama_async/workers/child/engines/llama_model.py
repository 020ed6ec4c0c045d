"""A model of the library: loads it, creates its context, captures the log, and tokenizes.

Warnings and errors of the log go to stderr as they come (the parent keeps the tail of it). The last
errors explain a failed load. The sizes of allocated buffers are added up, since the library reports
them nowhere else.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import unicodedata
from collections import deque
from functools import cached_property
from typing import Any, NamedTuple

import llama_cpp.llama_cpp as lib

from ollama_async.core.errors import LoadFailed
from ollama_async.workers.child.engines.engine import (
    EngineError,
    Progress,
)
from ollama_async.workers.child.engines.llama_kernels import KernelChoice
from ollama_async.workers.child.engines.llama_threads import threads_of
from ollama_async.workers.child.engines.text_cutter import TextCutter
from ollama_async.workers.child.engines.unknown_cutter import UnknownCutter
from ollama_async.workers.load_spec import LoadSpec

_WARN, _ERROR, _CONTINUED = 3, 4, 5
_BUFFER = re.compile(r"^\w+: +(\S+) +(model|LoRA|KV|RS|compute|output) buffer size = +([\d.]+) MiB")
_KEY_ROTATION = re.compile(r"^\w+: attn_rot_k = ([01])")
_OF_CONTEXT = ("KV", "RS", "compute", "output")
_PROCESSOR = ("CPU", "AMX")  # AMX: main memory, laid out for the tile unit of Intel's processors
_HARMLESS = (
    "cannot use buft",  # for each tensor of an adapter, where weights are repacked
    "possible training context overflow",  # a batch of short inputs may be longer than any of them
)
_ORIGIN = re.compile(r"^\w+: ")


class LogCapture:
    """Captures the process-wide log until the next capture is made; one per load.

    ``bytes_by_kind`` maps (kind, is on a device) to bytes. ``key_rotations``: of each KV cache,
    whether its keys are rotated, which makes them easier to quantize. ``callback``: for libraries
    beside libllama.
    """

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=8)
        self.bytes_by_kind: dict[tuple[str, bool], int] = {}
        self.key_rotations: list[bool] = []
        self._level = 0
        _active[:] = [self]
        self.callback = _callback
        lib.llama_log_set(_callback, ctypes.c_void_p(0))

    def reason(self) -> str:
        """The library's own explanation of a failure."""
        lines = [_ORIGIN.sub("", line) for line in self.errors]
        # "failed to load model" comes last; an earlier line says why
        reasons = (line for line in lines if "failed to load model" not in line)
        return next(reasons, "") or "the library gave no reason"

    def bytes_of(self, *kinds: str) -> int:
        return sum(size for (kind, _), size in self.bytes_by_kind.items() if kind in kinds)

    def forget_context(self) -> None:
        """The context that was created has been freed: its buffers do not count."""
        self.key_rotations.clear()
        for key in self.bytes_by_kind.copy():
            if key[0] in _OF_CONTEXT:
                del self.bytes_by_kind[key]

    def device_bytes(self) -> int:
        return sum(size for (_, is_device), size in self.bytes_by_kind.items() if is_device)

    def write(self, level: int, raw: bytes) -> None:
        if level != _CONTINUED:
            self._level = level
        text = raw.decode(errors="replace")
        if self._level >= _WARN and not any(harmless in text for harmless in _HARMLESS):
            sys.stderr.write(text)
        line = text.strip()
        if self._level == _ERROR and line:
            self.errors.append(line)
        if rotation := _KEY_ROTATION.match(line):
            self.key_rotations.append(rotation.group(1) == "1")
        buffer = _BUFFER.match(line)
        if buffer:
            name, kind, mebibytes = buffer.groups()
            is_device = not name.startswith(_PROCESSOR) and not name.endswith("_Host")
            size = int(float(mebibytes) * 1024 * 1024)
            key = (kind, is_device)
            self.bytes_by_kind[key] = self.bytes_by_kind.get(key, 0) + size


def _write(level: int, raw: bytes, _data: Any) -> None:
    for log in _active:
        log.write(level, raw)


_active: list[LogCapture] = []
_callback = lib.llama_log_callback(_write)  # lives forever: the library keeps only a pointer


INCOMPATIBLE_HINT = (
    "this model may be incompatible with your version of Ollama. "
    "If you previously pulled this model, try updating it by running `ollama pull`"
)
"""Ollama's advice after a file that the library cannot run."""

_CACHE_TYPES = {
    "f32": lib.GGML_TYPE_F32,
    "f16": lib.GGML_TYPE_F16,
    "bf16": 30,  # the binding does not name it
    "q8_0": lib.GGML_TYPE_Q8_0,
    "q5_1": lib.GGML_TYPE_Q5_1,
    "q5_0": lib.GGML_TYPE_Q5_0,
    "q4_1": lib.GGML_TYPE_Q4_1,
    "q4_0": lib.GGML_TYPE_Q4_0,
    "iq4_nl": lib.GGML_TYPE_IQ4_NL,
}
FLASH_ATTENTION = {
    "auto": lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def open_model(
    spec: LoadSpec, progress: Progress, log: LogCapture, *, safe: bool, kernels: KernelChoice
) -> Any:
    """Read the weights. ``safe``: do not repack them, see ``use_extra_bufts``.

    :raises LoadFailed: with the library's reason.
    """
    params = lib.llama_model_default_params()
    params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if spec.use_mmap else lib.LLAMA_LOAD_MODE_NONE
    params.n_gpu_layers = spec.gpu_layers
    params.use_extra_bufts = not safe
    if kernels.kernels:
        kernels.kernels.configure_packing(threads_of(spec), is_mapped=spec.use_mmap)

    def report(fraction: float, _data: object) -> bool:
        progress(fraction)
        return True

    params.progress_callback = lib.llama_progress_callback(report)
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(os.fsencode(spec.model), params)
    if not model:
        reason = log.reason()
        raise LoadFailed(f"unable to load model: {reason}: {INCOMPATIBLE_HINT}")
    if lib.llama_model_has_encoder(model) or lib.llama_model_is_diffusion(model):
        lib.llama_model_free(model)
        raise LoadFailed("unable to load model: only decoder models can be served")
    return model


def open_adapters(spec: LoadSpec, model: Any, log: LogCapture) -> list[Any]:
    """Read the LoRA adapters, which the model frees. Before a context is created, whose graph is
    measured with the adapters in it.

    :raises LoadFailed: with the library's reason.
    """
    adapters = []
    for path in spec.adapters:
        adapter = lib.llama_adapter_lora_init(model, os.fsencode(path))
        if not adapter:
            reason = log.reason()
            raise LoadFailed(f"unable to load adapter: {reason}")
        adapters.append(adapter)
    return adapters


def apply_adapters(context: Any, adapters: list[Any]) -> None:
    """All of them, with scale 1."""
    count = len(adapters)
    pointers = (lib.llama_adapter_lora_p_ctypes * count)(*adapters)
    scales = (ctypes.c_float * count)(*[1.0] * count)
    lib.llama_set_adapters_lora(context, pointers, count, scales)


def read_metadata(model: Any, key: bytes) -> bytes:
    """A short value of the model file; b"" without it."""
    buffer = ctypes.create_string_buffer(256)
    size: int = lib.llama_model_meta_val_str(model, key, buffer, len(buffer))
    return buffer.value if size > 0 else b""


def common_context_params(spec: LoadSpec) -> Any:
    """The library's parameters, with what holds for every kind of model.

    :raises LoadFailed: the type of the KV cache is unknown.
    """
    params = lib.llama_context_default_params()
    params.n_threads = params.n_threads_batch = threads_of(spec)
    params.flash_attn_type = FLASH_ATTENTION[spec.flash_attention]
    if spec.cache_type not in _CACHE_TYPES:
        known = ", ".join(_CACHE_TYPES)
        raise LoadFailed(f"unknown KV cache type {spec.cache_type!r}; known are {known}")
    params.type_k = params.type_v = _CACHE_TYPES[spec.cache_type]
    params.no_perf = True
    return params


def create_context(model: Any, params: Any, log: LogCapture, size: str) -> Any:
    """Allocate what ``params`` ask for; ``size`` describes it.

    :raises LoadFailed: not enough memory, or the library refuses the combination of options.
    """
    context = lib.llama_init_from_model(model, params)
    if context:
        return context
    reason = log.reason()
    if "alloc" in reason:
        raise LoadFailed(f"not enough memory for {size}: {reason}")
    raise LoadFailed(f"unable to create the context: {reason}")


_COMPOSES = b"ollama_async.tokenizer.nfc"
"""Key in files that we converted: the tokenizer normalizes text to NFC, the library does not."""
_MARK = re.compile(r"(<[^<>\s]*>)")


SHORT_BYTES = 4 << 10
"""A text that is tokenized at once."""

_SAMPLE = b"a"

_UNKNOWN = lib.LLAMA_TOKEN_ATTR_UNKNOWN
_CONTROL = lib.LLAMA_TOKEN_ATTR_CONTROL
_USER_DEFINED = lib.LLAMA_TOKEN_ATTR_USER_DEFINED
_STRIPS_BEFORE = lib.LLAMA_TOKEN_ATTR_LSTRIP
_STRIPS_AFTER = lib.LLAMA_TOKEN_ATTR_RSTRIP


class _Cutters(NamedTuple):
    """What cuts a text into the pieces that the library is given."""

    by_special: TextCutter
    by_unknown: UnknownCutter | None  # for SentencePiece


class LlamaTokenizer:
    """The tokenizer of a loaded ``model``, the library's pointer, which must outlive this object.

    Thread-safe: the library's vocabulary is read-only after the load, each call of
    ``llama_tokenize`` has its own state, and ctypes releases the GIL. So other threads may tokenize
    while the step thread decodes.
    """

    def __init__(self, model: Any) -> None:
        self._vocab = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.adds_bos: bool = lib.llama_vocab_get_add_bos(self._vocab)
        self.bos = self._text(lib.llama_vocab_bos(self._vocab))
        self.eos = self._text(lib.llama_vocab_eos(self._vocab))
        self.suppressed = self._suppressed()
        buffer = ctypes.create_string_buffer(64)
        size = lib.llama_model_meta_val_str(model, _COMPOSES, buffer, len(buffer))
        self._composes = size > 0 and buffer.value == b"true"
        self._pieces: list[bytes | None] = [None] * self.size  # filled on demand

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of ``text``; lone surrogates count as "?".

        :raises EngineError: the library cannot tokenize this text.
        """
        data = (_normalize_nfc(text) if self._composes else text).encode(errors="replace")
        if len(data) <= SHORT_BYTES:
            return self._tokenize(data, add_special, parse_special)
        cutters = self._all_cutters if parse_special else self._plain_cutters
        front, back = self._ends if add_special else ([], [])
        tokens = list(front)
        for part in cutters.by_special.pieces(data):
            pieces = cutters.by_unknown.pieces(part) if cutters.by_unknown else [part]
            for number, piece in enumerate(pieces):
                found = self._tokenize(piece, False, parse_special)
                tokens += found[self._space_count :] if number else found
        return tokens + back

    def _tokenize(self, data: bytes, add_special: bool, parse_special: bool) -> list[int]:
        """:raises EngineError: the library cannot tokenize this text."""
        size = len(data) + 8  # no token is shorter than a byte; space for BOS, EOS, a prefix
        for _ in range(2):
            tokens = (ctypes.c_int32 * size)()
            count: int = lib.llama_tokenize(
                self._vocab, data, len(data), tokens, size, add_special, parse_special
            )
            if count >= 0:
                return tokens[:count]
            size = -count
        raise EngineError("the tokenizer refused the text")

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        """The tokens that are added before and after a text."""
        bare, whole = (self._tokenize(_SAMPLE, adds, False) for adds in (False, True))
        at = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
        return whole[:at], whole[at + len(bare) :]

    @cached_property
    def _space_count(self) -> int:
        """How many tokens the space is that the library puts before a text. An unknown character
        does not merge with it, and is a token for each of its bytes.
        """
        assert self._all_cutters.by_unknown
        unknown = self._all_cutters.by_unknown.example.encode()
        return len(self._tokenize(unknown, False, False)) - len(unknown)

    @cached_property
    def _all_cutters(self) -> _Cutters:
        return self._make_cutters(_CONTROL | _UNKNOWN | _USER_DEFINED, 0)

    @cached_property
    def _plain_cutters(self) -> _Cutters:
        """Without control tokens, whose names are plain text then."""
        return self._make_cutters(_USER_DEFINED, _CONTROL | _UNKNOWN)

    def _make_cutters(self, some: int, none: int) -> _Cutters:
        """For the tokens with ``some`` of the attributes and with ``none`` of the others."""
        texts, special, strips_after = [], {}, False
        for token in range(self.size):  # takes some 0.1 s
            attributes: int = lib.llama_vocab_get_attr(self._vocab, token)
            text: bytes = lib.llama_vocab_get_text(self._vocab, token) or b""
            texts.append(text)
            if attributes & some and not attributes & none:
                special[text] = bool(attributes & _STRIPS_BEFORE)
                strips_after |= bool(attributes & _STRIPS_AFTER)
        by_special = TextCutter(special, strips_after=strips_after)
        if lib.llama_vocab_type(self._vocab) != lib.LLAMA_VOCAB_TYPE_SPM:
            return _Cutters(by_special, None)
        strips_before = any(special.values())
        by_unknown = UnknownCutter(
            texts, special, strips_before=strips_before, strips_after=strips_after
        )
        return _Cutters(by_special, by_unknown)

    def piece(self, token: int) -> bytes:
        if not 0 <= token < self.size:
            return b""  # the library aborts the process on these
        piece = self._pieces[token]
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token, with_control=False)
        return piece

    def piece_with_control(self, token: int) -> bytes:
        return self._read_piece(token, with_control=True) if 0 <= token < self.size else b""

    def is_end(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self._vocab, token))

    def _read_piece(self, token: int, *, with_control: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        read = lib.llama_token_to_piece
        size = read(self._vocab, token, buffer, len(buffer), 0, with_control)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = read(self._vocab, token, buffer, len(buffer), 0, with_control)
        return buffer.raw[: max(size, 0)]

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        raw: bytes | None = lib.llama_vocab_get_text(self._vocab, token)
        return raw.decode(errors="replace") if raw else ""

    def _suppressed(self) -> list[int]:
        """Tokens that must never be sampled, according to the model file."""
        count = ctypes.c_int32(0)
        tokens = lib.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(count))
        return list(tokens[: count.value]) if tokens else []


def _normalize_nfc(text: str) -> str:
    """As tokenizers do it: between marks, so that no mark is composed with what follows."""
    return "".join(unicodedata.normalize("NFC", part) for part in _MARK.split(text))

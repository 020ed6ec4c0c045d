"""Engine ``llama_cpp`` for embedding models.

All inputs of a batch are sequences of one ``llama_batch``, which the library evaluates in one piece
(``n_ubatch``): an encoder's tokens attend to each other in both directions, and pooling needs all
of an input's tokens. Only where a token attends to none behind it and the last one counts, a long
input is evaluated in several steps; there the logits of all tokens, which the library computes for
nothing, would take gigabytes. Models with a KV cache have one for a batch or the longest input,
shared by sequences (``kv_unified``) and cleared after each batch.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import llama_cpp.llama_cpp as lib
import msgspec

from ollama_async.core.errors import LoadFailed
from ollama_async.workers.child.engines.embedding import EmbeddingFacts, PairFormat, Result
from ollama_async.workers.child.engines.engine import EngineError, Progress, Row
from ollama_async.workers.child.engines.llama_batch import FAILURES, LlamaBatch
from ollama_async.workers.child.engines.llama_kernels import (
    STOCK,
    KernelChoice,
    KernelUse,
    try_kernels,
)
from ollama_async.workers.child.engines.llama_model import (
    LlamaTokenizer,
    LogCapture,
    apply_adapters,
    common_context_params,
    create_context,
    open_adapters,
    open_model,
    read_metadata,
)
from ollama_async.workers.child.engines.llama_threads import LlamaThreads
from ollama_async.workers.load_spec import LoadSpec

_MAX_SEQUENCES = 128
"""Inputs of a batch. The library allows 256; it makes tables of tokens times sequences."""

_LEAST_BATCH = 32

_POOLING_TYPES = (b"0", b"1", b"2", b"3", b"4")

_LONG_STEP = 512
"""Tokens from which on a step asks whether it is abandoned. In a shorter one, all threads would
wait too often for the interpreter's lock."""

_FLOAT_BYTES = 4

_SOFTMAXED = {b"qwen3", b"qwen3vl"}
"""Architectures whose classifier the library follows by a softmax over its outputs."""

_TINY = 1e-37  # about the least normal float32


def load(
    spec: LoadSpec, progress: Progress, *, safe: bool = False, kernels: KernelChoice = STOCK
) -> LlamaEmbedding:
    """Load ``spec.model``. ``safe``: avoid kernels that crash on this machine, for slower ones.
    ``kernels``: our own, or why they are not used.

    :raises LoadFailed: why the model cannot be run here.
    """
    threads = LlamaThreads(spec)
    log = LogCapture()
    model = open_model(spec, progress, log, safe=safe, kernels=kernels)
    try:
        adapters = open_adapters(spec, model, log)
        context = _open_context(spec, model, log)
        if spec.embedding == "split" and not lib.llama_get_causal_attn(context):
            lib.llama_free(context)  # the file did not say so, but the architecture looks ahead
            log.forget_context()
            spec = msgspec.structs.replace(spec, embedding="whole")
            context = _open_context(spec, model, log)
    except BaseException:
        lib.llama_model_free(model)
        raise
    apply_adapters(context, adapters)
    use = try_kernels(kernels, context, _evaluation_of(context))
    threads.loaded()
    return LlamaEmbedding(spec, model, context, log, threads, use)


def _open_context(spec: LoadSpec, model: Any, log: LogCapture) -> Any:
    """:raises LoadFailed: not enough memory, or the library refuses the combination of options."""
    params = common_context_params(spec)
    batch_size = max(spec.batch_size, _LEAST_BATCH)
    params.n_ctx = max(_longest(spec, model), batch_size)
    is_split = spec.embedding == "split"
    params.n_batch = params.n_ubatch = batch_size if is_split else params.n_ctx
    params.n_seq_max = min(_sequences(model), params.n_batch)
    params.embeddings = True
    params.kv_unified = True
    pooling = read_metadata(model, read_metadata(model, b"general.architecture") + b".pooling_type")
    if not pooling:  # the library would not pool at all
        params.pooling_type = lib.LLAMA_POOLING_TYPE_MEAN
    elif pooling not in _POOLING_TYPES:  # it would abort the process
        raise LoadFailed(f"unable to load model: unknown pooling type {pooling.decode()}")
    return create_context(model, params, log, f"inputs of {params.n_ctx} tokens")


def _longest(spec: LoadSpec, model: Any) -> int:
    """Tokens of the longest input: beyond the trained context an encoder has no positions."""
    trained: int = lib.llama_model_n_ctx_train(model)
    return min(spec.num_ctx, trained)


def _sequences(model: Any) -> int:
    """Recurrent layers split a batch of inputs that differ in length, and pooling must not."""
    is_split = lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model)
    return 1 if is_split else _MAX_SEQUENCES


def _evaluation_of(context: Any) -> Callable[[Any, Any], int]:
    """The library's function that evaluates a batch."""
    has_memory = bool(lib.llama_get_memory(context))
    evaluate: Callable[[Any, Any], int] = lib.llama_decode if has_memory else lib.llama_encode
    return evaluate


class LlamaEmbedding:
    """See :class:`~.embedding.EmbeddingEngine`. Owns model and context."""

    def __init__(
        self,
        spec: LoadSpec,
        model: Any,
        context: Any,
        log: LogCapture,
        threads: LlamaThreads,
        kernels: KernelUse,
    ) -> None:
        self._model = model
        self._context = context
        self._memory = lib.llama_get_memory(context)
        self._threads = threads
        self._evaluate = _evaluation_of(context)
        tokenizer = LlamaTokenizer(model)
        self.tokenize = tokenizer.tokenize
        self.piece_with_control = tokenizer.piece_with_control
        result, self._size = _result(model, context)
        self._is_softmaxed = read_metadata(model, b"general.architecture") in _SOFTMAXED
        sequences: int = lib.llama_n_seq_max(context)
        capacity: int = lib.llama_n_batch(context)
        self._batch = LlamaBatch(capacity, sequences)
        self._split_size = capacity if spec.embedding == "split" else 0  # 0: never
        self.facts = EmbeddingFacts(
            slots=spec.slots,
            num_ctx=_longest(spec, model),
            vocab_size=tokenizer.size,
            batch_tokens=min(max(spec.batch_size, _LEAST_BATCH), capacity),
            batch_inputs=sequences,
            kernels=kernels.text,
            result=result,
            pair_format=_pair_format(model),
            weights_bytes=lib.llama_model_size(model) + log.bytes_of("LoRA"),
            cache_bytes=log.bytes_of("KV", "RS"),
            compute_bytes=log.bytes_of("compute", "output"),
            device_bytes=log.device_bytes(),
        )

    def embed(
        self, inputs: Sequence[Sequence[int]], is_abandoned: Callable[[], bool]
    ) -> list[bytes]:
        try:
            for rows in self._steps(inputs):
                self._step(rows, is_abandoned)
            return [self._read(index) for index in range(len(inputs))]
        finally:
            if self._memory:
                lib.llama_memory_clear(self._memory, False)

    def _steps(self, inputs: Sequence[Sequence[int]]) -> Iterator[list[Row]]:
        size = self._split_size
        if len(inputs) > 1 or not size:
            yield [Row(index, tokens, 0, samples=False) for index, tokens in enumerate(inputs)]
            return
        for begin in range(0, len(inputs[0]), size):
            yield [Row(0, inputs[0][begin : begin + size], begin, samples=False)]

    def _step(self, rows: Sequence[Row], is_abandoned: Callable[[], bool]) -> None:
        if rows[0].position and is_abandoned():
            raise EngineError("nobody waits for this batch")
        try:
            self._batch.fill(rows, outputs_all=True)
        except ValueError as error:
            raise EngineError(str(error)) from None
        with self._watched(is_abandoned):
            status = self._threads.evaluate(self._evaluate, self._context, self._batch.raw)
        if status != 0:
            raise EngineError(FAILURES.get(status, f"the library returned {status}"))

    @contextlib.contextmanager
    def _watched(self, is_abandoned: Callable[[], bool]) -> Iterator[None]:
        """The library asks in this thread, between two operations of a long step."""
        if self._batch.raw.n_tokens < _LONG_STEP:
            yield
            return
        abort = lib.ggml_abort_callback(lambda _data: is_abandoned())
        lib.llama_set_abort_callback(self._context, abort, None)
        try:
            yield
        finally:
            lib.llama_set_abort_callback(self._context, lib.ggml_abort_callback(0), None)

    def _read(self, sequence: int) -> bytes:
        pointer = lib.llama_get_embeddings_seq(self._context, sequence)
        if not pointer:
            raise EngineError("the model gave no vector")
        if self.facts.result != "score":
            return ctypes.string_at(pointer, self._size * _FLOAT_BYTES)
        outputs = pointer[: self._size]
        return struct.pack("<f", _logit_of_first(outputs) if self._is_softmaxed else outputs[0])

    def close(self) -> None:
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)


def _result(model: Any, context: Any) -> tuple[Result, int]:
    """What there is for each input, and how many numbers the library gives for it."""
    pooling = lib.llama_pooling_type(context)
    if pooling == lib.LLAMA_POOLING_TYPE_RANK:
        if not (outputs := lib.llama_model_n_cls_out(model)):
            raise LoadFailed("unable to load model: its classifier has no output")
        return "score", outputs
    result: Result = "none" if pooling == lib.LLAMA_POOLING_TYPE_NONE else "vector"
    return result, lib.llama_model_n_embd_out(model)


def _logit_of_first(probabilities: Sequence[float]) -> float:
    """The logarithm of how much more likely the first class is than all others; NaN stays."""
    others = sum(probabilities[1:])
    return math.log(max(probabilities[0], _TINY)) - math.log(max(others, _TINY))


def _pair_format(model: Any) -> PairFormat:
    """As llama.cpp's server puts pairs together, ``[BOS]query[EOS][SEP]document[EOS]``, of those
    tokens that the vocabulary is said to add.
    """
    template: bytes | None = lib.llama_model_chat_template(model, b"rerank")
    vocab = lib.llama_model_get_vocab(model)
    bos, sep = lib.llama_vocab_bos(vocab), lib.llama_vocab_sep(vocab)
    eos = lib.llama_vocab_eos(vocab)
    if eos < 0:
        eos = sep
    begin = [bos] if lib.llama_vocab_get_add_bos(vocab) else []
    end = [eos] if lib.llama_vocab_get_add_eos(vocab) else []
    separator = [sep] if lib.llama_vocab_get_add_sep(vocab) else []
    front, between, after = (
        tuple(token for token in tokens if token >= 0) for tokens in (begin, end + separator, end)
    )
    return PairFormat(
        template=template.decode(errors="replace") if template else "",
        front=front,
        between=between,
        end=after,
    )

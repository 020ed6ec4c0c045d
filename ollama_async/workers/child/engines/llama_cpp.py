"""Engine ``llama_cpp``: GGUF models through llama-cpp-python's low-level API.

Kernels, tokenizer, samplers and KV cache are the library's. Ours is one batch for all sequences.
Rows are sorted by slot.

With separate caches (one "stream" of the library for each slot) padding rows join what the library
would otherwise evaluate one after the other; they are removed right after the step. In a pool (one
unified cache) all rows are one pass, a copy only marks the cells of its source, and cells that
several slots share are never moved.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from itertools import accumulate, zip_longest
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp
import llama_cpp.llama_cpp as lib
import msgspec
import numpy as np

from ollama_async.core.conversation import Sampling
from ollama_async.core.errors import LoadFailed
from ollama_async.workers.child.engines import llama_state
from ollama_async.workers.child.engines.engine import (
    Constraint,
    EngineError,
    EngineFacts,
    Progress,
    Row,
    SavedState,
    SpanEmbeddings,
)
from ollama_async.workers.child.engines.kv_layout import KVLayout
from ollama_async.workers.child.engines.llama_batch import (
    FAILURES,
    INVALID_BATCH,
    LlamaBatch,
    SlotPositions,
    SpanBatch,
)
from ollama_async.workers.child.engines.llama_context import (
    OpenContext,
    max_outputs,
    open_context,
)
from ollama_async.workers.child.engines.llama_device_sampling import (
    ChainKey,
    DeviceSampling,
    chain_key,
)
from ollama_async.workers.child.engines.llama_kernels import STOCK, KernelChoice, KernelUse
from ollama_async.workers.child.engines.llama_model import (
    LlamaTokenizer,
    LogCapture,
    open_adapters,
    open_model,
)
from ollama_async.workers.child.engines.llama_padding import (
    ACCELERATOR_COST,
    CPU_COST,
    find_padding_slots,
)
from ollama_async.workers.child.engines.llama_sampling import RANDOM_SEED, CandidateArray, Sampler
from ollama_async.workers.child.engines.llama_threads import LlamaThreads
from ollama_async.workers.child.engines.logits import Logits, log_probabilities
from ollama_async.workers.load_spec import LoadSpec

if TYPE_CHECKING:
    from ollama_async.workers.child.engines.llama_projector import LlamaProjector


def _state_layout(
    spec: LoadSpec, layout: KVLayout, kernels: KernelUse, *, is_on_device: bool
) -> str:
    """See :class:`EngineFacts`. A state has a part for each buffer of the cache. Other kernels
    would have rounded its numbers in another way.
    """
    buffers = 1 if layout.is_pooled else layout.sequences
    library = Path(lib._lib._name).stat()  # noqa: SLF001  # the binding's own handle
    build = f"{llama_cpp.__version__} {library.st_size} {library.st_mtime_ns}"
    cache = f"{buffers} {spec.cache_type} {spec.flash_attention} {is_on_device}"
    return f"llama.cpp {build}, {kernels.text}, cache {cache}"


_PLAIN_CACHE_TYPES = {"f32", "f16", "bf16"}


def _can_move_keys(spec: LoadSpec, log: LogCapture) -> bool:
    """The library moves quantized keys only where it rotates them, too, which it does with heads of
    a multiple of 64 dimensions; otherwise it crashes (llama.cpp as in llama-cpp-python 0.3.36:
    ``build_rope_shift`` needs the rotation).
    """
    return spec.cache_type in _PLAIN_CACHE_TYPES or (
        bool(log.key_rotations) and all(log.key_rotations)
    )


_slot_of = attrgetter("slot")


def _bytes_of(state: SavedState) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


_ROPE_WITH_DIMENSIONS = {lib.LLAMA_ROPE_TYPE_MROPE, lib.LLAMA_ROPE_TYPE_IMROPE}

_COPY_LIMIT_BYTES = 256 * 1024 * 1024
"""Above this, copying through the saved state is not worth its memory."""


def load(
    spec: LoadSpec, progress: Progress, *, safe: bool = False, kernels: KernelChoice = STOCK
) -> LlamaCpp:
    """Load ``spec.model``. ``safe``: avoid kernels that crash on this machine, for slower ones.
    ``kernels``: our own, or why they are not used.

    :raises LoadFailed: why the model cannot be run here.
    """
    threads = LlamaThreads(spec)
    log = LogCapture()
    model = open_model(spec, progress, log, safe=safe, kernels=kernels)
    try:
        adapters = open_adapters(spec, model, log)
        projector = _open_projector(spec, model, progress, log)
        opened = open_context(spec, model, adapters, log, kernels)
    except BaseException:
        lib.llama_model_free(model)
        raise
    threads.loaded()
    return LlamaCpp(spec, model, opened, log, threads, projector)


def _open_projector(
    spec: LoadSpec, model: Any, progress: Progress, log: LogCapture
) -> LlamaProjector | None:
    """None without one; most models do without the time that importing it takes."""
    if not spec.projector:
        return None
    try:
        from ollama_async.workers.child.engines import llama_projector  # noqa: PLC0415
    except (ImportError, OSError, RuntimeError) as reason:
        raise LoadFailed(f"the engine library cannot read images: {reason}") from reason
    return llama_projector.open_projector(spec, model, progress, log)


def _computes_logits_on_device(spec: LoadSpec, model: Any, log: LogCapture) -> bool:
    """The output layer is the last one to go to an accelerator."""
    is_whole = spec.gpu_layers < 0 or spec.gpu_layers > lib.llama_model_n_layer(model)
    return bool(log.device_bytes()) and is_whole


class LlamaCpp:
    """See :class:`~ollama_async.workers.child.engines.engine.Engine`. Owns model, context and
    projector.
    """

    def __init__(
        self,
        spec: LoadSpec,
        model: Any,
        opened: OpenContext,
        log: LogCapture,
        threads: LlamaThreads,
        projector: LlamaProjector | None = None,
    ) -> None:
        self.projector = projector
        self._model = model
        self._context = context = opened.context
        layout = opened.layout
        self._memory = lib.llama_get_memory(context)
        self._tokenizer = LlamaTokenizer(model)
        self._window: int = lib.llama_model_n_swa(model)
        self._batch = LlamaBatch(lib.llama_n_batch(context), layout.sequences)
        self._batch_size = spec.batch_size
        self._positions = [SlotPositions() for _ in range(layout.sequences)]
        self._has_dimensions = lib.llama_model_rope_type(model) in _ROPE_WITH_DIMENSIONS
        self._candidates = CandidateArray(self._tokenizer.size)
        self._samplers: list[Sampler | None] = [None] * layout.sequences
        self._chain_keys: list[ChainKey | None] = [None] * layout.sequences
        self._device: DeviceSampling | None = None
        self._has_pending_moves = False  # shifts and copies that the next decode performs
        self._sharing: set[int] = set()  # slots that may have cells in common
        self._logits: Logits = np.zeros((0, 0), np.float32)
        self._logits_shape = max_outputs(layout.sequences), self._tokenizer.size
        self._logits_address = 0
        self._row_of: dict[int, int] = {}  # slots of the last step, and their rows of logits
        template: bytes | None = lib.llama_model_chat_template(model, None)
        projector_bytes = Path(spec.projector).stat().st_size if projector else 0
        can_trim = not (lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))
        self.facts = EngineFacts(
            slots=layout.slots,
            sequences=layout.sequences,
            num_ctx=spec.num_ctx,
            cells=layout.cells,
            is_pooled=layout.is_pooled,
            is_invariant=opened.kernels.is_invariant and not log.device_bytes(),
            kernels=opened.kernels.text,
            vocab_size=self._tokenizer.size,
            weights_bytes=lib.llama_model_size(model) + log.bytes_of("LoRA") + projector_bytes,
            cache_bytes=log.bytes_of("KV", "RS"),
            compute_bytes=log.bytes_of("compute", "output"),
            device_bytes=log.device_bytes() + (projector_bytes if log.device_bytes() else 0),
            chat_template=template.decode(errors="replace") if template else "",
            bos=self._tokenizer.bos,
            eos=self._tokenizer.eos,
            adds_bos=self._tokenizer.adds_bos,
            can_shift=(
                can_trim
                and bool(lib.llama_memory_can_shift(self._memory))
                and _can_move_keys(spec, log)
            ),
            can_trim=can_trim,
            can_trim_restored=can_trim and not self._window,
            can_draft=can_trim and not self._window,
            state_layout=_state_layout(
                spec, layout, opened.kernels, is_on_device=bool(log.device_bytes())
            ),
        )
        self._threads = threads
        if _computes_logits_on_device(spec, model, log):
            self.sample_on_device()
        self._pass_cost = ACCELERATOR_COST if self.facts.device_bytes else CPU_COST
        self.tokenize = self._tokenizer.tokenize
        self.piece = self._tokenizer.piece
        self.piece_with_control = self._tokenizer.piece_with_control
        self.is_end = self._tokenizer.is_end

    def sample_on_device(self, seed: int = RANDOM_SEED) -> None:
        """Where it can, see :mod:`.llama_device_sampling`."""
        if not self._tokenizer.suppressed:
            self._device = DeviceSampling(self._context, self._tokenizer.size, seed)

    def begin(
        self,
        slot: int,
        sampling: Sampling,
        prompt: Sequence[int],
        constraint: Constraint | None = None,
        *,
        needs_logits: bool = False,
    ) -> None:
        self.end(slot)
        vocab_size, num_ctx = self.facts.vocab_size, self.facts.num_ctx
        sampler = Sampler(sampling, prompt, constraint, vocab_size=vocab_size, num_ctx=num_ctx)
        self._samplers[slot] = sampler
        self._chain_keys[slot] = None if needs_logits else chain_key(sampling, sampler)

    def end(self, slot: int) -> None:
        sampler, self._samplers[slot] = self._samplers[slot], None
        if sampler:
            sampler.close()

    def step(self, rows: Sequence[Row]) -> list[int]:
        if rows[0].embeddings is not None:
            return self._step_embeddings(rows[0], rows[0].embeddings)
        self._prepare_chains([row.slot for row in rows if row.samples])
        self._evaluate(rows)
        return self._sample([row.slot for row in rows if row.samples])

    def verify(self, rows: Sequence[Row]) -> list[Iterator[int]]:
        if self._device is not None:
            self._device.detach(row.slot for row in rows)
        self._evaluate(rows)
        self._suppress(sum(1 + row.drafts for row in rows))
        ordered = sorted(rows, key=_slot_of)
        first_rows = accumulate((1 + row.drafts for row in ordered), initial=0)
        self._row_of = {row.slot: first for row, first in zip(ordered, first_rows, strict=False)}
        samplers = [self._sampler_of(row.slot) for row in rows]
        return [self._sample_row(sampler, row) for sampler, row in zip(samplers, rows, strict=True)]

    def _evaluate(self, rows: Sequence[Row]) -> None:
        """One batch; its logits are read afterwards."""
        ordered = sorted(rows, key=_slot_of)
        if self._has_dimensions:
            ordered = [
                msgspec.structs.replace(row, position=self._positions[row.slot].of(row.position))
                for row in ordered
            ]
        padding = []
        if self.facts.can_trim and not self.facts.is_pooled:
            slots = find_padding_slots(ordered, self._pass_cost, self._has_space)
            padding = [Row(slot, (0,), self._end_of(slot), samples=False) for slot in slots]
        if padding:
            ordered = sorted(ordered + padding, key=_slot_of)
        try:
            self._batch.fill(ordered)
        except ValueError as error:
            raise EngineError(str(error)) from None
        try:
            self._decode(self._batch.raw)
        finally:
            for row in padding:
                lib.llama_memory_seq_rm(self._memory, row.slot, row.position, -1)

    def _decode(self, batch: Any) -> None:
        """:raises EngineError: why it failed."""
        status = self._threads.evaluate(lib.llama_decode, self._context, batch)
        if status != INVALID_BATCH:
            self._has_pending_moves = False  # a decode begins with them
        if status != 0:
            raise EngineError(FAILURES.get(status, f"llama_decode returned {status}"))

    def logprobs(self, slot: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        return log_probabilities(self.read_logits()[self._row_of[slot]], token, top)

    def _step_embeddings(self, row: Row, embeddings: SpanEmbeddings) -> list[int]:
        """In batches of their own: a batch has either tokens or embeddings."""
        positions = self._positions[row.slot]
        begin, size = positions.of(row.position), len(embeddings.vectors)
        self._prepare_chains([row.slot] if row.samples else [])
        if not embeddings.is_causal:
            lib.llama_set_causal_attn(self._context, False)  # C has no keywords
        try:
            for at in range(0, size, self._batch_size):
                end = min(at + self._batch_size, size)
                batch = SpanBatch(embeddings, slice(at, end), begin, row.slot)
                if row.samples and end == size:
                    batch.outputs[-1] = 1
                self._decode(batch.raw)
        finally:
            if not embeddings.is_causal:
                lib.llama_set_causal_attn(self._context, True)  # as above
        positions.skip(row.position + size, size - embeddings.positions)
        return self._sample([row.slot] if row.samples else [])

    def trim(self, slot: int, length: int) -> bool:
        positions = self._positions[slot]
        position = positions.of(length)
        if length > 0 and self._end_of(slot) <= position:
            positions.trim(length)
            return True
        is_whole = lib.llama_memory_seq_rm(self._memory, slot, position, -1)
        if is_whole and not self._lacks_window(slot, position):
            positions.trim(length)
            if not length:
                self._sharing.discard(slot)
            return True
        self._clear(slot)
        return False

    def copy(self, source: int, target: int, length: int) -> bool:
        self._clear(target)
        end = self._positions[source].of(length)
        if not self.facts.can_trim and end != self._end_of(source):
            return False
        if self.facts.is_pooled:
            self._mark_cells(source, target, end)
        elif not self._copy_cells(source, target, end):
            lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self._has_pending_moves = True
        self._positions[target].copy(self._positions[source])
        if self.trim(target, length) and self._reaches(target, length):
            return True
        self._clear(target)
        return False

    def _reaches(self, slot: int, length: int) -> bool:
        """Whether the slot holds so many tokens. The last position of an image is not known."""
        positions = self._positions[slot]
        return bool(positions.skips) or self._end_of(slot) == length

    def _copy_cells(self, source: int, target: int, end: int) -> bool:
        """Copy only the cells in use, through the sequence's saved state. The library's own copy
        takes the whole buffer: ten times as long for a short prefix. False: not done. Where there
        are sliding windows, a state lacks what a part that ends at ``end`` needs.
        """
        if self._window and end != self._end_of(source):
            return False
        size = self.state_bytes(source)
        if not 0 < size <= _COPY_LIMIT_BYTES:
            return False
        state = np.empty(size, np.uint8)
        return self.save(source, state) and self._read_state(target, state)

    def state_bytes(self, slot: int) -> int:
        if self._has_pending_moves:  # a saved state would not include them
            return 0
        return int(lib.llama_state_seq_get_size(self._context, slot))

    def save(self, slot: int, state: SavedState) -> bool:
        size = len(state)
        written: int = lib.llama_state_seq_get_data(self._context, _bytes_of(state), size, slot)
        return written == size

    def restore(self, slot: int, state: SavedState, length: int) -> bool:
        self._clear(slot)
        if self._read_state(slot, state) and self._end_of(slot) == length:
            return True
        self._clear(slot)
        return False

    def is_acceptable(self, state: SavedState, length: int) -> bool:
        return llama_state.is_acceptable(state, length)

    def _read_state(self, slot: int, state: SavedState) -> bool:
        size = len(state)
        return bool(lib.llama_state_seq_set_data(self._context, _bytes_of(state), size, slot))

    def share(self, source: int, target: int, length: int) -> None:
        end = self._positions[source].of(length)
        lib.llama_memory_seq_rm(self._memory, target, 0, end)
        self._mark_cells(source, target, end)

    def _mark_cells(self, source: int, target: int, end: int) -> None:
        """``target`` holds the cells of ``source`` before position ``end``, too."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, end)
        self._sharing |= {source, target}

    def _unshare(self, slot: int) -> None:
        """Give the slot cells of its own.

        :raises EngineError: there are too few.
        """
        if self._has_pending_moves:
            self._perform_moves(slot)
        state = np.empty(self.state_bytes(slot), np.uint8)
        length = self._end_of(slot)
        if not self.save(slot, state) or not self.restore(slot, state, length):
            raise EngineError("no room in the KV cache to shift what is shared")

    def _perform_moves(self, slot: int) -> None:
        """Any decode does: here of one token, which is removed again."""
        end = self._end_of(slot)
        self._batch.fill([Row(slot, (0,), end, samples=False)])
        try:
            self._decode(self._batch.raw)
        finally:
            lib.llama_memory_seq_rm(self._memory, slot, end, -1)

    def shift(self, slot: int, keep: int, discard: int) -> None:
        if slot in self._sharing:
            self._unshare(slot)
        if not lib.llama_memory_seq_rm(self._memory, slot, keep, keep + discard):
            raise EngineError("this model cannot forget a part of its context")
        lib.llama_memory_seq_add(self._memory, slot, keep + discard, -1, -discard)
        self._has_pending_moves = True

    def close(self) -> None:
        for slot in range(self.facts.sequences):
            self.end(slot)
        if self._device is not None:
            self._device.close()
        if self.projector is not None:
            self.projector.close()
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)

    def _sample(self, slots: list[int]) -> list[int]:
        if not slots:
            return []
        self._suppress(len(slots))
        logits = self.read_logits()
        row_of = {slot: row for row, slot in enumerate(sorted(slots))}  # the batch was sorted
        self._row_of = row_of
        tokens = []
        for slot in slots:
            sampler = self._sampler_of(slot)
            token = None
            if self._device is not None:
                token = self._device.sample(slot, row_of[slot], len(slots))
            if token is None:
                token = sampler.sample(logits[row_of[slot]], self._candidates)
            else:
                sampler.accept(token)
            tokens.append(token)
        return tokens

    def _prepare_chains(self, slots: list[int]) -> None:
        """Of the slots that sample in the next step."""
        if self._device is not None:
            self._device.prepare(
                {slot: (self._chain_keys[slot], self._sampler_of(slot)) for slot in slots}
            )

    def _sample_row(self, sampler: Sampler, row: Row) -> Iterator[int]:
        """See :meth:`verify`."""
        first = self._row_of[row.slot]
        drafts = row.tokens[len(row.tokens) - row.drafts :]
        for logits, draft in zip_longest(
            self.read_logits()[first : first + 1 + row.drafts], drafts
        ):
            token = sampler.sample(logits, self._candidates)
            yield token
            if token != draft or self.is_end(token):
                return

    def _sampler_of(self, slot: int) -> Sampler:
        sampler = self._samplers[slot]
        if sampler is None:
            raise EngineError(f"slot {slot} samples without having begun")
        return sampler

    def _suppress(self, rows: int) -> None:
        """Make the tokens that must never come impossible in so many rows of logits."""
        if self._tokenizer.suppressed:
            self.read_logits()[:rows, self._tokenizer.suppressed] = -np.inf

    def read_logits(self) -> Logits:
        """The logits of the last step. Row i belongs to the i-th token of the batch with logits."""
        pointer = lib.llama_get_logits(self._context)
        address = ctypes.addressof(pointer.contents)
        if address != self._logits_address:  # it moves only when the library enlarges it
            self._logits_address = address
            self._logits = np.ctypeslib.as_array(pointer, self._logits_shape)
        return self._logits

    def _end_of(self, slot: int) -> int:
        """The position after the last one in the slot."""
        return int(lib.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def _has_space(self, slot: int) -> bool:
        """For a padding row."""
        return not self._positions[slot].skips and self._end_of(slot) < self.facts.num_ctx

    def _clear(self, slot: int) -> None:
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._positions[slot].trim(0)
        self._sharing.discard(slot)

    def _lacks_window(self, slot: int, length: int) -> bool:
        """Whether sliding-window layers have lost tokens that position ``length`` attends to."""
        if not self._window or not length:
            return False
        first: int = lib.llama_memory_seq_pos_min(self._memory, slot)
        return first < 0 or first > max(0, length - self._window)  # a state has only the last ones

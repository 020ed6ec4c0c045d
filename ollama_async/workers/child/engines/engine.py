"""The interface of an engine; every engine is a file beside this one.

An engine owns ``facts.sequences`` sequences ("slots", numbered from 0), each with up to
``facts.num_ctx`` tokens at positions 0, 1, 2, …. A cell of the KV cache holds one token. Either
each sequence has ``num_ctx`` cells of its own, or the cache is a pool (``facts.is_pooled``): all
sequences take cells from it, one for each token, and a copy shares the cells of its source.

Only the step thread calls it, except for
``tokenize``, ``piece``, ``piece_with_control`` and ``is_end``, which the preprocessor's threads may
call at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from ollama_async.core.conversation import Sampling


class EngineError(Exception):
    """A step failed. The requests of its rows fail; the worker goes on."""


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of a loaded model.

    ``chat_template`` is the Jinja text in the file, or "". ``bos`` and ``eos`` are the token texts
    that templates may print (``bos_token``, ``eos_token``). ``adds_bos``: tokenizing with
    ``add_special`` puts a BOS in front. ``can_shift``: positions can be moved. ``can_trim``: a part
    of a sequence can be removed (not in recurrent models). ``can_draft``: :meth:`Engine.verify`
    takes drafts, and those that it evaluated can be trimmed.

    ``slots``: requests that should run at a time. ``sequences`` and ``cells``: of the KV cache.
    ``is_invariant``: the same tokens give the same logits, to the bit, whatever else is in a batch
    and however the prompt was split. ``kernels``: what computes, for people, such as
    ``own (avx512_vnni)`` or ``stock``. ``state_layout``: engines of one model in which it is equal
    can restore each other's states. ``can_trim_restored``: a part can be removed also after that
    (not with sliding windows, of which a state has the last tokens only).
    """

    slots: int
    sequences: int
    num_ctx: int
    cells: int
    is_pooled: bool = False
    is_invariant: bool = False
    kernels: str = ""
    state_layout: str = ""
    vocab_size: int
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int = 0
    device_bytes: int = 0
    chat_template: str = ""
    bos: str = ""
    eos: str = ""
    adds_bos: bool = False
    can_shift: bool = True
    can_trim: bool = True
    can_trim_restored: bool = True
    can_draft: bool = False
    warnings: tuple[str, ...] = ()


class SpanEmbeddings(msgspec.Struct, frozen=True):
    """What the model reads of one span of an image or a recording, in place of tokens.

    ``vectors``: one for each place in the prompt. With positions of several dimensions, that of
    vector i in dimension d is ``offsets[d, i] + slopes[d, i] * p``, where p is the position of the
    span; without, they are None. The next token comes ``positions`` after p. ``is_causal``: a
    vector is evaluated without those after it, so the span may be split.
    """

    vectors: NDArray[np.float32]
    positions: int
    is_causal: bool = True
    offsets: NDArray[np.int32] | None = None
    slopes: NDArray[np.int32] | None = None

    def part(self, begin: int, size: int) -> SpanEmbeddings:
        """``size`` vectors from ``begin`` on, as a span that comes ``begin`` tokens later."""
        end = begin + size
        positions = size if end < len(self.vectors) else self.positions - begin
        offsets, slopes = self.offsets, self.slopes
        if offsets is not None and slopes is not None:
            offsets = offsets[:, begin:end] - np.int32(begin) * slopes[:, begin:end]
            slopes = slopes[:, begin:end]
        return SpanEmbeddings(self.vectors[begin:end], positions, self.is_causal, offsets, slopes)


MAX_STREAMS = 3
"""Rows of :meth:`Engine.verify`. With more, they fill a step as well as drafts do."""

MAX_DRAFTS = 15
"""Of these rows together: with the token before them, 16 rows of a matrix."""


class Row(msgspec.Struct, gc=False):
    """One slot's part of a step: evaluates ``tokens`` from ``position`` on, and maybe samples.

    With ``embeddings``, these are evaluated instead, one for each token, and the row is alone.
    The last ``drafts`` of the tokens are guesses, see :meth:`Engine.verify`.
    """

    slot: int
    tokens: Sequence[int]
    position: int
    samples: bool
    embeddings: SpanEmbeddings | None = None
    drafts: int = 0


SavedState = NDArray[np.uint8]
"""The KV cache of one sequence, in the library's own form."""


class Constraint(Protocol):
    """Restricts the tokens of one answer; end tokens are allowed where it may end.

    The engine consults it, and reports each token that it sampled for the slot. ``is_over``:
    nothing can follow, because the answer is complete or, if there is a ``failure``, because no
    token is allowed; the token sampled then must not be used. ``mask_s``: the CPU time in seconds
    that :meth:`allowed` took last, halved with each token since that did not need it.
    """

    is_over: bool
    failure: str

    @property
    def mask_s(self) -> float: ...

    def allows(self, token: int) -> bool:
        """Whether ``token`` may come next. Takes microseconds."""

    def allowed(self) -> NDArray[np.intp]:
        """All tokens that may come next, in order; may be empty. Takes up to milliseconds."""

    def accept(self, token: int) -> None:
        """``token`` comes next; one that is not allowed is a failure."""

    def forced(self, most: int) -> list[int]:
        """Up to ``most`` tokens of a text that must come next, apart from blanks; [] if there is
        none. A guess: the text may be cut into other tokens. Takes up to a millisecond.
        """


class SpanShape(msgspec.Struct, frozen=True):
    """The ``tokens`` that a span of an image or a recording takes in a prompt, and the
    ``positions``, of which there are fewer if they have several dimensions.
    """

    tokens: int
    positions: int


Layout = tuple[tuple[int, ...] | SpanShape, ...]
"""What an image or a recording is in a prompt: tokens, and spans between them."""

Pixels = NDArray[np.uint8]
"""An image: height, width, and red, green and blue."""

Samples = NDArray[np.float32]
"""A recording with one channel."""


class Projector(Protocol):
    """Makes the embeddings of images and recordings. ``sample_rate``: of recordings, in Hz; 0: the
    model cannot hear.
    """

    sees: bool
    sample_rate: int

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Of an image of that height and width, or so many samples. Any thread.

        :raises EngineError: the model cannot take it.
        """

    def decode_audio(self, data: bytes) -> Samples:
        """Of a WAV or MP3 file that :mod:`ollama_async.workers.child.audio` has checked. Any
        thread.

        :raises EngineError: it cannot be decoded.
        """

    def encode(self, data: Pixels | Samples) -> list[SpanEmbeddings]:
        """The spans, in order. May take many seconds; one thread at a time, beside steps.

        :raises EngineError: it failed.
        """


class Engine(Protocol):
    """See the module docstring for threads. ``projector``: None if the model only reads text."""

    facts: EngineFacts

    @property
    def projector(self) -> Projector | None: ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of ``text``; ``add_special`` adds BOS and EOS as the model was trained."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token in an answer (control tokens: empty). Must be cheap."""

    def piece_with_control(self, token: int) -> bytes:
        """The bytes of a token in a prompt, where control tokens have a name."""

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer. Must be cheap."""

    def begin(
        self,
        slot: int,
        sampling: Sampling,
        prompt: Sequence[int],
        constraint: Constraint | None = None,
        *,
        needs_logits: bool = False,
    ) -> None:
        """A request gets the slot: make its sampler, and feed it ``prompt`` for the penalties.

        Leaves the KV cache of the slot as it is. It ``needs_logits`` if it asks for
        :meth:`logprobs`.
        """

    def end(self, slot: int) -> None:
        """The request has left the slot: free its sampler. The KV cache stays for reuse."""

    def step(self, rows: Sequence[Row]) -> list[int]:
        """Evaluate all rows in one batch; return one sampled token per row that ``samples``.

        The rows have at most ``batch_size`` tokens together; a slot appears once.

        :raises EngineError: nothing of this step counts; the caller clears the slots.
        """

    def verify(self, rows: Sequence[Row]) -> list[Iterator[int]]:
        """As :meth:`step`, for at most :data:`MAX_STREAMS` rows, all of which sample, with at most
        :data:`MAX_DRAFTS` drafts together. Of each row, the tokens that it would have sampled one
        by one: the first, and another one as long as each equals the draft in its place. An end is
        the last one.

        Each token is sampled when the iterator is asked for it, so what decides about it may take
        note of the one before. The caller may stop at any token, and trims the slot if it did not
        get one more than there were drafts.

        :raises EngineError: at once, as above.
        """

    def logprobs(self, slot: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        """Of ``token``, which the slot sampled in the last step: the natural logarithm of its
        probability, by the model's own logits, before anything changes them. And of the ``top``
        most likely tokens in its place, best first; those that can never come are left out.

        All are finite. Costs as much as sampling does; call it only for requests that ask.
        """

    def trim(self, slot: int, length: int) -> bool:
        """Remove positions ≥ ``length``. False: the model cannot, and the slot is empty now."""

    def copy(self, source: int, target: int, length: int) -> bool:
        """Overwrite ``target`` with ``source``'s first ``length`` tokens.

        False: the model cannot; ``target`` is empty then.
        """

    def share(self, source: int, target: int, length: int) -> None:
        """Both slots hold the same first ``length`` tokens: free the cells of ``target``'s, and
        let it use ``source``'s. Only in a pool.
        """

    def shift(self, slot: int, keep: int, discard: int) -> None:
        """Remove positions ``keep`` … ``keep+discard-1`` and move the rest down.

        :raises EngineError: the model cannot, or lacks the cells that other slots share with it.
        """

    def state_bytes(self, slot: int) -> int:
        """The size of the slot's state now; 0: it cannot be saved."""

    def save(self, slot: int, state: SavedState) -> bool:
        """Write the slot's state, of :meth:`state_bytes`, for :meth:`restore`. False: it failed."""

    def restore(self, slot: int, state: SavedState, length: int) -> bool:
        """Make the slot hold what was saved from any slot of an engine with the same
        ``facts.state_layout``: ``length`` tokens. False: the state does not fit; the slot is empty
        then.
        """

    def is_acceptable(self, state: SavedState, length: int) -> bool:
        """Whether a state that another process left can be restored, whatever is in it, without
        more harm than wrong answers to requests that use it.
        """

    def close(self) -> None:
        """Free everything; called once, by the step thread."""


Progress = Callable[[float], None]
"""Called during loading with the fraction of the weights that was read."""

"""The one interface that the batcher needs of an engine; every engine is a file beside this one.

An engine owns ``facts.slots`` sequences ("slots", numbered from 0), each a KV cache of up to
``facts.num_ctx`` tokens at positions 0, 1, 2, …. It runs in the step thread only, except
``tokenize``, ``piece``, ``written`` and ``is_end``, which the threads of the intake may call at
the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from ollama_async.core.conversation import Sampling


class EngineError(Exception):
    """The engine could not do a step; the worker goes on, the rows' requests fail."""


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded model is.

    ``chat_template`` is the Jinja text in the file, or "". ``bos``/``eos`` are the token texts
    that templates may print (``bos_token``, ``eos_token``). ``adds_bos``: tokenizing with
    ``add_special`` puts a BOS in front. ``can_shift``: positions can be moved. ``can_trim``: a part
    of a sequence can be forgotten (recurrent models cannot).
    """

    slots: int
    num_ctx: int
    vocab_size: int
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    device_bytes: int
    chat_template: str
    bos: str
    eos: str
    adds_bos: bool
    can_shift: bool
    can_trim: bool
    warnings: tuple[str, ...] = ()


class Row:
    """One slot's part of a step: evaluate ``tokens`` from ``position`` on, then maybe sample."""

    __slots__ = ("position", "samples", "slot", "tokens")

    def __init__(self, slot: int, tokens: Sequence[int], position: int, samples: bool) -> None:
        self.slot = slot
        self.tokens = tokens
        self.position = position
        self.samples = samples


class Constraint(Protocol):
    """What one answer must look like, token by token; end tokens are allowed where it may end.

    The engine asks it and tells it each token that it has chosen for the slot. ``is_over``: nothing
    can follow, because the answer is complete or, if ``failure`` says why, because no token would
    do; whatever the engine returned then is not to be used. ``mask_s``: the seconds of CPU time
    that :meth:`allowed` took last, halved with each token since that needed none.
    """

    is_over: bool
    failure: str

    @property
    def mask_s(self) -> float: ...

    def allows(self, token: int) -> bool:
        """Whether the answer may go on with ``token``. Microseconds."""

    def allowed(self) -> NDArray[np.intp]:
        """All tokens that it may go on with, in order; empty: there is none. Up to milliseconds."""

    def accept(self, token: int) -> None:
        """The answer goes on with ``token``; one that is not allowed is a failure."""


class Engine(Protocol):
    """See the module docstring for threads."""

    facts: EngineFacts

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of ``text``; ``add_special`` lets the model add BOS/EOS as it was trained."""

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for in an answer (control tokens: empty). Must be cheap."""

    def written(self, token: int) -> bytes:
        """The bytes a token is written with in a prompt; control tokens have a name there."""

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer. Must be cheap."""

    def begin(
        self,
        slot: int,
        sampling: Sampling,
        prompt: Sequence[int],
        constraint: Constraint | None = None,
    ) -> None:
        """A request takes the slot: make its sampler, feed it ``prompt`` for the penalties.

        The KV cache of the slot is left as it is. Tokens are chosen as ``constraint`` says.
        """

    def end(self, slot: int) -> None:
        """The request has left the slot: free its sampler; the KV cache stays for reuse."""

    def step(self, rows: Sequence[Row]) -> list[int]:
        """Evaluate all rows in one batch; return one sampled token per row that ``samples``.

        The rows' tokens together never exceed ``batch_size``; a slot appears once.

        :raises EngineError: nothing of this step counts; the caller trims the slots back.
        """

    def trim(self, slot: int, length: int) -> bool:
        """Forget positions ≥ ``length``. False: this model cannot, and the slot is now empty."""

    def copy(self, source: int, target: int, length: int) -> bool:
        """Make ``target`` begin with ``source``'s first ``length`` tokens (target is overwritten).

        False: cannot be done; ``target`` is then empty.
        """

    def shift(self, slot: int, keep: int, discard: int) -> None:
        """Forget positions ``keep`` … ``keep+discard-1`` and move the rest down."""

    def close(self) -> None:
        """Free everything; called once, by the step thread."""


Progress = Callable[[float], None]
"""Called while loading with the fraction of weights read."""

"""The interface of an engine; every engine is a file beside this one.

An engine owns ``facts.slots`` sequences ("slots", numbered from 0), each with a KV cache of up to
``facts.num_ctx`` tokens at positions 0, 1, 2, …. Only the step thread calls it, except for
``tokenize``, ``piece``, ``piece_with_control`` and ``is_end``, which the preprocessor's threads may
call at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    of a sequence can be removed (not in recurrent models).
    """

    slots: int
    num_ctx: int
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
    warnings: tuple[str, ...] = ()


class Row(msgspec.Struct, gc=False):
    """One slot's part of a step: evaluates ``tokens`` from ``position`` on, and maybe samples."""

    slot: int
    tokens: Sequence[int]
    position: int
    samples: bool


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


class Engine(Protocol):
    """See the module docstring for threads."""

    facts: EngineFacts

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
    ) -> None:
        """A request gets the slot: make its sampler, and feed it ``prompt`` for the penalties.

        Leaves the KV cache of the slot as it is.
        """

    def end(self, slot: int) -> None:
        """The request has left the slot: free its sampler. The KV cache stays for reuse."""

    def step(self, rows: Sequence[Row]) -> list[int]:
        """Evaluate all rows in one batch; return one sampled token per row that ``samples``.

        The rows have at most ``batch_size`` tokens together; a slot appears once.

        :raises EngineError: nothing of this step counts; the caller clears the slots.
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

    def shift(self, slot: int, keep: int, discard: int) -> None:
        """Remove positions ``keep`` … ``keep+discard-1`` and move the rest down."""

    def close(self) -> None:
        """Free everything; called once, by the step thread."""


Progress = Callable[[float], None]
"""Called during loading with the fraction of the weights that was read."""

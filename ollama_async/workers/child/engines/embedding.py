"""The interface of an engine for embedding models; beside :mod:`.engine`, for those that generate.

An embedding engine keeps nothing between batches. Only the step thread calls it, except for
``tokenize`` and ``piece_with_control``, which the preprocessor's threads may call at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

Result = Literal["vector", "score", "none"]
"""What a model computes for an input: a vector; a score, if the input is a pair of query and
document; or only vectors of tokens, which are no answer for an input."""


class PairFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How a query and a document become one input of a model that scores.

    With a ``template``, its ``{query}`` and ``{document}`` are replaced, and the control tokens
    that it names are parsed. Otherwise the input is ``front``, the query's tokens, ``between``, the
    document's tokens, ``end``.
    """

    template: str = ""
    front: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    end: tuple[int, ...] = ()


class EmbeddingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of a loaded embedding model.

    ``slots``: how many requests it should have at a time. ``num_ctx``: tokens of the longest input,
    special ones included. ``batch_tokens`` and ``batch_inputs``: how many a batch of several inputs
    may have; a longer input is a batch of its own. ``kernels``: as in
    :class:`~.engine.EngineFacts`.
    """

    slots: int
    num_ctx: int
    vocab_size: int
    batch_tokens: int
    batch_inputs: int
    result: Result = "vector"
    pair_format: PairFormat = PairFormat()
    weights_bytes: int
    cache_bytes: int = 0
    compute_bytes: int = 0
    device_bytes: int = 0
    kernels: str = ""
    warnings: tuple[str, ...] = ()


class EmbeddingEngine(Protocol):
    """See the module docstring for threads."""

    facts: EmbeddingFacts

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """As in :class:`~.engine.Engine`."""

    def piece_with_control(self, token: int) -> bytes:
        """As in :class:`~.engine.Engine`."""

    def embed(
        self, inputs: Sequence[Sequence[int]], is_abandoned: Callable[[], bool]
    ) -> list[bytes]:
        """For each input its vector or score, as little-endian float32 numbers, in one batch.

        Vectors are what the model's pooling gives, without normalization; models with a normalizing
        layer of their own give unit vectors. A score is a logit, of the classifier's first class.
        They may be NaN or infinite. No input is empty.

        A batch that may take seconds calls ``is_abandoned`` now and then, in the same thread, and
        ends if nobody waits for it any more.

        :raises EngineError: there is no result for any of them; the engine can go on.
        """

    def close(self) -> None:
        """Free everything; called once, by the step thread."""

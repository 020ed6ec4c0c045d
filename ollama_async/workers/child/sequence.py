"""One request in a slot, from its first prompt token to its last word."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping

from ollama_async.core.conversation import Usage
from ollama_async.workers.child.engines.engine import Row
from ollama_async.workers.child.mailbox import Work
from ollama_async.workers.child.prefix_cache import Claim, Slot
from ollama_async.workers.child.stop_conditions import CHECK_PERIOD, Repetition, StopFinder


class Running:
    """``row`` is its part of a decoding step; its only token, ``last[0]``, is the one sampled last.

    ``filled``: how much of the prompt is in the slot; -1 = not begun. ``is_stopped``: a stop string
    was found. ``limit``: tokens of the answer after which to see whether it is to go on;
    ``repetition`` watches its tokens, ``repeated`` is how many of them it repeats without end.
    ``piece_of``: the bytes of a token in this answer. ``meaning`` and ``constraint``: see
    :class:`~ollama_async.workers.child.mailbox.Work`. ``claim``: what of the slots may serve it.
    ``stepped``: the last step that went on with the answer. Times in nanoseconds of a monotonic
    clock.
    """

    __slots__ = (
        "_characters",
        "_finder",
        "answered",
        "answered_ns",
        "begun_ns",
        "cached",
        "claim",
        "constraint",
        "filled",
        "filled_ns",
        "id",
        "is_stopped",
        "last",
        "limit",
        "meaning",
        "piece_of",
        "repeated",
        "repetition",
        "row",
        "slot",
        "stepped",
        "work",
    )

    def __init__(
        self,
        work: Work,
        slot: Slot,
        piece_of: Callable[[int], bytes],
        *,
        repetition_limit: int = 0,
    ) -> None:
        self.work = work
        self.claim = claim_of(work)
        self.id = work.id
        self.meaning = work.meaning
        self.constraint = work.constraint
        self.piece_of = _with_special(work.special, piece_of) if work.special else piece_of
        self.slot = slot
        self.last = [0]
        self.row = Row(slot.index, self.last, 0, samples=True)
        self.filled = -1
        self.cached = 0
        self.answered = 0
        self.stepped = 0
        self.is_stopped = False
        self.repeated = 0
        self.repetition = Repetition(repetition_limit) if repetition_limit else None
        self.limit = 0
        self._set_limit()
        self.begun_ns = self.filled_ns = self.answered_ns = 0
        self._characters = Characters()
        stops = work.sampling.stop
        self._finder = StopFinder(stops) if any(stops) else None

    @property
    def missing(self) -> int:
        """Tokens of the prompt that are not yet in the slot."""
        return len(self.work.tokens) - self.filled

    @property
    def mask_s(self) -> float:
        """Seconds that finding out what the answer may say next is likely to take."""
        return 0.0 if self.constraint is None else self.constraint.mask_s

    @property
    def is_seeded(self) -> bool:
        """The client wants the same text again: nothing is reused, chunks are fixed."""
        return self.work.sampling.seed >= 0

    def may_go_on(self) -> bool:
        """Whether an answer at its ``limit`` may have more tokens; it has a new limit then."""
        if self.answered >= self.work.limit:
            return False
        if self.repetition is not None:
            self.repeated = self.repetition.look()
        self._set_limit()
        return not self.repeated

    def _set_limit(self) -> None:
        """To the end of what is allowed, or to the next look at repetitions."""
        self.limit = self.work.limit
        if self.repetition is not None:
            self.limit = min(self.limit, self.answered + CHECK_PERIOD)

    def feed(self, piece: bytes) -> str:
        """The text that can be delivered after the bytes of one more token; often ""."""
        text = self._characters.feed(piece)
        if self._finder is None:
            return text
        text = self._finder.feed(text)
        self.is_stopped = self._finder.is_found
        return text

    def flush(self) -> str:
        """The text that was held back; call it once, when the answer ends unstopped."""
        text = self._characters.flush()
        if self._finder is None:
            return text
        text = self._finder.feed(text)
        self.is_stopped = self._finder.is_found
        return text if self.is_stopped else text + self._finder.flush()

    def count_undelivered(self) -> int:
        """Characters at the end of the answer's tokens that belong to a stop string."""
        return 0 if self._finder is None else self._finder.swallowed

    def usage(self) -> Usage:
        return Usage(
            prompt=len(self.work.tokens),
            cached=self.cached,
            prompt_ns=max(0, self.filled_ns - self.begun_ns),
            answer=self.answered,
            # the first token comes with the prompt's last step, yet took some time
            answer_ns=max(1, self.answered_ns - self.filled_ns) if self.answered else 0,
        )


def claim_of(work: Work) -> Claim:
    """What of the slots may serve ``work``; who wants the same text again is served nothing."""
    return Claim(work.tokens, work.owner, work.public, reuses=work.sampling.seed < 0)


def _with_special(
    special: Mapping[int, bytes], piece_of: Callable[[int], bytes]
) -> Callable[[int], bytes]:
    def piece(token: int) -> bytes:
        return special.get(token) or piece_of(token)

    return piece


_DECODER = codecs.getincrementaldecoder("utf-8")


class Characters:
    """Holds an unfinished character back; what is no UTF-8 becomes U+FFFD, as Python counts it."""

    __slots__ = ("_decode", "_is_pending", "_pending")

    def __init__(self) -> None:
        decoder = _DECODER("replace")
        self._decode = decoder.decode
        self._pending = decoder.getstate
        self._is_pending = False

    def feed(self, piece: bytes) -> str:
        """The characters that are complete now; often "" for a token that is part of one."""
        if not self._is_pending and piece.isascii():
            return piece.decode("ascii")
        text = self._decode(piece)
        self._is_pending = bool(self._pending()[0])
        return text

    def flush(self) -> str:
        """What stands for an unfinished character at the end: "" or U+FFFD."""
        self._is_pending = False
        return self._decode(b"", True)  # positional in the codecs' interface

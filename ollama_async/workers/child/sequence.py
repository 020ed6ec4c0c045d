"""One request in a slot, from its first prompt token to the end of its answer."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from ollama_async.core.conversation import Usage
from ollama_async.workers.child.engines.engine import Row
from ollama_async.workers.child.mailbox import PreparedRequest
from ollama_async.workers.child.prefix_cache import PrefixQuery, Slot
from ollama_async.workers.child.stop_conditions import (
    CHECK_PERIOD,
    RepetitionDetector,
    StopStringFinder,
)

_DECODER = codecs.getincrementaldecoder("utf-8")


class RunningSequence:
    """The state of a request that has a slot.

    - ``row``: its part of a decoding step; the only token, ``last[0]``, is the one sampled last.
    - ``prefilled``: prompt tokens in the slot; -1: not begun. ``cached``: those that were reused.
    - ``answered``: tokens of the answer. At ``limit`` it is checked whether it goes on.
    - ``is_stopped``: a stop string was found. ``repeated``: tokens of an endless repetition.
    - ``last_step``: the step in which it last decoded. ``piece_of``: the bytes of a token.
    - ``decode``: from the piece of the next token to its text; often "". With a ``finder``,
      :meth:`scan` then finds stop strings in it.
    - Times are nanoseconds of a monotonic clock.
    """

    def __init__(
        self,
        request: PreparedRequest,
        query: PrefixQuery,
        slot: Slot,
        piece_of: Callable[[int], bytes],
        repetition_limit: int = 0,
    ) -> None:
        self.request = request
        self.query = query
        self.id = request.id
        self.num_ctx = request.num_ctx
        self.parser = request.parser
        self.constraint = request.constraint
        self.piece_of = piece_of
        if special := request.special:
            self.piece_of = lambda token: special.get(token) or piece_of(token)
        self.slot = slot
        self.last = [0]
        self.row = Row(slot.index, self.last, 0, samples=True)
        self.prefilled = -1
        self.cached = self.answered = self.last_step = self.repeated = self.limit = 0
        self.begun_ns = self.prefilled_ns = self.answered_ns = 0
        self.is_stopped = False
        self.repetition = RepetitionDetector(repetition_limit) if repetition_limit else None
        self._set_limit()
        self._decoder = Utf8Decoder()
        self.decode = self._decoder.feed
        stops = request.sampling.stop
        self.finder = StopStringFinder(stops) if any(stops) else None

    @property
    def missing(self) -> int:
        """Tokens of the prompt that are not yet in the slot."""
        return len(self.request.tokens) - self.prefilled

    def extend_limit(self) -> bool:
        """Whether an answer at its ``limit`` may go on, up to a new limit."""
        if self.answered >= self.request.max_tokens:
            return False
        if self.repetition is not None:
            self.repeated = self.repetition.check()
        self._set_limit()
        return not self.repeated

    def _set_limit(self) -> None:
        """To the maximum, or to the next check for repetition."""
        self.limit = self.request.max_tokens
        if self.repetition is not None:
            self.limit = min(self.limit, self.answered + CHECK_PERIOD)

    def flush(self) -> str:
        """The text that was held back. Call it once, when the answer ends without a stop string."""
        text, finder = self._decoder.flush(), self.finder
        if finder is None:
            return text
        text = self.scan(text, finder)
        return text if self.is_stopped else text + finder.flush()

    def scan(self, text: str, finder: StopStringFinder) -> str:
        """The part of ``text``, and of what was held back, that can be delivered."""
        text = finder.feed(text)
        self.is_stopped = finder.is_found
        return text

    def remove_stop_string(self, context: list[int]) -> None:
        """Remove the last tokens of ``context`` that hold nothing but a stop string."""
        left = 0 if self.finder is None else self.finder.swallowed
        while left > 0 and context:
            left -= len(self.piece_of(context[-1]).decode(errors="replace"))
            if left >= 0:
                context.pop()

    def usage(self) -> Usage:
        return Usage(
            prompt=len(self.request.tokens),
            cached=self.cached,
            prompt_ns=max(0, self.prefilled_ns - self.begun_ns),
            answer=self.answered,
            # the first token comes with the last prefill step, yet took some time
            answer_ns=max(1, self.answered_ns - self.prefilled_ns) if self.answered else 0,
        )


class Utf8Decoder:
    """Decodes bytes that arrive in pieces. Invalid UTF-8 becomes U+FFFD, as in Python."""

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
        """Replaces an unfinished character at the end: "" or U+FFFD."""
        self._is_pending = False
        return self._decode(b"", True)  # positional in the codecs' interface

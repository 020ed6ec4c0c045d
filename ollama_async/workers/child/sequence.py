"""One request in a slot, from its first prompt token to the conditions that end its answer."""

from __future__ import annotations

import codecs
import re
from array import array
from collections.abc import Iterable

import msgspec

from ollama_async.core.conversation import Usage
from ollama_async.workers.child.engines.engine import Engine, Row, SavedState
from ollama_async.workers.child.kv_pool import Slot
from ollama_async.workers.child.mailbox import PreparedRequest
from ollama_async.workers.child.media import MediaSpan
from ollama_async.workers.child.prefix_query import PrefixQuery

REPEATS = 16
"""How often, at least, a passage must be repeated."""

CHECK_PERIOD = 61
"""Tokens between two checks. A prime, so that checks fall on different places of a passage."""

_WINDOW = 16_384  # so passages of up to 1,024 tokens are found
_SAMPLE = 4  # tokens whose earlier positions suggest the length of the passage
_CANDIDATES = 32
_TOKEN_BYTES = array("i").itemsize
_DECODER = codecs.getincrementaldecoder("utf-8")


class RunningSequence:
    """The state of a request that has a slot, which holds ``cached`` tokens of its prompt,
    ``restored`` ones from host memory.

    - ``row``: its part of a decoding step; the only token, ``last[0]``, is the one sampled last.
    - ``prompt``: what must be in the slot before it decodes: the request's tokens, and after
      :meth:`preempt` those of the answer, too. ``prefilled``: how many of these are in the slot.
    - ``saved``: what a preempted slot held, if its tokens do not tell.
    - ``spans``: of images and recordings, by where they begin in ``prompt``.
    - ``generated``: tokens of the answer. At ``limit`` it is checked whether it goes on.
    - ``is_stopped``: a stop string was found, or the only call that the answer may have.
    - ``repeated``: tokens of an endless repetition.
    - ``last_step``: the step in which it last decoded. ``piece_of``: the bytes of a token.
    - ``decode``: from the piece of the next token to its text; often "". With a ``finder``,
      :meth:`scan` then finds stop strings in it.
    - Times are nanoseconds of a monotonic clock.

    ``repetition_limit``: of a :class:`RepetitionDetector`; 0 = there is none.
    """

    def __init__(
        self,
        request: PreparedRequest,
        query: PrefixQuery,
        slot: Slot,
        engine: Engine,
        repetition_limit: int = 0,
    ) -> None:
        self.request = request
        self.query = query
        self.prompt = request.tokens
        self.spans = request.spans
        self.id = request.id
        self.num_ctx = request.num_ctx
        self.parser = request.parser
        self.constraint = request.constraint
        self._control_piece_of = engine.piece_with_control
        self.piece_of = piece_of = engine.piece
        if special := request.special:
            self.piece_of = lambda token: special.get(token) or piece_of(token)
        self.slot = slot
        self.last = [0]
        self.row = Row(slot.index, self.last, 0, samples=True)
        self.cached = self.prefilled = len(slot.tokens)
        self.restored = slot.restored
        self.generated = self.thinking = self.last_step = self.repeated = self.limit = 0
        self.drafted = self.accepted = 0
        self.begun_ns = self.first_token_ns = self.last_token_ns = 0
        self.is_stopped = False
        self.saved: SavedState | None = None
        self.repetition = RepetitionDetector(repetition_limit) if repetition_limit else None
        self._set_limit()
        self._decoder = Utf8Decoder()
        self.decode = self._decoder.feed
        stops = request.sampling.stop
        self.finder = StopStringFinder(stops) if any(stops) else None

    def name_of(self, token: int) -> bytes:
        """The bytes of a token in the answer; of control tokens that have none, their names."""
        return self.piece_of(token) or self._control_piece_of(token)

    @property
    def missing(self) -> int:
        """Tokens of the prompt that are not yet in the slot."""
        return len(self.prompt) - self.prefilled

    @property
    def wanted(self) -> int:
        """Tokens that the answer may still get."""
        return self.request.max_tokens - self.generated

    def preempt(self) -> None:
        """It loses its cells. What it needs to go on is the text so far, which is its prompt now;
        the token sampled last has not been evaluated.
        """
        if not self.missing:
            self.prompt = [*self.slot.tokens, self.last[0]]
            self.query = msgspec.structs.replace(self.query, prompt=self.prompt)
        self.prefilled = 0

    @property
    def shift_size(self) -> int:
        """Tokens that a full context forgets."""
        return max(1, (self.row.position - self.request.keep) // 2)

    def forget_shifted(self) -> None:
        """Shift the context in the prompt, which is not in the slot."""
        keep = self.request.keep
        self.prompt = self.prompt[:keep] + self.prompt[keep + self.shift_size :]
        self.query = msgspec.structs.replace(self.query, prompt=self.prompt, spans=())
        self.spans = {}

    @property
    def next_span(self) -> tuple[MediaSpan, int] | None:
        """The span of an image or a recording that comes next in the prompt, and how many of its
        tokens are in the slot already.
        """
        for at, span in self.spans.items():
            if at <= self.prefilled < at + span.length:
                return span, self.prefilled - at
        return None

    @property
    def is_encoded(self) -> bool:
        """Whether that span, if there is one, has its embeddings."""
        following = self.next_span
        return following is None or bool(following[0].media.embeddings)

    @property
    def readable(self) -> int:
        """Tokens of the prompt that can be read now: up to the next such span."""
        if not self.spans:
            return self.missing
        end = len(self.prompt)
        return min((at for at in self.spans if at >= self.prefilled), default=end) - self.prefilled

    def extend_limit(self) -> bool:
        """Whether an answer at its ``limit`` may go on, up to a new limit."""
        if self.generated >= self.request.max_tokens:
            return False
        if self.repetition is not None:
            self.repeated = self.repetition.check()
        self._set_limit()
        return not self.repeated

    def _set_limit(self) -> None:
        """To the maximum, or to the next check for repetition."""
        self.limit = self.request.max_tokens
        if self.repetition is not None:
            self.limit = min(self.limit, self.generated + CHECK_PERIOD)

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
        self.is_stopped = bool(finder.found)
        return text

    @property
    def stop_string(self) -> str:
        """The one that was found, or ""."""
        return "" if self.finder is None else self.finder.found

    def remove_stop_string(self, context: list[int]) -> None:
        """Remove the last tokens of ``context`` that hold nothing but a stop string."""
        left = 0 if self.finder is None else self.finder.cut_characters
        while left > 0 and context:
            left -= len(self.piece_of(context[-1]).decode(errors="replace"))
            if left >= 0:
                context.pop()

    def usage(self) -> Usage:
        return Usage(
            prompt=len(self.request.tokens),
            cached=self.cached,
            prompt_ns=max(0, self.first_token_ns - self.begun_ns),
            answer=self.generated,
            # the first token comes with the last prefill step, yet took some time
            answer_ns=max(1, self.last_token_ns - self.first_token_ns) if self.generated else 0,
            thinking=self.thinking,
            drafted=self.drafted,
            accepted=self.accepted,
            restored=self.restored,
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


class StopStringFinder:
    """Finds stop strings in text that arrives in pieces.

    The answer ends where the first stop string is complete, however the text is split. If several
    are complete at the same character, the longest counts. Text that may be the beginning of one is
    held back; :meth:`feed` never returns a part of one. The cost of a character does not depend on
    the lengths of the stop strings (Knuth-Morris-Pratt), so hostile ones do not slow it down.

    ``found``: the stop string, or "". ``cut_characters``: the characters from its beginning on.
    """

    __slots__ = ("_begins", "_held", "_matched", "_stops", "_tables", "cut_characters", "found")

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = sorted({stop for stop in stops if stop}, key=len, reverse=True)
        self._tables = [_failure_function(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)
        self._held = ""
        first_letters = "".join({stop[0] for stop in self._stops})
        self._begins = re.compile(f"[{re.escape(first_letters)}]").search
        self.found = ""
        self.cut_characters = 0

    def feed(self, text: str) -> str:
        """The text that can be delivered now. Do not call it once one is ``found``."""
        if not self._held and not self._begins(text):
            return text
        whole = self._held + text
        for position in range(len(self._held), len(whole)):
            letter = whole[position]
            for index, stop in enumerate(self._stops):
                matched = _advance(stop, self._tables[index], self._matched[index], letter)
                self._matched[index] = matched
                if matched == len(stop):
                    self.found = stop
                    self._held = ""
                    start = position + 1 - matched
                    self.cut_characters = len(whole) - start
                    return whole[:start]
        free = len(whole) - max(self._matched)
        self._held = whole[free:]
        return whole[:free]

    def flush(self) -> str:
        """The text held back, now that the answer has ended."""
        held, self._held = self._held, ""
        return held


def _failure_function(stop: str) -> list[int]:
    """For each prefix of ``stop``, the length of its longest proper suffix that is a prefix."""
    table = [0]
    for letter in stop[1:]:
        table.append(_advance(stop, table, table[-1], letter))
    return table


def _advance(stop: str, table: list[int], matched: int, letter: str) -> int:
    """How many characters of ``stop`` match after ``letter``, if ``matched`` did before it."""
    while matched and stop[matched] != letter:
        matched = table[matched - 1]
    return matched + (stop[matched] == letter)


class RepetitionDetector:
    """Detects endless repetition in one answer, over its last ``limit`` tokens.

    A small model, or a grammar that lets it go on, may write one passage over and over. Ollama ends
    such an answer after 30 equal pieces, without notice. Real texts repeat themselves as well: an
    empty table, a row of dashes, 600 zeros of a matrix. So here the answer ends late, and only for
    an exact repetition with nothing else in it: over two thousand tokens
    (``OLLAMA_ASYNC_REPETITION_LIMIT``) and at least :data:`REPEATS` times.

    ``add`` takes each token. :meth:`check` takes microseconds; call it every now and then.
    """

    __slots__ = ("_limit", "_tail", "add")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tail = array("i")
        self.add = self._tail.append

    def check(self) -> int:
        """The number of tokens that the answer keeps repeating; 0 if it does not."""
        del self._tail[: -max(_WINDOW, self._limit)]
        return find_period(self._tail, self._limit)


def find_period(tokens: array[int], limit: int) -> int:
    """The length of the passage that ``tokens`` end in repeating, for at least ``limit`` tokens and
    :data:`REPEATS` times; 0 if they do not.
    """
    if len(tokens) < limit:
        return 0
    data = tokens.tobytes()
    sample = data[-_SAMPLE * _TOKEN_BYTES :]
    at = len(data) - 1
    for _ in range(_CANDIDATES):
        at = data.rfind(sample, 0, at)
        if at < 0:
            return 0
        period = len(data) - len(sample) - at
        size = max(limit * _TOKEN_BYTES, REPEATS * period)
        is_aligned = period % _TOKEN_BYTES == 0
        if is_aligned and size <= len(data) and data[-size:-period] == data[period - size :]:
            return period // _TOKEN_BYTES
        at += len(sample) - 1
    return 0

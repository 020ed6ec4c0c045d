"""Prompt lookup: drafts of what a stream says next, from its own conversation.

Answers repeat their prompts: quotes, edits of code, forms. The last tokens of a conversation often
occurred before, and what followed them then is a good guess. So is a text that a prescribed form
leaves no choice about. The engine evaluates such drafts with the token before them in one step, and
samples as if they had come one by one
(:meth:`~ollama_async.workers.child.engines.engine.Engine.verify`): the answer stays the same.

Evaluating drafts makes a step longer, how much longer depends on model, kernels and machine. So
both sides are measured: how often the guesses of each stream were right, also those that were not
drafted, and what steps with drafts take in comparison to steps without. A step gets the number of
drafts that gives the most tokens per second; none if that gains less than :data:`LEAST_GAIN`. Steps
that turn out to have lost time are made up for by a hundred times as many without drafts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ollama_async.workers.child.batching import CHEAP_MASK_S
from ollama_async.workers.child.engines.engine import MAX_DRAFTS, MAX_STREAMS, Constraint
from ollama_async.workers.child.sequence import RunningSequence

LEAST_GAIN = 1.05
"""Times as many tokens per second as without drafts."""

INDEX_TOKENS = 4096
"""Tokens that are indexed in one step, in about a millisecond."""

_SIZE = 3  # tokens of the n-grams in the index
_LONGEST_MATCH = 16  # longer ones count as such
_CANDIDATES = 8  # places that are compared
_PRIOR_HITS = (0.4, 0.6, 0.8, 0.8)
"""By the kind of guess: for matches of 3, 4 to 7, and 8 or more tokens, and for a forced text."""
_FORCED = 3
_FORCED_STEP_S = 0.002  # a shorter step is not worth looking for forced texts
_HIT_WEIGHT = 0.125  # of a guess in the running average of its kind

_OTHERS_LIMIT = 1.5  # times as long a step may take, at most, where not all streams have drafts
_PLAIN_PERIOD = 64  # steps with drafts in a row

# the costs of drafts, in steps without
_TIME_WEIGHT = 0.25  # of a step in the running averages
_PRIOR_COST = 0.2
_MAX_COST = 1.25  # a draft hardly costs more than a step: the machine has paused
_UNSEEN_FACTOR = 0.6
_FADING = 0.998  # with each step
_MAX_INCREASE = 2.0  # of the time of a step without drafts, for the same reason
_CLOCK_S = 1e-6

# what drafting may lose, in steps
_MOST_CREDIT = 4.0
_FIRST_CREDIT = 2.0
_LEAST_CREDIT = -8.0
_CREDIT_OF_STEP = 0.01


class NgramIndex:
    """Where each sequence of three tokens occurs in a text that grows.

    A dictionary has the last place of each, and a list, for each place, the one before it with the
    same three tokens. Different ones may share an entry by their hash, so places are verified.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._before: list[int] = [-1] * (_SIZE - 1)  # by the place of an n-gram's last token

    def extend(self, text: list[int]) -> bool:
        """Index more of ``text``, which begins as it did before. False: there is still more."""
        last, before = self._last, self._before
        begin = len(before) - _SIZE + 1
        part = text[begin : begin + INDEX_TOKENS]
        for place, gram in enumerate(zip(part, part[1:], part[2:], strict=False), len(before)):
            key = hash(gram)
            before.append(last.get(key, -1))
            last[key] = place
        return len(before) >= len(text)

    def find(self, text: list[int], last: int) -> tuple[int, int]:
        """Where ``text`` goes on as it does after its end and ``last``: the place of the token that
        comes then, and how many tokens match before it. Without any, the length is 0.

        The longest match wins, and of those of equal length the latest.
        """
        if len(text) < _SIZE:
            return 0, 0
        best, longest = 0, _SIZE - 1
        place = self._last.get(hash((text[-2], text[-1], last)), -1)
        for _ in range(_CANDIDATES):
            if place < 0:
                break
            length = _match_length(text, last, place)
            if length > longest:
                best, longest = place + 1, length
                if length == _LONGEST_MATCH:
                    break
            place = self._before[place]
        return (best, longest) if best else (0, 0)


def _match_length(text: list[int], last: int, place: int) -> int:
    """How many tokens that end at ``place`` are those that end with ``last``, after ``text``."""
    if text[place] != last:
        return 0
    most = min(_LONGEST_MATCH, place + 1)
    for length in range(1, most):
        if text[place - length] != text[-length]:
            return length
    return most


class Guess(msgspec.Struct, gc=False):
    """``tokens`` that may come at place ``begin`` of a text, which has one ``hit`` after the other
    with the probability that was measured for guesses of this ``kind``.
    """

    tokens: list[int]
    begin: int
    kind: int


class StreamDrafts:
    """What one stream may say next. ``hits``: the measured share of correct tokens by kind."""

    def __init__(self) -> None:
        self._index = NgramIndex()
        self._indexed = 0
        self._guess: Guess | None = None
        self.hits = list(_PRIOR_HITS)

    def guess(
        self, text: list[int], last: int, most: int, constraint: Constraint | None = None
    ) -> Guess | None:
        """What may come after ``text`` and ``last``, at most ``most`` tokens; None: nothing is
        known. Learns from what has come since the last call.
        """
        if len(text) < self._indexed:  # the context was shifted
            self._index, self._guess = NgramIndex(), None
        self._indexed = len(text)
        if self._guess is not None and len(text) >= self._guess.begin:
            self._learn(self._guess, [*text[self._guess.begin :], last])
            self._guess = None
        most = min(most, MAX_DRAFTS)
        is_indexed = self._index.extend(text)
        if most <= 0:
            return None
        guesses = []
        if constraint is not None and (tokens := constraint.forced(most)):
            guesses.append(Guess(tokens, len(text) + 1, _FORCED))
        if is_indexed and (found := self._index.find(text, last))[1]:
            begin, length = found
            kind = 2 if length >= 8 else int(length >= 4)
            if tokens := _continuation(text, last, begin, most):
                guesses.append(Guess(tokens, len(text) + 1, kind))
        self._guess = max(guesses, key=lambda guess: self.hits[guess.kind], default=None)
        return self._guess

    def _learn(self, guess: Guess, came: Sequence[int]) -> None:
        rate = self.hits[guess.kind]
        for guessed, token in zip(guess.tokens, came, strict=False):
            rate += _HIT_WEIGHT * ((guessed == token) - rate)
            if guessed != token:
                break
        self.hits[guess.kind] = rate


def _continuation(text: list[int], last: int, begin: int, count: int) -> list[int]:
    """``count`` tokens from ``begin`` on, as if the text went on repeating itself after ``last``;
    up to the place of an image, whose number is negative.
    """
    tokens = text[begin : begin + count]
    if len(tokens) < count:
        tokens.append(last)
        period = len(tokens)
        while len(tokens) < count:
            tokens.append(tokens[-period])
    for at, token in enumerate(tokens):
        if token < 0:
            return tokens[:at]
    return tokens


class DraftCosts:
    """Running estimates of what steps with drafts take, in steps of as many streams without.

    A step with n drafts takes ``1 + n * cost``. The cost is kept by the number of streams and the
    size class of n. A class that was never seen is assumed to be cheaper per draft than the next
    smaller one. Estimates fade slowly, so that what seemed too expensive is tried again.
    """

    def __init__(self) -> None:
        self._plain_s: dict[int, float] = {}
        self._costs: dict[int, dict[int, float]] = {}
        self._since_plain: dict[int, int] = {}

    def observe(self, streams: int, drafts: int, took_s: float) -> float:
        """A step of so many streams, with so many drafts in all, took ``took_s``. Returns how many
        steps without drafts that is.
        """
        took_s = max(took_s, _CLOCK_S)
        costs = self._costs.setdefault(streams, {})
        for size in costs:
            costs[size] *= _FADING
        if not drafts:
            self._since_plain[streams] = 0
            old_s = self._plain_s.get(streams, took_s)
            took_s = min(took_s, _MAX_INCREASE * old_s)
            self._plain_s[streams] = old_s + _TIME_WEIGHT * (took_s - old_s)
            return 1.0
        self._since_plain[streams] += 1
        size = drafts.bit_length()
        relative = min(took_s / self._plain_s[streams], 1 + drafts * _MAX_COST)
        cost = (relative - 1) / drafts
        old = costs.get(size, cost)
        costs[size] = max(0.0, old + _TIME_WEIGHT * (cost - old))
        return relative

    def is_known(self, streams: int) -> bool:
        """Whether it is known, and recently so, what a step without drafts takes."""
        return self._since_plain.get(streams, _PLAIN_PERIOD) < _PLAIN_PERIOD

    def plain_s(self, streams: int) -> float:
        """What a step without drafts takes; 0 if that is not known."""
        return self._plain_s.get(streams, 0.0)

    def most(self, streams: int) -> int:
        """The most drafts worth a try: one size class more than were tried before."""
        seen = max(self._costs.get(streams, {}), default=0)
        return min(MAX_DRAFTS, (2 << seen) - 1)

    def relative(self, streams: int, drafts: int) -> float:
        """How many times as long as without drafts a step takes."""
        costs, size = self._costs.get(streams, {}), drafts.bit_length()
        factor = 1.0
        while size and size not in costs:
            size -= 1
            factor = _UNSEEN_FACTOR
        return 1 + drafts * factor * costs.get(size, _PRIOR_COST)


class PromptLookup:
    """Decides how many drafts of which streams are in each step. Step thread only.

    Unless the engine ``is_invariant``, sums depend a little on the rows of a step, so a request
    with a seed, which should give the same text each time, gets no drafts.
    """

    def __init__(self, *, is_invariant: bool) -> None:
        self._drafts_seeded = is_invariant
        self.costs = DraftCosts()
        self._credit = _FIRST_CREDIT
        self._streams: dict[int, StreamDrafts] = {}

    def draft(self, decoding: Sequence[RunningSequence]) -> list[list[int]]:
        """The drafts of each of the streams in the next step; [] if none has any.

        Each stays within what its request may have in the slot, and may say.
        """
        streams = self._streams
        self._streams = {
            sequence.id: streams.get(sequence.id) or StreamDrafts() for sequence in decoding
        }
        forces = self.costs.plain_s(len(decoding)) > _FORCED_STEP_S
        guesses = [
            stream.guess(
                *(sequence.slot.tokens, sequence.last[0], self._most_drafts(sequence)),
                sequence.constraint if forces else None,
            )
            for sequence, stream in zip(decoding, self._streams.values(), strict=True)
        ]
        if not any(guesses):
            return []
        counts = self.choose(
            [
                (guess.tokens, stream.hits[guess.kind]) if guess else ((), 0.0)
                for guess, stream in zip(guesses, self._streams.values(), strict=True)
            ]
        )
        if not any(counts):
            return []
        return [
            guess.tokens[:count] if guess else []
            for guess, count in zip(guesses, counts, strict=True)
        ]

    def _most_drafts(self, sequence: RunningSequence) -> int:
        """So many drafts may be accepted, and one more token come, before the answer must end. None
        if the request wants logprobs, which are those of the last step, or its tokens take long to
        check.
        """
        request, constraint = sequence.request, sequence.constraint
        is_seeded = request.sampling.seed >= 0 and not self._drafts_seeded
        is_slow = constraint is not None and constraint.mask_s > CHEAP_MASK_S
        if is_seeded or is_slow or request.logprobs >= 0:
            return 0
        left = min(
            sequence.num_ctx - sequence.row.position, request.max_tokens - sequence.generated
        )
        return left - 1

    def observe(self, streams: int, drafts: int, accepted: int, took_s: float) -> None:
        """A step of so many streams, and nothing else, has ended."""
        if streams > MAX_STREAMS:
            return
        relative = self.costs.observe(streams, drafts, took_s)
        won = 1 + accepted / streams - relative if drafts else _CREDIT_OF_STEP
        self._credit = max(_LEAST_CREDIT, min(self._credit + won, _MOST_CREDIT))

    def choose(self, guesses: Sequence[tuple[Sequence[int], float]]) -> list[int]:
        """How many tokens of each stream's guess are worth their place in the step: of tokens that
        are right with the given probability, if those before them are.
        """
        streams = len(guesses)
        counts = [0] * streams
        if self._credit <= 0 or not self.costs.is_known(streams):
            return counts
        has_others = any(not tokens for tokens, _ in guesses)
        chances = [rate if tokens else 0.0 for tokens, rate in guesses]
        best, best_gain, expected = list(counts), LEAST_GAIN, float(streams)
        for drafts in range(1, self.costs.most(streams) + 1):
            at = max(range(streams), key=chances.__getitem__)
            if not chances[at]:
                break
            tokens, rate = guesses[at]
            counts[at] += 1
            expected += chances[at]
            chances[at] = chances[at] * rate if counts[at] < len(tokens) else 0.0
            relative = self.costs.relative(streams, drafts)
            gain = expected / streams / relative
            if gain > best_gain and not (has_others and relative > _OTHERS_LIMIT):
                best, best_gain = list(counts), gain
        return best

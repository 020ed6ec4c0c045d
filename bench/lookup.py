"""What prompt lookup is worth: tokens per second with it, in those without.

    python bench/lookup.py --model q05
    OLLAMA_ASYNC_KERNELS=stock python bench/lookup.py --model q05

Engine, sampler and loop are the real ones. The models have random weights, which copy nothing, so a
constraint decides what is said: each answer is written in advance, and each token the only one
allowed. Streams say the same kind of answer, each its own. With one thread all times are CPU time.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import models
import numpy as np
import report
from numpy.typing import NDArray

from ollama_async.core.conversation import Sampling
from ollama_async.core.settings import Settings
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.drafting import PromptLookup
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines import open_engine
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Done, Failed

PROMPT = 400
"""Tokens of each prompt."""
WORDS = range(5000, 20_000)


def fresh(chance: random.Random, _prompt: list[int], count: int) -> list[int]:
    """New words only."""
    return chance.choices(WORDS, k=count)


def common(chance: random.Random, _prompt: list[int], count: int) -> list[int]:
    """Twelve words in any order: a few of them often come again, and hardly ever go on alike."""
    return chance.choices(WORDS[:12], k=count)


def copied(_chance: random.Random, prompt: list[int], count: int) -> list[int]:
    """The prompt."""
    return prompt[:count]


def edited(chance: random.Random, prompt: list[int], count: int) -> list[int]:
    """The prompt with one word in twenty replaced."""
    return [chance.choice(WORDS) if chance.random() < 0.05 else token for token in prompt[:count]]


def quoted(chance: random.Random, prompt: list[int], count: int) -> list[int]:
    """Thirty tokens of the prompt, thirty new ones, and so on."""
    new = chance.choices(WORDS, k=count)
    return [prompt[at] if at // 30 % 2 else new[at] for at in range(count)]


ANSWERS: dict[str, Callable[[random.Random, list[int], int], list[int]]] = {
    each.__name__: each for each in (fresh, common, copied, edited, quoted)
}


class Written:
    """A :class:`~ollama_async.workers.child.engines.engine.Constraint`: one answer is allowed."""

    failure, mask_s = "", 0.0

    def __init__(self, answer: Sequence[int]) -> None:
        self._answer = answer
        self._said = 0

    @property
    def is_over(self) -> bool:
        return self._said >= len(self._answer)

    def allows(self, token: int) -> bool:
        return token == self._answer[self._said]

    def allowed(self) -> NDArray[np.intp]:
        return np.array([self._answer[self._said]], np.intp)

    def forced(self, _most: int) -> list[int]:
        return []  # else it would all be forced

    def accept(self, token: int) -> None:
        assert self.allows(token)
        self._said += 1


class Bench:
    def __init__(self, arguments: argparse.Namespace, streams: int) -> None:
        self._clock_ns = time.process_time_ns if arguments.threads == 1 else time.monotonic_ns
        self._streams = streams
        self._count = arguments.tokens
        num_ctx = PROMPT + arguments.tokens + 64
        spec = LoadSpec(
            engine="llama_cpp",
            model=str(models.path_of(arguments.model)),
            num_ctx=num_ctx,
            slots=streams,
            pool_slots=streams,
            pool_cells=streams * num_ctx,
            threads=arguments.threads,
        )
        settings = Settings.from_environ(os.environ)
        self.engine = open_engine(spec, settings, lambda _fraction: None)
        self._lookup = PromptLookup(is_invariant=True)
        self._ids = iter(range(1, 1 << 30))

    def rates(self, kind: str, rounds: int) -> dict[str, Any]:
        """Tokens per second, the better of ``rounds`` each, in turn."""
        lookup = self._lookup
        lookups = {"with": lookup, "without": None}
        best = dict.fromkeys(lookups, 0.0)
        drafted = accepted = 0
        for turn in range(rounds):
            for name, each in lookups.items():
                ends = self._decode(kind, each, turn)
                rate = sum(1e9 * (end.usage.answer - 1) / end.usage.answer_ns for end in ends)
                best[name] = max(best[name], rate)
                drafted += sum(end.usage.drafted for end in ends)
                accepted += sum(end.usage.accepted for end in ends)
        return {
            "answer": kind,
            "streams": self._streams,
            **{f"{name}, tokens/s": rate for name, rate in best.items()},
            "ratio": best["with"] / best["without"],
            "drafted": drafted,
            "accepted": accepted,
        }

    def _decode(self, kind: str, lookup: PromptLookup | None, seed: int) -> list[Done]:
        ends: list[Done] = []

        def hear(messages: Sequence[Any]) -> None:
            assert not any(isinstance(message, Failed) for message in messages)
            ends.extend(message for message in messages if isinstance(message, Done))

        for slot in range(self._streams):
            self.engine.trim(slot, 0)
        mailbox: Mailbox[PreparedRequest] = Mailbox()
        loop = EngineLoop(
            self.engine, mailbox, hear, BatchPlanner(512), clock_ns=self._clock_ns, lookup=lookup
        )
        for stream in range(self._streams):
            request = self._request(kind, random.Random(f"{seed} {stream}"))
            mailbox.expect(request.id)
            mailbox.hand_over(request.id, [request])
        while len(ends) < self._streams:
            loop.iterate(idle_s=0)
        return ends

    def _request(self, kind: str, chance: random.Random) -> PreparedRequest:
        prompt = chance.choices(WORDS, k=PROMPT)
        answer = ANSWERS[kind](chance, prompt, self._count)
        opening = prompt[-3:]  # what is copied follows what came before it
        return PreparedRequest(
            next(self._ids),
            [*opening, *prompt],
            Sampling(temperature=0),
            num_ctx=self.engine.facts.num_ctx,
            keep=0,
            max_tokens=len(answer),
            shift=False,
            returns_context=False,
            constraint=Written(answer),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Prompt lookup, by kind of answer.")
    parser.add_argument("--model", choices=models.SHAPES, default="100m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=200, help="of each answer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 3])
    arguments = parser.parse_args()
    rows, kernels = [], ""
    for streams in arguments.streams:
        bench = Bench(arguments, streams)
        rows += [bench.rates(kind, arguments.rounds) for kind in ANSWERS]
        kernels = bench.engine.facts.kernels
        bench.engine.close()
    report.table(f"lookup: {arguments.model}, {arguments.threads} threads, {kernels}", rows)
    print(f"\n{report.cpu_name()}\n{report.library_flags()}")


if __name__ == "__main__":
    main()

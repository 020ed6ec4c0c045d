"""What ``versus.py`` asks of every server, and the goals.

A client holds one or more chats. A chat is a list of turns: each sends the whole history again and
a new text, and gets an answer of a known length. All clients begin at once, and each sends its next
turn when its last one is answered. Lengths are in tokens; a word is one (``models.py``).

Lengths are such that a row takes llama-server 3 to 60 s on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import models
import numpy as np


@dataclass(frozen=True)
class Turn:
    """One request: ``words`` go after what the chat holds already."""

    words: int
    tokens_out: int


@dataclass(frozen=True)
class Goal:
    """``metric`` of ``own`` is at most (``at_least``: at least) ``limit`` times that of the side
    ``of`` in this scenario or, if ``of`` is a scenario, of ``own`` in that one. Without ``of``, the
    limit itself.
    """

    metric: str
    limit: float
    of: str = "llama-server"
    at_least: bool = False


@dataclass(frozen=True)
class Scenario:
    """- ``slots``: of the server; 0: as many as clients; None: what the server chooses, if it does.
    - ``chats``: of each client. They take turns, so each comes back after all others have spoken.
    - ``system_words``: a system prompt that all chats share.
    - ``beside``: one more client, who sends this once the answers of the others have begun.
    - ``counts``: ask how much of the prompts was cached.
    """

    title: str
    model: str
    clients: int
    turns: tuple[Turn, ...]
    goals: tuple[Goal, ...]
    slots: int | None = 0
    num_ctx: int = 1024
    chats: int = 1
    system_words: int = 0
    seed: int | None = None
    beside: Turn | None = None
    counts: bool = False
    sides: Sequence[str] = ("own", "stock", "llama-server")


def _talk(count: int) -> tuple[Turn, ...]:
    return (Turn(60, 48),) * count


_FASTER = {
    8: (Goal("total s", 0.40),),
    32: (Goal("total s", 0.37), Goal("first p50 s", 0.40)),
}

SCENARIOS = {
    "talk-8": Scenario("8 talking clients", "q05", 8, _talk(4), _FASTER[8]),
    "talk-32": Scenario("32 talking clients on 32 slots", "q05", 32, _talk(3), _FASTER[32]),
    "crowd": Scenario(
        *("32 talking clients on 8 slots", "q05", 32, _talk(2)),
        (Goal("total s", 0.40), Goal("first p50 s", 0.40)),
        slots=8,
        counts=True,
    ),
    "return": Scenario(
        *("64 returning chats on 16 slots", "q05", 16, (Turn(60, 16),) * 3),
        (Goal("first p50 s", 0.5), Goal("history computed again", 0.05, of="")),
        chats=4,
        counts=True,
    ),
    "streams-8": Scenario(
        *("8 streams", "1b", 8, (Turn(8, 64),)),
        (Goal("tokens/s", 2.4, at_least=True),),
    ),
    "streams-32": Scenario(
        *("32 streams", "1b", 32, (Turn(8, 48),)),
        (Goal("tokens/s", 2.0, at_least=True),),
    ),
    "prompts-8": Scenario(
        *("8 prompts of 400 tokens, twice", "q05", 8, (Turn(400, 16), Turn(400, 16))),
        (Goal("first p50 s", 0.45),),
    ),
    "prompts-32": Scenario(
        *("32 prompts of 400 tokens", "q05", 32, (Turn(400, 16),)),
        (Goal("first p50 s", 0.45),),
    ),
    "one": Scenario(
        *("one client", "q05", 1, _talk(4)),
        (Goal("total s", 1 / 0.95),),
    ),
    "one-1b": Scenario(
        *("one client", "1b", 1, _talk(2)),
        (Goal("total s", 1 / 0.95),),
    ),
    "system": Scenario(
        *("32 clients, shared system prompt of 1,000 tokens", "100m", 32, (Turn(16, 16),)),
        (Goal("prompt computed", 1.05, of=""),),
        num_ctx=1536,
        system_words=1000,
        counts=True,
    ),
    "seed": Scenario(
        *("8 talking clients, each request with a seed", "q05", 8, _talk(4)),
        (Goal("total s", 1.05, of="talk-8"),),
        seed=1,
    ),
    "gap-100m": Scenario(
        *("a stream beside a prompt of 1,500 tokens", "100m", 1, (Turn(16, 400),)),
        (Goal("worst gap s", 0.15, of=""),),
        slots=2,
        num_ctx=2048,
        beside=Turn(1500, 1),
    ),
    "gap-q05": Scenario(
        *("a stream beside a prompt of 1,000 tokens", "q05", 1, (Turn(16, 200),)),
        (Goal("worst gap s", 0.15, of=""),),
        slots=2,
        num_ctx=2048,
        beside=Turn(1000, 1),
    ),
    "places": Scenario(
        *("chats of 500 tokens, KV cache of an 8B model, 1 GiB", "kv8b", 24, (Turn(440, 60),)),
        (Goal("at a time", 14, of="", at_least=True),),
        slots=None,
        num_ctx=4096,
        sides=("own", "stock"),
    ),
}


def texts(scenario: Scenario) -> list[list[list[tuple[str, int]]]]:
    """For each client its chats: lists of (text, tokens of the answer). Always the same."""
    random = np.random.default_rng(scenario.clients)
    return [
        [
            [(models.words(turn.words, random), turn.tokens_out) for turn in scenario.turns]
            for _ in range(scenario.chats)
        ]
        for _ in range(scenario.clients)
    ]


def system_text(scenario: Scenario) -> str:
    return models.words(scenario.system_words, np.random.default_rng(1000))


def interruption(turn: Turn) -> str:
    return models.words(turn.words, np.random.default_rng(2000))

"""Our server beside llama-server: the same questions, the same file, in turn, in one run.

    LLAMA_SERVER=/path/to/llama-server python bench/versus.py
    python bench/versus.py --scenario talk-8 --side own --side llama-server --rounds 3

Sides: ``own`` (our server), ``stock`` (our server without its own kernels) and ``llama-server``, if
that variable names one. Each side of each round is started anew. Medians of the rounds are printed,
with the ratios that the goals (``scenarios.py``) are about. ``others`` are the cores that other
processes used: 0.0 to 0.1 on a quiet machine. Rows with more say little.
"""

from __future__ import annotations

import argparse
import asyncio
import operator
import statistics
import sys
import time
from typing import Any

import load
import peers
import report
import scenarios
import uvloop
from scenarios import SCENARIOS, Goal, Scenario

Row = dict[str, Any]
METRICS = (
    *("total s", "first p50 s", "first p99 s", "worst gap s", "tokens/s"),
    *("prompt computed", "history computed again", "at a time", "CPU s", "others"),
)


class Run:
    """One scenario on one running server."""

    def __init__(self, scenario: Scenario, peer: peers.Peer, server: peers.Running) -> None:
        self._scenario = scenario
        self._peer = peer
        self._server = server
        self._answers: list[load.Answer] = []
        self._history = 0
        self._begun = [asyncio.Event() for _ in range(scenario.clients)]
        system = scenarios.system_text(scenario)
        self._opening = [("system", system)] if system else []

    async def warm_up(self) -> None:
        """So that the model is loaded."""
        await self._ask([("user", "one two")], 4)

    async def measure(self) -> Row:
        before = self._cpu_s()
        began = time.perf_counter()
        work = [
            self._talk(chats, begun)
            for chats, begun in zip(scenarios.texts(self._scenario), self._begun, strict=True)
        ]
        if self._scenario.beside:
            work.append(self._interrupt(self._scenario.beside))
        await asyncio.gather(*work)
        wall_s = time.perf_counter() - began
        server_s, others_s = map(operator.sub, self._cpu_s(), before)
        return self._summary(wall_s) | {"CPU s": server_s, "others": others_s / wall_s}

    def _cpu_s(self) -> tuple[float, float]:
        """Of the server, and of everybody but it and this process."""
        server_s = self._server.cpu_s()
        return server_s, report.machine_cpu_s() - server_s - time.process_time()

    async def _talk(self, chats: list[list[tuple[str, int]]], begun: asyncio.Event) -> None:
        """All chats of one client, which take turns. ``begun`` is set with its first token."""
        histories = [list(self._opening) for _ in chats]
        held = [0] * len(chats)
        for turns in zip(*chats, strict=True):
            for chat, (text, tokens_out) in enumerate(turns):
                history = histories[chat]
                history.append(("user", text))
                answer = await self._ask(history, tokens_out, begun)
                history.append(("assistant", answer.text))
                self._answers.append(answer)
                self._history += held[chat]
                held[chat] = answer.prompt_tokens + tokens_out - 1  # the last is not evaluated

    async def _interrupt(self, turn: scenarios.Turn) -> None:
        """The client that comes later. Its answer is not part of the result."""
        await asyncio.gather(*(begun.wait() for begun in self._begun))
        await self._ask([("user", scenarios.interruption(turn))], turn.tokens_out)

    async def _ask(
        self, history: peers.Messages, tokens_out: int, begun: asyncio.Event | None = None
    ) -> load.Answer:
        """On a connection of its own: llama-server has a thread for each, and not many."""
        scenario = self._scenario
        question = peers.Question(history, tokens_out, scenario.seed, scenario.counts)
        stream = await load.connect(self._server.port)
        if begun is not None:
            stream.began = begun
        answer = await stream.post(*self._peer.ask(question), keeps_text=True)
        stream.close()
        if answer.tokens != tokens_out:
            raise SystemExit(f"status {answer.status}, {answer.tokens} tokens: {answer.final}")
        return answer

    def _summary(self, wall_s: float) -> Row:
        answers = self._answers
        waits = [answer.first - answer.sent for answer in answers]
        prompt = sum(answer.prompt_tokens for answer in answers)
        row: Row = {
            "total s": wall_s,
            "first p50 s": load.percentile(waits, 0.5),
            "first p99 s": load.percentile(waits, 0.99),
            "worst gap s": max(answer.worst_gap_s for answer in answers),
            "tokens/s": sum(answer.tokens for answer in answers) / wall_s,
            "at a time": _most_at_a_time(answers),
            "prompt tokens": prompt,
        }
        if self._scenario.counts:
            computed = prompt - sum(answer.cached_tokens for answer in answers)
            once = prompt - self._history - self._shared()
            row["prompt computed"] = computed / once
            if self._history:
                row["history computed again"] = (computed - once) / self._history
        return row

    def _shared(self) -> int:
        """Tokens of the system prompt that need not be computed, because another chat has it."""
        chats = self._scenario.clients * self._scenario.chats
        words = self._scenario.system_words
        return (words + 1) * (chats - 1) if words else 0  # with the token that begins a text


def _most_at_a_time(answers: list[load.Answer]) -> int:
    """The most answers that had begun and not ended."""
    events = [(answer.first, 1) for answer in answers] + [(answer.last, -1) for answer in answers]
    running = most = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most


def run(name: str, side: str) -> Row:
    scenario, peer = SCENARIOS[name], peers.PEERS[side]
    slots = scenario.clients if scenario.slots == 0 else scenario.slots
    with peer.start(scenario.model, slots, scenario.num_ctx) as server:
        measured = Run(scenario, peer, server)
        uvloop.run(measured.warm_up())
        return uvloop.run(measured.measure())


def compare(name: str, sides: list[str], rounds: int) -> dict[str, Row]:
    """Medians of each side; the sides take turns."""
    runs: dict[str, list[Row]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, rows in runs.items():
            rows.append(run(name, side))
            print(f"{name} {side}: {rows[-1]['total s']:.1f} s", file=sys.stderr, flush=True)
    assert len({row["prompt tokens"] for rows in runs.values() for row in rows}) == 1, runs
    return {side: _median(rows) for side, rows in runs.items()}


def _median(rows: list[Row]) -> Row:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def judge(name: str, goal: Goal, results: dict[str, dict[str, Row]]) -> Row | None:
    """The goal beside what was reached; None if a side of it was not measured."""
    own = results[name].get("own")
    other = results[name].get(goal.of) or results.get(goal.of, {}).get("own")
    if own is None or (goal.of and other is None):
        return None
    reached = own[goal.metric] / (other[goal.metric] if other else 1)
    is_met = reached >= goal.limit if goal.at_least else reached <= goal.limit
    return {
        "scenario": name,
        "metric": goal.metric,
        "own": own[goal.metric],
        "of": goal.of or "-",
        "its": other[goal.metric] if other else "-",
        "ratio": reached,
        "goal": f"{'≥' if goal.at_least else '≤'} {goal.limit:.2f}",
        "met": "yes" if is_met else "NO",
    }


def print_results(results: dict[str, dict[str, Row]]) -> None:
    lines = [
        {"scenario": name, "side": side} | {metric: row.get(metric, "") for metric in METRICS}
        for name, sides in results.items()
        for side, row in sides.items()
    ]
    report.table("medians", lines)
    judged = [judge(name, goal, results) for name in results for goal in SCENARIOS[name].goals]
    goals = [row for row in judged if row is not None]
    if goals:
        report.table("goals", goals)


def main() -> None:
    parser = argparse.ArgumentParser(description="Our server beside llama-server.")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--side", choices=peers.PEERS, action="append")
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    wanted = chosen.side or peers.available()
    results: dict[str, dict[str, Row]] = {}
    for name in chosen.scenario or SCENARIOS:
        sides = [side for side in SCENARIOS[name].sides if side in wanted]
        results[name] = compare(name, sides, chosen.rounds)
    print(f"{report.cpu_name()}\n{report.library_flags()}")
    print_results(results)
    report.save("versus", {"library": report.library_flags(), "results": results})


if __name__ == "__main__":
    main()

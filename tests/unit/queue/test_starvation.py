"""More models than memory, each always wanted by someone: everybody is served in bounded time.

A discrete simulation: loads, answers and stops take as long as they take, clients ask again as soon
as they are answered.
"""

from __future__ import annotations

import heapq
import random

import pytest

LOAD_S = {"a": 2.0, "b": 4.0, "c": 1.0, "big": 8.0}
STOP_S = 0.5
HORIZON_S = 1000.0


class World:
    """Carries the scheduler's effects out in simulated time, and measures waits."""

    def __init__(self, desk, seed):
        self.desk = desk
        self.dice = random.Random(seed)
        self.due = []
        self.number = 0
        self.asked_at = {}
        self.model_of = {}
        self.longest_wait_s = 0.0
        self.served = dict.fromkeys(LOAD_S, 0)
        self.seen_fate = {}
        self.seen_workers = {}

    def after(self, seconds, do, *args):
        self.number += 1
        heapq.heappush(self.due, (self.desk.now + seconds, self.number, do, args))

    def ask(self, model, client):
        ticket = self.desk.ask(model, client=client)
        self.asked_at[ticket] = self.desk.now
        self.model_of[ticket] = (model, client)
        self.look()

    def end(self, ticket):
        model, client = self.model_of[ticket]
        self.served[model] += 1
        self.desk.end(ticket)
        self.look()
        self.after(self.dice.expovariate(2.0), self.ask, model, client)

    def ready(self, model):
        self.desk.ready(model)
        self.look()

    def stopped(self, model):
        self.desk.stopped(model)
        self.look()

    def look(self):
        """Whatever the last event has begun, takes its time."""
        for ticket, fate in self.desk.fate.items():
            if fate != self.seen_fate.get(ticket):
                self.seen_fate[ticket] = fate
                if fate == "running":
                    waited_s = self.desk.now - self.asked_at[ticket]
                    self.longest_wait_s = max(self.longest_wait_s, waited_s)
                    self.after(self.dice.uniform(0.2, 3.0), self.end, ticket)
        for worker, state in list(self.desk.workers.items()):
            if state != self.seen_workers.get(worker):
                self.seen_workers[worker] = state
                model = self.desk.load[worker].target.key
                if state == "loading":
                    self.after(LOAD_S[model], self.ready, model)
                elif state == "stopping":
                    self.after(STOP_S, self.stopped, model)
        self.seen_fate = {t: f for t, f in self.seen_fate.items() if f in {"waiting", "running"}}
        self.desk.fate = {t: f for t, f in self.desk.fate.items() if f in {"waiting", "running"}}

    def run(self, seconds):
        until = self.desk.now + seconds
        while self.due and self.due[0][0] < until:
            moment, _, do, args = heapq.heappop(self.due)
            self.desk.wait(moment - self.desk.now)
            self.look()
            do(*args)


@pytest.mark.parametrize("seed", range(3))
def test_nobody_starves_and_loading_does_not_take_over(make_desk, seed):
    desk = make_desk(
        slots=2,
        max_queue=100,
        max_loaded=3,
        memory=50,
        sizes={"a": 19, "b": 19, "c": 9, "big": 44},
    )
    world = World(desk, seed)
    for model in LOAD_S:
        for number in range(4):
            world.after(0.0, world.ask, model, f"{model} {number}")
    world.run(HORIZON_S)
    assert world.longest_wait_s < 120
    assert min(world.served.values()) > 40
    assert desk.loads() < HORIZON_S / 10

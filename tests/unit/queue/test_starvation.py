"""More models than memory, each always in demand: every request is served in bounded time.

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


class Simulation:
    """Carries the scheduler's effects out in simulated time, and measures waits."""

    def __init__(self, harness, seed):
        self.harness = harness
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
        heapq.heappush(self.due, (self.harness.now + seconds, self.number, do, args))

    def ask(self, model, client):
        request = self.harness.submit(model, client=client)
        self.asked_at[request] = self.harness.now
        self.model_of[request] = (model, client)
        self.look()

    def end(self, request):
        model, client = self.model_of[request]
        self.served[model] += 1
        self.harness.end(request)
        self.look()
        self.after(self.dice.expovariate(2.0), self.ask, model, client)

    def ready(self, model):
        self.harness.make_ready(model)
        self.look()

    def stopped(self, model):
        self.harness.finish_stop(model)
        self.look()

    def look(self):
        """Whatever the last event has begun, takes its time."""
        for request, status in self.harness.status.items():
            if status != self.seen_fate.get(request):
                self.seen_fate[request] = status
                if status == "running":
                    waited_s = self.harness.now - self.asked_at[request]
                    self.longest_wait_s = max(self.longest_wait_s, waited_s)
                    self.after(self.dice.uniform(0.2, 3.0), self.end, request)
        for worker, state in list(self.harness.workers.items()):
            if state != self.seen_workers.get(worker):
                self.seen_workers[worker] = state
                model = self.harness.loads[worker].target.key
                if state == "loading":
                    self.after(LOAD_S[model], self.ready, model)
                elif state == "stopping":
                    self.after(STOP_S, self.stopped, model)
        self.seen_fate = {t: f for t, f in self.seen_fate.items() if f in {"waiting", "running"}}
        self.harness.status = {
            t: f for t, f in self.harness.status.items() if f in {"waiting", "running"}
        }

    def run(self, seconds):
        until = self.harness.now + seconds
        while self.due and self.due[0][0] < until:
            moment, _, do, args = heapq.heappop(self.due)
            self.harness.advance(moment - self.harness.now)
            self.look()
            do(*args)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_no_client_starves_and_loads_are_bounded(make_harness, seed):
    harness = make_harness(
        slots=2,
        max_queue=100,
        max_loaded=3,
        memory=50,
        sizes={"a": 19, "b": 19, "c": 9, "big": 44},
    )
    simulation = Simulation(harness, seed)
    for model in LOAD_S:
        for number in range(4):
            simulation.after(0.0, simulation.ask, model, f"{model} {number}")
    simulation.run(HORIZON_S)
    assert simulation.longest_wait_s < 120
    assert min(simulation.served.values()) > 40
    assert harness.load_count() < HORIZON_S / 10

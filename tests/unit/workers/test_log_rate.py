"""The log takes a burst and then a trickle of what a worker prints."""

from ollama_async.workers.log_rate import BURST_BYTES, BYTES_PER_S, LogRate


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_quiet_worker_is_logged_whole():
    logged = []
    rate = LogRate(logged.append, Clock())
    for number in range(1000):
        rate.line(f"line {number}")
    rate.close()
    assert logged == [f"line {number}" for number in range(1000)]


def test_a_flood_is_bounded_told_of_and_counted():
    logged, clock = [], Clock()
    rate = LogRate(logged.append, clock)
    for _ in range(100_000):
        clock.now += 0.001
        rate.line("x" * 1000)
    rate.skipped(7)
    rate.close()
    assert sum(map(len, logged)) < BURST_BYTES + 100 * BYTES_PER_S + 10_000
    assert any("most lines are dropped" in line for line in logged)
    dropped = [int(line.split()[0]) for line in logged if line.endswith("lines dropped")]
    assert sum(dropped) + sum(line.startswith("x") for line in logged) == 100_007


def test_a_worker_that_calms_down_is_logged_again():
    logged, clock = [], Clock()
    rate = LogRate(logged.append, clock)
    for _ in range(3000):
        rate.line("x" * 1000)
    assert rate.is_dropping
    clock.now += 60
    rate.line("calm")
    assert not rate.is_dropping
    assert logged[-2].endswith("lines dropped")
    assert logged[-1] == "calm"

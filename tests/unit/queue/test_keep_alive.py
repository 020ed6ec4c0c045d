"""When an idle model is unloaded, by keep_alive or on request."""

from __future__ import annotations

import math


def test_a_load_without_requests_is_stopped_when_an_unload_is_requested(make_harness):
    harness = make_harness()
    harness.cancel(harness.submit("a"))
    harness.unload("a")
    assert harness.worker_states("a") == ["stopping"]
    assert harness.stop_reasons == ["requested"]


def test_a_load_without_requests_is_kept_like_an_idle_model(make_harness):
    harness = make_harness(keep_alive_s=5.0)
    request = harness.submit("a")
    harness.advance(60.0)
    harness.cancel(request)
    harness.advance(4.0)
    assert harness.worker_states("a") == ["loading"]
    harness.advance(2.0)
    assert harness.worker_states("a") == ["stopping"]


def test_a_load_without_requests_finishes_and_is_kept(make_harness):
    harness = make_harness(keep_alive_s=60.0)
    harness.cancel(harness.submit("a"))
    harness.make_ready("a")
    assert harness.worker_states("a") == ["ready"]
    harness.advance(61.0)
    assert harness.worker_states("a") == ["stopping"]


def test_the_last_keep_alive_of_a_request_applies(make_harness):
    harness = make_harness(keep_alive_s=300.0)
    harness.load("a", keep_alive_s=10.0)
    harness.end(harness.submit("a"))
    harness.advance(9.0)
    assert harness.worker_states("a") == ["ready"]
    harness.advance(2.0)
    assert harness.worker_states("a") == ["stopping"]
    assert harness.stop_reasons == ["idle"]


def test_keep_alive_begins_when_the_last_request_ends(make_harness):
    harness = make_harness(keep_alive_s=10.0)
    harness.load("a")
    harness.advance(5.0)
    request = harness.submit("a")
    harness.advance(100.0)
    harness.end(request)
    harness.advance(9.0)
    assert harness.worker_states("a") == ["ready"]


def test_keep_alive_zero_unloads_when_idle_and_inf_never(make_harness):
    harness = make_harness()
    harness.load("a", keep_alive_s=0.0)
    assert harness.worker_states("a") == ["stopping"]
    harness.load("b", keep_alive_s=math.inf)
    harness.advance(1e9)
    assert harness.worker_states("b") == ["ready"]


def test_unloading_on_request_lets_running_ones_end(make_harness):
    harness = make_harness()
    harness.load("a")
    request = harness.submit("a")
    harness.unload("a")
    assert harness.worker_states("a") == ["ready"]
    harness.end(request)
    assert harness.worker_states("a") == ["stopping"]
    harness.unload("never loaded")


def test_a_request_during_an_unload_loads_again_when_the_memory_is_free(make_harness):
    harness = make_harness()
    harness.load("a")
    running = harness.submit("a")
    harness.unload("a")
    request = harness.submit("a")
    harness.end(running)
    harness.finish_stop("a")
    harness.make_ready("a")
    assert harness.status[request] == "running"

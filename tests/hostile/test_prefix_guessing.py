"""One client guesses what another has sent, and looks at what it was spared."""

from __future__ import annotations

import random

import httpx
import pytest

from ollama_async.gateway.metrics import CACHED_STEP
from tests.integration.conftest import LONG_WAIT_S, RunningServer

pytestmark = pytest.mark.slow

VICTIM, ATTACKER = "127.0.0.2", "127.0.0.3"
OWN = "Always answer like the harbour master of Wyk, who has seen every tide. " * 12


def pages(seed: int) -> str:
    """Some 1,500 tokens that nobody else sends."""
    choice = random.Random(seed).choice
    return " ".join(choice(("tide", "boat", "rope", "sand", "gull", "wave")) for _ in range(1200))


def read(server: RunningServer, address: str, system: str, **more) -> dict:
    """What the server says of a question behind ``system``."""
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(base_url=server.url, transport=transport, timeout=LONG_WAIT_S) as client:
        body = {
            "model": "demo",
            "system": system,
            "prompt": "Hi",
            "stream": False,
            "options": {"num_predict": 1},
        }
        answer = client.post("/api/generate", json=body | more)
    found: dict = answer.raise_for_status().json()
    return found


def read_ns(server: RunningServer, address: str, system: str, **more) -> int:
    return read(server, address, system, **more)["prompt_eval_duration"]


def guess(server: RunningServer, secret: int) -> tuple[int, int]:
    """How long the attacker's right guess takes to be read, and a wrong one of the same length."""
    read(server, VICTIM, pages(secret))
    wrong_ns = read_ns(server, ATTACKER, pages(secret + 1))
    return read_ns(server, ATTACKER, pages(secret)), wrong_ns


def test_where_all_share_a_right_guess_is_told_from_a_wrong_one(start_server):
    """The documented risk; and proof that the next test would see it."""
    server = start_server(offers_shipped=True)
    right_ns, wrong_ns = guess(server, 0)

    assert right_ns < wrong_ns / 3


@pytest.fixture
def separate(start_server):
    return start_server(offers_shipped=True, OLLAMA_ASYNC_PREFIX_SHARING="client")


def test_where_each_client_has_its_own_a_right_guess_takes_as_long_as_a_wrong_one(separate):
    right_ns, wrong_ns = guess(separate, 0)
    again_ns = read_ns(separate, ATTACKER, pages(0))

    assert right_ns > wrong_ns / 3
    assert again_ns < wrong_ns / 3  # it is spared what it has sent itself


def test_what_the_model_brings_is_shared_even_then(separate):
    made = httpx.post(
        f"{separate.url}/api/create",
        json={"model": "harbour", "from": "demo", "system": OWN, "stream": False},
        timeout=LONG_WAIT_S,
    )
    made.raise_for_status()
    first_ns = read_ns(separate, VICTIM, "", model="harbour")
    other_ns = read_ns(separate, ATTACKER, "", model="harbour", prompt="Ho")
    brought_ns = read_ns(separate, "127.0.0.4", OWN, prompt="Ho")

    assert other_ns < first_ns / 3
    assert brought_ns > first_ns / 3  # the same text, but a client's


def test_the_public_count_tells_no_guess_from_another(demo_server):
    """Digit by digit: the more digits are right, the more tokens are cached."""
    read(demo_server, VICTIM, "The code is 4711.")
    moves = set()
    for digit in range(10):
        before = demo_server.metric("ollama_prompt_cached_tokens_total")
        read(demo_server, ATTACKER, f"The code is {digit}")
        moves.add(demo_server.metric("ollama_prompt_cached_tokens_total") - before)

    assert moves <= {0, CACHED_STEP}

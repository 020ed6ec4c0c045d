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


def read(server: RunningServer, address: str, system: str, **more) -> tuple[int, int]:
    """A question behind ``system``: the tokens of its prompt, and how many of them were cached.

    What is not cached is computed, which takes its time: so the number is what a clock would tell,
    whatever the machine does besides.
    """
    transport = httpx.HTTPTransport(local_address=address)
    messages = [{"role": "system", "content": system}] if system else []
    body = {
        "model": "demo",
        "messages": [*messages, {"role": "user", "content": more.pop("prompt", "Hi")}],
        "max_tokens": 1,
    }
    with httpx.Client(base_url=server.url, transport=transport, timeout=LONG_WAIT_S) as client:
        answer = client.post("/v1/chat/completions", json=body | more)
    usage = answer.raise_for_status().json()["usage"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def is_spared(server: RunningServer, address: str, system: str, **more) -> bool:
    """Whether most of the prompt was cached."""
    tokens, cached = read(server, address, system, **more)
    return cached > tokens / 2


def guess(server: RunningServer, secret: int) -> tuple[bool, bool]:
    """Whether the attacker is spared its right guess, and a wrong one of the same length."""
    read(server, VICTIM, pages(secret))
    wrong = is_spared(server, ATTACKER, pages(secret + 1))
    return is_spared(server, ATTACKER, pages(secret)), wrong


def test_where_all_share_a_right_guess_is_told_from_a_wrong_one(start_server):
    """The documented risk; and proof that the next test would see it."""
    server = start_server(offers_shipped=True)

    assert guess(server, 0) == (True, False)


@pytest.fixture
def separate(start_server):
    return start_server(offers_shipped=True, OLLAMA_ASYNC_PREFIX_SHARING="client")


def test_where_each_client_has_its_own_a_right_guess_takes_as_long_as_a_wrong_one(separate):
    assert guess(separate, 0) == (False, False)
    assert is_spared(separate, ATTACKER, pages(0))  # what it has sent itself


def test_what_the_model_brings_is_shared_even_then(separate):
    made = httpx.post(
        f"{separate.url}/api/create",
        json={"model": "harbour", "from": "demo", "system": OWN, "stream": False},
        timeout=LONG_WAIT_S,
    )
    made.raise_for_status()

    assert not is_spared(separate, VICTIM, "", model="harbour")
    assert is_spared(separate, ATTACKER, "", model="harbour", prompt="Ho")
    assert not is_spared(separate, "127.0.0.4", OWN, prompt="Ho")  # the same text, but a client's


def test_the_public_count_tells_no_guess_from_another(demo_server):
    """Digit by digit: the more digits are right, the more tokens are cached."""
    read(demo_server, VICTIM, "The code is 4711.")
    moves = set()
    for digit in range(10):
        before = demo_server.metric("ollama_prompt_cached_tokens_total")
        read(demo_server, ATTACKER, f"The code is {digit}")
        moves.add(demo_server.metric("ollama_prompt_cached_tokens_total") - before)

    assert moves <= {0, CACHED_STEP}

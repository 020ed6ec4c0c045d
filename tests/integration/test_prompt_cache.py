"""More conversations than slots: what lost its slot comes back from host memory, through a real
server with a real model; also after the model was loaded again.
"""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest

from tests.integration.conftest import LONG_WAIT_S, RunningServer

pytestmark = pytest.mark.slow

NUM_CTX = 1024
PLACES = ("harbour", "market", "lighthouse", "station")


@pytest.fixture
def start(start_server):
    """One slot with the context of one conversation."""

    def start_one(**variables):
        return start_server(
            offers_shipped=True,
            OLLAMA_NUM_PARALLEL="1",
            OLLAMA_CONTEXT_LENGTH=str(NUM_CTX),
            OLLAMA_KEEP_ALIVE="-1",
            **variables,
        )

    return start_one


def history(place: str) -> list[dict[str, str]]:
    """Some 400 tokens: the four take more than the context."""
    text = f"At the {place} the boats come in with the tide and the gulls wait for them. " * 20
    return [{"role": "user", "content": f"{text}What is gravity?"}]


class Chat:
    """A conversation that goes on with what was answered."""

    def __init__(self, server: RunningServer, place: str, address: str = "127.0.0.1") -> None:
        self.server = server
        self.messages = history(place)
        self.address = address
        self.answers: list[str] = []

    def say(self, question: str = "") -> tuple[int, int]:
        """Tokens of the prompt, and how many of them were cached."""
        if question:
            self.messages.append({"role": "user", "content": question})
        body = {"model": "demo", "messages": self.messages, "max_tokens": 12, "temperature": 0}
        transport = httpx.HTTPTransport(local_address=self.address)
        with httpx.Client(transport=transport, timeout=LONG_WAIT_S) as client:
            answer = client.post(f"{self.server.url}/v1/chat/completions", json=body)
        answer.raise_for_status()
        text = answer.json()["choices"][0]["message"]["content"]
        self.answers.append(text)
        self.messages.append({"role": "assistant", "content": text})
        usage = answer.json()["usage"]
        return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def unload(server: RunningServer) -> None:
    body = {"model": "demo", "keep_alive": 0}
    httpx.post(f"{server.url}/api/generate", json=body).raise_for_status()
    server.wait_until(lambda: not server.workers(), "the worker ends")


def talk(server: RunningServer) -> tuple[list[Chat], list[int]]:
    """Conversations that take turns, and how many tokens of each history were computed again."""
    chats = [Chat(server, place) for place in PLACES]
    again = []
    known = [chat.say()[0] for chat in chats]
    for question in ("Why is the sky blue?", "Hi"):
        for number, chat in enumerate(chats):
            prompt, cached = chat.say(question)
            again.append(known[number] - cached)
            known[number] = prompt
    return chats, again


def test_conversations_that_take_turns_are_not_computed_again(start):
    with_cache, again = talk(start())
    without, computed = talk(start(OLLAMA_ASYNC_CACHE_RAM="0"))

    assert max(again) <= 32
    assert min(computed) > 300
    assert [chat.answers for chat in with_cache] == [chat.answers for chat in without]


def test_a_conversation_goes_on_after_its_model_was_loaded_again(start):
    server = start()
    chats = [Chat(server, place) for place in PLACES]
    known = [chat.say()[0] for chat in chats]
    unload(server)

    for chat, length in zip(chats, known, strict=True):
        _, cached = chat.say("Hi")
        assert cached >= length - 32
    assert len(server.workers()) == 1


def test_a_conversation_goes_on_after_its_worker_was_killed(start):
    server = start()
    chats = [Chat(server, place) for place in PLACES]
    known = [chat.say()[0] for chat in chats]
    (worker,) = server.workers()
    worker.send_signal(signal.SIGKILL)
    server.wait_until(lambda: worker not in server.workers(), "the worker ends")

    assert chats[0].say("Hi")[1] >= known[0] - 32  # it had lost its slot to the others
    assert chats[3].say("Hi")[1] < 64  # which was in its slot


def test_what_is_kept_is_bounded(start):
    server = start(OLLAMA_ASYNC_CACHE_RAM="1MiB")  # less than these conversations
    _, computed = talk(server)

    assert max(computed) > 300


def test_metrics_tell_what_is_kept(start):
    server = start()
    talk(server)
    server.wait_until(
        lambda: server.metric("ollama_prompt_cache_bytes", model="demo:latest") > 0, "a heartbeat"
    )

    assert server.metric("ollama_prompt_cache_bytes") % (1 << 20) == 0
    assert server.metric("ollama_prompt_restored_tokens_total") % 4096 == 0


def test_no_client_gets_the_conversations_of_another(start):
    server = start(OLLAMA_ASYNC_PREFIX_SHARING="client")
    own = Chat(server, PLACES[0], "127.0.0.2")
    length, _ = own.say()
    for place in PLACES[1:]:  # take its place
        Chat(server, place, "127.0.0.3").say()
    guess = Chat(server, PLACES[0], "127.0.0.3")

    assert guess.say()[1] < 64
    assert own.say("Hi")[1] >= length - 32
    unload(server)
    assert Chat(server, PLACES[0], "127.0.0.4").say()[1] < 64
    assert own.say("Hi")[1] >= length - 32


SCRIPTED = {
    "talker": {
        "tokens": "one two three four",
        "slots": 16,
        "num_ctx": 4096,
        "cells": 16 * 1024,
        "template": "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>",
    }
}


@pytest.mark.parametrize("cells", [0, SCRIPTED["talker"]["cells"]])
async def test_of_64_chats_on_16_slots_hardly_any_history_is_computed_again(start_server, cells):
    """Concurrent clients with four chats each, which take turns."""
    script = SCRIPTED["talker"] | {"cells": cells}
    server = start_server(scripts={"talker": script})
    again = known = 0

    async def talk(client: httpx.AsyncClient, name: int) -> None:
        nonlocal again, known
        chats = [[{"role": "user", "content": f"{name}.{chat} " * 250}] for chat in range(4)]
        lengths = [0] * 4
        for _ in range(3):
            for chat, messages in enumerate(chats):
                body = {"model": "talker", "messages": messages}
                answer = await client.post("/v1/chat/completions", json=body)
                usage = answer.raise_for_status().json()["usage"]
                cached = usage["prompt_tokens_details"]["cached_tokens"]
                known += lengths[chat]
                again += max(0, lengths[chat] - cached)
                lengths[chat] = usage["prompt_tokens"]
                text = answer.json()["choices"][0]["message"]["content"]
                messages += [
                    {"role": "assistant", "content": text},
                    {"role": "user", "content": "more " * 10},
                ]

    async with httpx.AsyncClient(base_url=server.url, timeout=LONG_WAIT_S) as client:
        await asyncio.gather(*(talk(client, name) for name in range(16)))
    assert known > 100_000
    assert again <= 0.05 * known

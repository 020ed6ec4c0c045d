"""What it costs to hold tool calls to their schemas while an answer calls nothing.

    python bench/tool_calls.py

Two servers with the package's small model, one of which leaves calls alone, answer the same request
with tools in turn. The model is so fast (some 0.4 ms a token) that whatever Python adds shows.
"""

import asyncio
import json
import statistics
import time

import aiohttp
import report

ROUNDS = 12
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
REQUEST = {
    "model": "demo",
    "think": False,
    "tools": [TOOL],
    "messages": [{"role": "user", "content": "Tell me a story about a fox."}],
    "options": {"num_predict": 160, "temperature": 1.0},
}


async def answered(session: aiohttp.ClientSession, port: int) -> int:
    """Tokens of one answer."""
    async with session.post(f"http://127.0.0.1:{port}/api/chat", json=REQUEST) as response:
        *_, last = [json.loads(line) async for line in response.content]
    return last["eval_count"]


async def rate(port: int, clients: int) -> float:
    """Tokens a second of all clients together."""
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        tokens = await asyncio.gather(*(answered(session, port) for _ in range(clients)))
    return sum(tokens) / (time.perf_counter() - began)


async def compare(held: int, free: int) -> None:
    for clients in (1, 8):
        rates: dict[int, list[float]] = {held: [], free: []}
        for _ in range(ROUNDS + 1):
            for port, measured in rates.items():
                measured.append(await rate(port, clients))
        with_, without = (statistics.median(rates[port][1:]) for port in (held, free))
        print(f"{clients} clients: {with_:.0f} tokens/s, {without:.0f} where calls are left alone")


def main() -> None:
    environment = {"OLLAMA_NUM_PARALLEL": "8", "OLLAMA_KEEP_ALIVE": "-1"}
    with (
        report.serving(environment) as held,
        report.serving({**environment, "OLLAMA_ASYNC_TOOL_SCHEMAS": "0"}) as free,
    ):
        asyncio.run(compare(held.port, free.port))


if __name__ == "__main__":
    main()

"""What a model file can do, measured with the real server: accuracy for each skill.

    python -m demo.evaluate FILE.gguf
    python -m demo.evaluate --documented   # what the server's own tests ask the shipped file

Prompts are rendered here and sent raw, because that shows the model's own text; those with tools
are sent as chats, since the server holds calls to the tools. Decoding is greedy.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import msgspec

from demo.example import Example, is_right
from demo.render import prompt_text, split_thinking
from demo.skills import (
    arithmetic,
    copying,
    json_fill,
    memory,
    questions,
    stories,
    tools,
    unknown,
)
from measured_server import server

_SEED = 20_000
_EXAMPLES = 200
_AT_ONCE = 16
_ANSWER_TOKENS = 500
_TIMEOUT_S = 600
_CALL_KEYS = ("name", "arguments")


class Suite(msgspec.Struct, frozen=True):
    """Examples, held out of training unless the name says otherwise.

    A model of which less than the share ``least`` is right is not what the package promises; None:
    nothing is promised.
    """

    name: str
    make: Callable[[Random], Example]
    least: float | None


class Result(msgspec.Struct, frozen=True):
    suite: str
    example: Example
    content: str
    right: bool


@cache
def _first_wordings() -> list[Example]:
    """Trained as they are, so this shows what it remembers."""
    return questions.canonical()


@cache
def _known() -> list[Example]:
    """What tutorials ask, and plain examples of each skill; most of it trained."""
    skills = (arithmetic, copying, json_fill, memory, stories, tools)
    return [example for skill in skills for example in skill.catalogue()]


SUITES = [
    Suite("questions, first wordings", lambda rng: rng.choice(_first_wordings()), 0.95),
    Suite("questions, new paraphrases", questions.make_paraphrase, 0.85),
    Suite("questions, new wordings", questions.make_wording, 0.7),
    Suite("what tutorials ask of skills", lambda rng: rng.choice(_known()), 0.85),
    Suite("unknown questions", lambda rng: unknown.make(rng, held_out=True), 0.8),
    Suite("tools, new names", lambda rng: tools.make(rng, held_out=True), 0.55),
    Suite("memory, new names", lambda rng: memory.make(rng, held_out=True), 0.75),
    Suite("JSON, new names", lambda rng: json_fill.make(rng, held_out=True), 0.5),
    Suite("arithmetic, new pairs", lambda rng: arithmetic.make(rng, held_out=True), 0.3),
    Suite("stories, new beginnings", lambda rng: stories.make(rng, held_out=True), 0.95),
    Suite("copying, new words", lambda rng: copying.make(rng, held_out=True), 0.6),
]


def main() -> None:
    if sys.argv[1] == "--documented":
        print("\n".join(documented()))
        return
    results = asyncio.run(evaluate(Path(sys.argv[1])))
    for result in results:
        if not result.right:
            print(f"--- {result.suite} / {result.example.family}")
            print(prompt_text(result.example)[-600:])
            print(f">>> {result.content}\n=== {result.example.answer.content}\n")
    print(table(results))


def documented() -> list[str]:
    """The questions that people copy from documentation, each with its answer, as lines of JSON."""
    return [
        json.dumps(
            {
                "family": example.family,
                "prompt": prompt_text(example),
                "answer": example.answer.content,
            },
            ensure_ascii=False,
        )
        for example in questions.canonical()
        if example.family.startswith("docs.")
    ]


async def evaluate(path: Path, examples: int = _EXAMPLES) -> list[Result]:
    """Ask a server that has only this model so many ``examples`` of each suite."""
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    with server(OLLAMA_NUM_PARALLEL=str(_AT_ONCE)) as url:
        async with aiohttp.ClientSession(url, timeout=timeout) as session:
            await _create(session, path)
            turn = asyncio.Semaphore(_AT_ONCE)
            return await asyncio.gather(
                *(_ask(session, turn, suite, example) for suite, example in _questions(examples))
            )


def table(results: list[Result]) -> str:
    """Markdown: for each suite, and below it for each of its kinds, how many were right."""
    lines = ["| Skill | Right | Of | Share |", "| --- | ---: | ---: | ---: |"]
    for suite in SUITES:
        of = [result for result in results if result.suite == suite.name]
        lines.append(_row(f"**{suite.name}**", of))
        kinds = sorted({result.example.family for result in of})
        if 1 < len(kinds) <= 12:
            lines += [
                _row(kind, [one for one in of if one.example.family == kind]) for kind in kinds
            ]
    return "\n".join(lines)


def _row(name: str, results: list[Result]) -> str:
    right = sum(result.right for result in results)
    return f"| {name} | {right} | {len(results)} | {right / max(len(results), 1):.1%} |"


def _questions(examples: int) -> Iterator[tuple[Suite, Example]]:
    for suite in SUITES:
        rng = Random(_SEED)
        for _ in range(examples):
            yield suite, suite.make(rng)


async def _create(session: aiohttp.ClientSession, path: Path) -> None:
    content = await asyncio.to_thread(path.read_bytes)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    async with session.post(f"/api/blobs/{digest}", data=io.BytesIO(content)) as answer:
        answer.raise_for_status()
    request = {"model": "candidate", "files": {path.name: digest}, "stream": False}
    async with session.post("/api/create", json=request) as answer:
        answer.raise_for_status()


async def _ask(
    session: aiohttp.ClientSession, turn: asyncio.Semaphore, suite: Suite, example: Example
) -> Result:
    async with turn:
        if example.prompt.tools:
            thinking, content = await _chat(session, example)
        else:
            thinking, content = split_thinking(await _generate(session, example))
    return Result(suite.name, example, content, is_right(example, thinking, content))


async def _generate(session: aiohttp.ClientSession, example: Example) -> str:
    """The whole text of an answer."""
    prompt = {"prompt": prompt_text(example), "raw": True}
    return str((await _post(session, "/api/generate", prompt))["response"])


async def _chat(session: aiohttp.ClientSession, example: Example) -> tuple[str, str]:
    """The thinking and the content of an answer, calls put back into the text."""
    prompt = example.prompt
    chat = {"messages": prompt.messages, "tools": prompt.tools, "think": prompt.think}
    message = (await _post(session, "/api/chat", msgspec.to_builtins(chat)))["message"]
    calls = "".join(
        f"<tool_call>{json.dumps({key: call['function'][key] for key in _CALL_KEYS})}</tool_call>"
        for call in message.get("tool_calls", ())
    )
    return message.get("thinking", ""), message["content"] + calls


async def _post(session: aiohttp.ClientSession, path: str, prompt: dict[str, Any]) -> Any:
    options = {"temperature": 0, "num_ctx": 2048, "num_predict": _ANSWER_TOKENS}
    request = {"model": "candidate", "stream": False, "options": options, **prompt}
    async with session.post(path, json=request) as answer:
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(await answer.text())
        return await answer.json()


if __name__ == "__main__":
    main()

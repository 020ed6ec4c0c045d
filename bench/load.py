"""A cheap HTTP load generator: many streams of one server from one event loop.

It speaks just enough HTTP/1.1 to post a JSON body and read a chunked answer of NDJSON or of events
that hold JSON, keeps the raw bytes of an answer only as counts and times, and so costs a few
microseconds a piece: what it takes of a shared machine is not taken from the server that it
measures. Loopback only.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass
class Answer:
    """What one request saw. Times are ``time.perf_counter()`` seconds."""

    sent: float
    status: int = 0
    first: float = 0.0
    last: float = 0.0
    objects: int = 0
    worst_gap_s: float = 0.0
    final: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def tokens(self) -> int:
        """Tokens of the answer as the server counted them."""
        return self._count("eval_count", "completion_tokens", "tokens_predicted")

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, cached ones too."""
        return self._count("prompt_eval_count", "prompt_tokens", "tokens_evaluated")

    @property
    def cached_tokens(self) -> int:
        """Those that were not computed, if the answer says so."""
        details = (self.final.get("usage") or {}).get("prompt_tokens_details") or {}
        timings = self.final.get("timings") or {}
        return int(details.get("cached_tokens") or timings.get("cache_n") or 0)

    def _count(self, ollama: str, openai: str, llama_server: str) -> int:
        usage = self.final.get("usage") or {}
        final = self.final
        return int(final.get(ollama) or usage.get(openai) or final.get(llama_server) or 0)


class Stream(asyncio.Protocol):
    """One connection that answers one request at a time; ``began``: its first bytes have come."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.began = asyncio.Event()
        self._answer: Answer | None = None
        self._done: asyncio.Future[Answer] | None = None
        self._head = b""
        self._tail = b""
        self._chunked = False
        self._length = 0
        self._keeps_text = False
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, error: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error or ConnectionResetError("closed by the server"))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    async def post(self, path: str, body: dict[str, Any], *, keeps_text: bool = False) -> Answer:
        """Send one request and wait for the end of its answer."""
        assert self.transport is not None
        payload = json.dumps(body).encode()
        self._done = asyncio.get_running_loop().create_future()
        self.began.clear()
        self._head, self._tail, self._body = b"", b"", []
        self._keeps_text = keeps_text
        self._answer = Answer(sent=time.perf_counter())
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n"
        self.transport.write(head.encode() + payload)
        return await self._done

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            return
        if not answer.status:
            data = self._read_head(answer, data)
        if not data:
            return
        self.began.set()
        _note_arrival(answer)
        answer.objects += data.count(b"}\n")
        if self._keeps_text:
            self._body.append(data)
        self._tail = (self._tail + data)[-65536:]
        if self._chunked:
            ended = self._tail.endswith(b"0\r\n\r\n")
        else:
            ended = len(self._tail) >= self._length
        if ended:
            self._finish(answer)

    def _read_head(self, answer: Answer, data: bytes) -> bytes:
        """Collect the head; what follows it, once it is whole."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return b""
        answer.status = int(self._head[9:12])
        head = self._head[:end].lower()
        self._chunked = b"transfer-encoding: chunked" in head
        lengths = (line[15:] for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        self._length = int(next(lengths, b"0"))
        return self._head[end + 4 :]

    def _finish(self, answer: Answer) -> None:
        lines = _lines(self._tail, chunked=self._chunked)
        if lines:
            answer.final = json.loads(lines[-1])
        if self._keeps_text:
            objects = map(json.loads, _lines(b"".join(self._body), chunked=self._chunked))
            answer.text = "".join(map(_text_of, objects))
        assert self._done is not None
        self._answer = None
        if not self._done.done():
            self._done.set_result(answer)


def _note_arrival(answer: Answer) -> None:
    now = time.perf_counter()
    if not answer.first:
        answer.first = now
    else:
        answer.worst_gap_s = max(answer.worst_gap_s, now - answer.last)
    answer.last = now


def _lines(raw: bytes, *, chunked: bool) -> list[bytes]:
    if not chunked:
        return [raw]
    parts = (part.removeprefix(b"data: ") for part in raw.replace(b"\r\n", b"\n").split(b"\n"))
    return [part for part in parts if part.startswith(b"{")]


def _text_of(piece: dict[str, Any]) -> str:
    """Of an object of Ollama's routes, OpenAI's chat, or llama-server's own."""
    choices = piece.get("choices") or [{}]
    message = piece.get("message") or choices[0].get("delta") or piece
    return str(piece.get("response") or message.get("content") or "")


async def connect(port: int) -> Stream:
    """A connection to the server on this machine."""
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(Stream, "127.0.0.1", port)
    return stream


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

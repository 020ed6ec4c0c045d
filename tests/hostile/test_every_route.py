"""Whatever body any route gets, the answer is JSON in the shape of its protocol, and no fault.

The routes, and the fields of their bodies, are those that ``/openapi.json`` describes, so a new
route is attacked without being named here.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator

import aiohttp
import msgspec
import pytest

from ollama_async.gateway import openapi
from ollama_async.gateway.openapi_operations import OPERATIONS, Operation
from ollama_async.gateway.response_formats.errors import Protocol, protocol_of
from tests.integration.conftest import running_servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONCURRENT = 8
DEADLINE_S = 60.0

SCRIPTS = {
    "demo": {
        "tokens": ["fine ", "thanks"],
        "capabilities": ["tools", "thinking", "insert", "vision"],
        "slots": 8,
    },
    "demo-embed": {"dimensions": 8},
    "bge-reranker": {"ranks": True},
}

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
VALUES: list[bytes] = [
    *(b"null", b"true", b"-1", b"0", b"1e400", b"-1e-400", b"9" * 30, b"9" * 400, b"NaN", b"1.5"),
    *(b'""', b'"x"', b'"demo"', b'"\\ud800"', b'"\\u0000"', b'"\xff\xfe"', b"'x'", b'"%s%n{{.}}"'),
    *(b"[]", b"[[]]", b"[null]", b"[{}]", b"[1]", b"[-1]", b"[1e99]", b'["x", 1]', b"[[[[[1]]]]]"),
    *(b"{}", b'{"a":{}}', b'{"type":"x"}', b'{"type":null}', b'{"":""}', b'{"a":1,"a":2}'),
    *(b'[{"role":"user"}]', b'[{"role":"tool","content":"x"}]', b'[{"role":1,"content":[]}]'),
    *(b'[{"role":"user","content":[{}]}]', b'[{"role":"user","content":[{"type":"x"}]}]'),
    b'[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png"}}]}]',
    b'[{"role":"user","content":[{"type":"image_url","image_url":"file:///etc/passwd"}]}]',
    b'[{"role":"user","content":"x","images":["QUJ"]}]',
    b'[{"role":"user","content":"x","images":["%b"]}]' % PNG.encode(),
    b'[{"role":"assistant","content":null,"tool_calls":[{"function":{"arguments":"{"}}]}]',
    b'[{"type":"function","function":{"name":"f","parameters":{"$ref":"#"}}}]',
    b'{"type":"object","properties":{"a":{"$ref":"#/properties/a"}}}',
    b'{"type":"json_schema","json_schema":{"schema":{"pattern":"(a+)+$","type":"string"}}}',
    b"[" * 5000 + b"]" * 5000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'"' + b"x" * 300_000 + b'"',
    b"[" + b",".join([b'"x"'] * 20_000) + b"]",
]
BODIES: list[bytes] = [
    *(b"", b" ", b"{", b"null", b"[]", b'"x"', b"1", b"nul", b"{}{}", b'{"model"', b'{"a":}'),
    *('{"model":"demo"}'.encode(coding) for coding in ("utf-16", "utf-32", "utf-8-sig")),
    *(b'{"model":"demo","model":5}', b'{"model":{"model":{}}}', b'{"model":"demo"}}}}'),
    *(b"\x00\x01\x02", b"\x1f\x8b\x08", b"--x\r\n\r\n--x--", b"a=1&b=2", b"[" * 100_000),
]
ATTACKED = {
    f"{method} {path}": (method, path, operation)
    for (method, path), operation in OPERATIONS.items()
    if operation.request is not None
}
CALLS_OUT = {"/api/pull", "/api/push", "/api/create"}
NAMES = {"model", "name", "from"}
"""With the name of a model, these would look for a registry."""


@pytest.fixture(scope="module")
def server(tmp_path_factory, engine_cache):
    with running_servers(tmp_path_factory.mktemp("every"), engine_cache) as start:
        yield start(scripts=SCRIPTS)


def bodies(path: str, operation: Operation) -> Iterator[bytes]:
    """Broken documents, then valid ones in which one field, known or not, has a wrong value."""
    yield from BODIES
    names = [field.encode_name for field in msgspec.structs.fields(operation.request)]
    sample = openapi.example(operation) | {"stream": False}
    if path in {"/api/pull", "/api/push"}:
        del sample["model"]  # a valid one would look for a registry
    for name in [*names, "unknown", "\ud800"]:
        rest = {other: value for other, value in sample.items() if other != name}
        begin = json.dumps(rest).encode()[:-1] + (b"," if rest else b"")
        for value in VALUES:
            if path not in CALLS_OUT or name not in NAMES or not value.startswith(b'"'):
                yield b"%b%b:%b}" % (begin, json.dumps(name).encode(), value)


def fault(path: str, status: int, body: bytes) -> str:
    """What is wrong with the answer; "" if nothing."""
    if (status == 500 and b"must be of type" in body) or b"must be of an array" in body:
        return ""  # Ollama's status for options of the wrong type
    is_fault = status >= 500 and status != 501  # the model cannot do that
    if is_fault or b"Traceback" in body or b"internal error" in body:
        return "a fault of the server"
    if status < 400:
        return ""
    try:
        answer = json.loads(body)
    except ValueError:
        return "no JSON"
    shapes = {
        Protocol.OLLAMA: lambda: isinstance(answer["error"], str),
        Protocol.OPENAI: lambda: {"message", "type", "param", "code"} == answer["error"].keys(),
        Protocol.ANTHROPIC: lambda: {"type", "message"} <= answer["error"].keys(),
    }
    try:
        return "" if shapes[protocol_of(path)]() else "another protocol's error"
    except (KeyError, TypeError, AttributeError):
        return "another protocol's error"


@pytest.mark.parametrize(("method", "path", "operation"), ATTACKED.values(), ids=ATTACKED)
async def test_no_body_is_answered_with_a_fault(server, method, path, operation):
    waiting = bodies(path, operation)
    faults: list[tuple[str, int, bytes, bytes]] = []
    asked = 0

    async def attack(session: aiohttp.ClientSession) -> None:
        nonlocal asked
        for body in waiting:
            asked += 1
            async with asyncio.timeout(DEADLINE_S):
                async with session.request(method, server.url + path, data=body) as response:
                    answer = await response.read()
            found = fault(path, response.status, answer)
            if found:
                faults.append((found, response.status, body[:300], answer[:300]))

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(attack(session) for _ in range(CONCURRENT)))

    assert asked > len(BODIES)
    assert not faults, "\n".join(map(str, faults[:20]))
    assert server.process.poll() is None
    assert "Traceback" not in server.log

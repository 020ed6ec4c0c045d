"""What answers hold until they are sent: counted for each client, bounded, let go in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ollama_async.core.errors import Busy, ServerError
from ollama_async.gateway.body import BODY_PROCESSOR, BodyProcessor
from ollama_async.gateway.client_budgets import (
    CLIENT_SEND_LIMIT_BYTES,
    FREE_BYTES,
    SEND_BUDGET,
    SEND_LIMIT_BYTES,
    SEND_RESERVATION,
    Reservation,
    SendBudget,
    WaitAllowance,
)
from ollama_async.gateway.metrics import Metrics
from ollama_async.gateway.middleware import build_middleware
from ollama_async.gateway.origin_policy import OriginPolicy
from tests.unit.gateway.conftest import DEADLINE_S, FakeRequest

ADDRESSES = [f"10.0.0.{n}" for n in (1, 2)] + [f"::ffff:10.0.0.{n}" for n in (3, 4)]
ADDRESSES += ["2001:db8::1", "2001:db8::2", ""]
CLIENTS = {address: address for address in ADDRESSES} | {"2001:db8::2": "2001:db8::1"}


class Answers(RuleBasedStateMachine):
    """Answers that grow and end, by the clients they are for."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = SendBudget()
        self.open: list[tuple[FakeRequest, Reservation, int]] = []

    @rule(address=st.sampled_from(ADDRESSES))
    def begins(self, address: str) -> None:
        request = FakeRequest(address)
        self.open.append((request, Reservation(self.budget, request), 0))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), size=st.integers(0, CLIENT_SEND_LIMIT_BYTES + 1))
    def grows(self, data: st.DataObject, size: int) -> None:
        index = data.draw(st.integers(0, len(self.open) - 1))
        request, reservation, held = self.open[index]
        before = self.by_client()
        try:
            reservation.reserve(size)
        except Busy:
            assert size > held
        except ServerError:
            assert size > CLIENT_SEND_LIMIT_BYTES
        else:
            self.open[index] = (request, reservation, max(held, size))
            self.forget_those_that_were_cut(before)

    def forget_those_that_were_cut(self, before: dict[str, int]) -> None:
        rounding = FREE_BYTES * len(self.open)
        for request, _, _ in self.open:
            if request.is_aborted:
                assert before[CLIENTS[request.remote]] >= max(before.values()) - rounding
        self.open = [(each, *rest) for each, *rest in self.open if not each.is_aborted]

    def by_client(self) -> dict[str, int]:
        held_by: dict[str, int] = {}
        for request, _, held in self.open:
            counted = held if held > FREE_BYTES else 0
            client = CLIENTS[request.remote]
            held_by[client] = held_by.get(client, 0) + counted
        return held_by

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        _, reservation, _ = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        with reservation:
            pass

    @invariant()
    def nobody_holds_more_than_is_allowed(self) -> None:
        held_by = self.by_client()
        assert all(held <= CLIENT_SEND_LIMIT_BYTES for held in held_by.values())
        assert sum(held_by.values()) <= self.budget.reserved_bytes <= SEND_LIMIT_BYTES
        if not self.open:
            assert self.budget.reserved_bytes == 0


TestAnswers = Answers.TestCase


def test_a_client_at_its_limit_takes_no_bytes_of_others():
    budget = SendBudget()
    with Reservation(budget, FakeRequest("10.0.0.1")) as greedy:
        greedy.reserve(CLIENT_SEND_LIMIT_BYTES)
        with pytest.raises(Busy):
            Reservation(budget, FakeRequest("10.0.0.1")).reserve(FREE_BYTES + 1)
        with Reservation(budget, FakeRequest("10.0.0.2")) as other:
            other.reserve(CLIENT_SEND_LIMIT_BYTES)
    assert budget.reserved_bytes == 0


def test_the_largest_client_is_aborted_in_favour_of_a_smaller_one():
    budget = SendBudget()
    large, small, modest = FakeRequest("10.0.0.1"), FakeRequest("10.0.0.1"), FakeRequest("10.0.0.2")
    Reservation(budget, small).reserve(1 << 20)
    Reservation(budget, large).reserve(CLIENT_SEND_LIMIT_BYTES - (1 << 20))
    Reservation(budget, modest).reserve(CLIENT_SEND_LIMIT_BYTES - (1 << 20))
    newcomer = Reservation(budget, FakeRequest("10.0.0.3"))
    with pytest.raises(Busy):
        newcomer.reserve(CLIENT_SEND_LIMIT_BYTES)
    assert not large.is_aborted

    newcomer.reserve(2 << 20)

    assert [each.is_aborted for each in (large, small, modest)] == [True, False, False]
    assert budget.reserved_bytes == CLIENT_SEND_LIMIT_BYTES + (2 << 20)


def test_an_aborted_answer_cannot_reserve_more():
    budget = SendBudget()
    with Reservation(budget, FakeRequest()) as cut:
        cut.reserve(1 << 20)
        cut.abort()
        with pytest.raises(Busy):
            cut.reserve(2 << 20)
    assert budget.reserved_bytes == 0


@pytest.mark.parametrize("stage", ["unsent", "begun"])
async def test_an_answer_of_which_nothing_was_sent_is_aborted_with_a_status(
    serve, session, application, stage
):
    held = asyncio.Event()

    async def hold(request: web.Request) -> web.StreamResponse:
        if stage == "begun":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"a")
        request[SEND_RESERVATION].reserve(CLIENT_SEND_LIMIT_BYTES)
        held.set()
        await asyncio.Event().wait()
        raise AssertionError

    application.router.add_post("/v1/held", hold)
    url = await serve(application)
    asking = asyncio.ensure_future(session.post(f"{url}/v1/held"))
    await asyncio.wait_for(held.wait(), DEADLINE_S)
    budget = application[SEND_BUDGET]
    with Reservation(budget, FakeRequest("10.0.0.2")) as second:
        second.reserve(CLIENT_SEND_LIMIT_BYTES - FREE_BYTES)
        with Reservation(budget, FakeRequest("10.0.0.3")) as third:
            third.reserve(1 << 20)
            async with await asyncio.wait_for(asking, DEADLINE_S) as answer:
                if stage == "begun":
                    with pytest.raises(aiohttp.ClientPayloadError):
                        await answer.read()
                    return
                body = await answer.json()
    assert (answer.status, body["error"]["message"]) == (503, budget.busy_text)
    assert "Retry-After" in answer.headers
    assert budget.reserved_bytes == 0
    async with session.get(f"{url}/api/version") as response:
        assert response.status == 200


@pytest.mark.slow
async def test_an_allowance_ends_unless_it_is_earned():
    allowance = WaitAllowance(0.5, bytes_per_s=1 << 20)
    for _ in range(10):
        await allowance.wait(asyncio.sleep(0.01))
        allowance.earn(1 << 30)
    with pytest.raises(TimeoutError):
        await drips(allowance)


async def drips(allowance: WaitAllowance) -> None:
    for _ in range(1000):
        await allowance.wait(asyncio.sleep(0.01))
        allowance.earn(1)


Serving = Callable[..., Awaitable[str]]


@pytest.fixture
def serving(serve) -> Serving:
    """Serves one answer behind the middleware, whatever the request; its URL."""

    async def serving(body: bytes, *, client_limit_bytes: int = 0, **how: Any) -> str:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=body, **how)

        policy = OriginPolicy(listen_host="127.0.0.1", origins=())
        metrics = Metrics(version="0", ollama_version="0")
        application = web.Application(middlewares=[build_middleware(policy, metrics)])
        application[BODY_PROCESSOR] = BodyProcessor()
        application[SEND_BUDGET] = SendBudget()
        if client_limit_bytes:
            application[SEND_BUDGET].client_limit_bytes = client_limit_bytes
        application.router.add_get("/", answer)
        return await serve(application)

    return serving


@pytest.mark.parametrize("size", [0, 1, FREE_BYTES, FREE_BYTES + 1, 1 << 20])
@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_of_any_length_arrives_unchanged(serving, session, size, status):
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    url = await serving(body, status=status, headers={"X-Mine": "yes"})
    async with session.get(url) as response:
        assert (response.status, response.headers["X-Mine"]) == (status, "yes")
        assert response.content_length == size
        assert await response.read() == body
    async with session.head(url) as response:
        assert (response.status, await response.read()) == (status, b"")


async def test_an_answer_over_the_client_limit_is_an_error(serving, session):
    url = await serving(b"x" * 100_001, client_limit_bytes=100_000)
    async with session.get(url) as response:
        assert response.status == 500
        assert (await response.json())["error"] == "the answer is over the limit of 100000 bytes"

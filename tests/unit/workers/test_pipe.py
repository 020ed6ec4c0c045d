"""One conformance suite for both ends of the pipe, in shared memory with and without faults."""

import asyncio
import os
import random
import threading

import pytest
import uvloop

from ollama_async.core.conversation import Tokenize
from ollama_async.workers import frames, messages
from ollama_async.workers.child.pipe import ChildPipe, PipeClosed
from ollama_async.workers.doorbell import BlockingDoorbellReader, DoorbellReader, DoorbellWriter
from ollama_async.workers.pipe import ParentPipe
from ollama_async.workers.ring import Ring, RingCorrupt

pytestmark = pytest.mark.usefixtures("warm_uvloop")

DEADLINE_S = 20


class StutteringRing(Ring):
    """Takes only a part of what would fit, as if the reader were always behind."""

    chance = random.Random(5)

    def write(self, data):
        whole = self.chance.random() < 0.7
        limit = len(data) if whole else self.chance.randint(0, min(len(data), 500))
        return super().write(memoryview(data)[:limit])


class LossyRinger(DoorbellWriter):
    """Two of three rings are lost."""

    rung = 0

    def notify(self):
        self.rung += 1
        if self.rung % 3 == 0:
            super().notify()


def shared_memory(ring=Ring, ringer=DoorbellWriter, capacity=1 << 10, recheck_s=60.0):
    """No test has the time to wait for the re-check, unless it asks for a short one."""
    down, up = ring.create(capacity), ring.create(capacity)
    (parent_bell, child_notifies), (child_bell, parent_notifies) = os.pipe(), os.pipe()
    parent = ParentPipe(
        inbound=up,
        outbound=down,
        bell_in=DoorbellReader(parent_bell),
        bell_out=ringer(parent_notifies),
        recheck_s=recheck_s,
    )
    child = ChildPipe(
        inbound=ring.attach(os.dup(down.fd)),
        outbound=ring.attach(os.dup(up.fd)),
        bell_in=BlockingDoorbellReader(child_bell),
        bell_out=ringer(child_notifies),
        recheck_s=recheck_s,
    )
    return parent, child


MAKERS = {
    "shared memory": shared_memory,
    "a ring of 64 bytes": lambda: shared_memory(capacity=64),
    "stuttering ring": lambda: shared_memory(ring=StutteringRing, capacity=503),
    "lossy doorbells": lambda: shared_memory(ringer=LossyRinger, recheck_s=0.01),
    "stuttering and lossy": lambda: shared_memory(StutteringRing, LossyRinger, 301, 0.01),
}


class RecordingListener:
    """A listener whose messages can be awaited."""

    def __init__(self):
        self.messages = []
        self.broken_reason = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    def received(self, batch):
        assert batch
        self.messages += batch
        self._changed.set()

    def broken(self, reason):
        self.broken_reason.set_result(reason)

    async def at_least(self, count):
        async with asyncio.timeout(DEADLINE_S):
            while len(self.messages) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.messages


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine on each kind of loop."""

    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return run


@pytest.fixture(params=MAKERS)
def conforming(request, run):
    """Run ``scenario(parent, child, listener)`` on one kind of pipe; closes both ends."""

    def conforming(scenario):
        async def main():
            parent, child = MAKERS[request.param]()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await scenario(parent, child, RecordingListener())
            finally:
                child.close()
                parent.close()

        run(main())

    return conforming


def texts(count, size=10):
    return [text(number, "x" * size) for number in range(count)]


def text(number, text):
    return messages.Deltas([(number, text)])


async def receive_all(child, count):
    def receive():
        return [child.receive(DEADLINE_S) for _ in range(count)]

    return await asyncio.to_thread(receive)


def test_messages_arrive_both_ways_in_order(conforming):
    async def scenario(parent, child, listener):
        parent.open(listener.received, listener.broken)
        sent = [messages.Cancel(1), messages.Submit(1, Tokenize("é")), messages.Quit()]
        parent.send(sent[0])
        parent.send(*sent[1:])
        assert await receive_all(child, 3) == sent
        answers = [messages.Started(1), messages.Deltas([(1, "é"), (2, "b")]), *texts(20)]
        await asyncio.to_thread(child.send, answers)
        assert await listener.at_least(22) == answers

    conforming(scenario)


def test_frames_larger_than_the_ring_are_sent_in_parts(conforming):
    async def scenario(parent, child, listener):
        parent.open(listener.received, listener.broken)
        request = messages.Submit(1, Tokenize("x" * 1500))
        answer = text(1, "y" * 1500)
        parent.send(request)
        assert await receive_all(child, 1) == [request]
        await asyncio.to_thread(child.send, [answer])
        assert await listener.at_least(1) == [answer]

    conforming(scenario)


def test_several_threads_send_and_each_keeps_its_order(conforming):
    async def scenario(parent, child, listener):
        parent.open(listener.received, listener.broken)

        def send(number):
            for word in range(10):
                child.send([text(number, str(word)), text(number, "again")])

        await asyncio.gather(*(asyncio.to_thread(send, number) for number in range(3)))
        received = [message.items[0] for message in await listener.at_least(60)]
        for number in range(3):
            mine = [text for each, text in received if each == number]
            assert mine == [text for word in range(10) for text in (str(word), "again")]
        assert all(a[0] == b[0] for a, b in zip(received[::2], received[1::2], strict=True))

    conforming(scenario)


def test_a_child_that_does_not_read_does_not_block_the_parent(conforming):
    async def scenario(parent, child, listener):
        parent.open(listener.received, listener.broken)
        sent = [messages.Cancel(number) for number in range(1, 151)]
        for message in sent:
            parent.send(message)  # returns at once, ring full or not
        assert await receive_all(child, 150) == sent
        assert child.receive(0) is None

    conforming(scenario)


def test_a_parent_that_opens_late_receives_everything(conforming):
    async def scenario(parent, child, listener):
        sent = texts(100)
        sending = asyncio.create_task(asyncio.to_thread(child.send, sent))
        parent.open(listener.received, listener.broken)
        assert await listener.at_least(100) == sent
        await sending

    conforming(scenario)


def test_receive_returns_after_its_timeout(conforming):
    async def scenario(parent, child, listener):
        parent.open(listener.received, listener.broken)
        assert child.receive(0) is None
        assert await asyncio.to_thread(child.receive, 0.01) is None

    conforming(scenario)


def test_closing_the_child_ends_a_blocked_receive(conforming):
    async def scenario(parent, child, listener):
        parent.open(listener.received, listener.broken)
        entered = threading.Event()

        def receive():
            entered.set()
            with pytest.raises(PipeClosed):
                child.receive(DEADLINE_S)

        receiving = asyncio.create_task(asyncio.to_thread(receive))
        await asyncio.to_thread(entered.wait, DEADLINE_S)
        await asyncio.to_thread(child.close)
        await receiving

    conforming(scenario)


def test_closing_the_child_ends_a_blocked_send(conforming):
    async def scenario(parent, child, _listener):
        entered = threading.Event()

        def send():
            entered.set()
            with pytest.raises(PipeClosed):
                child.send(
                    texts(200, size=20)
                )  # nothing is read, and no pipe here can buffer so many

        sending = asyncio.create_task(asyncio.to_thread(send))
        await asyncio.to_thread(entered.wait, DEADLINE_S)
        child_closing = asyncio.create_task(asyncio.to_thread(child.close))
        await sending
        await child_closing
        parent.close()

    conforming(scenario)


def test_a_message_over_the_limit_is_not_sent(conforming, monkeypatch):
    monkeypatch.setattr(frames, "TO_CHILD_LIMIT_BYTES", 100)
    monkeypatch.setattr(frames, "TO_PARENT_LIMIT_BYTES", 100)
    monkeypatch.setattr(frames, "TO_PARENT_LIST_LIMIT_BYTES", 100)

    async def scenario(parent, child, listener):
        parent.open(listener.received, listener.broken)
        with pytest.raises(frames.FrameTooLarge):
            parent.send(messages.Cancel(1), messages.Submit(1, Tokenize("x" * 100)))
        with pytest.raises(frames.FrameTooLarge):
            child.send([messages.Started(1), text(1, "x" * 100)])
        parent.send(messages.Cancel(2))
        assert await receive_all(child, 1) == [messages.Cancel(2)]
        await asyncio.to_thread(child.send, [messages.Started(2)])
        assert await listener.at_least(1) == [messages.Started(2)]

    conforming(scenario)


def test_nothing_is_received_after_the_parent_closed(conforming):
    async def scenario(parent, child, listener):
        parent.open(listener.received, listener.broken)
        await asyncio.to_thread(child.send, [messages.Started(1)])
        parent.close()
        parent.close()
        parent.send(messages.Cancel(1))
        assert not parent.read_some()
        received_before = len(listener.messages)
        sending = asyncio.to_thread(child.send, [messages.Started(2)])  # may wait for space forever
        await asyncio.gather(sending, asyncio.to_thread(child.close), return_exceptions=True)
        assert len(listener.messages) == received_before

    conforming(scenario)


def test_data_can_be_read_without_a_notification(conforming):
    async def scenario(parent, child, listener):
        parent.open(listener.received, listener.broken)
        sending = asyncio.create_task(asyncio.to_thread(child.send, [messages.Started(1)]))
        while not listener.messages:
            parent.read_some()
            await asyncio.sleep(0)
        await sending
        assert listener.messages == [messages.Started(1)]

    conforming(scenario)


class InterruptedRing(Ring):
    """The peer publishes and rings at the worst moment: when we have just found nothing."""

    def interrupt(self): ...

    def read(self, limit):
        data = super().read(limit)
        if not data:
            interrupt, self.interrupt = self.interrupt, lambda: None
            interrupt()
        return data


def test_a_child_does_not_miss_data_sent_after_an_empty_read(run):
    async def main():
        parent, child = shared_memory(ring=InterruptedRing)
        listener = RecordingListener()
        parent.open(listener.received, listener.broken)
        try:
            child._inbound.interrupt = lambda: parent.send(messages.Cancel(1))
            assert child.receive(DEADLINE_S) == messages.Cancel(1)
        finally:
            child.close()
            parent.close()

    run(main())


def test_a_parent_does_not_miss_data_sent_after_an_empty_read(run):
    async def main():
        parent, child = shared_memory(ring=InterruptedRing)
        listener = RecordingListener()
        parent.open(listener.received, listener.broken)
        try:
            parent._inbound.interrupt = lambda: child.send([messages.Started(1)])
            child._bell_out.notify()  # for nothing
            await listener.at_least(1)
        finally:
            child.close()
            parent.close()

    run(main())


@pytest.mark.parametrize("offset", [64, 128], ids=["write index", "read index"])
def test_a_child_that_corrupts_a_header_breaks_only_its_own_pipe(run, offset):
    async def main():
        parent, child = shared_memory()
        listener = RecordingListener()
        parent.open(listener.received, listener.broken)
        try:
            fd = (child._outbound if offset == 64 else child._inbound).fd
            os.pwrite(fd, b"\xff" * 8, offset)
            child._bell_out.notify()
            parent.send(messages.Cancel(1))
            async with asyncio.timeout(DEADLINE_S):
                assert "index 18446744073709551615" in await listener.broken_reason
            parent.send(messages.Cancel(2))  # ignored
            assert not parent.read_some()
        finally:
            child.close()
            parent.close()

    run(main())


def test_garbage_in_the_ring_breaks_the_pipe_once(run):
    async def main():
        parent, child = shared_memory()
        listener = RecordingListener()
        parent.open(listener.received, listener.broken)
        try:
            child._outbound.write(b"\x01\x02\x00\x00\x00\xc1\xc1")
            child._bell_out.notify()
            async with asyncio.timeout(DEADLINE_S):
                assert "no message" in await listener.broken_reason
            child._outbound.write(b"\x07")
            child._bell_out.notify()
            parent.read_some()  # a second report would raise: the future is done
        finally:
            child.close()
            parent.close()

    run(main())


def test_a_child_detects_an_impossible_index_of_its_parent(run):
    async def main():
        parent, child = shared_memory()
        try:
            os.pwrite(child._inbound.fd, b"\xff" * 8, 64)
            with pytest.raises(RingCorrupt):
                child.receive(0)
        finally:
            child.close()
            parent.close()

    run(main())


def test_a_flood_is_delivered_in_bounded_reads_with_the_loop_running_in_between(run):
    async def main():
        parent, child = shared_memory(capacity=1 << 20)
        listener = RecordingListener()
        batches = []
        loop = asyncio.get_running_loop()
        turns = 0

        def turn():
            nonlocal turns
            turns += 1
            if len(listener.messages) < 10_000:
                loop.call_soon(turn)

        listener.received = lambda batch, received=listener.received: (
            batches.append((turns, len(batch))),
            received(batch),
        )
        try:
            child.send([messages.Deltas([(1, " word")])] * 10_000)
            parent.open(listener.received, listener.broken)
            turn()
            await listener.at_least(10_000)
            assert max(size for _, size in batches) <= 1500
            assert len({turn for turn, _ in batches}) == len(batches)
        finally:
            child.close()
            parent.close()

    run(main())

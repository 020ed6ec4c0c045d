"""Real worker processes that start, answer, refuse, hang, lie and die; nothing of them may stay.

That nothing stays (processes, descriptors, shared memory, tasks) is checked after every test by the
leak check that all tests have.
"""

import asyncio
import contextlib
import gc
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvloop

from ollama_async.core import errors
from ollama_async.core.conversation import Inference, Prompt, Sampling, Usage
from ollama_async.workers import messages
from ollama_async.workers.channel import Channel
from ollama_async.workers.child.process_setup import ORPHANED
from ollama_async.workers.client import CRASH_TEXT, WorkerLink
from ollama_async.workers.process import WorkerProcess

HERE = Path(__file__).parent
DEADLINE_S = 30.0
ENVIRON = {"PYTHONPATH": str(HERE), "PATH": os.environ["PATH"], "MARK": "only the child's"}


class Heard:
    """Every event as a tuple, in order; ``until`` waits for one."""

    def __init__(self):
        self.events = []
        self._changed = asyncio.Event()

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)

        def hear(event):
            self.events.append((name, event))
            self._changed.set()

        return hear

    async def until(self, name):
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for kind, event in self.events:
                    if kind == name:
                        return event
                self._changed.clear()
                await self._changed.wait()

    def kinds(self):
        return [kind for kind, _ in self.events]


def new_link(heard, **options):
    return WorkerLink(heard, generation=7, module="misbehaving_worker", **options)


async def start(link, act="answer", **options):
    async with asyncio.timeout(DEADLINE_S):
        return await link.start(["--act", act], ENVIRON, **options)


@pytest.fixture(scope="module", autouse=True)
def _warm_uvloop():
    """The first loop of a process opens a pair of descriptors that libuv keeps for ever."""
    uvloop.new_event_loop().close()


@pytest.fixture
async def heard():
    return Heard()


@pytest.fixture
async def make(heard):
    """Makes links; whatever becomes of the test, none of them outlives it."""
    links = []

    def make(**options):
        links.append(new_link(heard, **options))
        return links[-1]

    yield make
    for link in links:
        await link.stop(0)


@pytest.fixture
async def link(make):
    """A ready worker."""
    link = make()
    await start(link)
    return link


def request(number, command):
    return messages.Submit(number, Inference(Prompt(raw=command), Sampling()))


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def block_loop_until(condition):
    """Keep the event loop from running, as a busy server might."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# Starting


async def test_a_worker_starts_answers_and_stops(make, heard):
    link = make()
    ready = await start(link)
    assert ready.slots == 2
    assert ready.warnings == ["a warning"]
    assert is_alive(link.pid)
    link.submit(request(1, "answer"))
    done = await heard.until("done")
    assert done == messages.Done(1, "stop", Usage(1, 0, 2, 3, 4))
    assert heard.events[:2] == [("started", 1), ("pieces", [(1, "hello")])]
    pid = link.pid
    await link.stop(DEADLINE_S)
    await link.closed()
    assert not is_alive(pid)
    assert "died" not in heard.kinds()


def test_all_this_works_on_uvloop_too():
    async def main():
        heard = Heard()
        link = new_link(heard)
        await start(link)
        link.submit(request(1, "answer"))
        await heard.until("done")
        link.submit(request(2, "kill"))
        assert "signal 9" in await heard.until("died")
        with pytest.raises(errors.LoadFailed, match="tensor 'x' is missing"):
            await start(new_link(heard), "exit early")

    uvloop.run(main())


@pytest.mark.parametrize(
    ("act", "text"),
    [
        ("raise", r"exit status 1: ValueError: the file says no$"),
        ("exit early", "terminated: exit status 3: error: tensor 'x' is missing"),
        ("wrong protocol", "the worker speaks protocol 99, this server 5"),
        ("wrong generation", "a worker of generation 8"),
        ("out of turn", "spoke out of turn: Ready"),
        ("index", "cannot be read: write index 18446744073709551615"),
        ("garbage", "cannot be read: no message"),
        ("exit after refusing", "^the file is damaged$"),
    ],
)
async def test_a_start_that_goes_wrong_says_why(make, heard, act, text):
    link = make()
    with pytest.raises(errors.LoadFailed, match=text):
        await start(link, act)
    assert not is_alive(link.pid)
    assert heard.events == []
    await link.stop(1)  # nothing left to do


async def test_a_refusal_keeps_its_kind_and_ends_the_worker(make):
    link = make()
    with pytest.raises(errors.BadRequest, match=r"^no such quantization$"):
        await start(link, "refuse")
    assert not is_alive(link.pid)


async def test_a_worker_that_never_speaks_is_given_up_and_killed(make):
    link = make()
    with pytest.raises(errors.LoadFailed, match=r"timed out .* no progress for 0.3 s"):
        await start(link, "silent", load_timeout_s=0.3)
    assert not is_alive(link.pid)


@pytest.mark.slow
@pytest.mark.parametrize("act", ["slow", "slow and talkative"])
async def test_a_load_may_take_long_while_it_makes_progress(make, act):
    link = make()
    begin = asyncio.get_running_loop().time()
    await start(link, act, load_timeout_s=2.0)
    assert asyncio.get_running_loop().time() - begin > 2.0


async def test_cancelling_a_start_kills_and_reaps(make):
    link = make()
    starting = asyncio.create_task(start(link, "silent"))
    await asyncio.sleep(0)  # it spawns at once
    assert is_alive(link.pid)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not is_alive(link.pid)
    await link.closed()


async def test_stopping_a_start_fails_it(make):
    link = make()
    starting = asyncio.create_task(start(link, "silent"))
    await asyncio.sleep(0)  # it spawns at once
    assert is_alive(link.pid)
    await link.stop(0)
    with pytest.raises(errors.LoadFailed, match="stopped"):
        await starting


async def test_a_process_that_cannot_be_made_is_a_failed_load(make, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    link = make()
    with pytest.raises(errors.LoadFailed, match=r"error starting model worker: .*No such file"):
        await start(link)
    assert link.pid == 0
    with pytest.raises(errors.WorkerDied):
        link.submit(request(1, "answer"))
    await link.stop(1)


@pytest.mark.parametrize("spare", range(12))
async def test_too_few_descriptors_are_a_failed_load_and_none_of_them_is_lost(make, spare):
    link = make()
    with descriptors_left(spare), pytest.raises(errors.LoadFailed, match="Too many open files"):
        await start(link)
    await link.stop(1)


@contextlib.contextmanager
def descriptors_left(count):
    """This process can open only so many more files; afterwards not one of them may be open."""
    held = [os.open(os.devnull, os.O_RDONLY)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 64, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(held.pop())
        yield
        gc.collect()
        held += [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)


async def test_a_module_that_does_not_exist_is_named(heard):
    link = WorkerLink(heard, generation=1, module="no_such_module")
    with pytest.raises(errors.LoadFailed, match="No module named no_such_module"):
        await start(link)


# Asking


async def test_questions_are_answered_beside_requests(link):
    link.submit(request(1, "wait"))
    assert await link.tokenize("ab") == [97, 98]
    with pytest.raises(errors.BadRequest, match="no tokens"):
        await link.detokenize([])
    with pytest.raises(errors.EngineFailed, match="not asked"):
        await link.tokenize("wrong")


async def test_a_question_without_an_answer_ends_by_its_deadline(link):
    with pytest.raises(errors.EngineFailed, match=r"did not answer in 0.05 s"):
        await link.tokenize("never", timeout_s=0.05)
    assert await link.tokenize("a") == [97]


async def test_questions_fail_when_the_worker_dies(link, heard):
    asking = asyncio.create_task(link.tokenize("never"))
    await asyncio.sleep(0)
    link.submit(request(1, "exit 4"))
    with pytest.raises(errors.WorkerDied, match="exit status 4"):
        await asking
    await heard.until("died")


async def test_a_cancelled_request_ends_as_cancelled(link, heard):
    link.submit(request(1, "wait"))
    await heard.until("started")
    link.cancel(1)
    assert (await heard.until("done")).reason == "cancel"
    link.cancel(1)
    link.cancel(99)


async def test_a_failed_request_is_told(link, heard):
    link.submit(request(1, "fail"))
    assert await heard.until("failed") == messages.Failed(1, "engine_failed", "no")


async def test_an_event_handler_that_raises_costs_only_its_message(link, heard, caplog):
    def pieces(_items):
        raise ZeroDivisionError

    heard.pieces = pieces
    link.submit(request(1, "answer"))
    assert (await heard.until("done")).id == 1
    assert "ZeroDivisionError" in caplog.text


async def test_a_child_gets_its_own_descriptors_variables_and_session(link):
    canary = os.open("/dev/null", os.O_RDONLY)
    try:
        portrait = json.loads(await link.detokenize([1]))
    finally:
        os.close(canary)
    assert portrait["environ"] == {
        **ENVIRON,
        "GOMP_SPINCOUNT": "1000",
        **{name: value for name, value in portrait["environ"].items() if name == "LC_CTYPE"},
    }
    assert portrait["session"] == portrait["pid"] == link.pid
    assert portrait["inheritable"] == []
    assert portrait["fds"]["0"] == "/dev/null"
    kinds = [target.partition(":")[0].strip("/") for target in portrait["fds"].values()]
    assert kinds.count("memfd") == 4  # two rings, each with its mapping's own copy
    assert kinds.count("anon_inode") == 1  # its own, which ends a wait
    assert kinds.count("pipe") == 5  # stdout, stderr, two doorbells, lifeline
    assert str(Path.cwd()) not in portrait["path"]
    assert "MARK" not in os.environ


async def test_no_thread_of_a_child_gains_rights(link):
    threads = statuses(link.pid)
    assert len(threads) > 1
    assert all("NoNewPrivs:\t1" in status for status in threads)


def statuses(pid):
    return [each.joinpath("status").read_text() for each in Path(f"/proc/{pid}/task").iterdir()]


async def test_a_request_over_the_limit_is_refused(link, heard, monkeypatch):
    monkeypatch.setattr("ollama_async.workers.frames.TO_CHILD_LIMIT_BYTES", 1000)
    with pytest.raises(errors.TooLarge):
        link.submit(request(1, "x" * 1000))
    link.submit(request(2, "answer"))
    assert (await heard.until("done")).id == 2


# Dying


async def test_a_crash_is_told_once_with_its_signal_and_the_telling_line(link, heard):
    link.submit(request(1, "crash"))
    reason = await heard.until("died")
    assert reason == f"{CRASH_TEXT}: killed by signal 11 (SIGSEGV): CUDA error: out of memory"
    assert heard.kinds() == ["started", "died"]
    with pytest.raises(errors.WorkerDied, match="unexpectedly stopped"):
        link.submit(request(2, "answer"))
    with pytest.raises(errors.WorkerDied):
        await link.tokenize("a")
    link.cancel(1)
    await link.closed()
    await link.stop(1)
    assert heard.kinds() == ["started", "died"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "assert",
            (
                r"killed by signal 6 \(SIGABRT\): "
                r'/build/llama-vocab.cpp:3422: GGML_ASSERT\(tokenizer && "not initialized"\) failed'
            ),
        ),
        ("raise", "exit status 1: ValueError: the weights are odd"),
        ("quietly SIGABRT", r"killed by signal 6 \(SIGABRT\)"),
        ("quietly SIGSEGV", r"killed by signal 11 \(SIGSEGV\)"),
        ("quietly SIGKILL", r"killed by signal 9 \(out of memory\?\)"),
    ],
)
async def test_a_death_is_told_with_what_was_said_about_it_and_nothing_else(
    link, heard, command, words
):
    link.submit(request(1, command))
    reason = await heard.until("died")
    assert re.fullmatch(f"{re.escape(CRASH_TEXT)}: {words}", reason)


async def test_everything_said_before_a_kill_is_heard_before_the_death(link, heard):
    link.submit(request(1, "kill"))
    block_loop_until(lambda: not is_alive(link.pid))  # more than one gulp lies in the ring now
    assert "killed by signal 9 (out of memory?)" in await heard.until("died")
    assert heard.kinds() == ["started", *["pieces"] * 3000, "done", "died"]


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 6, 13])
async def test_a_worker_that_dies_within_a_frame_says_nothing_by_halves(link, heard, cut):
    link.submit(request(1, f"cut {cut}"))
    await heard.until("died")
    assert heard.kinds() == ["started", "died"]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("exit 0", "exit status 0"),
        ("exit 5", "exit status 5"),
        ("garbage", "cannot be read: frame version 255"),
        ("again", "spoke out of turn: Ready"),
    ],
)
async def test_every_other_end_has_its_words(link, heard, command, text):
    link.submit(request(1, command))
    assert text in await heard.until("died")
    assert not is_alive(link.pid)


async def test_an_impossible_read_index_is_seen_with_the_next_request(link, heard):
    link.submit(request(1, "index"))
    await heard.until("pieces")  # it is written
    link.submit(request(2, "answer"))
    assert "read index" in await heard.until("died")


async def test_a_silent_worker_with_work_is_killed(make, heard):
    link = make(stall_timeout_s=0.3)
    await start(link)
    link.submit(request(1, "wait"))
    assert "silent for 0.3 s" in await heard.until("died")
    assert not is_alive(link.pid)


async def test_a_silent_worker_without_work_is_left_alone(make, heard):
    link = make(stall_timeout_s=0.05)
    await start(link)
    assert await link.tokenize("later")  # five times as long
    assert "died" not in heard.kinds()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_loop_that_was_late_is_not_the_workers_silence(run):
    async def main():
        heard = Heard()
        link = new_link(heard, stall_timeout_s=0.3)
        try:
            await start(link)
            link.submit(request(1, "answer"))
            over = time.monotonic() + 0.4
            inbound = link._channel.pipe._inbound
            block_loop_until(lambda: inbound.readable() and time.monotonic() > over)
            assert (await heard.until("done")).id == 1
            assert await link.tokenize("a")
            assert "died" not in heard.kinds()
        finally:
            await link.stop(0)

    run(main())


@pytest.mark.slow
async def test_vitals_are_proof_of_life(make, heard):
    link = make(stall_timeout_s=1.0)
    await start(link)
    link.submit(request(1, "breathe"))  # for one and a half seconds
    assert (await heard.until("done")).reason == "stop"


# Stopping


@pytest.mark.parametrize("act", ["ignore quit", "ignore everything"])
async def test_stop_ends_who_does_not_want_to(make, heard, act):
    link = make()
    await start(link, act)
    await asyncio.gather(link.stop(0.2), link.stop(0.2))
    assert not is_alive(link.pid)
    assert "died" not in heard.kinds()


@pytest.fixture
def immortal(monkeypatch):
    """No signal reaches a worker, as if a driver held it, until the block ends."""
    monkeypatch.setattr("ollama_async.workers.process._REAP_DEADLINE_S", 0.05)
    monkeypatch.setattr("ollama_async.workers.client._REAP_DEADLINE_S", 0.05)

    @contextlib.contextmanager
    def immortal(link):
        with monkeypatch.context() as patch:
            patch.setattr(WorkerProcess, "_signal", lambda *_: None)
            yield
        os.kill(link.pid, signal.SIGKILL)

    return immortal


async def test_a_worker_that_survives_sigkill_is_not_gone_before_it_is(link, immortal):
    with immortal(link):
        os.kill(link.pid, signal.SIGSTOP)
        await link.stop(0)
        assert not link.is_gone
    async with asyncio.timeout(DEADLINE_S):
        await link.closed()
    assert link.is_gone


async def test_whoever_waits_for_a_worker_that_survives_sigkill_is_told(make, heard, immortal):
    link = make(stall_timeout_s=0.1)
    await start(link)
    with immortal(link):
        link.submit(request(1, "wait"))
        assert "silent for 0.1 s" in await heard.until("died")
        assert not link.is_gone
    async with asyncio.timeout(DEADLINE_S):
        await link.closed()
    assert heard.kinds().count("died") == 1


async def test_a_cancelled_stop_kills(make):
    link = make()
    await start(link, "ignore everything")
    stopping = asyncio.create_task(link.stop(DEADLINE_S))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    async with asyncio.timeout(DEADLINE_S):
        await link.closed()
    assert not is_alive(link.pid)


async def test_a_grandchild_that_holds_stdout_neither_delays_the_end_nor_survives_it(link, heard):
    link.submit(request(1, "grandchild"))
    ((_, grandchild),) = await heard.until("pieces")
    assert is_alive(int(grandchild))
    os.kill(link.pid, signal.SIGTERM)
    await heard.until("died")
    await gone(int(grandchild))


async def gone(pid):
    """Wait until a process that is not our child has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert await asyncio.to_thread(poll.poll, DEADLINE_S * 1000), f"{pid} still lives"
    finally:
        os.close(pidfd)


PARENT = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from test_worker_process import Heard, new_link, request, start

async def main():
    heard = Heard()
    link = new_link(heard)
    await start(link)
    link.submit(request(1, sys.argv[2]))
    await heard.until(sys.argv[3])
    print(link.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("command", "sign"), [("wait", "started"), ("hold", "pieces")])
async def test_a_worker_dies_with_a_killed_parent(command, sign):
    argv = [sys.executable, "-c", PARENT, str(HERE), command, sign]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:  # noqa: ASYNC220  # two milliseconds
        child = int(await asyncio.to_thread(parent.stdout.readline))
        assert is_alive(child)
        parent.kill()
    await gone(child)


class Exit:
    def __init__(self):
        self.returncode = asyncio.get_running_loop().create_future()

    def printed(self): ...

    def exited(self, returncode):
        self.returncode.set_result(returncode)


async def spawn(channel, argv, listener):
    return WorkerProcess.spawn(
        argv,
        environ=ENVIRON,
        pass_fds=channel.pass_fds,
        listener=listener,
        module="misbehaving_worker",
    )


async def test_the_lifeline_alone_ends_a_worker():
    channel, listener = Channel(), Exit()
    try:
        await spawn(channel, [*channel.argv(generation=1), "--act", "silent"], listener)
        channel.spawned()
        channel.cut_lifeline()
        async with asyncio.timeout(DEADLINE_S):
            assert await listener.returncode == ORPHANED
    finally:
        channel.close()


async def test_a_worker_whose_parent_is_another_ends_at_once():
    channel, listener = Channel(), Exit()
    try:
        argv = channel.argv(generation=1)
        argv[argv.index("--parent") + 1] = "1"
        await spawn(channel, argv, listener)
        async with asyncio.timeout(DEADLINE_S):
            assert await listener.returncode == ORPHANED
    finally:
        channel.close()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda argv: argv[2:], "missing required field `ring-in`"),
        (lambda argv: [*argv, "--act"], "cannot read option '--act'"),
        (lambda argv: [*argv, "act", "silent"], "cannot read option 'act'"),
        (lambda argv: [*argv, "--parent", "1"], "cannot read option '--parent'"),
        (lambda argv: [argv[0], "x", *argv[2:]], "ring-in"),
        (lambda argv: [argv[0], "0", *argv[2:]], "is no memfd"),
    ],
)
async def test_an_argv_that_makes_no_sense_is_named(change, text):
    channel, listener = Channel(), Exit()
    try:
        process = await spawn(channel, change(channel.argv(generation=1)), listener)
        async with asyncio.timeout(DEADLINE_S):
            assert await listener.returncode == 1
        assert text in " ".join(process.tail.telling_lines(1))
    finally:
        channel.close()


async def test_a_signal_after_the_end_hits_nobody():
    channel, listener = Channel(), Exit()
    try:
        process = await spawn(channel, ["--act"], listener)
        async with asyncio.timeout(DEADLINE_S):
            await listener.returncode
        process.kill()
        assert await process.stop(1, ask=lambda: None)
    finally:
        channel.close()

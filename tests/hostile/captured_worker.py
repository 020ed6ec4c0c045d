"""A worker that is in an attacker's hands: attaches and starts as the real one does, then does what
the raw prompt of a request says, a word of ``ATTACKS``.
"""

import contextlib
import ctypes
import fcntl
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from ollama_async.core.conversation import (
    Detokenize,
    Inference,
    Logprobs,
    Thought,
    TokenLogprob,
    ToolCall,
    ToolFunction,
    Usage,
    Vector,
)
from ollama_async.workers import frames, messages
from ollama_async.workers.child.process_setup import attach, read_options
from ollama_async.workers.frames import HEADER

READY = messages.Ready(2, 64, 1, 2, 3, 0, [])


def main() -> None:
    pipe, generation, options = attach(sys.argv[1:])
    ready = STARTS.get(options["engine"], READY)
    hello = messages.Hello(messages.PROTOCOL, os.getpid(), generation)
    pipe.send([hello, ready])
    while True:
        match pipe.receive(60.0):
            case messages.Submit(id=number, task=Inference() as task):
                pipe.send([messages.Started(number)])
                ATTACKS[task.prompt.raw](pipe, number)
            case messages.Submit(id=number, task=Detokenize()):
                status = Path("/proc/self/status").read_text()
                done = messages.Done(number, "stop", Usage())
                pipe.send([messages.Started(number), messages.Deltas([(number, status)]), done])
            case messages.Quit():
                return


STARTS = {
    "many slots": messages.Ready(1 << 40, 1 << 50, 1, 2, 3, 0, ["a\x1b[31mb" * 999] * 30),
    "negative": messages.Ready(2, 64, -1, 2, 3, 0, []),
}


def bell_fds():
    options = read_options(sys.argv[1:])
    return int(options["bell-in"]), int(options["bell-out"])


def attack_bells(_pipe, _number):
    """Fill whatever the parent rings with, and let none of it be non-blocking."""
    for fd in bell_fds():
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        for data in (b"\xfe" + b"\xff" * 7, b"x" * (1 << 20), b"x"):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, data)
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    threading.Event().wait(60)


def attack_closed_bells(_pipe, _number):
    for fd in bell_fds():
        os.close(fd)
    threading.Event().wait(60)


def attack_ringing(pipe, _number):
    while True:
        pipe._bell_out.notify()


def attack_crumbs(pipe, _number):
    """One large frame, a byte at a time."""
    pipe._outbound.write(HEADER.pack(1, 200 << 10))
    while True:
        pipe._outbound.write(b"\x90")
        pipe._bell_out.notify()


def endlessly(pipe, *messages):
    while True:
        pipe.send(messages)


def attack_text(pipe, number):
    endlessly(pipe, messages.Deltas([(number, "word ")] * 500))


def attack_empty_text(pipe, number):
    endlessly(pipe, messages.Deltas([(number, "")] * 500))


def attack_thoughts(pipe, number):
    endlessly(pipe, messages.Deltas([(number, Thought("hm "))] * 500))


def attack_logprobs(pipe, number):
    logprobs = Logprobs([TokenLogprob(b"", -0.5, [(b"", -0.5)] * 10_000)])
    endlessly(pipe, messages.Deltas([(number, logprobs)]))


def attack_empty_logprobs(pipe, number):
    """Tokens of nothing, which cost the gateway much more than the worker."""
    endlessly(pipe, messages.Deltas([(number, Logprobs([TokenLogprob(b"", -0.5)] * 10_000))]))


def attack_unlikely_logprobs(pipe, number):
    top = [(b"a", math.nan)]
    pipe.send([messages.Deltas([(number, Logprobs([TokenLogprob(b"a", -0.5, top)]))])])


def attack_vectors(pipe, number):
    endlessly(pipe, messages.Deltas([(number, Vector(0, b"x" * 10_000, 1))]))


def attack_start(pipe, number):
    pipe.send([messages.Started(number, -1)])


def attack_cached(pipe, number):
    pipe.send([messages.Done(number, "stop", Usage(prompt=3, cached=1 << 40))])


def attack_stop_string(pipe, number):
    done = messages.Done(number, "stop", Usage(), stop_string="x" * (5 << 20))
    pipe.send([done])


def attack_calls(pipe, number):
    call = ToolCall(ToolFunction("f", {"a": "x" * 10_000}))
    endlessly(pipe, messages.Deltas([(number, messages.ToolCallDelta(call))]))


def attack_nested(pipe, number):
    """Frames that are allowed, of values that cost the most."""
    call = ToolCall(ToolFunction("f", {"a": [[]] * 250_000}))
    endlessly(pipe, messages.Deltas([(number, messages.ToolCallDelta(call))]))


def attack_unsayable_call(pipe, number):
    body = messages.Deltas(
        [(number, messages.ToolCallDelta(ToolCall(ToolFunction("f", {"a": 1}))))]
    )
    data = frames.encode([body], limit_bytes=1 << 20)
    at = data.index(b"\xa1a\x01") + 2
    data[at : at + 1] = b"\xc7\x01\x05x"  # an extension type
    HEADER.pack_into(data, 0, 1, len(data) - HEADER.size)
    pipe._outbound.write(data)
    pipe._bell_out.notify()


def attack_other(pipe, number):
    pipe.send([messages.Deltas([(number + 1, "not mine")])])


def attack_twice(pipe, number):
    pipe.send([messages.Started(number)])


def attack_ended(pipe, number):
    done = messages.Done(number, "stop", Usage())
    pipe.send([done, done])


def attack_failed(pipe, number):
    pipe.send([messages.Failed(number + 7, "engine_failed", "no")])


def attack_error(pipe, number):
    pipe.send([messages.Failed(number, "engine_failed", "no\x1b[31m" + "x" * 200_000)])


def attack_usage(pipe, number):
    pipe.send([messages.Done(number, "stop", Usage(-1, 0, 0, 1 << 62, 0))])


def attack_heartbeat(pipe, _number):
    pipe.send([messages.Heartbeat(1, math.nan)])


def attack_heartbeats(pipe, _number):
    endlessly(pipe, *[messages.Heartbeat(1, 0.5)] * 100)


def attack_answers(pipe, _number):
    endlessly(pipe, *[messages.Done(-5, "stop", Usage(), [1, 2, 3])] * 100)


def attack_large(pipe, _number):
    """A frame of small values, which cost much more than their bytes."""
    pipe._outbound.write(HEADER.pack(1, 15 << 20))
    pipe._bell_out.notify()
    threading.Event().wait(60)


def attack_invalid(pipe, number):
    body = b"\x92\xa1p\x91\x92" + bytes([number]) + b"\xa2\xff\xfe"
    pipe._outbound.write(HEADER.pack(1, len(body)) + body)
    pipe._bell_out.notify()
    threading.Event().wait(60)


def attack_tag(pipe, _number):
    """A fault that quotes the attacker."""
    tag = b"\x1b[31m" + b"x" * 100_000
    body = b"\x92\xdb" + len(tag).to_bytes(4, "big") + tag + b"\x01"
    pipe._outbound.write(HEADER.pack(1, len(body)) + body)
    pipe._bell_out.notify()
    threading.Event().wait(60)


def attack_log(_pipe, _number):
    line = b"ggml: out of memory? " + b"x" * 60 + b"\n"
    while True:
        os.write(2, line * 700)


def attack_short_lines(_pipe, _number):
    while True:
        os.write(2, b"a\n" * 20_000)


TRACER = """
import ctypes, os, sys, time
pid = int(sys.argv[1])
os.setsid()
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(0x4206, pid, None, None):  # PTRACE_SEIZE
    sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())}")
print("traced", flush=True)
time.sleep(1.5)
"""


def attack_traced(pipe, number):
    """Be traced by a child of its own: the tracer is told of the death, and not the parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: anybody
    tracer = subprocess.Popen(
        [sys.executable, "-c", TRACER, str(os.getpid())], stdout=subprocess.PIPE
    )
    word = tracer.stdout.readline().decode().strip()
    pipe.send([messages.Deltas([(number, word or "untraced")])])
    os.kill(os.getpid(), signal.SIGKILL)


def attack_memory(pipe, number):
    held = []
    try:
        while len(held) < 32:
            held.append(bytearray(64 << 20))
    except MemoryError:
        pipe.send([messages.Deltas([(number, f"{len(held)}")])])
    threading.Event().wait(60)


ATTACKS = {
    name.removeprefix("attack_").replace("_", " "): attack
    for name, attack in list(globals().items())
    if name.startswith("attack_")
}

if __name__ == "__main__":
    main()

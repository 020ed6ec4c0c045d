"""A worker for tests: attaches as the real one does, then starts as its engine says.

A ready one obeys requests: the raw prompt is the command, a word of ``ORDERS`` and its argument.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from ollama_async.core.conversation import Detokenize, Inference, Tokenize, Usage
from ollama_async.workers import frames, messages
from ollama_async.workers.child.process_setup import attach

READY = messages.Ready(2, 64, 1, 2, 3, 0, ["a warning"])
PAUSE_S = 0.25


def main() -> None:
    pipe, generation, options = attach(sys.argv[1:])
    act = options["engine"]
    hello = messages.Hello(messages.PROTOCOL, os.getpid(), generation)
    STARTS.get(act, start_well)(pipe, hello)
    if act == "ignore everything":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe.send([messages.Loading(), READY])
    serve(pipe, quits=act not in {"ignore quit", "ignore everything"})


def log(text) -> None:
    sys.stderr.write(f"{text}\n")


# Ways to start: until the model is loaded.


def start_well(pipe, hello):
    pipe.send([hello])


def start_not_at_all(_pipe, _hello):
    threading.Event().wait(60)


def start_and_exit(_pipe, _hello):
    log("loading\nerror: tensor 'x' is missing")
    sys.exit(3)


def start_and_raise(_pipe, _hello):
    raise ValueError("the file says no")


def start_with_another_protocol(pipe, hello):
    hello.protocol = 99
    pipe.send([hello])


def start_with_another_generation(pipe, hello):
    hello.generation += 1
    pipe.send([hello])


def start_out_of_turn(pipe, hello):
    pipe.send([READY, hello])


def start_and_refuse(pipe, hello):
    pipe.send([hello, messages.Refused("bad_request", "no such quantization")])


def start_refuse_and_exit(pipe, hello):
    pipe.send([hello, messages.Refused("load_failed", "the file is damaged")])
    sys.exit(0)


def start_with_a_bad_index(pipe, _hello):
    os.pwrite(pipe._outbound.fd, b"\xff" * 8, 64)
    pipe._bell_out.notify()
    threading.Event().wait(60)


def start_with_garbage(pipe, _hello):
    pipe._outbound.write(b"\x01\x02\x00\x00\x00\xc1\xc1")
    pipe._bell_out.notify()


def start_slowly(pipe, hello):
    pipe.send([hello])
    for _ in range(10):
        time.sleep(PAUSE_S)
        pipe.send([messages.Loading()])


def start_slowly_but_printing(pipe, hello):
    pipe.send([hello])
    for step in range(10):
        time.sleep(PAUSE_S)
        log(f"loaded layer {step}")


STARTS = {
    "silent": start_not_at_all,
    "exit early": start_and_exit,
    "raise": start_and_raise,
    "wrong protocol": start_with_another_protocol,
    "wrong generation": start_with_another_generation,
    "out of turn": start_out_of_turn,
    "refuse": start_and_refuse,
    "exit after refusing": start_refuse_and_exit,
    "index": start_with_a_bad_index,
    "garbage": start_with_garbage,
    "slow": start_slowly,
    "slow but printing": start_slowly_but_printing,
}


# What a ready worker does.


def serve(pipe, *, quits) -> None:
    while True:
        match pipe.receive(1.0):
            case messages.Submit(id=number, task=task):
                pipe.send([messages.Started(number)])
                perform(pipe, number, task)
            case messages.Cancel(id=number):
                pipe.send([messages.Done(number, "cancel", Usage())])
            case messages.Quit() if quits:
                return


def perform(pipe, number, task):
    match task:
        case Inference():
            word, _, rest = task.prompt.raw.partition(" ")
            ORDERS[word](pipe, number, rest)
        case Tokenize():
            tokens = list(task.text.encode())
            pipe.send([messages.Done(number, "stop", Usage(), tokens)])
        case Detokenize(tokens=[]):
            pipe.send([messages.Failed(number, "bad_request", "no tokens")])
        case Detokenize():
            text = json.dumps(self_portrait())
            pipe.send([messages.Deltas([(number, text)]), messages.Done(number, "stop", Usage())])


def order_answer(pipe, number, _rest):
    done = messages.Done(number, "stop", Usage(1, 0, 2, 3, 4))
    pipe.send([messages.Deltas([(number, "hello")]), done])


def order_nap(pipe, number, _rest):
    """After the answer."""
    pipe.send([messages.Done(number, "stop", Usage())])
    time.sleep(PAUSE_S)
    pipe.send([messages.Heartbeat(0, 0.0)])


def order_wait(_pipe, _number, _rest):
    """Say nothing more of it."""


def order_fail(pipe, number, _rest):
    pipe.send([messages.Failed(number, "engine_failed", "no")])


def order_breathe(pipe, number, _rest):
    for _ in range(15):
        time.sleep(0.1)
        pipe.send([messages.Heartbeat(1, 0.5)])
    pipe.send([messages.Done(number, "stop", Usage())])


def order_kill(pipe, number, _rest):
    pipe.send([messages.Deltas([(number, "x")])] * 3000)
    pipe.send([messages.Done(number, "stop", Usage())])
    os.kill(os.getpid(), signal.SIGKILL)


def order_crash(_pipe, _number, _rest):
    log("ggml: some progress\nCUDA error: out of memory\nbye")
    os.kill(os.getpid(), signal.SIGSEGV)


def order_assert(_pipe, _number, _rest):
    """As ggml does where a debugger is installed."""
    for number in range(50):
        log(f"INFO request {number} failed over to slot 1, error budget 0")
    log('/build/llama-vocab.cpp:3422: GGML_ASSERT(tokenizer && "not initialized") failed')
    log("[New LWP 17760]")
    for number in range(300):
        log(f"#{number}  0x00007fc4c034c7de in ggml_abort () from /lib/libggml-base.so.0")
        log(f"{number}\tModules/main.c: No such file or directory.")
    log("[Inferior 1 (process 17759) detached]")
    os.abort()


def order_raise(_pipe, _number, _rest):
    raise ValueError("the weights are odd")


def order_quietly(_pipe, _number, rest):
    for number in range(50):
        log(f"INFO request {number} failed over to slot 1, error budget 0")
    os.kill(os.getpid(), getattr(signal, rest))


def order_exit(_pipe, _number, rest):
    os._exit(int(rest))


def order_cut(pipe, number, rest):
    whole = frames.encode([messages.Deltas([(number, "cut")])], limit_bytes=99)
    pipe._outbound.write(whole[: int(rest)])
    os.kill(os.getpid(), signal.SIGKILL)


def order_garbage(pipe, _number, _rest):
    pipe._outbound.write(b"\xff" * 20)
    pipe._bell_out.notify()


def order_again(pipe, _number, _rest):
    pipe.send([READY])


def order_index(pipe, number, _rest):
    os.pwrite(pipe._inbound.fd, b"\xff" * 8, 128)
    pipe.send([messages.Deltas([(number, "written")])])
    threading.Event().wait(60)  # the next read would put it right


def order_grandchild(pipe, number, _rest):
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pipe.send([messages.Deltas([(number, str(grandchild.pid))])])
    threading.Event().wait(60)


def order_hold(pipe, number, _rest):
    """The interpreter's lock, for a minute: no thread of ours can run."""
    pipe.send([messages.Deltas([(number, "holding")])])
    ctypes.PyDLL(None).sleep(60)


ORDERS = {
    name.removeprefix("order_"): order
    for name, order in list(globals().items())
    if name.startswith("order_")
}


def self_portrait() -> dict:
    fds = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            fds[link.name] = str(link.readlink())
        except FileNotFoundError:  # the listing's own
            continue
    return {
        "fds": fds,
        "inheritable": [fd for fd in map(int, fds) if fd > 2 and os.get_inheritable(fd)],
        "environ": dict(os.environ),
        "session": os.getsid(0),
        "pid": os.getpid(),
        "path": sys.path,
    }


if __name__ == "__main__":
    main()

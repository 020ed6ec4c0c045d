"""A confined process computes, and reaches nobody. Each runs in a process of its own: it is for
ever.
"""

import signal
import subprocess
import sys

import pytest

PREFIX = """
import ctypes, os, signal, socket, subprocess, sys, threading
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
go, done = threading.Event(), []
def late(act):
    go.wait()
    try:
        done.append(act() and None or "ok")
    except OSError as reason:
        done.append(type(reason).__name__)
    finally:
        go.clear()
other = threading.Thread(target=late, args=(socket.socket,))
other.start()
from ollama_async.workers.child.process_setup import restrict_system_calls
if not restrict_system_calls():
    print("none")
    sys.exit()
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", PREFIX + code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.stdout == "none\n":
        pytest.skip("no libseccomp here")
    return done


@pytest.mark.parametrize(
    "act",
    [
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "os.kill(os.getppid(), 0)",
        "os.kill(0, 0)",
        "os.execv('/bin/true', ['true'])",
        "subprocess.run(['/bin/true'])",
        "os.pidfd_open(os.getppid())",
    ],
)
def test_what_reaches_others_is_refused(act):
    done = run(f"""
try:
    {act}
except PermissionError:
    print("refused", flush=True)
finally:
    go.set(); other.join()
""")
    assert done.stdout == "refused\n", done.stderr


def test_threads_that_run_already_are_confined_too():
    assert run("go.set(); other.join(); print(*done)").stdout == "PermissionError\n"


@pytest.mark.slow
def test_work_goes_on():
    done = run("""
go.set(); other.join()
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
import json, numpy
print(numpy.ones(1000).sum(), open("/proc/self/status").read().count("Seccomp:\\t2"))
""")
    assert done.stdout == "thread\n1000.0 1\n", done.stderr


def test_a_failed_assertion_still_ends_the_process_as_such():
    assert run("os.abort()").returncode == -signal.SIGABRT

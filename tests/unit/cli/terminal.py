"""Commands on a terminal, as a person sees and interrupts them."""

import os
import pty
import signal
import subprocess
import sys


def interrupted(words, shown_before, fake):
    """Run a command, press Ctrl-C once it has shown so much; what was shown, and the exit status.

    ``fake`` must be waiting for the client to hang up by then.
    """
    ours, theirs = pty.openpty()
    line = [sys.executable, "-P", "-m", "ollama_async.cli.main", *words]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    with (
        os.fdopen(ours, "rb", buffering=0) as screen,
        subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as ran,
    ):
        os.close(theirs)
        shown = read_until(screen, shown_before)
        ran.send_signal(signal.SIGINT)
        assert fake.hung_up.wait(30)
        shown += read_until(screen, None)
        return shown, ran.wait(30)


def shown(words, **variables):
    """All that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    line = [sys.executable, "-P", "-m", "ollama_async.cli.main", *words]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"} | variables
    with (
        os.fdopen(ours, "rb", buffering=0) as screen,
        subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as ran,
    ):
        os.close(theirs)
        return read_until(screen, None), ran.wait(30)


def read_until(screen, text):
    """What is written up to ``text``, or to the end of all."""
    shown = b""
    while text is None or text not in shown:
        try:
            shown += screen.read(4096)
        except OSError:  # nobody has the terminal open any more
            assert text is None, shown
            break
    return shown

"""Commands whose standard streams are closed or full."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "redirection", "status", "error"),
    [
        ("help", ">/dev/full", 1, "Error: [Errno 28] No space left on device\n"),
        ("help", ">&-", 0, ""),
        ("list nothing here", "2>&-", 1, ""),
        ("run m hi", "<&-", 1, "Error: could not connect to ollama server, run 'ollama-async serve' to start it\n"),  # noqa: E501  # one text
    ],
)  # fmt: skip
def test_a_stream_that_cannot_be_used_is_no_traceback(words, redirection, status, error):
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -P -m ollama_async.cli.main {words} {redirection}', sys.executable],  # noqa: E501  # one command
        env={**os.environ, "OLLAMA_HOST": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, error)

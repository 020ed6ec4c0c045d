"""``pull``: the server fetches a model, and we show how far it is."""

from __future__ import annotations

import contextlib

from ollama_async.cli.client import Client
from ollama_async.cli.progress import Progress


def pull(client: Client, name: str, *, insecure: bool = False) -> None:
    """Have the server fetch the model ``name``; returns when it is complete.

    ``insecure``: over plain HTTP. Ctrl-C hangs up; what has come so far stays with the server, and
    the next pull goes on from there.

    :raises CommandFailed: the server said why, or left in the middle.
    """
    progress = Progress()
    request = {"model": name, "insecure": insecure}
    with contextlib.closing(client.lines("/api/pull", request)) as updates:
        try:
            progress.follow(updates, "the server ended before the model was complete")
        finally:
            progress.end()

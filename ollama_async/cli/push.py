"""``push``: the server sends a model to its registry, and we show how far it is."""

from __future__ import annotations

import contextlib

from ollama_async.cli.client import Client, CommandFailed, ServerRefused
from ollama_async.cli.progress import Progress
from ollama_async.core.model_names import ModelName

_NOT_YOURS = (
    "you are not authorized to push to this namespace, create the model under a namespace you own"
)
_REFUSALS = ("access denied", "unauthorized")
_OLLAMA_HOSTS = (".ollama.ai", ".ollama.com")


def push(client: Client, name: str, *, insecure: bool = False) -> None:
    """Have the server send the model ``name``; returns when the registry has it, and says where.

    ``insecure``: over plain HTTP. Ctrl-C hangs up, which ends the push; files that the registry has
    already are not sent again.

    :raises CommandFailed: the server said why, or left in the middle.
    """
    progress = Progress()
    request = {"model": name, "insecure": insecure}
    try:
        with contextlib.closing(client.lines("/api/push", request)) as updates:
            try:
                progress.follow(updates, "the server ended before the model was pushed")
            finally:
                progress.end()
    except ServerRefused as refusal:
        if any(words in str(refusal) for words in _REFUSALS):
            raise CommandFailed(_NOT_YOURS) from refusal
        raise
    print(f"\nYou can find your model at:\n\n\t{_place(name)}")


def _place(text: str) -> str:
    """The page of a model on Ollama's site; of one in another registry its full name."""
    try:
        name = ModelName.parse(text.strip())
    except ValueError:  # the server understood it, so what it meant is what was typed
        return text
    if name.host.lower().endswith(_OLLAMA_HOSTS):
        return f"https://ollama.com/{name.namespace}/{name.model}:{name.tag}".removesuffix(
            ":latest"
        )
    return name.full

"""Commands about models as a whole: list, ps, cp, rm, stop."""

from __future__ import annotations

import argparse
import contextlib
import sys

import msgspec

from ollama_async.cli import formatting
from ollama_async.cli.client import Client, CommandFailed, ServerRefused
from ollama_async.cli.progress import Progress
from ollama_async.core.model_names import ModelName

DIGEST_SHOWN = 12


class Row(msgspec.Struct):
    """What is shown of a model, listed or loaded; a server may leave out what does not apply."""

    name: str = ""
    digest: str = ""
    size: int = 0
    size_vram: int = 0
    context_length: int = 0
    modified_at: str = ""
    expires_at: str = ""
    remote_model: str = ""


def list_models(client: Client, arguments: argparse.Namespace) -> int:
    prefix = arguments.words[0].lower() if arguments.words else ""
    rows = [
        (
            model.name,
            model.digest[:DIGEST_SHOWN],
            "-" if model.remote_model else formatting.size(model.size),
            formatting.ago(model.modified_at),
        )
        for model in _models(client, "/api/tags")
        if model.name.lower().startswith(prefix)
    ]
    print(formatting.table(("NAME", "ID", "SIZE", "MODIFIED"), rows), end="")
    return 0


def list_running(client: Client, arguments: argparse.Namespace) -> int:
    prefix = arguments.words[0] if arguments.words else ""
    rows = [
        (
            model.name,
            model.digest[:DIGEST_SHOWN],
            formatting.size(model.size),
            formatting.processor(model.size, model.size_vram),
            str(model.context_length),
            formatting.until(model.expires_at),
        )
        for model in _models(client, "/api/ps")
        if model.name.startswith(prefix)
    ]
    header = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")
    print(formatting.table(header, rows), end="")
    return 0


def stop(client: Client, arguments: argparse.Namespace) -> int:
    (name,) = arguments.words
    try:
        _unload(client, name)
    except ServerRefused as refusal:
        if "not found" in str(refusal):
            raise CommandFailed(f'couldn\'t find model "{name}" to stop') from None
        raise
    return 0


def copy(client: Client, arguments: argparse.Namespace) -> int:
    source, destination = arguments.words
    client.call("POST", "/api/copy", {"source": source, "destination": destination})
    print(f"copied '{source}' to '{destination}'")
    return 0


def remove(client: Client, arguments: argparse.Namespace) -> int:
    for name in arguments.words:
        try:
            _unload(client, name)
        except ServerRefused as refusal:
            if "not found" not in str(refusal):  # then the deletion says so, in its own words
                print(f"Warning: unable to stop model '{name}'", file=sys.stderr)
        client.call("DELETE", "/api/delete", {"model": name})
        print(f"deleted '{name}'")
    return 0


def _unload(client: Client, name: str) -> None:
    client.call("POST", "/api/generate", {"model": name, "keep_alive": 0})


def _models(client: Client, path: str) -> list[Row]:
    answer = client.call("GET", path)
    models = answer.get("models") if isinstance(answer, dict) else None
    try:
        return msgspec.convert(models or [], list[Row])
    except msgspec.ValidationError as reason:
        raise CommandFailed(f"unexpected answer to {path}: {reason}") from None


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

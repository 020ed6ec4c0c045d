"""Commands about whole models: list, ps, stop, cp, rm, pull, push."""

from __future__ import annotations

import argparse
import contextlib
import sys

import msgspec

from ollama_async.cli.client import Client, CommandFailed, ServerRefused
from ollama_async.cli.formatting import (
    format_age,
    format_expiry,
    format_processor,
    format_size,
    format_table,
)
from ollama_async.cli.progress import open_progress
from ollama_async.core.model_names import ModelName

_DIGEST_CHARACTERS = 12
_NOT_YOURS = (
    "you are not authorized to push to this namespace, create the model under a namespace you own"
)
_REFUSALS = ("access denied", "unauthorized")
_OLLAMA_HOSTS = (".ollama.ai", ".ollama.com")


class _Model(msgspec.Struct):
    """An entry of ``/api/tags`` or ``/api/ps``; a server may leave out what does not apply."""

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
            model.digest[:_DIGEST_CHARACTERS],
            "-" if model.remote_model else format_size(model.size),
            format_age(model.modified_at),
        )
        for model in _fetch_models(client, "/api/tags")
        if model.name.lower().startswith(prefix)
    ]
    print(format_table([("NAME", "ID", "SIZE", "MODIFIED"), *rows]), end="")
    return 0


def list_running(client: Client, arguments: argparse.Namespace) -> int:
    prefix = arguments.words[0] if arguments.words else ""
    rows = [
        (
            model.name,
            model.digest[:_DIGEST_CHARACTERS],
            format_size(model.size),
            format_processor(model.size, model.size_vram),
            str(model.context_length),
            format_expiry(model.expires_at),
        )
        for model in _fetch_models(client, "/api/ps")
        if model.name.startswith(prefix)
    ]
    header = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")
    print(format_table([header, *rows]), end="")
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
            if "not found" not in str(refusal):  # the deletion reports that error itself
                print(f"Warning: unable to stop model '{name}'", file=sys.stderr)
        client.call("DELETE", "/api/delete", {"model": name})
        print(f"deleted '{name}'")
    return 0


def pull(client: Client, arguments: argparse.Namespace) -> int:
    client.check_alive()
    pull_model(client, arguments.words[0], insecure=arguments.insecure)
    return 0


def pull_model(client: Client, name: str, *, insecure: bool) -> None:
    """Pull the model to the server. ``insecure``: over plain HTTP. :raises CommandFailed:

    Ctrl-C cancels the pull; the next one resumes it.
    """
    request = {"model": name, "insecure": insecure}
    _transfer(client, "/api/pull", request, "the server ended before the model was complete")


def push(client: Client, arguments: argparse.Namespace) -> int:
    """Ctrl-C cancels the push; the next one resumes it."""
    client.check_alive()
    (name,) = arguments.words
    request = {"model": name, "insecure": arguments.insecure}
    try:
        _transfer(client, "/api/push", request, "the server ended before the model was pushed")
    except ServerRefused as refusal:
        if any(words in str(refusal) for words in _REFUSALS):
            raise CommandFailed(_NOT_YOURS) from refusal
        raise
    print(f"\nYou can find your model at:\n\n\t{_location(name)}")
    return 0


def _transfer(client: Client, path: str, request: dict[str, object], failure: str) -> None:
    with contextlib.closing(client.stream(path, request)) as updates, open_progress() as progress:
        progress.follow(updates, failure)


def _location(text: str) -> str:
    """The model's page on Ollama's site; its full name for other registries."""
    try:
        name = ModelName.parse(text.strip())
    except ValueError:  # but the server accepted it
        return text
    if name.host.lower().endswith(_OLLAMA_HOSTS):
        return f"https://ollama.com/{name.namespace}/{name.model}:{name.tag}".removesuffix(
            ":latest"
        )
    return name.full


def _unload(client: Client, name: str) -> None:
    client.call("POST", "/api/generate", {"model": name, "keep_alive": 0})


def _fetch_models(client: Client, path: str) -> list[_Model]:
    answer = client.call("GET", path)
    models = answer.get("models") if isinstance(answer, dict) else None
    try:
        return msgspec.convert(models or [], list[_Model])
    except msgspec.ValidationError as reason:
        raise CommandFailed(f"unexpected answer to {path}: {reason}") from None

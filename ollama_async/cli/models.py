"""Commands about models as a whole: list, ps, cp, rm, stop."""

from __future__ import annotations

import argparse
import sys

import msgspec

from ollama_async.cli import formatting
from ollama_async.cli.client import Client, CommandFailed, ServerRefused

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

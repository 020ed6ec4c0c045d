"""``run``: one prompt answered, or a conversation if there is none and a person is there."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.cli import answer_printer, interactive
from ollama_async.cli.client import Client, CommandFailed, ServerRefused
from ollama_async.cli.create import model_of_file
from ollama_async.cli.models import pull
from ollama_async.cli.progress import Progress
from ollama_async.gocompat import durations

_THINK = {"true": True, "false": False, "high": "high", "medium": "medium", "low": "low"}
_THINK["max"] = "max"
_PATHS = ("/", "./", "../")


def run(client: Client, arguments: argparse.Namespace) -> int:
    model, *words = arguments.words
    common = _common_fields(arguments)
    is_conversation = sys.stdin.isatty() and sys.stdout.isatty() and not words
    if not sys.stdin.isatty():
        piped = sys.stdin.buffer.read().decode(errors="replace")
        words = [piped, *words] if piped else words
    client.check_alive()
    if is_file(model):
        model = model_of_file(client, Path(model), Progress())
    elif model.startswith(_PATHS):
        raise CommandFailed(f"{model}: no such file")

    def ask() -> int:
        if is_conversation:
            return interactive.converse(client, arguments, {"model": model, **common})
        return _answer(client, arguments, {"model": model, "prompt": " ".join(words), **common})

    return _pulled_if_missing(client, model, ask, insecure=arguments.insecure)


def _answer(client: Client, arguments: argparse.Namespace, fields: dict[str, Any]) -> int:
    """One prompt answered; without a prompt the model is loaded."""
    request = {"context": [], "options": {}, **fields}
    printer = answer_printer.Printer.for_flags(arguments)
    with contextlib.closing(client.lines("/api/generate", request)) as objects:
        last = answer_printer.show(objects, printer)
    if request["prompt"]:
        print("\n")
    if arguments.verbose:
        answer_printer.print_statistics(last)
    return 0


def _pulled_if_missing(
    client: Client, model: str, ask: Callable[[], int], *, insecure: bool
) -> int:
    """What ``ask`` returns; if the server has no such model, what it returns once it is pulled."""
    try:
        return ask()
    except ServerRefused as refusal:
        if refusal.status != HTTPStatus.NOT_FOUND:
            raise
    pull(client, model, insecure=insecure)
    return ask()


def is_file(model: str) -> bool:
    """Whether ``model`` means a file: it is there, and ends in ``.gguf`` or can be no name."""
    can_be = model.startswith(_PATHS) or model.lower().endswith(".gguf")
    return can_be and Path(model).is_file()


def _common_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags add to every request."""
    fields: dict[str, Any] = {}
    if arguments.keepalive:
        try:
            durations.parse(arguments.keepalive)
        except ValueError as reason:
            raise CommandFailed(str(reason)) from None
        fields["keep_alive"] = arguments.keepalive
    if arguments.format:
        fields["format"] = _format(arguments.format)
    if arguments.think:
        if arguments.think not in _THINK:
            raise CommandFailed(
                f'invalid value for --think: "{arguments.think}" '
                "(must be true, false, high, medium, low, or max)"
            )
        fields["think"] = _THINK[arguments.think]
    return fields


def _format(text: str) -> Any:
    if text == "json":
        return text
    try:
        return msgspec.json.decode(text)
    except ValueError as reason:
        raise CommandFailed(f'--format is neither "json" nor a JSON schema: {reason}') from None

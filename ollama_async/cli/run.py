"""``run``: answers one prompt; without one, starts a conversation on the terminal."""

from __future__ import annotations

import argparse
import contextlib
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.cli.answer_printer import AnswerPrinter, print_answer, print_statistics
from ollama_async.cli.client import Client, CommandFailed, ServerRefused
from ollama_async.cli.create import create_from_file
from ollama_async.cli.interactive import run_conversation
from ollama_async.cli.models import pull_model
from ollama_async.core.conversation import THINK_LEVELS
from ollama_async.gocompat import durations

_THINK = {
    "true": True,
    "false": False,
    **{level: level for level in THINK_LEVELS},
}
_PATH_PREFIXES = ("/", "./", "../")


def run(client: Client, arguments: argparse.Namespace) -> int:
    model, *words = arguments.words
    fields = _common_fields(arguments)
    is_conversation = sys.stdin.isatty() and sys.stdout.isatty() and not words
    if not sys.stdin.isatty():
        piped = sys.stdin.buffer.read().decode(errors="replace")
        words = [piped, *words] if piped else words
    client.check_alive()
    if _is_file(model):
        model = create_from_file(client, Path(model))
    elif model.startswith(_PATH_PREFIXES):
        raise CommandFailed(f"{model}: no such file")

    def attempt() -> int:
        if is_conversation:
            return run_conversation(client, arguments, {"model": model, **fields})
        return _answer(client, arguments, {"model": model, "prompt": " ".join(words), **fields})

    try:
        return attempt()
    except ServerRefused as refusal:
        if refusal.status != HTTPStatus.NOT_FOUND:
            raise
    pull_model(client, model, insecure=arguments.insecure)
    return attempt()


def _answer(client: Client, arguments: argparse.Namespace, fields: dict[str, Any]) -> int:
    """Answer one prompt; an empty one only loads the model."""
    request = {"context": [], "options": {}, **fields}
    printer = AnswerPrinter.from_flags(arguments)
    with contextlib.closing(client.stream("/api/generate", request)) as objects:
        last = print_answer(objects, printer)
    if request["prompt"]:
        print("\n")
    if arguments.verbose:
        print_statistics(last)
    return 0


def _is_file(model: str) -> bool:
    """Whether ``model`` is a path of an existing file, or ends in ``.gguf`` and exists."""
    can_be = model.startswith(_PATH_PREFIXES) or model.lower().endswith(".gguf")
    return can_be and Path(model).is_file()


def _common_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of every request that flags set."""
    fields: dict[str, Any] = {}
    if arguments.keepalive:
        try:
            durations.parse(arguments.keepalive)
        except ValueError as reason:
            raise CommandFailed(str(reason)) from None
        fields["keep_alive"] = arguments.keepalive
    if arguments.format:
        fields["format"] = _parse_format(arguments.format)
    if arguments.think:
        if arguments.think not in _THINK:
            raise CommandFailed(
                f'invalid value for --think: "{arguments.think}" '
                "(must be true, false, high, medium, low, or max)"
            )
        fields["think"] = _THINK[arguments.think]
    return fields


def _parse_format(text: str) -> Any:
    if text == "json":
        return text
    try:
        return msgspec.json.decode(text)
    except ValueError as reason:
        raise CommandFailed(f'--format is neither "json" nor a JSON schema: {reason}') from None

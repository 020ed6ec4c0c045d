"""A conversation at the terminal. Ctrl-C stops an answer, Ctrl-D or ``/bye`` ends it all."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from ollama_async.cli import answer
from ollama_async.cli.client import Client, ServerRefused

_FENCE = '"""'
_HELP = """\
Available Commands:
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command

Use \"\"\" to begin a multi-line message.
"""


def converse(client: Client, arguments: argparse.Namespace, request: dict[str, Any]) -> int:
    """Load the model, then take turns until the person leaves. ``request`` has the model's name
    and what every request carries.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415  # importing it gives input() its line editor
    client.call("POST", "/api/generate", {**request, "prompt": "", "stream": False})
    messages: list[dict[str, Any]] = []
    while True:
        try:
            text = _read_message()
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print("\nUse Ctrl + d or /bye to exit.")
            continue
        if text.startswith("/"):
            if text.startswith(("/bye", "/exit")):
                return 0
            _obey(text, messages)
        elif text.strip():
            _take_turn(client, arguments, request, messages, text)


def _read_message() -> str:
    """The next message; one that begins with three quotes goes on to the next three."""
    text = input(">>> ")
    if not text.startswith(_FENCE):
        return text
    text = text.removeprefix(_FENCE)
    while not text.rstrip().endswith(_FENCE):
        text += "\n" + input("... ")
    return text.rstrip().removesuffix(_FENCE)


def _obey(command: str, messages: list[dict[str, Any]]) -> None:
    if command.startswith("/clear"):
        messages.clear()
        print("Cleared session context")
    elif command.startswith(("/?", "/help")):
        print(_HELP, file=sys.stderr)
    else:
        print(f"Unknown command '{command.split(maxsplit=1)[0]}'. Type /? for help")


def _take_turn(
    client: Client,
    arguments: argparse.Namespace,
    request: dict[str, Any],
    messages: list[dict[str, Any]],
    text: str,
) -> None:
    """One message and its answer, both kept in ``messages``; a refused message is forgotten."""
    messages.append({"role": "user", "content": text})
    printer = answer.Printer.for_flags(arguments)
    last: dict[str, Any] = {}
    try:
        body = {**request, "messages": messages}
        with contextlib.closing(client.lines("/api/chat", body)) as objects:
            last = answer.show(objects, printer)
    except KeyboardInterrupt:
        pass  # what has been said so far stands
    except ServerRefused as refusal:
        messages.pop()
        print(f"Error: {refusal}", file=sys.stderr)
        return
    print("\n")
    turn = {"role": "assistant", "content": printer.content}
    if printer.thinking:
        turn["thinking"] = printer.thinking
    messages.append(turn)
    if arguments.verbose:
        answer.print_statistics(last)

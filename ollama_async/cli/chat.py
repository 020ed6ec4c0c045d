"""A conversation at the terminal. Ctrl-C stops an answer, Ctrl-D or ``/bye`` ends it all."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from ollama_async.cli import answer_printer
from ollama_async.cli.client import Client, ServerRefused
from ollama_async.cli.interactive import Session, obey

_FENCE = '"""'
_BEFORE_LONG_TEXT = ("", "/set system")


def converse(client: Client, arguments: argparse.Namespace, request: dict[str, Any]) -> int:
    """Load the model, then take turns until the person leaves. ``request`` has the model's name
    and what every request carries.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415  # importing it gives input() its line editor
    session = Session(client, arguments, request)
    session.load(request["model"])
    _show_stored(session)
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
            obey(session, text)
        elif text.strip():
            _take_turn(session, text)


def _show_stored(session: Session) -> None:
    """What the model's maker wrote down as said before, which the server puts before every turn."""
    for turn in session.shown().messages or ():
        if turn.role == "user":
            print(f">>> {turn.content}")
        elif turn.role == "assistant":
            answer_printer.Printer.for_flags(session.flags).take(turn.content, "")
            print("\n")


def _read_message() -> str:
    """The next message or command; a text behind three quotes goes on to the next three."""
    line = input(">>> ")
    start, fence, text = line.partition(_FENCE)
    if not fence or start.strip() not in _BEFORE_LONG_TEXT:
        return line
    while not text.rstrip().endswith(_FENCE):
        text += "\n" + input("... ")
    return start + text.rstrip().removesuffix(_FENCE)


def _take_turn(session: Session, text: str) -> None:
    """One message and its answer, both kept; a refused message is forgotten."""
    messages = session.messages
    messages.append({"role": "user", "content": text})
    printer = answer_printer.Printer.for_flags(session.flags)
    last: dict[str, Any] = {}
    try:
        body = {**session.request, "messages": messages}
        with contextlib.closing(session.client.lines("/api/chat", body)) as objects:
            last = answer_printer.show(objects, printer)
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
    if session.flags.verbose:
        answer_printer.print_statistics(last)

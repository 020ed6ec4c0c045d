"""What a person can change and look at in a conversation, by words that begin with a slash.

As in Ollama a word counts by its beginning: ``/setting`` is ``/set``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from ollama_async.cli import show
from ollama_async.cli.client import Client, CommandFailed

_HELP = """\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command

Use \"\"\" to begin a multi-line message.
"""
_SET_HELP = """\
Available Commands:
  /set system <string>   Set system message
  /set wordwrap          Enable wordwrap
  /set nowordwrap        Disable wordwrap
  /set format json       Enable JSON mode
  /set noformat          Disable formatting
  /set verbose           Show LLM stats
  /set quiet             Disable LLM stats
  /set think             Enable thinking
  /set nothink           Disable thinking
"""
_SHOW_HELP = """\
Available Commands:
  /show info         Show details for this model
  /show license      Show model license
  /show modelfile    Show Modelfile for this model
  /show parameters   Show parameters for this model
  /show system       Show system message
  /show template     Show prompt template
"""
_LEVELS = ("high", "medium", "low", "max")
_MISSING = {
    "license": "No license was specified for this model.",
    "parameters": "No parameters were specified for this model.",
    "system": "No system message was specified for this model.",
    "template": "No prompt template was specified for this model.",
}


class Session:
    """A conversation: ``request`` is what every turn carries (the model's name, format, think),
    ``messages`` what was said, ``flags`` those of ``run``, which say how answers look.
    """

    def __init__(self, client: Client, flags: argparse.Namespace, request: dict[str, Any]) -> None:
        self.client = client
        self.flags = flags
        self.request = request
        self.messages: list[dict[str, Any]] = []


def obey(session: Session, command: str) -> None:
    """Do what ``command`` says; what it does not know it says. Errors are said, too."""
    word, _, rest = command.partition(" ")
    try:
        for name, act in _COMMANDS.items():
            if word.startswith(name):
                act(session, rest.strip())
                return
    except CommandFailed as reason:
        print(f"Error: {reason}", file=sys.stderr)
        return
    _unknown(word)


def _unknown(command: str) -> None:
    print(f"Unknown command '{command}'. Type /? for help")


def _help(_session: Session, topic: str) -> None:
    helps = {"set": _SET_HELP, "/set": _SET_HELP, "show": _SHOW_HELP, "/show": _SHOW_HELP}
    print(helps.get(topic, _HELP), file=sys.stderr)


def _clear(session: Session, _rest: str) -> None:
    """The system message stays."""
    session.messages = [turn for turn in session.messages if turn["role"] == "system"]
    print("Cleared session context")


# ------------------------------------------------------------------ /set


def _set(session: Session, rest: str) -> None:
    name, _, value = rest.partition(" ")
    if not name:
        print(_SET_HELP, file=sys.stderr)
    elif name in _SETTINGS:
        _SETTINGS[name](session, value.strip())
    else:
        _unknown(f"/set {name}")


def _set_flag(flag: str, name: str, *, value: bool) -> Callable[[Session, str], None]:
    def act(session: Session, _value: str) -> None:
        setattr(session.flags, flag, value)
        print(f"Set '{name}' mode.")

    return act


def _set_format(session: Session, value: str) -> None:
    if value != "json":
        print("Invalid or missing format. For 'json' mode use '/set format json'")
        return
    session.request["format"] = value
    print("Set format to 'json' mode.")


def _set_no_format(session: Session, _value: str) -> None:
    session.request.pop("format", None)
    print("Disabled format.")


def _set_think(session: Session, level: str) -> None:
    if level and level not in _LEVELS:
        raise CommandFailed(f'invalid think level: "{level}" (must be high, medium, low, or max)')
    session.request["think"] = level or True
    print(f"Set 'think' mode to '{level}'." if level else "Set 'think' mode.")
    _warn_of_thinking(session)


def _set_no_think(session: Session, _value: str) -> None:
    session.request["think"] = False
    print("Set 'nothink' mode.")
    _warn_of_thinking(session)


def _warn_of_thinking(session: Session) -> None:
    model = session.request["model"]
    if "thinking" not in (show.ask(session.client, model).capabilities or []):
        session.request.pop("think")
        print(f'warning: model "{model}" does not support thinking output', file=sys.stderr)


def _set_system(session: Session, text: str) -> None:
    """The message counts from here on; one that nothing was said to yet is replaced."""
    if session.messages and session.messages[-1]["role"] == "system":
        session.messages.pop()
    session.messages.append({"role": "system", "content": text.strip('"')})
    print("Set system message.")


_SETTINGS: dict[str, Callable[[Session, str], None]] = {
    "system": _set_system,
    "wordwrap": _set_flag("nowordwrap", "wordwrap", value=False),
    "nowordwrap": _set_flag("nowordwrap", "nowordwrap", value=True),
    "verbose": _set_flag("verbose", "verbose", value=True),
    "quiet": _set_flag("verbose", "quiet", value=False),
    "format": _set_format,
    "noformat": _set_no_format,
    "think": _set_think,
    "nothink": _set_no_think,
}


# ------------------------------------------------------------------ /show


def _show(session: Session, part: str) -> None:
    if not part:
        print(_SHOW_HELP, file=sys.stderr)
    elif part == "info":
        print(show.page(_shown(session)), end="")
    elif part in show.PARTS:
        text: str = getattr(_shown(session), part)
        print(text or _MISSING.get(part, ""))
    else:
        _unknown(f"/show {part}")


def _shown(session: Session) -> show.Shown:
    return show.ask(session.client, session.request["model"])


_COMMANDS: dict[str, Callable[[Session, str], None]] = {
    "/set": _set,
    "/show": _show,
    "/clear": _clear,
    "/help": _help,
    "/?": _help,
}

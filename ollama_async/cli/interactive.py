"""What a person can change and look at in a conversation, by words that begin with a slash.

As in Ollama a word counts by its beginning: ``/setting`` is ``/set``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from ollama_async.api.options import OPTIONS, parse_parameter
from ollama_async.cli import answer_printer, models, show
from ollama_async.cli.client import Client, CommandFailed, ServerRefused
from ollama_async.core.model_names import ModelName

_HELP = """\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /load <model>   Load a session or model
  /save <model>   Save your current session
  /list           List models
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command

Use \"\"\" to begin a multi-line message.
"""
_SET_HELP = """\
Available Commands:
  /set parameter ...     Set a parameter
  /set system <string>   Set system message
  /set history           Keep typed lines at hand
  /set nohistory         Forget typed lines
  /set wordwrap          Enable wordwrap
  /set nowordwrap        Disable wordwrap
  /set format json       Enable JSON mode
  /set noformat          Disable formatting
  /set verbose           Show LLM stats
  /set quiet             Disable LLM stats
  /set think             Enable thinking
  /set nothink           Disable thinking
"""
_PARAMETER_HELP = "Available Parameters:\n" + "".join(
    f"  /set parameter {option.name} <{option.kind}>\n" for option in OPTIONS
)
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
    "system": "No system message was specified for this model.",
    "template": "No prompt template was specified for this model.",
}


class Session:
    """A conversation: ``request`` is what every turn carries (the model's name, format, think,
    options), ``messages`` what was said, ``flags`` those of ``run``, which say how answers look.
    """

    def __init__(self, client: Client, flags: argparse.Namespace, request: dict[str, Any]) -> None:
        self.client = client
        self.flags = flags
        self.request = request
        self.messages: list[dict[str, Any]] = []

    @property
    def system(self) -> str:
        """The system message set last in this conversation; empty if the model's own counts."""
        said = (turn["content"] for turn in reversed(self.messages) if turn["role"] == "system")
        return next(said, "")

    def load(self, model: str) -> None:
        """Have the server load ``model``, with which the conversation goes on from here.

        :raises ServerRefused: it cannot; the conversation stays with the model that it had.
        """
        request = {**self.request, "model": model}
        self.client.call("POST", "/api/generate", {**request, "prompt": "", "stream": False})
        self.request = request

    def shown(self) -> show.Shown:
        """What the server says of the model. :raises CommandFailed:"""
        return show.ask(self.client, self.request["model"])


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


def _load(session: Session, model: str) -> None:
    if not model:
        print("Usage:\n  /load <model name>")
        return
    print(f"Loading model '{model}'")
    try:
        session.load(model)
    except ServerRefused as refusal:
        if refusal.status != HTTPStatus.NOT_FOUND:
            raise
        print(f"Couldn't find model '{model}'")
        return
    session.messages = []


def _save(session: Session, model: str) -> None:
    """What the model becomes by this conversation, as a model of its own."""
    if not model:
        print("Usage:\n  /save <model name>")
        return
    try:
        ModelName.parse(model)
    except ValueError:
        print(f"error: The model name '{model}' is invalid")
        return
    turns = [turn for turn in session.messages if turn["role"] != "system"]
    fields = {
        "system": session.system,
        "parameters": session.request.get("options"),
        "messages": turns,
    }
    said = {name: value for name, value in fields.items() if value}
    parent = session.request["model"]
    session.client.call(
        "POST", "/api/create", {"model": model, "from": parent, "stream": False, **said}
    )
    print(f"Created new model '{model}'")


def _list(session: Session, prefix: str) -> None:
    models.list_models(session.client, argparse.Namespace(words=prefix.split()))


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


def _set_parameter(session: Session, rest: str) -> None:
    name, *values = rest.split() or [""]
    if not values:
        print(_PARAMETER_HELP, file=sys.stderr)
        return
    try:
        value = parse_parameter(name, values)
    except ValueError as reason:
        print(f"Couldn't set parameter: {json.dumps(str(reason))}")
        return
    session.request["options"] = {**session.request.get("options", {}), name: value}
    print(f"Set parameter '{name}' to '{', '.join(values)}'")


def _set_history(*, value: bool) -> Callable[[Session, str], None]:
    def act(_session: Session, _value: str) -> None:
        with contextlib.suppress(ImportError):  # then nothing is kept anyway
            import readline  # noqa: PLC0415  # not every Python has it

            readline.set_auto_history(value)

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
    if not text:
        print(_SET_HELP, file=sys.stderr)
        return
    if session.messages and session.messages[-1]["role"] == "system":
        session.messages.pop()
    session.messages.append({"role": "system", "content": text.strip('"')})
    print("Set system message.")


_SETTINGS: dict[str, Callable[[Session, str], None]] = {
    "parameter": _set_parameter,
    "system": _set_system,
    "history": _set_history(value=True),
    "nohistory": _set_history(value=False),
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
        print(show.page(session.shown()), end="")
    elif part == "parameters":
        _show_parameters(session)
    elif part == "system" and session.system:
        print(session.system)
    elif part in show.PARTS:
        text: str = getattr(session.shown(), part)
        print(text or _MISSING.get(part, ""))
    else:
        _unknown(f"/show {part}")


def _show_parameters(session: Session) -> None:
    print("Model defined parameters:")
    lines = session.shown().parameters.splitlines()
    for line in lines or ["No additional parameters were specified for this model."]:
        print(f"  {line}")
    print()
    if options := session.request.get("options"):
        print("User defined parameters:")
        for name, value in options.items():
            print(f"  {name:30} {', '.join(value) if isinstance(value, list) else value}")
        print()


_COMMANDS: dict[str, Callable[[Session, str], None]] = {
    "/set": _set,
    "/show": _show,
    "/load": _load,
    "/save": _save,
    "/list": _list,
    "/clear": _clear,
    "/help": _help,
    "/?": _help,
}


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

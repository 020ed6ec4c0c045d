"""A conversation at the terminal: the prompt, and the commands that begin with a slash.

Ctrl-C stops an answer; Ctrl-D or ``/bye`` ends the conversation. As in Ollama, a command is
recognized by its beginning: ``/setting`` is ``/set``.
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
from ollama_async.cli.answer_printer import AnswerPrinter, print_answer, print_statistics
from ollama_async.cli.client import Client, CommandFailed, ServerRefused
from ollama_async.cli.models import list_models
from ollama_async.cli.show import PARTS, ModelInfo, fetch_info, format_page
from ollama_async.core.conversation import THINK_LEVELS
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
_MISSING = {
    "license": "No license was specified for this model.",
    "system": "No system message was specified for this model.",
    "template": "No prompt template was specified for this model.",
}
_FENCE = '"""'
_BEFORE_FENCE = ("", "/set system")


class Session:
    """The state of a conversation.

    ``request``: the fields of every request (model, format, think, options). ``messages``: the
    history. ``flags``: of ``run``, for printing answers.
    """

    def __init__(self, client: Client, flags: argparse.Namespace, request: dict[str, Any]) -> None:
        self.client = client
        self.flags = flags
        self.request = request
        self.messages: list[dict[str, Any]] = []

    @property
    def system(self) -> str:
        """The latest system message; "" if the model's own applies."""
        texts = (each["content"] for each in reversed(self.messages) if each["role"] == "system")
        return next(texts, "")

    def load(self, model: str) -> None:
        """Load ``model`` on the server and continue with it.

        :raises ServerRefused: it cannot be loaded; the session is unchanged.
        """
        request = {**self.request, "model": model}
        self.client.call("POST", "/api/generate", {**request, "prompt": "", "stream": False})
        self.request = request

    def fetch_info(self) -> ModelInfo:
        """See :func:`.show.fetch_info`."""
        return fetch_info(self.client, self.request["model"])

    def send(self, text: str) -> None:
        """Send a message and print the answer; both become history unless there is an error."""
        self.messages.append({"role": "user", "content": text})
        printer = AnswerPrinter.from_flags(self.flags)
        last: dict[str, Any] = {}
        try:
            body = {**self.request, "messages": self.messages}
            with contextlib.closing(self.client.stream("/api/chat", body)) as objects:
                last = print_answer(objects, printer)
        except KeyboardInterrupt:
            pass  # keep the generated part
        except ServerRefused as refusal:
            self.messages.pop()
            print(f"Error: {refusal}", file=sys.stderr)
            return
        print("\n")
        answer = {"role": "assistant", "content": printer.content}
        if printer.thinking:
            answer["thinking"] = printer.thinking
        self.messages.append(answer)
        if self.flags.verbose:
            print_statistics(last)


def run_conversation(client: Client, flags: argparse.Namespace, request: dict[str, Any]) -> int:
    """Load the model and converse until the user ends it. ``request``: see :class:`Session`."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415  # enables input()'s line editor
    session = Session(client, flags, request)
    session.load(request["model"])
    _print_stored_messages(session)
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
            run_slash_command(session, text)
        elif text.strip():
            session.send(text)


def _print_stored_messages(session: Session) -> None:
    """Print the model's own messages, with which every conversation begins."""
    for message in session.fetch_info().messages or ():
        if message.role == "user":
            print(f">>> {message.content}")
        elif message.role == "assistant":
            AnswerPrinter.from_flags(session.flags).add(message.content, "")
            print("\n")


def _read_message() -> str:
    """The next message or command, which triple quotes extend over several lines."""
    line = input(">>> ")
    start, fence, text = line.partition(_FENCE)
    if not fence or start.strip() not in _BEFORE_FENCE:
        return line
    while not text.rstrip().endswith(_FENCE):
        text += "\n" + input("... ")
    return start + text.rstrip().removesuffix(_FENCE)


# ------------------------------------------------------------------ slash commands


def run_slash_command(session: Session, command: str) -> None:
    """Run ``command``; prints errors instead of raising them."""
    word, _, rest = command.partition(" ")
    try:
        for name, run in _COMMANDS.items():
            if word.startswith(name):
                run(session, rest.strip())
                return
    except CommandFailed as reason:
        print(f"Error: {reason}", file=sys.stderr)
        return
    _print_unknown(word)


def _print_unknown(command: str) -> None:
    print(f"Unknown command '{command}'. Type /? for help")


def _help(_session: Session, topic: str) -> None:
    helps = {"set": _SET_HELP, "/set": _SET_HELP, "show": _SHOW_HELP, "/show": _SHOW_HELP}
    print(helps.get(topic, _HELP), file=sys.stderr)


def _clear(session: Session, _rest: str) -> None:
    """Keeps the system message."""
    session.messages = [each for each in session.messages if each["role"] == "system"]
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
    """Create a model from the session's model, system message, parameters and history."""
    if not model:
        print("Usage:\n  /save <model name>")
        return
    try:
        ModelName.parse(model)
    except ValueError:
        print(f"error: The model name '{model}' is invalid")
        return
    fields = {
        "system": session.system,
        "parameters": session.request.get("options"),
        "messages": [each for each in session.messages if each["role"] != "system"],
    }
    request = {"model": model, "from": session.request["model"], "stream": False}
    request |= {name: value for name, value in fields.items() if value}
    session.client.call("POST", "/api/create", request)
    print(f"Created new model '{model}'")


def _list(session: Session, prefix: str) -> None:
    list_models(session.client, argparse.Namespace(words=prefix.split()))


# ------------------------------------------------------------------ /set


def _set(session: Session, rest: str) -> None:
    name, _, value = rest.partition(" ")
    if not name:
        print(_SET_HELP, file=sys.stderr)
    elif name in _SETTINGS:
        _SETTINGS[name][2](session, value.strip())
    else:
        _print_unknown(f"/set {name}")


def _set_flag(flag: str, name: str, *, value: bool) -> Callable[[Session, str], None]:
    def run(session: Session, _value: str) -> None:
        setattr(session.flags, flag, value)
        print(f"Set '{name}' mode.")

    return run


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
    def run(_session: Session, _value: str) -> None:
        with contextlib.suppress(ImportError):  # without it there is no history
            import readline  # noqa: PLC0415  # not every Python has it

            readline.set_auto_history(value)

    return run


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
    if level and level not in THINK_LEVELS:
        raise CommandFailed(f'invalid think level: "{level}" (must be high, medium, low, or max)')
    session.request["think"] = level or True
    print(f"Set 'think' mode to '{level}'." if level else "Set 'think' mode.")
    _check_thinking(session)


def _set_no_think(session: Session, _value: str) -> None:
    session.request["think"] = False
    print("Set 'nothink' mode.")
    _check_thinking(session)


def _check_thinking(session: Session) -> None:
    if "thinking" not in (session.fetch_info().capabilities or []):
        session.request.pop("think")
        model = session.request["model"]
        print(f'warning: model "{model}" does not support thinking output', file=sys.stderr)


def _set_system(session: Session, text: str) -> None:
    """The message applies from here on; replaces one without messages after it."""
    if not text:
        print(_SET_HELP, file=sys.stderr)
        return
    if session.messages and session.messages[-1]["role"] == "system":
        session.messages.pop()
    session.messages.append({"role": "system", "content": text.strip('"')})
    print("Set system message.")


_SETTINGS: dict[str, tuple[str, str, Callable[[Session, str], None]]] = {
    "parameter": ("...", "Set a parameter", _set_parameter),
    "system": ("<string>", "Set system message", _set_system),
    "history": ("", "Enable history", _set_history(value=True)),
    "nohistory": ("", "Disable history", _set_history(value=False)),
    "wordwrap": ("", "Enable wordwrap", _set_flag("nowordwrap", "wordwrap", value=False)),
    "nowordwrap": ("", "Disable wordwrap", _set_flag("nowordwrap", "nowordwrap", value=True)),
    "format": ("json", "Enable JSON mode", _set_format),
    "noformat": ("", "Disable formatting", _set_no_format),
    "verbose": ("", "Show LLM stats", _set_flag("verbose", "verbose", value=True)),
    "quiet": ("", "Disable LLM stats", _set_flag("verbose", "quiet", value=False)),
    "think": ("", "Enable thinking", _set_think),
    "nothink": ("", "Disable thinking", _set_no_think),
}
"""Usage, help and function, by name."""
_SET_HELP = "Available Commands:\n" + "".join(
    f"  {f'/set {name} {usage}':<22} {text}\n" for name, (usage, text, _) in _SETTINGS.items()
)


# ------------------------------------------------------------------ /show


def _show(session: Session, part: str) -> None:
    if not part:
        print(_SHOW_HELP, file=sys.stderr)
    elif part == "info":
        print(format_page(session.fetch_info()), end="")
    elif part == "parameters":
        _show_parameters(session)
    elif part == "system" and session.system:
        print(session.system)
    elif part in PARTS:
        text: str = getattr(session.fetch_info(), part)
        print(text or _MISSING.get(part, ""))
    else:
        _print_unknown(f"/show {part}")


def _show_parameters(session: Session) -> None:
    print("Model defined parameters:")
    lines = session.fetch_info().parameters.splitlines()
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

"""The command line: the table of commands, and the translation of errors to exit statuses.

Only ``serve`` and ``engine`` import more than a small HTTP client. Exit status: 0, 1 after
``Error: TEXT`` on stderr, 130 after Ctrl-C, 141 if the output is closed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import msgspec

from ollama_async import OLLAMA_VERSION, __version__
from ollama_async.cli import account, models
from ollama_async.cli.client import Client, CommandFailed
from ollama_async.cli.create import create
from ollama_async.cli.run import run
from ollama_async.cli.show import PARTS, show
from ollama_async.cli.terminal import escaping_streams
from ollama_async.core.local_key import KeyUnusable, read_key
from ollama_async.core.settings import VARIABLES, Settings

PROGRAM = "ollama-async"
INTERRUPTED = 130
OUTPUT_CLOSED = 141


class Command(msgspec.Struct, frozen=True):
    """``words``: positional arguments for help; ``[X]`` is optional, ``X...`` may be repeated.

    A command has either ``run`` or ``parse_and_run``.
    """

    name: str
    summary: str
    run: Callable[[Client, argparse.Namespace], int] | None = None
    words: str = ""
    flags: Callable[[argparse.ArgumentParser], None] = lambda _: None
    aliases: tuple[str, ...] = ()
    parse_and_run: Callable[[list[str]], int] | None = None
    variables: tuple[str, ...] = ("OLLAMA_HOST", "OLLAMA_PORT")

    def check_count(self, count: int) -> None:
        """:raises CommandFailed: the number of positional arguments is wrong."""
        words = self.words.split()
        least, most = sum(not word.startswith("[") for word in words), len(words)
        if "..." in self.words:
            if count < least:
                raise CommandFailed(f"requires at least {least} arg(s), only received {count}")
        elif not least <= count <= most:
            accepted = f"{most} arg(s)" if least == most else f"at most {most} arg(s)"
            raise CommandFailed(f"accepts {accepted}, received {count}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # answers may not fit the locale's encoding
    with escaping_streams():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(words: list[str]) -> int:
    try:
        status = _dispatch(words)
        sys.stdout.flush()
    except CommandFailed as failure:
        print(f"Error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return OUTPUT_CLOSED
    except OSError as reason:  # from our own output, for instance on a full disk
        _discard_output()
        print(f"Error: {reason}", file=sys.stderr)
        return 1
    return status


def _open_streams() -> None:
    """Replace standard streams that are None because they were closed before the start."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115, PTH123  # as long as the process
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123


def _discard_output() -> None:
    """Prevents an error when the interpreter flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in {"help", "-h", "--help"}:
        if len(words) > 1 and words[0] == "help":
            return _run_command([words[1], "--help"])
        print(_overview(), end="")
        return 0
    if words[0] in {"-v", "--version"}:
        return _show_version(_client())
    return _run_command(words)


def _run_command(words: list[str]) -> int:
    name, *rest = words
    if name.startswith("-"):
        raise CommandFailed(f"unknown flag: {name}")
    for command in COMMANDS:
        if name in {command.name, *command.aliases}:
            break
    else:
        raise CommandFailed(f'unknown command "{name}" for "{PROGRAM}"')
    if command.parse_and_run:
        return command.parse_and_run(rest)
    parser = _parser(command)
    arguments = _parse(parser, rest)
    if arguments is None:
        print(parser.format_help(), end="")
        return 0
    command.check_count(len(arguments.words))
    assert command.run
    return command.run(_client(), arguments)


def _client() -> Client:
    settings = Settings.from_environ(os.environ)
    for warning in settings.warnings:
        if warning.startswith(("OLLAMA_HOST", "OLLAMA_PORT")):  # the others are the server's
            print(f"Warning: {warning}", file=sys.stderr)
    try:
        local_key = read_key(settings.cache_dir)
    except (KeyUnusable, OSError):  # without it files are uploaded
        local_key = None
    return Client(settings.address, local_key)


# ------------------------------------------------------------------ parsing


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandFailed(message)


def _parser(command: Command) -> _Parser:
    parser = _Parser(
        prog=f"{PROGRAM} {command.name}",
        usage=f"{PROGRAM} {command.name} {command.words} [flags]".replace("  ", " "),
        description=command.summary,
        epilog=_environment(command.variables),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-h", "--help", action="store_true", help=f"help for {command.name}")
    command.flags(parser)
    return parser


def _parse(parser: _Parser, words: list[str]) -> argparse.Namespace | None:
    """Flags and words in any order; None if help is requested."""
    flags, literal = words, []
    if "--" in words:
        cut = words.index("--")
        flags, literal = words[:cut], words[cut + 1 :]
    # a bare --think means true; argparse would use the next word as its value
    flags = ["--think=true" if word == "--think" else word for word in flags]
    if "--keepalive" in flags[:-1]:  # argparse would not accept -1s as its value
        at = flags.index("--keepalive")
        flags[at : at + 2] = ["=".join(flags[at : at + 2])]
    arguments, unknown = parser.parse_known_intermixed_args(flags)
    if arguments.help:
        return None
    if unknown:
        kind = "flag" if unknown[0].startswith("--") else "shorthand flag"
        raise CommandFailed(f"unknown {kind}: {unknown[0].partition('=')[0]}")
    arguments.words = [*arguments.words, *literal]
    return arguments


def _overview() -> str:
    rows = _rows((command.name, command.summary) for command in COMMANDS)
    return (
        f"{PROGRAM}: an Ollama-compatible server for concurrent clients\n\n"
        f"Usage:\n  {PROGRAM} [command] [flags]\n\n"
        f"Available Commands:\n{rows}\n"
        f"Flags:\n  -h, --help      help for {PROGRAM}\n  -v, --version   show the version\n\n"
        f"{_environment(('OLLAMA_HOST', 'OLLAMA_PORT'))}\n"
        f'Use "{PROGRAM} [command] --help" for more about a command.\n'
    )


def _environment(names: Sequence[str]) -> str:
    rows = _rows(
        (each.name, f"{each.meaning} (default {each.shown_default})")
        for each in VARIABLES
        if each.name in names
    )
    return f"Environment Variables:\n{rows}"


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    pairs = list(pairs)
    width = max(len(name) for name, _ in pairs) + 3
    return "".join(f"  {name:<{width}}{text}\n" for name, text in pairs)


# ------------------------------------------------------------------ version, serve, engine


def _show_version(client: Client) -> int:
    ours = f"{__version__} (Ollama {OLLAMA_VERSION})"
    try:
        answer = client.call("GET", "/api/version")
        theirs = str(answer.get("version", "")) if isinstance(answer, dict) else ""
    except CommandFailed:
        print("Warning: could not connect to a running Ollama instance")
        theirs = ""
    if theirs == OLLAMA_VERSION:
        print(f"{PROGRAM} version is {ours}")
        return 0
    if theirs:
        print(f"{PROGRAM} version is {theirs}")
    print(f"Warning: client version is {ours}")
    return 0


def _serve(_client: Client, _arguments: argparse.Namespace) -> int:
    # imported here, because the server's imports take long
    app = importlib.import_module("ollama_async.app")
    status: int = app.main(Settings.from_environ(os.environ))
    return status


_ENGINE_COMMANDS = {
    "build": "Build the engine library for this machine and install it",
    "check": "Check whether the installed library works on this machine",
}


def _engine(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help"}:
        rows = _rows(_ENGINE_COMMANDS.items())
        print(f"Usage:\n  {PROGRAM} engine [build|check] [flags]\n\n{rows}\n", end="")
        print(_environment(("OLLAMA_ASYNC_CACHE", "OLLAMA_ASYNC_KERNELS")), end="")
        return 0
    name, *rest = words
    if name not in _ENGINE_COMMANDS:
        raise CommandFailed(f'unknown command "{name}" for "{PROGRAM} engine"')
    if name == "build":
        build = importlib.import_module("ollama_async.native.build_command")
        status: int = build.main(rest)
        return status
    if rest:
        raise CommandFailed(f"accepts 0 arg(s), received {len(rest)}")
    check = importlib.import_module("ollama_async.native.check")
    settings = Settings.from_environ(os.environ)
    verdict = check.check_library(settings.cache_dir, kernels=settings.kernels)
    kernels = f"yes ({verdict.isa})" if verdict.isa else f"no, {verdict.stock_reason}"
    for line in (verdict.kind, verdict.reason, verdict.library, verdict.system_info):
        if line:
            print(line)
    if verdict.kind != "unusable":
        print(f"own kernels: {kernels}")
    return int(verdict.kind == "unusable")


# ------------------------------------------------------------------ the table


def _run_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--keepalive", metavar="DURATION", help="how long the model stays loaded (e.g. 5m)")
    add("--verbose", action="store_true", help="show statistics of the answer")
    add("--nowordwrap", action="store_true", help="do not wrap long lines")
    add("--format", metavar="FORMAT", help='format of the answer: "json" or a JSON schema')
    add("--think", metavar="LEVEL", help="--think=LEVEL: true, false, high, medium, low or max")
    add("--hidethinking", action="store_true", help="do not show the model's thinking")
    _transfer_flags(parser)


def _create_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-f", "--file", default="Modelfile", help='the Modelfile (default "Modelfile"; -: stdin)')
    add("-q", "--quantize", metavar="LEVEL", help="quantize the model (e.g. to q4_K_M)")
    add("--draft-quantize", metavar="LEVEL", help="quantize the draft model")


def _show_flags(parser: argparse.ArgumentParser) -> None:
    for part in PARTS:
        parser.add_argument(f"--{part}", action="store_true", help=f"only the model's {part}")
    parser.add_argument("-v", "--verbose", action="store_true", help="also metadata and tensors")


def _transfer_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--insecure", action="store_true", help="use an insecure registry")


_ALL_VARIABLES = tuple(variable.name for variable in VARIABLES)
COMMANDS = (
    Command("serve", "Start the server", _serve, aliases=("start",), variables=_ALL_VARIABLES),
    Command("create", "Create a model from a Modelfile", create, "MODEL", _create_flags),
    Command("run", "Run a model, or a .gguf file", run, "MODEL [PROMPT...]", _run_flags),
    Command("show", "Show information about a model", show, "MODEL", _show_flags),
    Command("stop", "Stop a running model", models.stop, "MODEL"),
    Command("pull", "Pull a model from a registry", models.pull, "MODEL", _transfer_flags),
    Command("push", "Push a model to a registry", models.push, "MODEL", _transfer_flags),
    Command("list", "List models", models.list_models, "[PREFIX]", aliases=("ls",)),
    Command("ps", "List running models", models.list_running, "[PREFIX]"),
    Command("cp", "Copy a model", models.copy, "SOURCE DESTINATION"),
    Command("rm", "Remove models", models.remove, "MODEL [MODEL...]"),
    Command("signin", "Show how to get an account", account.sign_in, aliases=("login",)),
    Command("signout", "End the use of an account", account.sign_out, aliases=("logout",)),
    Command("engine", "Build or check the engine library", parse_and_run=_engine),
)

if __name__ == "__main__":
    sys.exit(main())

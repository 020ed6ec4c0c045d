"""The command line: one table of commands, one boundary for errors.

Only ``serve`` and ``engine`` load more than a small HTTP client. Exit status: 0, 1 after
``Error: TEXT`` on stderr, 130 after Ctrl-C, 141 if nobody reads the output.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from ollama_async import OLLAMA_VERSION, __version__
from ollama_async.cli import models, run, show
from ollama_async.cli.client import Client, CommandFailed
from ollama_async.cli.terminal import escaping_streams
from ollama_async.core.local_key import KeyUnusable, read_key
from ollama_async.core.settings import VARIABLES, Settings

PROGRAM = "ollama-async"
INTERRUPTED = 130
NOBODY_READS = 141


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``words`` are the positional arguments: how help shows them, and how many.

    A command either acts on parsed arguments or takes over the raw ones.
    """

    name: str
    aliases: tuple[str, ...] = ()
    summary: str
    words: str = ""
    least: int = 0
    most: int | None = 0
    flags: Callable[[argparse.ArgumentParser], None] = lambda _: None
    act: Callable[[Client, argparse.Namespace], int] | None = None
    take_over: Callable[[list[str]], int] | None = None
    variables: tuple[str, ...] = ("OLLAMA_HOST", "OLLAMA_PORT")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit status."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a model may say what the locale cannot
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
        _drop_output()
        return NOBODY_READS
    except OSError as reason:  # our own output, say on a full disk; all else is CommandFailed
        _drop_output()
        print(f"Error: {reason}", file=sys.stderr)
        return 1
    return status


def _open_streams() -> None:
    """Python has None for a stream that was closed before it began."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115, PTH123  # as long as the process
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123


def _drop_output() -> None:
    """The interpreter flushes stdout once more at exit, and would complain."""
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
    if command.take_over:
        return command.take_over(rest)
    parser = _parser(command)
    arguments = _parse(parser, rest)
    if arguments is None:
        print(parser.format_help(), end="")
        return 0
    _check_count(command, len(arguments.words))
    assert command.act
    return command.act(_client(), arguments)


def _client() -> Client:
    settings = Settings.from_environ(os.environ)
    for warning in settings.warnings:
        if warning.startswith(("OLLAMA_HOST", "OLLAMA_PORT")):  # the others are the server's
            print(f"Warning: {warning}", file=sys.stderr)
    return Client(settings.address, _local_key(settings))


def _local_key(settings: Settings) -> bytes | None:
    try:
        return read_key(settings.cache_dir)
    except (KeyUnusable, OSError):  # without it files are uploaded
        return None


# ------------------------------------------------------------------ reading the command line


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
    """The arguments, flags and words in any order; None if help is wanted."""
    flags, literal = words, []
    if "--" in words:
        cut = words.index("--")
        flags, literal = words[:cut], words[cut + 1 :]
    # a bare --think means true; argparse would take the next word for its value
    flags = ["--think=true" if word == "--think" else word for word in flags]
    if "--keepalive" in flags[:-1]:  # nor would it take -1s for one
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


def _check_count(command: Command, count: int) -> None:
    if command.most is None:
        if count < command.least:
            raise CommandFailed(f"requires at least {command.least} arg(s), only received {count}")
    elif not command.least <= count <= command.most:
        wanted = f"{command.most} arg(s)"
        if command.least != command.most:
            wanted = f"at most {wanted}"
        raise CommandFailed(f"accepts {wanted}, received {count}")


# ------------------------------------------------------------------ help


def _overview() -> str:
    width = max(len(command.name) for command in COMMANDS) + 3
    rows = "".join(f"  {command.name:<{width}}{command.summary}\n" for command in COMMANDS)
    return (
        f"{PROGRAM}: an Ollama-compatible server for many people at once\n\n"
        f"Usage:\n  {PROGRAM} [command] [flags]\n\n"
        f"Available Commands:\n{rows}\n"
        f"Flags:\n  -h, --help      help for {PROGRAM}\n  -v, --version   show the version\n\n"
        f"{_environment(('OLLAMA_HOST', 'OLLAMA_PORT'))}\n"
        f'Use "{PROGRAM} [command] --help" for more about a command.\n'
    )


def _environment(names: Sequence[str]) -> str:
    shown = [variable for variable in VARIABLES if variable.name in names]
    width = max(len(variable.name) for variable in shown) + 3
    rows = "".join(
        f"  {variable.name:<{width}}{variable.meaning} (default {variable.shown_default})\n"
        for variable in shown
    )
    return f"Environment Variables:\n{rows}"


# ------------------------------------------------------------------ commands that are not models'


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
    # by name, so that no other command pays for the server's imports
    app = importlib.import_module("ollama_async.app")
    status: int = app.main(Settings.from_environ(os.environ))
    return status


_ENGINE_PARTS = {
    "build": "Build the engine library for this machine and install it",
    "check": "Say whether the installed library can be trusted on this machine",
}


def _engine(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help"}:
        rows = "".join(f"  {name:<8}{summary}\n" for name, summary in _ENGINE_PARTS.items())
        print(f"Usage:\n  {PROGRAM} engine [build|check] [flags]\n\n{rows}\n", end="")
        print(_environment(("OLLAMA_ASYNC_CACHE",)), end="")
        return 0
    part, *rest = words
    if part not in _ENGINE_PARTS:
        raise CommandFailed(f'unknown command "{part}" for "{PROGRAM} engine"')
    if part == "check":
        return _check_engine(rest)
    build = importlib.import_module("ollama_async.native.build")
    status: int = build.main(rest)
    return status


def _check_engine(words: list[str]) -> int:
    """Print the verdict (the first one takes seconds); 1 if no model can be loaded."""
    if words:
        raise CommandFailed(f"accepts 0 arg(s), received {len(words)}")
    check = importlib.import_module("ollama_async.native.check")
    verdict = check.verdict(Settings.from_environ(os.environ).cache_dir)
    for line in (verdict.kind, verdict.reason, verdict.library, verdict.system_info):
        if line:
            print(line)
    return int(verdict.kind == "unusable")


def _run_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--keepalive", metavar="DURATION", help="how long the model stays loaded (e.g. 5m)")
    add("--verbose", action="store_true", help="show statistics of the answer")
    add("--nowordwrap", action="store_true", help="do not wrap long lines")
    add("--format", metavar="FORMAT", help='format of the answer: "json" or a JSON schema')
    add("--think", metavar="LEVEL", help="think: true, false, high, medium, low or max")
    add("--hidethinking", action="store_true", help="do not show what the model thinks")
    _pull_flags(parser)


def _create_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--file", default="Modelfile", help='the Modelfile (default "Modelfile"; -: stdin)'
    )
    parser.add_argument(
        "-q",
        "--quantize",
        metavar="LEVEL",
        help="quantize the model to this level (such as q4_K_M)",
    )
    parser.add_argument(
        "--draft-quantize", metavar="LEVEL", help="quantize the draft model to this level"
    )


def _create(client: Client, arguments: argparse.Namespace) -> int:
    # by name: only this command needs the Modelfile and the options table
    module = importlib.import_module("ollama_async.cli.create")
    status: int = module.create(client, arguments)
    return status


def _pull_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--insecure", action="store_true", help="use an insecure registry")


def _pull(client: Client, arguments: argparse.Namespace) -> int:
    client.check_alive()
    models.pull(client, arguments.words[0], insecure=arguments.insecure)
    return 0


def _push(client: Client, arguments: argparse.Namespace) -> int:
    client.check_alive()
    models.push(client, arguments.words[0], insecure=arguments.insecure)
    return 0


def _show_flags(parser: argparse.ArgumentParser) -> None:
    for part in show.PARTS:
        parser.add_argument(f"--{part}", action="store_true", help=f"only the model's {part}")
    parser.add_argument("-v", "--verbose", action="store_true", help="metadata and tensors, too")


COMMANDS: tuple[Command, ...] = (
    Command(
        name="serve",
        aliases=("start",),
        summary="Start the server",
        act=_serve,
        variables=tuple(variable.name for variable in VARIABLES),
    ),
    Command(
        name="create",
        summary="Create a model from a Modelfile",
        words="MODEL",
        least=1,
        most=1,
        flags=_create_flags,
        act=_create,
    ),
    Command(
        name="run",
        summary="Run a model, or a .gguf file",
        words="MODEL [PROMPT...]",
        least=1,
        most=None,
        flags=_run_flags,
        act=run.run,
    ),
    Command(
        name="show",
        summary="Show information about a model",
        words="MODEL",
        least=1,
        most=1,
        flags=_show_flags,
        act=show.show,
    ),
    Command(
        name="stop",
        summary="Stop a running model",
        words="MODEL",
        least=1,
        most=1,
        act=models.stop,
    ),
    Command(
        name="pull",
        summary="Pull a model from a registry",
        words="MODEL",
        least=1,
        most=1,
        flags=_pull_flags,
        act=_pull,
    ),
    Command(
        name="push",
        summary="Push a model to a registry",
        words="MODEL",
        least=1,
        most=1,
        flags=_pull_flags,
        act=_push,
    ),
    Command(
        name="list",
        aliases=("ls",),
        summary="List models",
        words="[PREFIX]",
        most=1,
        act=models.list_models,
    ),
    Command(
        name="ps",
        summary="List running models",
        words="[PREFIX]",
        most=1,
        act=models.list_running,
    ),
    Command(
        name="cp",
        summary="Copy a model",
        words="SOURCE DESTINATION",
        least=2,
        most=2,
        act=models.copy,
    ),
    Command(
        name="rm",
        summary="Remove models",
        words="MODEL [MODEL...]",
        least=1,
        most=None,
        act=models.remove,
    ),
    Command(
        name="engine",
        summary="Build or check the engine library",
        take_over=_engine,
    ),
)

if __name__ == "__main__":
    sys.exit(main())

"""What the demo model is taught to say about this program is true of it.

Every command, flag, variable, route, metric, option and file that an answer names must exist. In
answers the program is ``ollama_async``, and ``ollama-async`` begins a command.
"""

import contextlib
import io
import json
import re
from functools import cache
from pathlib import Path

import pytest
from ollama_async.api import modelfile
from ollama_async.api.options import check_parameters, parse_parameter, unknown_parameters
from ollama_async.cli import interactive
from ollama_async.cli.main import COMMANDS, main
from ollama_async.core.settings import VARIABLES, Settings
from ollama_async.gateway.metrics import METRICS
from ollama_async.gateway.routes import ROUTES

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "training" / "demo" / "questions").glob("*.txt"))

SYSTEM_FOLDERS = ("/etc/systemd/system/",)
TOP_FOLDERS = "bench|deploy|docs|ollama_async|scripts|tests|training"

_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"\bollama-async +([\w-]+)([^`\n]*)")
_FLAG = re.compile(r"(?<!\S)--?[a-z][a-z-]*")
_VARIABLE = re.compile(r"\b(OLLAMA_[A-Z_]+)(?:=([^\s`]+))?")
_CURL = re.compile(r"curl (?:.*?)https?://[\w.]+:\d+(/[\w/]*)?(.*)")
_URL = re.compile(r"https?://[\w.-]+(?::\d+)?[\w/]*")
_PATH = re.compile(r"(?:\b([A-Z]{3,6}) )?(?<![\w.~:<=/])(/[a-z][\w/:-]*)")
_METRIC = re.compile(r"\bollama_(?!async\b)[a-z_]+")
_PARAMETER = re.compile(r"\bPARAMETER ([a-z_]+) ([^\s`]+)")
_OPTIONS = re.compile(r'"options": (\{[^}]*\})')
_FILE = re.compile(
    rf"\./([a-z]+)(?![\w.])|((?:{TOP_FOLDERS})(?:/[\w./-]+)?|[\w./-]+\.(?:md|yml|service))|([A-Z]{{4,}})"
)


def commands(answer):
    names = {name for command in COMMANDS for name in (command.name, *command.aliases)}
    for name, rest in _COMMAND.findall(answer):
        words = [name]
        if name == "engine":
            words += rest.split()[:1]
            yield " ".join(words), words[1:] in (["build"], ["check"])
        else:
            yield name, name in names | {"help", "--help", "-h", "--version", "-v"}
        for flag in _FLAG.findall(rest):
            yield f"{name} {flag}", flag in flags_of(*words)


def lone_flags(answer):
    """Flags that are named without their command."""
    every_command = [("engine", "build"), *((command.name,) for command in COMMANDS)]
    for span in _SPAN.findall(answer):
        if _FLAG.fullmatch(span):
            yield span, any(span in flags_of(*words) for words in every_command)


def variables(answer):
    names = {variable.name for variable in VARIABLES}
    for name, value in _VARIABLE.findall(answer):
        yield name, name in names
        if value:
            yield f"{name}={value}", not Settings.from_environ({name: value}).warnings


def routes(answer):
    paths = set(re.findall(r"/[a-z]+", interactive._HELP))
    for span in _SPAN.findall(answer):
        if call := _CURL.fullmatch(span):
            method = "POST" if " -d " in call[2] else "GET"
            yield f"{method} {call[1]}", is_route(method, call[1] or "/")
    for method, path in _PATH.findall(_URL.sub("", answer)):
        known = path in paths or path.startswith(SYSTEM_FOLDERS)
        yield f"{method} {path}".strip(), known or is_route(method, path)


def addresses(answer):
    """Paths of full addresses of the server itself."""
    for path in re.findall(r"https?://127\.0\.0\.1:11434(/[\w/]+)", answer):
        yield path, is_route("", path)


def metrics(answer):
    for name in _METRIC.findall(answer):
        yield name, name in {family.name for family in METRICS}


def options(answer):
    for name, value in _PARAMETER.findall(answer):
        yield f"PARAMETER {name} {value}", is_readable(parse_parameter, name, [value])
    for text in _OPTIONS.findall(answer):
        given = json.loads(text)
        yield text, not unknown_parameters(given) and is_readable(check_parameters, given)


def bodies(answer):
    """What curl sends."""
    for text in re.findall(r"curl [^`]* -d '([^`]*)'", answer):
        yield text, is_readable(json.loads, text)


def files(answer):
    for span in _SPAN.findall(answer):
        if match := _FILE.fullmatch(span):
            name = next(filter(None, match.groups()))
            yield name, name.lower() in modelfile.COMMANDS or (ROOT / name).exists()


def is_readable(read, *arguments):
    try:
        read(*arguments)
    except ValueError:
        return False
    return True


def is_route(method, path):
    """``method`` "": any."""
    return any(
        method in {"", route.method} and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.path), path)
        for route in ROUTES
    )


@cache
def flags_of(*words):
    """The flags that the help of a command names."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text.getvalue()))


CLAIMS = (commands, lone_flags, variables, routes, addresses, metrics, options, bodies, files)


def answers(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line[1:].strip().replace("\\n", "\n") for line in lines if line.startswith("!")]


def inventions(answer):
    return [claim for find in CLAIMS for claim, exists in find(answer) if not exists]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_answers_name_only_what_exists(path):
    invented = {answer: found for answer in answers(path) if (found := inventions(answer))}
    assert not invented


@pytest.mark.parametrize("find", CLAIMS)
def test_every_kind_of_claim_is_made_somewhere(find):
    assert any(list(find(answer)) for path in FILES for answer in answers(path))


@pytest.mark.parametrize(
    ("answer", "invented"),
    [
        ("Run `ollama-async polish NAME`.", "polish"),
        ("运行 `ollama-async polish NAME`。", "polish"),
        ("Say `ollama-async --loud`.", "--loud"),
        ("Run `ollama-async run NAME --loudly`.", "run --loudly"),
        ("Run `ollama-async list --verbose`, which `run` has.", "list --verbose"),
        ("Run `ollama-async engine polish`.", "engine polish"),
        ("Run `ollama-async engine build --loudly`.", "engine --loudly"),
        ("With `--loudly` it is louder.", "--loudly"),
        ("Set OLLAMA_LOUDNESS first.", "OLLAMA_LOUDNESS"),
        ("Set `OLLAMA_KEEP_ALIVE=soon`.", "OLLAMA_KEEP_ALIVE=soon"),
        ("Set `OLLAMA_HOST=0.0.0.0:port`.", "OLLAMA_HOST=0.0.0.0:port"),
        ("Ask `/api/polish`.", "/api/polish"),
        ("Ask /polish for it.", "/polish"),
        ("Type `/polish` in the chat.", "/polish"),
        ("`GET /api/delete` removes it.", "GET /api/delete"),
        ("`curl http://127.0.0.1:11434/api/chat`", "GET /api/chat"),
        ("`curl http://127.0.0.1:11434/api/tags -d '{}'`", "POST /api/tags"),
        ("See http://127.0.0.1:11434/polish for it.", "/polish"),
        ("Watch `ollama_polish_total`.", "ollama_polish_total"),
        ("Write `PARAMETER loudness 3`.", "PARAMETER loudness 3"),
        ("Write `PARAMETER temperature warm`.", "PARAMETER temperature warm"),
        ('Send `"options": {"loudness": 3}`.', '{"loudness": 3}'),
        ('Send `"options": {"seed": "x"}`.', '{"seed": "x"}'),
        ("`curl http://127.0.0.1:11434/api/chat -d '{model: x}'`", "{model: x}"),
        ("Read `docs/polish.md`.", "docs/polish.md"),
        ("It is in the folder `training/polish`.", "training/polish"),
        ("Read `POLISH.md`.", "POLISH.md"),
        ("Read `POLISH`.", "POLISH"),
        ("Run `./polish`.", "polish"),
    ],
)
def test_an_invented_name_is_found(answer, invented):
    assert invented in inventions(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "It is about 3/4 of 1/2, and/or more. See https://example.com/polish.",
        'Use `ollama-async run ./model.gguf "Why?"`, or `./run`, or `ollama-async --version`.',
        "`OLLAMA_MODELS=/data/models ollama-async serve` and `OLLAMA_KEEP_ALIVE=-1`.",
        "`POST /api/blobs/sha256:DIGEST`, then `/metrics`, then `/bye`. </think>",
    ],
)
def test_what_exists_or_claims_nothing_is_let_through(answer):
    assert inventions(answer) == []

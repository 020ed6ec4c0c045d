"""Writes the tables of the documentation from the tables of the code: ``scripts/tables.py``.

A test fails where they differ, so nothing needs to be remembered.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # instead of the folder of this file

from ollama_async.api.options import OPTIONS, Option  # noqa: E402  # found through the line above
from ollama_async.cli.main import COMMANDS, Command  # noqa: E402  # as above
from ollama_async.core.settings import VARIABLES  # noqa: E402  # as above
from ollama_async.gateway.metrics import METRICS  # noqa: E402  # as above
from tests.clients.scripts import SCRIPTS, checks_of, packages_of  # noqa: E402  # as above

DOCS = ROOT / "docs"
_TABLE = re.compile(r"(?<=<!-- table -->\n\n).*(?=\n<!-- end of table -->)", re.DOTALL)


def variables() -> str:
    rows = ((f"`{row.name}`", row.shown_default, row.meaning) for row in VARIABLES)
    return _markdown(("Variable", "Default", "Meaning"), rows)


def metrics() -> str:
    rows = ((f"`{row.name}`", row.kind, ", ".join(row.labels), row.meaning) for row in METRICS)
    return _markdown(("Name", "Kind", "Labels", "Meaning"), rows)


def commands() -> str:
    rows = (
        (f"`{row.name} {row.words}`".replace(" `", "`"), ", ".join(_flags(row)), row.summary)
        for row in COMMANDS
    )
    return _markdown(("Command", "Flags", "What it does"), rows)


def clients() -> str:
    rows = (
        (
            ", ".join(packages_of(script)),
            f"[{script}](../tests/clients/{script})",
            ", ".join(checks_of(script)).replace("_", " "),
        )
        for script in SCRIPTS
    )
    return _markdown(("Client", "Script", "Shown"), rows)


def options() -> str:
    rows = (
        (f"`{row.name}`", row.kind, _shown(row.default), _range(row), row.meaning)
        for row in OPTIONS
    )
    return _markdown(("Option", "Type", "Default", "Range", "Meaning"), rows)


def _shown(value: object) -> str:
    return "" if value is None or value == [] else f"{value}"


def _range(option: Option) -> str:
    return "" if math.isinf(option.low) else f"{option.low} to {option.high}"


def _flags(command: Command) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False)
    command.flags(parser)
    actions = parser._actions  # noqa: SLF001  # argparse has no public list of its flags
    return [f"`{'`/`'.join(action.option_strings)}`" for action in actions]


FILES: dict[Path, Callable[[], str]] = {
    DOCS / "clients.md": clients,
    DOCS / "command-line.md": commands,
    DOCS / "configuration.md": variables,
    DOCS / "metrics.md": metrics,
    DOCS / "options.md": options,
}


def rendered(path: Path) -> str:
    """The file's text with its table as the code has it."""
    text, count = _TABLE.subn(lambda _: FILES[path](), path.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{path} must have one place for a table")
    return text


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(head), *(tuple(row) for row in rows)]
    rule = tuple("---" for _ in lines[0])
    cells = ((cell.replace("|", "\\|") for cell in line) for line in [lines[0], rule, *lines[1:]])
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


if __name__ == "__main__":
    for path in FILES:
        path.write_text(rendered(path), encoding="utf-8")

"""What the scripts of the clients are, and what they check, without running them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

CLIENTS = Path(__file__).parent
SCRIPTS = sorted(
    str(path.relative_to(CLIENTS))
    for pattern in ("python/*/*.py", "node/*/*.mjs", "go/*/*.go")
    for path in CLIENTS.glob(pattern)
)
"""Paths in this folder: ``LANGUAGE/CLIENT/SUBJECT.py``. Those of one client share its packages."""


def checks_of(script: str) -> list[str]:
    """The names of its checks, in order."""
    text = (CLIENTS / script).read_text(encoding="utf-8")
    if not script.endswith(".py"):
        return re.findall(r'^\t?check\("([^"]+)"', text, re.MULTILINE)
    return [
        node.name
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "check" for mark in node.decorator_list)
    ]


def packages_of(script: str) -> list[str]:
    """Names and versions of the packages that it shows, without those that they need."""
    folder = (CLIENTS / script).parent
    if script.endswith(".mjs"):
        package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        return [f"{name} {version}" for name, version in package["dependencies"].items()]
    if script.endswith(".go"):
        return re.findall(r"^require ([^(\n]+)$", (folder / "go.mod").read_text(), re.MULTILINE)
    own, _, _ = (folder / "requirements.txt").read_text(encoding="utf-8").partition("\n\n")
    return own.replace("==", " ").splitlines()

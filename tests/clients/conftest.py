"""One server for all clients, and what runs their scripts: see ``docs/clients.md``."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.clients.models import SCRIPTS, SENSES
from tests.integration.conftest import RunningServer, engine_cache, running_servers
from tests.integration.registry.conftest import registry, registry_program
from tests.tiny_projectors import write_vision_model

__all__ = ["engine_cache", "registry", "registry_program"]

CLIENTS = Path(__file__).parent
MAY_SKIP = not (os.environ.get("OLLAMA_ASYNC_TEST_NO_SKIP") or os.environ.get("CI"))
SCRIPT_LIMIT_S = 240.0
NOWHERE = "http://127.0.0.1:9"
"""A proxy that does not exist: what a client asks of other servers fails at once."""


def _environments() -> ModuleType:
    path = CLIENTS.parents[1] / "scripts" / "client_environments.py"
    spec = importlib.util.spec_from_file_location("client_environments", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ENVIRONMENTS = _environments()
CACHE = ENVIRONMENTS.build.cache_folder()
"""Looked for here, because tests run with a cache of their own."""


class Report(NamedTuple):
    """What a script said. ``errors``: of each check that ended, by its name; None: it is right.
    ``rest``: how the script itself ended, for checks that are missing.
    """

    errors: dict[str, str | None]
    rest: str


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, engine_cache: Path) -> Iterator[RunningServer]:
    """The shipped models, the scripted ones, and what sees and hears, with random weights."""
    folder = tmp_path_factory.mktemp("clients")
    with running_servers(folder, engine_cache) as start:
        server = start(scripts=SCRIPTS, offers_shipped=True, OLLAMA_KEEP_ALIVE="-1")
        for name, kind in SENSES.items():
            (folder / name).mkdir()
            model, projector = write_vision_model(folder / name, kind)
            recipe = folder / name / "Modelfile"
            recipe.write_text(f"FROM {model}\nFROM {projector}\nPARAMETER num_predict 8\n")
            server.command("create", name, "-f", str(recipe))
        yield server


@pytest.fixture(scope="session")
def report(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Report]:
    """Runs a script, once, in its environment."""
    home = tmp_path_factory.mktemp("client-home")
    known: dict[str, Report] = {}

    def report(script: str, **variables: str) -> Report:
        if script not in known:
            known[script] = _run(script, home, OLLAMA_HOST=server.url, **variables)
        return known[script]

    return report


def _run(script: str, home: Path, **variables: str) -> Report:
    folder, _, file = script.rpartition("/")
    environment = _environment(folder)
    process = subprocess.Popen(
        [*environment.command, file],
        cwd=_workspace(environment, home),
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(CLIENTS),
            "HTTPS_PROXY": NOWHERE,
            **variables,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # to end what it started as well
    )
    try:
        out, err = process.communicate(timeout=SCRIPT_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"check":')]
    errors = {line["check"]: line["error"] for line in lines}
    return Report(errors, f"{script}: exit status {process.returncode}\n{err}")


def _environment(name: str) -> Any:
    """Of a folder; skips, or in CI fails, the test if it is not there."""
    try:
        environment = ENVIRONMENTS.find(name, CACHE)
        if environment.is_ready:
            return environment
        missing = f"no environment for {name}: run scripts/client_environments.py"
    except ENVIRONMENTS.Missing as reason:
        missing = str(reason)
    if MAY_SKIP:
        pytest.skip(missing)
    pytest.fail(missing, pytrace=False)


def _workspace(environment: Any, home: Path) -> Path:
    """A copy of the scripts' folder where Node and Go look for what they import."""
    copied = home / environment.name
    if not copied.exists():
        own_packages = shutil.ignore_patterns("node_modules")
        shutil.copytree(CLIENTS / environment.name, copied, ignore=own_packages)
        shutil.copy(CLIENTS / "checks.mjs", home)
        shutil.copy(CLIENTS / "checks.go", copied)
        packages = environment.place / "node_modules"
        if packages.exists():
            (copied / packages.name).symlink_to(packages)
    return copied

"""The documentation says what the code does: no more, no less."""

import importlib.util
import re

import pytest

from ollama_async.cli.main import COMMANDS
from ollama_async.core.settings import VARIABLES
from ollama_async.gateway.routes import ROUTES


@pytest.fixture
def tables(request):
    path = request.config.rootpath / "scripts" / "tables.py"
    spec = importlib.util.spec_from_file_location("tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def read(request):
    return lambda name: (request.config.rootpath / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["clients.md", "command-line.md", "configuration.md", "metrics.md"]
)
def test_generated_tables_are_those_of_the_code(tables, name):
    path = tables.DOCS / name
    assert path.read_text() == tables.rendered(path), "run: python scripts/tables.py"


def test_every_route_is_documented_and_every_documented_route_exists(read):
    rows = re.findall(r"^\| ([A-Z, ]+) \| `(/[^`]*)` \|", read("docs/api.md"), re.MULTILINE)
    documented = {(method, path) for methods, path in rows for method in methods.split(", ")}
    assert documented == {(route.method, route.path) for route in ROUTES}


def test_variables_that_the_documents_name_exist(read, request):
    known = {variable.name for variable in VARIABLES} | {"OLLAMA_ASYNC_PROBE_FAULT"}
    pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    pages += [str(path) for path in (request.config.rootpath / "docs").rglob("*.md")]
    for page in pages:
        named = set(re.findall(r"\bOLLAMA_[A-Z_]*[A-Z]\b", read(page)))
        assert named <= known, page


def test_commands_that_the_documents_name_exist(read, request):
    known = {name for command in COMMANDS for name in (command.name, *command.aliases)}
    pages = ["README.md", "CHANGELOG.md"]
    pages += [str(path) for path in (request.config.rootpath / "docs").rglob("*.md")]
    for page in pages:
        assert set(re.findall(r"\bollama-async ([a-z]+)", read(page))) <= known, page


def test_links_between_documents_lead_somewhere(request):
    root = request.config.rootpath
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    assert pages
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_paths_of_code_that_the_documents_name_exist(request):
    root = request.config.rootpath
    for page in [*root.glob("*.md"), *(root / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:ollama_async|scripts|tests|docs|bench)/[\w/.]+)`", text):
            if "test_x" not in path:
                assert (root / path).exists(), f"{page.name}: {path}"


@pytest.mark.slow
def test_files_that_the_documents_name_exist(request):
    """Paths are those of the repository, or begin somewhere in the package."""
    root = request.config.rootpath
    pages = [root / "CONTRIBUTING.md", *(root / "docs").rglob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", text):
            places = [
                root / path,
                root / "ollama_async" / path,
                *root.glob(f"ollama_async/**/{path}"),
            ]
            assert any(place.exists() for place in places), f"{page.name}: {path}"


def test_the_readme_begins_with_the_two_commands(read):
    head = read("README.md").split("\n## ")[0]
    (first, *others) = re.findall(r"^    (\S.*?)(?:  +#.*)?$", head, re.MULTILINE)
    assert first == "./run"
    assert "./test" in others

"""What gets installed, and the commands that stand in the README."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import ollama_async
from ollama_async import shipped_models
from ollama_async.gguf.reader import read_header
from ollama_async.native import build

PACKAGE = Path(ollama_async.__file__).parent
NAMES_IN_CODE = {  # distributions whose modules are called otherwise
    "llama-cpp-python": "llama_cpp",
    "nvidia-ml-py": "pynvml",
    "pillow": "PIL",
}


@pytest.fixture
def root(request):
    return request.config.rootpath


@pytest.fixture
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def _name(requirement):
    return re.match(r"[\w-]+", requirement)[0]


@pytest.mark.slow
def test_every_dependency_is_imported_and_every_import_is_a_dependency(project):
    declared = {_name(each) for each in project["dependencies"]}
    declared = {NAMES_IN_CODE.get(name, name) for name in declared}
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"ollama_async"}
    assert foreign - declared == set()
    assert declared - foreign <= {"ctransformers"}  # its engine is not written yet


def test_every_requirement_has_an_upper_bound(project):
    extras = [each for group in project["optional-dependencies"].values() for each in group]
    for requirement in [*project["dependencies"], *extras]:
        assert "<" in requirement, requirement


def test_the_engine_that_we_build_is_one_that_the_project_accepts(project):
    (requirement,) = [each for each in project["dependencies"] if _name(each) == build.DISTRIBUTION]
    least, below = re.findall(r"[\d.]+", requirement)
    version = [int(part) for part in build.VERSION.split(".")]
    assert [int(part) for part in least.split(".")] <= version
    assert version < [int(part) for part in below.split(".")]


def test_the_console_command_leads_to_a_function(project):
    module, _, function = project["scripts"]["ollama-async"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_what_is_no_code_is_in_the_package(root):
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = data["package-data"]["ollama_async"]
    found = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    models = [shipped_models.FOLDER / f"{name}.gguf" for name in shipped_models.names()]
    assert {PACKAGE / "py.typed", build.HEADER, shipped_models.LICENSE, *models} <= found


def test_the_shipped_models_keep_the_package_small():
    sizes = {path.stem: path.stat().st_size for path in shipped_models.FOLDER.glob("*.gguf")}
    assert set(sizes) <= {"demo", "demo-embed"}
    assert sizes.get("demo", 0) <= 8_000_000
    assert sizes.get("demo-embed", 0) <= 1_000_000


def test_the_shipped_models_have_the_licence_of_the_project(root):
    assert shipped_models.LICENSE.read_text() == (root / "LICENSE").read_text()
    for name in shipped_models.names():
        metadata = read_header(shipped_models.FOLDER / f"{name}.gguf").metadata
        assert metadata["general.license"].upper() == "MIT"


def test_git_leaves_the_bytes_of_models_alone(root):
    assert "*.gguf binary" in (root / ".gitattributes").read_text().splitlines()


def test_the_installed_version_is_that_of_the_code():
    assert metadata.version("ollama-async") == ollama_async.__version__


@pytest.mark.parametrize("name", ["run", "test", "scripts/setup", ".ci/run"])
def test_commands_are_executable_and_their_shell_reads_them(root, name):
    path = root / name
    assert os.access(path, os.X_OK)
    shell = path.read_text().partition("\n")[0].split("/")[-1].removeprefix("env ")
    subprocess.run([shell, "-n", str(path)], check=True)


def test_the_first_command_says_what_it_takes(root):
    ended = subprocess.run([root / "run", "--help"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "[MODEL.gguf [PROMPT]]" in ended.stdout


def test_the_first_command_needs_no_argument(root, tmp_path):
    (tmp_path / "run").write_bytes((root / "run").read_bytes())
    for name in ("scripts/setup", ".venv/bin/python"):  # stands in for minutes of work
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\necho {name}: $*\n")
        path.chmod(0o755)

    ended = subprocess.run(["sh", tmp_path / "run"], capture_output=True, text=True, check=True)

    answering = f".venv/bin/python: -P {tmp_path}/scripts/answer.py"
    assert ended.stdout.splitlines() == ["scripts/setup:", answering]


def test_a_python_that_is_too_old_is_named(root, tmp_path):
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        old = tmp_path / name
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    setup = root / "scripts" / "setup"
    ended = subprocess.run([setup], env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Python 3.11" in ended.stderr


def test_a_model_that_is_not_there_is_told_before_the_set_up(root, tmp_path):
    (tmp_path / "run").write_bytes((root / "run").read_bytes())  # here is nothing to set up

    ended = subprocess.run(
        ["sh", tmp_path / "run", "missing.gguf"], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (
        2,
        "",
        "There is no file missing.gguf.\n",
    )

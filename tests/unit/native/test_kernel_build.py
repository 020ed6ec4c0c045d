"""Building our kernels: what is compiled with which flags, what is kept, what is said."""

from pathlib import Path

import pytest

from ollama_async.native import kernel_build
from ollama_async.native.build import BuildFailed


@pytest.fixture
def engine(tmp_path):
    """An engine with headers, for which nothing is compiled."""
    found = kernel_build.Engine(tmp_path / "lib", tmp_path / "headers")
    found.library.mkdir()
    found.headers.mkdir()
    (found.headers / "ggml.h").write_text("#define VERSION 1\n")
    return found


@pytest.fixture
def compiled(monkeypatch):
    """Stands in for the compiler; lists what was asked of it."""
    calls = []

    def compile_kernels(_engine, folder, **_options):
        calls.append(folder)
        (folder / "kernels.so").write_text("machine code")
        return folder / "kernels.so"

    monkeypatch.setattr(kernel_build, "compile_kernels", compile_kernels)
    return calls


def test_a_second_build_uses_the_cached_library(engine, compiled, tmp_path):
    first = kernel_build.build_kernels(engine, tmp_path / "cache")
    assert kernel_build.build_kernels(engine, tmp_path / "cache") == first
    assert len(compiled) == 1
    kernel_build.build_kernels(engine, tmp_path / "cache", force=True)
    assert len(compiled) == 2


@pytest.mark.usefixtures("compiled")
def test_other_headers_need_other_kernels(engine, tmp_path):
    first = kernel_build.build_kernels(engine, tmp_path / "cache")
    old = kernel_build.install(first, engine)
    assert old == kernel_build.installed_path(engine)
    (engine.headers / "ggml.h").write_text("#define VERSION 2\n")
    assert not kernel_build.installed_path(engine).exists()
    second = kernel_build.build_kernels(engine, tmp_path / "cache")
    assert second != first
    new = kernel_build.install(second, engine)
    assert new.exists()
    assert not old.exists()


def test_a_failure_keeps_nothing(engine, monkeypatch, tmp_path):
    def fail(*_args, **_options):
        raise BuildFailed("error: expected a semicolon")

    monkeypatch.setattr(kernel_build, "compile_kernels", fail)
    with pytest.raises(BuildFailed, match="semicolon"):
        kernel_build.build_kernels(engine, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.so"))
    assert not list((tmp_path / "cache").rglob("partial-*"))


def test_the_command_says_why_there_are_no_kernels(monkeypatch, capsys):
    monkeypatch.setattr(kernel_build.platform, "machine", lambda: "aarch64")
    kernel_build.main()
    assert "without our own kernels: there are none for this kind of processor (aarch64)" in (
        capsys.readouterr().err
    )


def test_a_library_of_unknown_version_gets_none():
    with pytest.raises(BuildFailed, match="LLAMA_CPP_LIB_PATH"):
        kernel_build.find_engine({"LLAMA_CPP_LIB_PATH": "/elsewhere"})


@pytest.mark.parametrize(
    ("stem", "has", "lacks"),
    [
        ("products", "", "-mavx2"),
        ("products_avx2", "-mavx2", "-mavxvnni"),
        ("products_avx2_vnni", "-mavxvnni", "-mavx512f"),
        ("attention_avx512_vnni", "-mavx512vnni", "-mamx-int8"),
        ("products_amx", "-mamx-int8", "-march=native"),
    ],
)
def test_a_file_gets_the_flags_of_its_instruction_set(stem, has, lacks):
    flags = kernel_build._isa_flags(stem)
    assert not has or has in flags
    assert lacks not in flags


def test_a_compiler_that_lacks_new_flags_is_not_given_them(engine, monkeypatch, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-mavxvnni*|*-mamx-*) exit 1;; esac\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("CXX", str(compiler))
    asked = []
    monkeypatch.setattr(kernel_build, "_run", lambda commands, *_args: asked.extend(commands))
    kernel_build.compile_kernels(engine, tmp_path, log=tmp_path / "log")
    flags = {Path(line[-1]).stem: set(line) for line in asked}
    assert "-mavx2" in flags["products_avx2_vnni"]
    assert "-mavx512vnni" in flags["products_amx"]
    assert not [stem for stem in flags if flags[stem] & {"-mavxvnni", "-mamx-tile", "-mamx-int8"}]

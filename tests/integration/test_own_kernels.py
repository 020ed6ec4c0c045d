"""Our own kernels: compiled by the set-up, tried before they are used, and right.

What they compute is compared in C++ (``native/kernels/self_check*.cpp``), here for every
instruction set that this machine has, once more under sanitizers.
"""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ollama_async.native import build, check, kernel_build
from ollama_async.native.tiny_model import write_tiny_model

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="there are none for this processor"),
]

PROGRAM = Path(__file__).with_name("check_kernels.cpp")
TYPES = {"q8_0", "q4_0", "q4_K", "q5_K", "q6_K", "q5_0", "q4_1", "q5_1", "iq4_nl", "mxfp4", "f16"}
CHECK = """
import os, sys
import llama_cpp
from ollama_async.native.kernels import Kernels
fault, types = Kernels(os.environ, sys.argv[1]).find_fault(is_full=True)
print(fault or "right", *types)
"""
PACK = """
import ctypes, os, resource, sys
import llama_cpp
from ollama_async.native.kernels import Kernels
Kernels(os.environ).configure_packing(3, is_mapped=False)
system, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(64)
assert not system.pthread_attr_init(attributes)
assert not system.pthread_attr_setstacksize(attributes, ctypes.c_size_t(1 << 40))
assert not system.pthread_setattr_default_np(attributes)
resource.setrlimit(resource.RLIMIT_AS, (1 << 39, 1 << 39))
settings = llama_cpp.llama_model_default_params()
settings.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
print(bool(llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), settings)))
"""
"""Loads a model where there is no memory for the stack of another thread."""
ENVIRON = {**os.environ, "OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1"}


@pytest.fixture
def judge(tmp_path, environment):
    """A function that asks for the verdict, with a cache of its own."""

    def ask(fault="", kernels="auto", limit_s=50):
        environ = {**environment, "OLLAMA_ASYNC_PROBE_FAULT": fault}
        return check.check_library(tmp_path / "cache", environ, kernels=kernels, limit_s=limit_s)

    return ask


@pytest.fixture(scope="module")
def isa(tmp_path_factory):
    """The best instruction set of this machine; "" if there is none for it."""
    verdict = check.check_library(tmp_path_factory.mktemp("cache"))
    lacks = "lacks all instruction sets" in verdict.stock_reason
    assert verdict.isa or lacks, f"{verdict.stock_reason}; scripts/setup builds them"
    return verdict.isa


def test_what_the_set_up_has_built_is_used(judge, isa):
    verdict = judge()
    assert verdict.kind == "fast"
    assert verdict.isa == isa


@pytest.mark.parametrize(("fault", "says"), [("wrong-own", "from F32"), ("crash-own", "SIGSEGV")])
def test_faulty_ones_leave_the_engine_with_stock(judge, fault, says):
    verdict = judge(fault)
    assert verdict.kind == "fast"
    assert not verdict.isa
    assert says in verdict.stock_reason


def test_those_that_hang_are_given_up_but_not_for_ever(judge, monkeypatch, isa):
    attempt = check._attempt

    def quick(environ, _limit_s, *, mode="fast", **options):
        return attempt(environ, 2 if mode == "own" else 50, mode=mode, **options)

    monkeypatch.setattr(check, "_attempt", quick)
    assert "no result within 2 s" in judge("hang-own").stock_reason
    monkeypatch.undo()
    assert judge().isa == isa


def test_the_variable_turns_them_off(judge):
    assert judge(kernels="stock").stock_reason == "OLLAMA_ASYNC_KERNELS says so"


def test_another_version_of_the_sources_is_not_used(judge, monkeypatch, tmp_path):
    header = tmp_path / "gcc_amx.h"
    header.write_text("// another version\n")
    monkeypatch.setattr(kernel_build, "HEADER", header)
    assert "not built" in judge().stock_reason


def test_a_library_of_another_place_is_not_extended():
    found = check._judge_kernels({"LLAMA_CPP_LIB_PATH": "/elsewhere"}, "auto", 1)
    assert "LLAMA_CPP_LIB_PATH" in found.fault


def _kernels_of_demo(server) -> set[str]:
    """What the server says computes for the model ``demo``, after an answer."""
    asked = {"model": "demo", "prompt": "What are you?", "options": {"num_predict": 20}}
    url = f"{server.url}/api/generate"
    answer = httpx.post(url, json={**asked, "stream": False}, timeout=50)
    assert answer.json()["eval_count"]
    name = "ollama_model_kernels_info"
    return {kind for kind in ("own", "stock") if server.metric(name, kernels=kind)}


def test_a_model_whose_worker_faults_is_loaded_with_stock_ones(start_server, isa):
    server = start_server(offers_shipped=True)
    assert _kernels_of_demo(server) == {"own" if isa else "stock"}
    [worker] = server.workers()
    worker.send_signal(signal.SIGSEGV)
    server.wait_for_log("killed by signal 11")
    assert _kernels_of_demo(server) == {"stock"}


def test_a_server_that_shall_do_without_them_answers(start_server):
    server = start_server(offers_shipped=True, OLLAMA_ASYNC_KERNELS="stock")
    assert _kernels_of_demo(server) == {"stock"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["avx512_vnni", "avx2"])
def test_they_compute_what_they_should(name, isa):
    if not isa or (name == "avx512_vnni" and isa not in {"amx", "avx512_vnni"}):
        pytest.skip(f"this processor lacks {name}")
    line = [sys.executable, "-P", "-c", CHECK, name]
    found = subprocess.run(line, env=ENVIRON, capture_output=True, text=True, check=True)
    verdict, *types = found.stdout.split()
    assert verdict == "right", found.stdout
    assert set(types) >= TYPES


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The compiled files, under sanitizers, and the program that checks itself."""
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    quick = ["-mllvm", "-asan-instrumentation-with-call-threshold=0"]
    if "clang" not in build.compiler_version(build.find_compilers().cxx):
        quick = ["--param", "asan-instrumentation-with-call-threshold=0"]  # to compile, not to run
    usual = [flag for flag in kernel_build.FLAGS if flag != "-O3"]

    def flags(stem):
        if stem.startswith("self_check"):  # what it compares with need not be slow, too
            return kernel_build.FLAGS
        return [*usual, "-O1", "-g1", *sanitizers, *quick]

    folder = tmp_path_factory.mktemp("kernels")
    engine = kernel_build.find_engine()
    kernel_build.compile_kernels(engine, folder, log=folder / "log", flags=flags, program=[PROGRAM])
    return folder


@pytest.mark.timeout(900)
def test_no_sanitizer_finds_a_fault(objects, isa):
    if not isa:
        pytest.skip("this processor lacks all instruction sets")
    found = subprocess.run(
        [objects / "check", isa], env=ENVIRON, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.startswith("\n")


@pytest.mark.timeout(300)
def test_no_function_of_an_instruction_set_can_replace_a_common_one(tmp_path):
    """The linker keeps one of several weak copies, as of ``std::vector``, perhaps with AVX-512."""
    engine = kernel_build.find_engine()
    kernel_build.compile_kernels(engine, tmp_path, log=tmp_path / "log")
    compiled = [path for path in tmp_path.glob("*.o") if kernel_build._isa_flags(path.stem)]
    assert compiled
    for path in compiled:
        line = ["nm", "--demangle", "--defined-only", path]
        names = subprocess.run(line, capture_output=True, text=True, check=True).stdout
        assert not [row for row in names.splitlines() if row.split()[1] in {"W", "V", "u"}], path


def test_a_process_that_may_have_no_more_threads_loads_a_model(tmp_path, isa):
    if not isa:
        pytest.skip("this processor lacks all instruction sets")
    model = write_tiny_model(
        tmp_path / "large.gguf", quantization="Q8_0", width=256, feed_forward=24576
    )
    line = [sys.executable, "-P", "-c", PACK, model]
    found = subprocess.run(line, env=ENVIRON, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "True\n"

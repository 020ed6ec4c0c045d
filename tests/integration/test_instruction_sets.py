"""The kernels of every instruction set: those that this machine has, and tiles without AMX."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ollama_async.native import kernel_build
from ollama_async.native.build import BuildFailed, find_compilers

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]

_CHECK = """
import os, sys
import llama_cpp
from ollama_async.native.kernels import Kernels, KernelsUnusable
try:
    kernels = Kernels(os.environ, sys.argv[1])
except KernelsUnusable as reason:
    sys.exit(f"unusable: {reason}")
fault, types = kernels.find_fault(is_full=True)
print(kernels.isa, *types)
sys.exit(fault or 0)
"""


@pytest.mark.parametrize("isa", ["avx2", "avx2_vnni", "avx512_vnni", "amx"])
def test_an_instruction_set_computes_all_types_of_weights(isa):
    line = [sys.executable, "-P", "-c", _CHECK, isa]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    reason = done.stderr.strip().splitlines()[-1:]
    if reason and reason[0].startswith("unusable: "):
        pytest.skip(reason[0])
    assert done.returncode == 0, done.stderr[-500:]
    used, *types = done.stdout.split()
    assert used == isa
    assert {"q8_0", "q4_0", "q4_K", "q5_K", "q6_K", "f16", "bf16"} <= set(types)


def test_tiles_give_the_same_bits_as_vectors(tmp_path):
    try:
        engine = kernel_build.find_engine(os.environ)
        compiler = find_compilers().cxx
    except BuildFailed as reason:
        pytest.skip(str(reason))
    program = tmp_path / "tiled_products"
    sources = [Path(__file__).with_name("tiled_products.cpp")]
    sources.append(kernel_build.SOURCES / "packed_weights.cpp")
    libraries = [str(engine.library / name) for name in ("libggml-cpu.so", "libggml-base.so")]
    flags = ["-std=c++17", "-O1", "-ffp-contract=off"]
    flags += kernel_build._isa_flags("products_avx512_vnni")
    flags += ["-I", str(kernel_build.SOURCES), "-isystem", str(engine.headers / "ggml/include")]
    line = [compiler, *flags, *map(str, sources), *libraries, f"-Wl,-rpath,{engine.library}"]
    subprocess.run([*line, "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout

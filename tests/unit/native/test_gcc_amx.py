"""The header that corrects GCC's AMX intrinsics, judged by the assembly that comes out.

It is compiled for AMX whatever this machine has; nothing of it is run.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import ollama_async.native

pytestmark = pytest.mark.slow  # a real compiler reads all intrinsics

HEADER = Path(ollama_async.native.__file__).with_name("gcc_amx.h")
AMX = ["-mamx-tile", "-mamx-int8"]

SOURCE = """
#include <immintrin.h>

#define TMM0 0
#define TMM1 1

void product(unsigned char rows, long stride) {
    unsigned char config[64] __attribute__((aligned(64))) = {0};
    unsigned char left[1024] __attribute__((aligned(64)));
    unsigned char right[1024] __attribute__((aligned(64)));
    config[0] = 1;
    config[48] = rows;
    config[63] = 77;
    left[1023] = 78;
    right[1023] = 79;
    _tile_loadconfig(config);
    _tile_loadd(TMM0, left, stride);
    _tile_stream_loadd(TMM1, right, stride);
}
"""


def _gcc() -> str | None:
    """A GCC for x86-64 that knows AMX, or None."""
    for name in ("gcc", "x86_64-linux-gnu-gcc"):
        if not shutil.which(name):
            continue
        macros = [name, *AMX, "-dM", "-E", "-x", "c", "/dev/null"]
        found = subprocess.run(macros, capture_output=True, text=True, check=False)
        if (
            found.returncode == 0
            and "__AMX_TILE__" in found.stdout
            and "__clang__" not in found.stdout
        ):
            return name
    return None


GCC = _gcc()
needs_gcc = pytest.mark.skipif(GCC is None, reason="needs a GCC that can compile for AMX")


def _assembly(folder, *flags, language="c"):
    source = folder / "product.c"
    source.write_text(SOURCE)
    command = [GCC, "-O2", "-S", "-x", language, *flags, str(source), "-o", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _stores_before(assembly, instruction):
    """The constants that are stored before the instruction."""
    head, found, _ = assembly.partition(f"\t{instruction}\t")
    assert found, assembly
    return re.findall(r"mov[bwlq]\t\$(\d+), ", head)


@needs_gcc
@pytest.mark.parametrize("language", ["c", "c++"])
def test_every_byte_is_stored_before_the_hardware_reads_it(tmp_path, language):
    assembly = _assembly(tmp_path, *AMX, "-include", str(HEADER), language=language)
    assert "77" in _stores_before(assembly, "ldtilecfg")
    assert "78" in _stores_before(assembly, "tileloadd")
    assert "79" in _stores_before(assembly, "tileloaddt1")


@needs_gcc
def test_intel_syntax_assembles_too(tmp_path):
    assembly = _assembly(tmp_path, *AMX, "-masm=intel", "-include", str(HEADER))
    assert "tileloadd\ttmm0, [" in assembly.replace("%", "")


@needs_gcc
def test_without_amx_the_header_is_empty():
    plain = subprocess.run(
        [GCC, "-mno-amx-tile", "-E", "-P", "-x", "c", str(HEADER)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert plain.stdout.strip() == ""

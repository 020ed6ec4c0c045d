"""Which of the server's environment variables a process gets that runs the native library.

It reads a stranger's file. What it does not need, it does not get: proxies, tokens, keys and
whatever else happens to be in the environment of a server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_NAMES = frozenset(
    {
        *("PATH", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES"),
        *("OLLAMA_DEBUG", "OLLAMA_GO_TEMPLATE"),
    }
)
_BEGINNINGS = (
    *("LC_", "PYTHON", "MALLOC_", "OLLAMA_ASYNC_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GGML_", "LLAMA_"),
    *("CUDA_", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCR_", "ROCM_"),
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|PROXY")


def native_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of ``environ`` that it may have, and where the cache is that CUDA finds by ``HOME``,
    which it does not get.
    """
    kept = {name: value for name, value in environ.items() if _is_needed(name)}
    if home := environ.get("HOME"):  # else each start would compile kernels anew
        kept.setdefault("CUDA_CACHE_PATH", str(Path(home) / ".nv" / "ComputeCache"))
    return kept


def _is_needed(name: str) -> bool:
    if name in _NAMES:
        return True
    return name.startswith(_BEGINNINGS) and not _SECRET.search(name)

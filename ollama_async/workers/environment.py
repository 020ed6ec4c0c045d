"""Which of the server's environment variables a worker gets.

A worker reads a stranger's file with a native library. What it does not need, it does not get:
proxies, tokens, keys and whatever else happens to be in the environment of a server.
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


def worker_environ(environ: Mapping[str, str], cache_dir: Path) -> dict[str, str]:
    """The part of ``environ`` that a worker may have, and where the things are that others find by
    ``HOME``, which it does not get.
    """
    kept = {name: value for name, value in environ.items() if _is_needed(name)}
    kept["OLLAMA_ASYNC_CACHE"] = str(cache_dir)
    if home := environ.get("HOME"):  # else each start would compile kernels anew
        kept.setdefault("CUDA_CACHE_PATH", str(Path(home) / ".nv" / "ComputeCache"))
    return kept


def _is_needed(name: str) -> bool:
    if name in _NAMES:
        return True
    return name.startswith(_BEGINNINGS) and not _SECRET.search(name)

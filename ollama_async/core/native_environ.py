"""An allowlist for the environment of processes that run the native library.

These processes read untrusted files, so they get no proxies, tokens and keys.
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
_PREFIXES = (
    *("LC_", "PYTHON", "MALLOC_", "OLLAMA_ASYNC_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GGML_", "LLAMA_"),
    *("CUDA_", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCR_", "ROCM_"),
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|PROXY")


def native_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The allowed part of ``environ``, and the path of CUDA's cache, which depends on ``HOME``."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _NAMES or (name.startswith(_PREFIXES) and not _SECRET.search(name))
    }
    if home := environ.get("HOME"):  # otherwise each start would compile kernels again
        kept.setdefault("CUDA_CACHE_PATH", str(Path(home) / ".nv" / "ComputeCache"))
    return kept

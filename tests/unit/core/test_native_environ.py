"""Native code gets the variables that it needs, and no secrets."""

import pytest

from ollama_async.core.native_environ import native_environ
from ollama_async.core.settings import VARIABLES


@pytest.mark.parametrize(
    "name",
    [
        *("HOME", "USER", "SSH_AUTH_SOCK", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GITHUB_TOKEN", "OPENAI_API_KEY"),
        *("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy"),
        *("OLLAMA_API_KEY", "OLLAMA_HOST", "OLLAMA_ORIGINS", "OLLAMA_ASYNC_API_KEY"),
        *(
            "OLLAMA_ASYNC_REGISTRY_TOKEN",
            "DATABASE_URL",
            "NVIDIA_API_KEY",
            "PYTHON_KEYRING_BACKEND",
        ),
    ],
)
def test_secrets_and_other_variables_are_dropped(name):
    assert name not in native_environ({name: "x"})


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH"),
        *("CUDA_HOME", "OMP_NUM_THREADS", "GGML_CUDA_FORCE_MMQ", "LLAMA_CPP_LIB_PATH"),
        *("OLLAMA_ASYNC_SCRIPTS", "OLLAMA_ASYNC_PROBE_FAULT", "OLLAMA_GO_TEMPLATE"),
    ],
)
def test_needed_variables_are_kept(name):
    assert native_environ({name: "x"})[name] == "x"


def test_the_cuda_cache_path_is_set_explicitly():
    kept = native_environ({"HOME": "/home/me"})
    assert kept == {"CUDA_CACHE_PATH": "/home/me/.nv/ComputeCache"}
    assert native_environ({"CUDA_CACHE_PATH": "/x", "HOME": "/"})["CUDA_CACHE_PATH"] == "/x"


def test_every_setting_that_the_worker_reads_reaches_it():
    read_by_worker = {"scripts", "cache_dir", "go_template", "repetition_limit"}
    read_by_worker |= {"enforce_tool_schemas", "prefix_sharing"}
    names = {variable.name for variable in VARIABLES if variable.field in read_by_worker}
    assert len(names) == len(read_by_worker)
    assert names <= native_environ(dict.fromkeys(names, "x")).keys()

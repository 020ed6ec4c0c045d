"""The self-check of the engine library, with faults injected that this CPU may not have."""

import threading
import time

import msgspec
import pytest

from ollama_async.native import check

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def judge(tmp_path, environment):
    """A function that asks for the verdict under a fault, with a cache of its own."""

    def ask(fault="", *, limit_s=50, **variables):
        environ = {**environment, **variables, "OLLAMA_ASYNC_PROBE_FAULT": fault}
        return check.check_library(tmp_path / "cache", environ, limit_s=limit_s)

    return ask


def _refuse_to_probe(monkeypatch):
    """From here on only remembered verdicts can be given."""

    def probed(*_args, **_kwargs):
        raise AssertionError("the library was tried again")

    monkeypatch.setattr(check, "_attempt", probed)


def test_the_installed_library_is_tried_once_and_works(judge, monkeypatch):
    first = judge()
    assert first.kind == "fast", first.reason
    assert first.reason == ""
    assert "CPU" in first.system_info
    assert first.library
    _refuse_to_probe(monkeypatch)
    assert judge() == first


@pytest.mark.parametrize(
    ("fault", "says"), [("crash-fast", "SIGSEGV"), ("wrong-fast", "away from F32")]
)
def test_faulty_fast_kernels_are_avoided_and_the_reason_names_the_cure(
    judge, monkeypatch, fault, says
):
    found = judge(fault)
    assert found.kind == "safe"
    assert says in found.reason
    assert "ollama-async engine build" in found.reason
    assert "CPU" in found.system_info
    _refuse_to_probe(monkeypatch)
    assert judge(fault) == found


@pytest.mark.parametrize(
    ("fault", "says"), [("crash-all", "SIGSEGV"), ("wrong-all", "away from F32")]
)
def test_a_library_that_never_works_is_unusable(judge, monkeypatch, fault, says):
    found = judge(fault)
    assert found.kind == "unusable"
    assert says in found.reason
    assert "ollama-async engine build" in found.reason
    _refuse_to_probe(monkeypatch)
    assert judge(fault) == found


def test_a_library_that_hangs_is_given_up_but_not_for_ever(judge):
    began = time.monotonic()
    assert "no result within 2 s" in judge("hang-all", limit_s=2).reason
    assert time.monotonic() - began < 30
    assert judge("hang-fast", limit_s=2).kind in {"safe", "unusable"}  # 2 s are few when busy
    assert judge("", limit_s=50).kind == "fast"


def test_a_library_that_cannot_be_loaded_is_unusable(judge, tmp_path):
    broken = tmp_path / "lib"
    broken.mkdir()
    (broken / "libllama.so").write_bytes(b"not a library")
    found = judge(LLAMA_CPP_LIB_PATH=str(broken))
    assert found.kind == "unusable"
    assert "cannot be imported" in found.reason
    assert found.library == str(broken)


def test_a_missing_library_is_unusable_and_says_how_to_get_it(judge, monkeypatch):
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda _name: None)
    found = judge()
    assert found.kind == "unusable"
    assert "not installed" in found.reason
    assert "ollama-async engine build" in found.reason


def test_two_workers_at_once_try_the_library_once(judge, monkeypatch):
    attempts = []
    attempt = check._attempt

    def counted(*args, **kwargs):
        attempts.append(kwargs)
        return attempt(*args, **kwargs)

    monkeypatch.setattr(check, "_attempt", counted)
    verdicts = []
    workers = [threading.Thread(target=lambda: verdicts.append(judge())) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=50)
    assert [found.kind for found in verdicts] == ["fast", "fast"]
    modes = [attempt.get("mode", "fast") for attempt in attempts]
    assert len(set(modes)) == len(modes)


def test_another_build_of_the_library_is_tried_again(judge, tmp_path, monkeypatch):
    library = tmp_path / "lib"
    library.mkdir()
    (library / "libllama.so").write_bytes(b"first")
    faults = iter(["it crashes", "it crashes", "", ""])
    monkeypatch.setattr(check, "_attempt", lambda *_a, **_k: check._Attempt(next(faults)))
    assert judge(LLAMA_CPP_LIB_PATH=str(library)).kind == "unusable"
    assert judge(LLAMA_CPP_LIB_PATH=str(library)).kind == "unusable"
    (library / "libllama.so").write_bytes(b"second build")
    assert judge(LLAMA_CPP_LIB_PATH=str(library)).kind == "fast"


@pytest.mark.parametrize("content", [b"", b"garbage", b'{"a": 1}', b"\xff\x00"])
def test_a_damaged_memory_of_verdicts_only_costs_another_try(judge, tmp_path, monkeypatch, content):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "engine-check.json").write_bytes(content)
    monkeypatch.setattr(check, "_attempt", lambda *_a, **_k: check._Attempt(""))
    assert judge().kind == "fast"
    kept = msgspec.json.decode((tmp_path / "cache" / "engine-check.json").read_bytes())
    assert [entry["kind"] for entry in kept.values()] == ["fast"]


def test_without_a_place_for_the_cache_the_verdict_is_still_given(judge, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file, not a folder")
    monkeypatch.setattr(check, "_attempt", lambda *_a, **_k: check._Attempt(""))
    assert judge().kind == "fast"

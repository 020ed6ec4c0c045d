"""Quantizing and joining: real processes around the real library, or around one that misbehaves."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest, Busy, EngineFailed
from ollama_async.create import quantize
from ollama_async.create.builder import create_model
from ollama_async.create.quantize import LEVELS, NEED_MATRIX
from ollama_async.gguf.reader import read_header
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.store import layout
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import list_models, weights_digest

DEADLINE_S = 30.0
WIDE = {"width": 256, "feed_forward": 256, "layers": 1}
"""Wide enough for the blocks of 256 that most levels have."""


@pytest.fixture
def upload(upload: Callable[[bytes], str]) -> Callable[[Path], str]:
    return lambda path: upload(path.read_bytes())


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in F16."""
    path = tmp_path_factory.mktemp("half") / "half.gguf"
    return write_tiny_model(path, quantization="F16", **WIDE)


def created(store: Store, **fields: Any) -> list[dict[str, Any]]:
    return list(create_model(store, CreateRequest(**fields)))


def leftovers(store: Store) -> list[str]:
    return [path.name for path in store.root.rglob(".tmp-*")]


# ----------------------------------------------------------------- the real library


@pytest.mark.slow
@pytest.mark.engine
def test_a_file_is_quantized_with_progress(
    store: Store, half: Path, upload: Callable[[Path], str]
) -> None:
    digest = upload(half)
    statuses = created(store, model="m", files={"half.gguf": digest}, quantize="q4_K_M")
    progress = [each for each in statuses if each["status"] == "quantizing F16 model to Q4_K_M"]
    assert {each["digest"] for each in progress} == {"0" * 19}
    total = progress[0]["total"]
    completed = [each["completed"] for each in progress]
    assert completed == sorted(completed)
    assert completed[-1] == total
    assert 0 < total < half.stat().st_size
    assert {"status": "verifying conversion"} in statuses
    assert statuses[-1] == {"status": "success"}
    model = store.find("m")
    assert model.details.quantization_level == model.summary.quantization == "Q4_K_M"
    assert weights_digest(model) != digest
    data = Path(model.path).read_bytes()
    assert weights_digest(model) == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert len(data) < half.stat().st_size / 2
    assert leftovers(store) == []


@pytest.mark.slow
@pytest.mark.engine
def test_a_model_is_quantized_and_its_base_stays(
    store: Store, half: Path, upload: Callable[[Path], str]
) -> None:
    created(store, model="base", files={"half.gguf": upload(half)}, system="be brief")
    created(store, model="small", from_="base", quantization="Q8_0")
    assert store.find("base").details.quantization_level == "F16"
    small = store.find("small")
    assert (small.details.quantization_level, small.system) == ("Q8_0", "be brief")
    created(store, model="same", from_="small", quantize="q8_0")
    assert weights_digest(store.find("same")) == weights_digest(small)
    with pytest.raises(BadRequest, match=r"^quantization is only supported for F16, BF16 and F32"):
        created(store, model="smaller", from_="small", quantize="q4_0")


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_one_that_the_library_writes(
    store: Store, half: Path, upload: Callable[[Path], str], level: str
) -> None:
    created(store, model="m", files={"half.gguf": upload(half)}, quantize=level)
    model = store.find("m")
    assert model.summary.quantization == level
    expected = quantize._min_file_bytes([read_header(half)], level)
    assert 0 < expected <= sum(tensor.size for tensor in read_header(Path(model.path)).tensors)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("level", NEED_MATRIX)
def test_the_other_levels_are_refused_by_the_library_too(
    store: Store, half: Path, upload: Callable[[Path], str], level: str
) -> None:
    digest = upload(half)
    with pytest.raises(EngineFailed, match="requires an imatrix"):
        list(quantize.quantize(store.layout, digest, level))
    assert leftovers(store) == []


@pytest.mark.slow
@pytest.mark.engine
def test_a_model_that_the_library_cannot_read_is_reported(
    store: Store, tmp_path: Path, upload: Callable[[Path], str]
) -> None:
    odd = write_tiny_model(tmp_path / "odd.gguf", quantization="F16", architecture="odd", **WIDE)
    with pytest.raises(EngineFailed, match="unknown model architecture: 'odd'"):
        created(store, model="m", files={"odd.gguf": upload(odd)}, quantize="q8_0")
    assert leftovers(store) == []
    assert list_models(store) == []


@pytest.mark.slow
@pytest.mark.engine
def test_a_draft_model_is_kept_beside_its_model(
    store: Store, half: Path, tiny_model: Path, upload: Callable[[Path], str]
) -> None:
    created(
        store,
        model="m",
        files={"half.gguf": upload(half)},
        draft_files={"tiny.gguf": upload(tiny_model)},
        draft_quantize="q8_0",
    )
    model = store.find("m")
    assert model.summary.quantization == "F16"
    (draft,) = model.drafts
    assert draft not in {model.path, str(store.layout.blobs.path(upload(tiny_model)))}


@pytest.mark.slow
@pytest.mark.engine
def test_a_killed_server_ends_the_process(tmp_path: Path) -> None:
    """The library waits, in native code, for a file that never comes."""
    os.mkfifo(tmp_path / "source")
    line = [sys.executable, "-P", "-m", quantize.MODULE, "--source", str(tmp_path / "source")]
    with subprocess.Popen([*line, "--target", str(tmp_path / "x")], stdin=subprocess.PIPE) as child:
        writer = os.open(tmp_path / "source", os.O_WRONLY)  # returns when it reads
        assert child.poll() is None
        assert child.stdin is not None
        child.stdin.close()  # as our death would
        assert child.wait(DEADLINE_S) == 1
        os.close(writer)


# ----------------------------------------------------------------- parts


@pytest.fixture
def parts(tmp_path: Path, half: Path) -> list[Path]:
    """``half``, its tensors over three files, as llama.cpp's own tool does it."""
    return split(half, tmp_path / "parts", 3)


def split(source: Path, folder: Path, count: int) -> list[Path]:
    from gguf import GGUFReader

    folder.mkdir()
    reader = GGUFReader(source)
    paths = [folder / f"m-{n + 1:05}-of-{count:05}.gguf" for n in range(count)]
    for number, path in enumerate(paths):
        writer = GGUFWriter(path, "llama")
        if number == 0:
            for field in list(reader.fields.values())[3:]:
                if field.name != "general.architecture":
                    sub = field.types[-1] if len(field.types) > 1 else None
                    writer.add_key_value(field.name, field.contents(), field.types[0], sub)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[number::count]:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


@pytest.mark.slow
@pytest.mark.engine
def test_parts_of_a_model_are_joined(
    store: Store, half: Path, parts: list[Path], upload: Callable[[Path], str]
) -> None:
    files = {path.name: upload(path) for path in reversed(parts)}
    statuses = created(store, model="m", files=files)
    assert "joining GGUF files" in [each["status"] for each in statuses]
    created(store, model="whole", files={"half.gguf": upload(half)})
    joined, whole = store.find("m"), store.find("whole")
    assert not joined.summary.is_split
    assert joined.summary == whole.summary
    assert joined.details.parent_model == "m-00001-of-00003.gguf"


@pytest.mark.slow
@pytest.mark.engine
def test_parts_are_joined_and_quantized(
    store: Store, parts: list[Path], upload: Callable[[Path], str]
) -> None:
    files = {path.name: upload(path) for path in parts}
    created(store, model="m", files=files, quantize="q8_0")
    assert store.find("m").summary.quantization == "Q8_0"


def test_parts_that_are_not_those_of_one_model_are_refused(
    store: Store, parts: list[Path], half: Path, tmp_path: Path, upload: Callable[[Path], str]
) -> None:
    one, two, three = map(upload, parts)
    other = upload(split(half, tmp_path / "other", 2)[0])
    for files, text in (
        ([one, two], "2 of 3 parts of the model are given"),
        ([one, two, other], "the files are parts of different models"),
    ):
        with pytest.raises(BadRequest, match=text):
            created(store, model="m", files={f"{n}.gguf": digest for n, digest in enumerate(files)})
    assert three


# ----------------------------------------------------------------- a library that misbehaves


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have this program run in place of the one that quantizes."""

    def put(text: str) -> None:
        (tmp_path / "played.py").write_text(f"import os, sys\n{text}")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(quantize, "MODULE", "played")

    return put


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("os.kill(os.getpid(), 11)", r"the engine library crashed \(SIGSEGV\)"),
        ("print('error no such thing'); sys.exit(1)", "no such thing"),
        ("sys.exit(3)", "exit status 3"),
        ("pass", "wrote a broken file"),
        ("open(sys.argv[4], 'wb').write(b'GGUF' * 9)", "wrote a broken file"),
        (
            "open(sys.argv[4], 'wb').write(open(sys.argv[2], 'rb').read())",
            "wrote another kind of file: F16",
        ),
    ],
)
def test_whatever_the_process_does_is_an_error_and_nothing_stays(
    store: Store,
    half: Path,
    upload: Callable[[Path], str],
    play: Callable[[str], None],
    program: str,
    text: str,
) -> None:
    digest = upload(half)
    play(program)
    with pytest.raises(EngineFailed, match=text):
        created(store, model="m", files={"half.gguf": digest}, quantize="q8_0")
    assert leftovers(store) == []
    assert list_models(store) == []


def begun(store: Store, digest: str, name: str = "m") -> Iterator[dict[str, Any]]:
    """A create that is quantizing."""
    steps = create_model(
        store, CreateRequest(model=name, files={"h.gguf": digest}, quantize="q8_0")
    )
    assert next(steps) == {"status": "parsing GGUF"}
    assert next(steps)["completed"] == 0
    return steps


@pytest.mark.slow
def test_closing_kills_the_process(
    store: Store, half: Path, upload: Callable[[Path], str], play: Callable[[str], None]
) -> None:
    play("print('tensor a', flush=True); sys.stdin.read(); os.pause()")
    steps = begun(store, upload(half))
    assert len(leftovers(store)) == 1
    began = time.monotonic()
    steps.close()  # type: ignore[attr-defined]  # it is a generator
    assert time.monotonic() - began < DEADLINE_S
    assert leftovers(store) == []  # that the process is gone is seen by the check for leaks


@pytest.mark.slow
def test_only_so_many_models_are_quantized_at_a_time(
    store: Store, half: Path, upload: Callable[[Path], str], play: Callable[[str], None]
) -> None:
    digest = upload(half)
    play("sys.stdin.read()")
    running = [begun(store, digest, f"m{number}") for number in range(layout.MAX_REWRITES)]
    with pytest.raises(Busy, match="please try again"):
        begun(store, digest)
    running.pop().close()  # type: ignore[attr-defined]
    running.append(begun(store, digest))
    for steps in running:
        steps.close()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("done", ["nothing", "everything"])
@pytest.mark.engine
def test_a_base_that_is_replaced_meanwhile_is_an_error(
    store: Store, half: Path, tiny_model: Path, upload: Callable[[Path], str], done: str
) -> None:
    created(store, model="base", files={"half.gguf": upload(half)})
    steps = create_model(store, CreateRequest(model="m", from_="base", quantize="f32"))
    assert next(steps)["status"] == "quantizing F16 model to F32"
    if done == "everything":
        assert {"status": "verifying conversion"} in steps  # draws them up to this one
    created(store, model="base", files={"tiny.gguf": upload(tiny_model)})
    with pytest.raises(BadRequest, match="meanwhile; try again"):
        list(steps)
    assert leftovers(store) == []

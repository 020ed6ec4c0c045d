"""LoRA adapters, from PEFT's files to answers: what is computed is what merged weights give."""

import hashlib
import json
import shutil
import struct
from pathlib import Path

import httpx
import numpy as np
import pytest

from ollama_async.convert import lora
from ollama_async.core.conversation import Sampling
from ollama_async.core.errors import LoadFailed
from ollama_async.gguf.reader import read_header
from ollama_async.native.tiny_model import write_tiny_model
from ollama_async.workers.child.engines.engine import Row
from ollama_async.workers.child.engines.llama_cpp import load
from ollama_async.workers.load_spec import LoadSpec

pytestmark = pytest.mark.engine

HEAD, RANK, ALPHA, VOCABULARY = 16, 4, 8, 600
LAYER = {
    # by PEFT's name: name in the GGUF, rows, columns, whether its rows are rearranged there
    "self_attn.q_proj": ("attn_q", 64, 64, True),
    "self_attn.k_proj": ("attn_k", 32, 64, True),
    "self_attn.v_proj": ("attn_v", 32, 64, False),
    "self_attn.o_proj": ("attn_output", 64, 64, False),
    "mlp.gate_proj": ("ffn_gate", 128, 64, False),
    "mlp.up_proj": ("ffn_up", 128, 64, False),
    "mlp.down_proj": ("ffn_down", 64, 128, False),
}
MODULES = {
    f"model.layers.{layer}.{module}": (f"blk.{layer}.{name}", *rest)
    for layer in range(2)
    for module, (name, *rest) in LAYER.items()
} | {"lm_head": ("output", VOCABULARY, 64, False)}
EMBEDDINGS = "model.embed_tokens"
PROMPT = tuple(range(300, 330))
DEADLINE_S = 50


def write_base(path, **options):
    return write_tiny_model(path, vocab=VOCABULARY, **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "base.gguf")


def matrices():
    """A and B by module, so large that every answer changes; the table of embeddings comes last."""
    random = np.random.default_rng(7)

    def pair(rows, columns):
        a = random.standard_normal((RANK, columns), dtype=np.float32) / np.float32(columns**0.5)
        b = random.standard_normal((rows, RANK), dtype=np.float32) / np.float32(RANK**0.5)
        return a, b * np.float32(0.3)

    found = {module: pair(rows, columns) for module, (_, rows, columns, _) in MODULES.items()}
    return found | {EMBEDDINGS: pair(64, VOCABULARY)}


def write_peft(folder, **config):
    folder.mkdir()
    tensors = {}
    for module, (a, b) in matrices().items():
        middle = "lora_embedding_{}" if module == EMBEDDINGS else "lora_{}.weight"
        tensors[f"base_model.model.{module}.{middle.format('A')}"] = a
        tensors[f"base_model.model.{module}.{middle.format('B')}"] = b
    write_safetensors(folder / lora.WEIGHTS_NAME, tensors)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, **config}
    (folder / lora.CONFIG_NAME).write_text(json.dumps(config))
    (folder / "README.md").write_text("as PEFT leaves it")
    return folder


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, numbers in tensors.items():
        raw = numbers.astype("<f4").tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "F32", "shape": numbers.shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_merged(base, out, *, reorders=True):
    """The base with W + s·B·A in place of W; ``reorders``: as rows of Llama's files are."""
    shutil.copy(base, out)
    header = read_header(base)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    with out.open("r+b") as file:
        for module, (a, b) in matrices().items():
            name, *_, is_rearranged = MODULES.get(module, ("token_embd", False))
            delta = np.float32(ALPHA / RANK) * b @ a
            if module == EMBEDDINGS:
                delta = delta.T
            if is_rearranged and reorders:
                delta = np.stack([delta[published_row(row)] for row in range(len(delta))])
            file.seek(header.data_offset + tensors[f"{name}.weight"].offset)
            weights = np.frombuffer(file.read(delta.nbytes), "<f4").reshape(delta.shape)
            file.seek(-delta.nbytes, 1)
            file.write((weights + delta).astype("<f4").tobytes())
    return out


def published_row(row):
    """ggml turns rows 2i and 2i + 1 of a head together, what is published i and i + half."""
    head, at = divmod(row, HEAD)
    return head * HEAD + at // 2 + at % 2 * (HEAD // 2)


def write_adapter(folder, out):
    files = {name: folder / name for name in (lora.CONFIG_NAME, lora.WEIGHTS_NAME)}
    known = lora.BaseModel(architecture="llama", layers=2, head=HEAD)
    for _ in lora.convert_adapter(files, known, out):
        pass
    return out


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    return write_adapter(write_peft(folder / "peft"), folder / "lora.gguf")


def logits(model, *adapters):
    spec = LoadSpec(
        engine="llama_cpp",
        model=str(model),
        num_ctx=256,
        slots=1,
        threads=1,
        cache_type="f32",
        flash_attention="off",
        adapters=tuple(map(str, adapters)),
    )
    engine = load(spec, lambda _fraction: None)
    try:
        engine.begin(0, Sampling(temperature=0), PROMPT)
        engine.step([Row(0, PROMPT, 0, samples=True)])
        return engine.read_logits()[0].copy()
    finally:
        engine.close()


def test_an_adapter_computes_what_merged_weights_compute(base, adapter, tmp_path):
    with_adapter = logits(base, adapter)
    merged = logits(write_merged(base, tmp_path / "merged.gguf"))
    assert np.abs(with_adapter - merged).max() < 1e-2
    assert np.abs(with_adapter - logits(base)).max() > 0.5
    unordered = logits(write_merged(base, tmp_path / "unordered.gguf", reorders=False))
    assert np.abs(with_adapter - unordered).max() > 0.1


def test_memory_of_the_adapter_is_counted(base, adapter):
    def weights_bytes(*adapters):
        spec = LoadSpec(engine="llama_cpp", model=str(base), num_ctx=64, slots=1, adapters=adapters)
        engine = load(spec, lambda _fraction: None)
        engine.close()
        return engine.facts.weights_bytes

    stored = sum(tensor.size for tensor in read_header(adapter).tensors)
    added = weights_bytes(str(adapter)) - weights_bytes()
    assert added == pytest.approx(stored, rel=0.2)


@pytest.mark.parametrize("kind", ["missing", "truncated", "other base", "no adapter"])
def test_a_broken_adapter_is_a_failed_load_with_a_reason(base, adapter, tmp_path, kind):
    path = tmp_path / "broken.gguf"
    if kind == "truncated":
        path.write_bytes(adapter.read_bytes()[:-100])
    elif kind == "other base":
        base = write_base(tmp_path / "wide.gguf", width=96, heads=6)
        shutil.copy(adapter, path)
    elif kind == "no adapter":
        shutil.copy(base, path)
    with pytest.raises(LoadFailed, match=r"unable to load adapter: .+") as failure:
        logits(base, path)
    assert "no reason" not in failure.value.message


# ----------------------------------------------------------------- the whole way


@pytest.fixture
def server(start_server):
    return start_server()


def create(server, folder, name, text, *, check=True):
    (folder / "Modelfile").write_text(text)
    return server.command("create", name, "-f", str(folder / "Modelfile"), check=check)


def answer(server, model):
    request = {
        "model": model,
        "prompt": "the people and the water",
        "raw": True,
        "stream": False,
        "options": {"temperature": 0, "num_predict": 24, "num_ctx": 256},
    }
    reply = httpx.post(f"{server.url}/api/generate", json=request, timeout=DEADLINE_S)
    assert reply.status_code == 200, reply.text
    return reply.json()["response"]


@pytest.mark.slow
def test_from_files_to_answers(server, base, adapter, tmp_path):
    """A directory of PEFT's and a GGUF file, at once and as a base of others, answer alike."""
    write_peft(tmp_path / "trained")
    write_merged(base, tmp_path / "merged.gguf")
    create(server, tmp_path, "plain", f"FROM {base}")
    create(server, tmp_path, "merged", "FROM ./merged.gguf")
    done = create(server, tmp_path, "peft", "FROM plain\nADAPTER ./trained")
    assert "converting adapter" in done.stdout + done.stderr
    create(server, tmp_path, "both", f"FROM {base}\nADAPTER ./trained")
    create(server, tmp_path, "file", f"FROM plain\nADAPTER {adapter}")
    create(server, tmp_path, "heir", "FROM peft\nSYSTEM inherited")

    merged = answer(server, "merged")
    assert merged != answer(server, "plain")
    assert [answer(server, name) for name in ("peft", "both", "file", "heir")] == [merged] * 4

    (line,) = _adapter_lines(server.command("show", "--modelfile", "heir").stdout)
    create(server, tmp_path, "again", f"FROM plain\n{line}")
    assert answer(server, "again") == merged


def _adapter_lines(modelfile):
    return [line for line in modelfile.splitlines() if line.startswith("ADAPTER ")]


@pytest.mark.slow
def test_what_cannot_be_applied_is_refused_when_it_is_created(server, tmp_path):
    for number, (config, size, text) in enumerate(
        (
            ({"use_dora": True}, {}, "use_dora = True"),
            ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save"),
            ({"r": 5}, {}, "adapter_config.json has 5"),
            ({}, {"width": 96, "heads": 6}, "do not fit"),
            ({}, {"layers": 1}, "which the base model (llama) does not have"),
            ({}, {"architecture": "mamba"}, "'mamba' models cannot be converted"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_peft(folder / "trained", **config)
        write_base(folder / "other.gguf", **size)
        create(server, folder, "plain", "FROM ./other.gguf")
        blobs = _blobs(server)
        failed = create(server, folder, "broken", "FROM plain\nADAPTER ./trained", check=False)
        assert failed.returncode == 1
        assert text in failed.stderr
        assert "broken" not in server.command("list").stdout
        uploads = {f"sha256-{_sha256(path)}" for path in (folder / "trained").iterdir()}
        assert {path.name for path in _blobs(server) - blobs} <= uploads  # nothing half made


def _blobs(server):
    return set((Path(server.environment["OLLAMA_MODELS"]) / "blobs").iterdir())


@pytest.mark.slow
def test_requests_for_adapters_that_make_no_sense(server, base, tmp_path):
    create(server, tmp_path, "plain", f"FROM {base}")
    write_peft(tmp_path / "trained")
    digests = {path.name: _upload(server, path) for path in (tmp_path / "trained").iterdir()}
    config, weights = (digests[name] for name in (lora.CONFIG_NAME, lora.WEIGHTS_NAME))
    gguf = _upload(server, base)
    for adapters, text in (
        ({"../adapter_config.json": config, lora.WEIGHTS_NAME: weights}, "must be relative"),
        ({lora.WEIGHTS_NAME: weights}, "needs adapter_config.json"),
        ({lora.CONFIG_NAME: config}, "needs adapter_model.safetensors"),
        ({lora.CONFIG_NAME: config, lora.WEIGHTS_NAME: "sha256:" + "0" * 64}, "not been uploaded"),
        ({lora.CONFIG_NAME: weights, lora.WEIGHTS_NAME: config}, "cannot be read"),
        ({lora.CONFIG_NAME: config, lora.WEIGHTS_NAME: config}, "invalid safetensors file"),
        ({"a.gguf": gguf, "b.gguf": gguf}, "only one adapter is currently supported"),
        ({"a.gguf": gguf}, 'file "a.gguf" is not an adapter'),
    ):
        request = {"model": "broken", "from": "plain", "adapters": adapters, "stream": False}
        reply = httpx.post(f"{server.url}/api/create", json=request, timeout=DEADLINE_S)
        assert reply.status_code == 400, adapters
        assert text in reply.json()["error"]


def _upload(server, path):
    digest = f"sha256:{_sha256(path)}"
    url = f"{server.url}/api/blobs/{digest}"
    httpx.post(url, content=path.read_bytes(), timeout=DEADLINE_S).raise_for_status()
    return digest


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_an_adapter_that_is_broken_later_is_a_failed_load(start_server, base, adapter, tmp_path):
    server = start_server()
    create(server, tmp_path, "lora", f"FROM {base}\nADAPTER {adapter}")
    (stored,) = (blob for blob in _blobs(server) if blob.name.endswith(_sha256(adapter)))
    server.stop()
    stored.write_bytes(adapter.read_bytes()[:-100])
    reply = httpx.post(
        f"{start_server().url}/api/generate", json={"model": "lora"}, timeout=DEADLINE_S
    )
    assert reply.status_code == 500
    assert "goes past the end of the file" in reply.json()["error"]

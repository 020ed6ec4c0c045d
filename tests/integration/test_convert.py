"""Converted models in the real engine against what transformers and tokenizers said of them.

The folders are made by ``tests/fixtures/convert/make.py``.
"""

import contextlib
import ctypes
import json
from pathlib import Path

import llama_cpp as lib
import numpy as np
import pytest

from ollama_async.convert.model import convert_model
from ollama_async.workers.child.engines.llama_model import LogCapture

FIXTURES = Path(__file__).parents[1] / "fixtures" / "convert"
NAMES = sorted(path.name for path in FIXTURES.iterdir() if (path / "config.json").exists())
MOST_DIFFERENCE = 1e-2

pytestmark = pytest.mark.engine


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}


def convert(name, out, kind="F32", **replaced):
    files = files_of(FIXTURES / name) | replaced
    steps = list(convert_model({key: path for key, path in files.items() if path}, out, kind))
    done, total = steps[-1]
    assert done == total
    return out


class Engine:
    """llama.cpp without anything of ours: a file, numbers in, numbers out."""

    def __init__(self, path, *, is_embedding=False):
        log = LogCapture()
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(
            str(path).encode(), lib.llama_model_default_params()
        )
        assert self.model, log.reason()
        self.vocab = lib.llama_model_get_vocab(self.model)
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 64
        parameters.n_threads = parameters.n_threads_batch = 1
        parameters.type_k = parameters.type_v = lib.GGML_TYPE_F32
        parameters.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.embeddings = is_embedding
        self.context = lib.llama_init_from_model(self.model, parameters)
        assert self.context
        self.is_embedding = is_embedding

    def close(self):
        lib.llama_free(self.context)
        lib.llama_model_free(self.model)

    def tokens(self, text, *, marked):
        data = text.encode()
        room = (lib.llama_token * (len(data) + 16))()
        count = lib.llama_tokenize(self.vocab, data, len(data), room, len(room), marked, True)
        assert count >= 0
        return list(room[:count])

    def values(self, tokens):
        """Logits of every position, or the one vector of an embedding model."""
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at] = token, at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = True
        try:
            assert lib.llama_decode(self.context, batch) == 0
        finally:
            lib.llama_batch_free(batch)
        if self.is_embedding:
            width = lib.llama_model_n_embd(self.model)
            pointer = lib.llama_get_embeddings_seq(self.context, 0)
            return np.ctypeslib.as_array(pointer, (1, width)).copy()
        size = lib.llama_vocab_n_tokens(self.vocab)
        rows = [lib.llama_get_logits_ith(self.context, at) for at in range(len(tokens))]
        return np.stack([np.ctypeslib.as_array(row, (size,)).copy() for row in rows])

    def text_of(self, key):
        room = ctypes.create_string_buffer(1 << 16)
        count = lib.llama_model_meta_val_str(self.model, key.encode(), room, len(room))
        return None if count < 0 else room.value.decode()


@pytest.fixture(scope="module")
def engine_of(tmp_path_factory):
    """Each folder is converted once."""
    engines = {}

    def get(name):
        if name not in engines:
            out = convert(name, tmp_path_factory.mktemp("converted") / f"{name}.gguf")
            engines[name] = Engine(out, is_embedding=name == "bert")
        return engines[name]

    yield get
    for engine in engines.values():
        engine.close()


def expected_of(name):
    return json.loads((FIXTURES / name / "expected.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_computes_what_transformers_computes(engine_of, name):
    expected = expected_of(name)
    values = engine_of(name).values(expected["tokens"])
    if name != "bert":
        values = values[:, ::8]
    wanted = np.array(expected["values"])
    assert wanted.std() > 0.5  # else the bound below would say nothing
    assert values.shape == wanted.shape
    assert np.abs(values - wanted).max() < MOST_DIFFERENCE


def wrong_tokens(engine, name):
    """Where the engine's tokens are not those of the library that made the tokenizer."""
    return {
        (text["text"], way): (tokens, text[way])
        for text in expected_of(name)["texts"]
        for way in ("plain", "marked")
        if (tokens := engine.tokens(text["text"], marked=way == "marked")) != text[way]
    }


@pytest.mark.parametrize("name", NAMES)
def test_texts_become_the_same_tokens(engine_of, name):
    assert not wrong_tokens(engine_of(name), name)


@pytest.mark.parametrize("name", ["llama2", "gemma3", "phi3"])
def test_tokenizer_json_alone_gives_the_same_tokens(tmp_path, name):
    """Where both are there, tokenizer.model has the scores."""
    assert (FIXTURES / name / "tokenizer.model").exists()
    out = convert(name, tmp_path / "out.gguf", **{"tokenizer.model": None})
    with contextlib.closing(Engine(out)) as engine:
        assert not wrong_tokens(engine, name)


@pytest.mark.parametrize("name", ["llama2", "gemma3", "phi3"])
def test_tokenizer_model_alone_gives_the_same_tokens(tmp_path, name):
    out = convert(name, tmp_path / "out.gguf", **{"tokenizer.json": None})
    with contextlib.closing(Engine(out)) as engine:
        assert not wrong_tokens(engine, name)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_matrices_of_half_the_size_compute_nearly_the_same(tmp_path, kind):
    out = convert("llama", tmp_path / "out.gguf", kind)
    with contextlib.closing(Engine(out)) as engine:
        expected = expected_of("llama")
        values = engine.values(expected["tokens"])[:, ::8]
    assert np.abs(values - np.array(expected["values"])).max() < 0.1


def test_a_chat_template_arrives(engine_of):
    template = (FIXTURES / "qwen2" / "chat_template.jinja").read_text()
    assert engine_of("qwen2").text_of("tokenizer.chat_template") == template

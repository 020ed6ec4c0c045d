"""Every option of every fixture changed: the model answers as the original, or is refused by name.

The tables are ``config_options.py`` and ``tokenizer_options.py`` in ``tests/fixtures/convert``. The
original is what transformers computed for the former (``variants.json``), and what Hugging Face's
``tokenizers`` says of the latter.
"""

import contextlib
import json
import re
from pathlib import Path

import llama_cpp as lib
import numpy as np
import pytest
import tokenizers

from ollama_async.convert.model import convert_model
from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.engines.llama_model import LlamaTokenizer, LogCapture
from tests.fixtures.convert import config_options, tokenizer_options
from tests.integration.test_convert import MOST_DIFFERENCE, Engine, expected_of

DONE = "done"
GOLDEN = json.loads((config_options.FIXTURES / "variants.json").read_text())
DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "importing.md").read_text()
TEXTS = 150

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def name_of(row):
    return row.name.encode("ascii", "backslashreplace").decode()


def reason_of(files, out):
    """Why the files are refused, "" if they were converted."""
    try:
        for _ in convert_model(files, out, "F32"):
            pass
    except BadRequest as error:
        return str(error)
    return ""


def check_outcome(row, reason):
    """A row that is done is not refused; another one is, by the name of its option."""
    if row.outcome == DONE:
        assert not reason
    else:
        assert re.search(row.text or row.option.partition(":")[0], reason)


@pytest.mark.parametrize("row", config_options.ROWS, ids=name_of)
def test_a_changed_configuration_gives_the_logits_of_transformers_or_is_rejected(tmp_path, row):
    check_outcome(row, reason_of(config_options.write_model(row, tmp_path), tmp_path / "out.gguf"))
    if row.outcome != DONE:
        return
    with contextlib.closing(
        Engine(tmp_path / "out.gguf", is_embedding=row.fixture == "bert")
    ) as engine:
        values = config_options.thinned(engine.values(expected_of(row.fixture)["tokens"]))
    assert np.abs(values - np.array(GOLDEN[row.name])).max() < MOST_DIFFERENCE


@contextlib.contextmanager
def vocabulary_of(path):
    """The tokenizer of a converted file as a worker has it, without the rest of the model."""
    log = LogCapture()
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    model = lib.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, log.reason()
    try:
        yield LlamaTokenizer(model)
    finally:
        lib.llama_model_free(model)


@pytest.mark.parametrize("row", tokenizer_options.ROWS, ids=name_of)
def test_a_changed_tokenizer_gives_the_same_tokens_or_is_rejected(tmp_path, row):
    files = tokenizer_options.write_files(row, tmp_path)
    check_outcome(row, reason_of(files, tmp_path / "out.gguf"))
    if row.outcome == DONE:
        with vocabulary_of(tmp_path / "out.gguf") as vocabulary:
            check_tokens(row, files["tokenizer.json"], vocabulary)


def check_tokens(row, path, vocabulary):
    """llama.cpp finds the tokens of Hugging Face's ``tokenizers`` in all texts."""
    original = tokenizers.Tokenizer.from_file(str(path))
    original.no_truncation()
    original.no_padding()
    for text in tokenizer_options.texts(json.loads(path.read_text()), row, TEXTS):
        for marked in (False, True):
            wanted = original.encode(text, add_special_tokens=marked).ids
            if max(wanted, default=0) < vocabulary.size:  # the network has rows for the tokens
                found = vocabulary.tokenize(text, add_special=marked, parse_special=True)
                assert found == wanted, repr(text)


def test_the_documentation_lists_every_option():
    done, refused = _documented("Supported"), _documented("Refused")
    for row in (*config_options.ROWS, *tokenizer_options.ROWS):
        listed = done if row.outcome == DONE else refused
        for option in row.option.partition(":")[0].split(", "):
            assert f"`{option}`" in listed, (option, row.outcome)


def test_row_names_are_unique():
    for rows in (config_options.ROWS, tokenizer_options.ROWS):
        assert len({row.name for row in rows}) == len(rows)


def _documented(heading):
    _, _, rest = DOCUMENTATION.partition(f"### {heading}\n")
    assert rest
    return rest.partition("\n#")[0]

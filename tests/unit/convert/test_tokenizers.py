"""Vocabularies out of the files of tokenizers, and which tokens are special."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.convert.cutting import cutting_name
from ollama_async.convert.documents import Document
from ollama_async.convert.sentencepiece import read_sentencepiece
from ollama_async.convert.special import special_fields
from ollama_async.convert.tokenizers import read_documents, read_vocabulary
from ollama_async.convert.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER
from ollama_async.errors import BadRequest
from tests.unit.convert.folders import changed, files_of

NO_CONFIG = Document("config.json", {})


def vocabulary_of(files):
    return read_vocabulary(files, read_documents(files))


def special_of(files, config=NO_CONFIG, size=1 << 20):
    documents = read_documents(files)
    found = special_fields(files, documents, config, read_vocabulary(files, documents), size)
    return {key.removeprefix("tokenizer."): value for key, value in found.items()}


def kinds_of(vocabulary):
    return {token.text: token.kind for token in vocabulary.tokens.values()}


# ----------------------------------------------------------------- vocabularies


@pytest.mark.parametrize(
    ("name", "model", "pre"),
    [
        ("llama", "gpt2", "llama-bpe"),
        ("mistral", "gpt2", "tekken"),
        ("qwen2", "gpt2", "qwen2"),
        ("qwen3", "gpt2", "smollm"),
        ("llama2", "llama", "default"),
        ("gemma2", "llama", "default"),
        ("bert", "bert", None),
    ],
)
def test_each_kind_of_tokenizer_is_known(name, model, pre):
    fields = vocabulary_of(files_of(name)).fields(100)
    assert fields["tokenizer.ggml.model"] == model
    assert fields.get("tokenizer.ggml.pre") == pre
    assert len(fields["tokenizer.ggml.tokens"]) == 100
    assert ("tokenizer.ggml.merges" in fields) == (model == "gpt2")
    assert ("tokenizer.ggml.scores" in fields) == (model == "llama")


def test_sentencepiece_and_its_copy_in_json_have_the_same_tokens():
    files = files_of("llama2")
    one = vocabulary_of(files)
    other = vocabulary_of({name: path for name, path in files.items() if name != "tokenizer.model"})
    assert kinds_of(one) == kinds_of(other)
    assert one.extra == other.extra
    assert [token.text for token in one.tokens.values()] == [
        token.text for token in other.tokens.values()
    ]


def test_kinds_of_tokens():
    kinds = kinds_of(vocabulary_of(files_of("llama2")))
    assert kinds["<unk>"] == UNKNOWN
    assert kinds["<s>"] == kinds["<|end|>"] == CONTROL
    assert kinds["<0x0A>"] == BYTE
    assert kinds["<|user|>"] == USER
    assert kinds["▁the"] == NORMAL


def test_spaces_in_added_tokens_are_spelt_as_spaces(tmp_path):
    token = {"id": 500, "content": "▁▁", "special": False}
    files = changed(
        files_of("gemma2"),
        "tokenizer.json",
        tmp_path,
        lambda content: content["added_tokens"].append(token),
    )
    assert vocabulary_of(files).tokens[500].text == "  "


def test_settings_say_whether_a_text_begins_with_a_space(tmp_path):
    files = changed(
        files_of("llama2"),
        "tokenizer_config.json",
        tmp_path,
        lambda content: content.update(add_prefix_space=False),
    )
    assert vocabulary_of(files_of("llama2")).extra["add_space_prefix"] is True
    assert vocabulary_of(files).extra["add_space_prefix"] is False


def test_merges_as_pairs_are_merges_as_texts(tmp_path):
    files = files_of("llama")
    pairs = changed(
        files,
        "tokenizer.json",
        tmp_path,
        lambda content: content["model"].update(
            merges=[
                pair.split(" ") if isinstance(pair, str) else pair
                for pair in content["model"]["merges"]
            ]
        ),
    )
    texts = changed(
        files,
        "tokenizer.json",
        tmp_path,
        lambda content: content["model"].update(
            merges=[
                pair if isinstance(pair, str) else " ".join(pair)
                for pair in content["model"]["merges"]
            ]
        ),
    )
    assert vocabulary_of(pairs).merges == vocabulary_of(texts).merges != []


def test_holes_and_missing_tokens_are_filled_and_surplus_ones_dropped():
    vocabulary = vocabulary_of(files_of("llama"))
    count = len(vocabulary.tokens)
    del vocabulary.tokens[7]
    fields = vocabulary.fields(count + 2)
    assert fields["tokenizer.ggml.tokens"][7] == "[PAD7]"
    assert fields["tokenizer.ggml.tokens"][-1] == f"[PAD{count + 1}]"
    assert fields["tokenizer.ggml.token_type"][-1] == UNUSED
    assert len(vocabulary.fields(5)["tokenizer.ggml.tokens"]) == 5


def test_words_begin_with_the_mark_that_the_engine_wants():
    texts = set(kinds_of(vocabulary_of(files_of("bert"))))
    assert "▁the" in texts
    assert "[CLS]" in texts
    assert not any(text.startswith("##") and len(text) > 2 for text in texts)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["model"].update(type="Unigram"), "'Unigram' do not convert"),
        (lambda c: c.update(model=None), "no tokenizer.json and no tokenizer.model"),
        (lambda c: c["model"].update(vocab={}), "no tokens"),
        (lambda c: c["model"].update(vocab=[]), "not an object"),
        (lambda c: c["model"].update(vocab={"a": -1}), "from 0 on"),
        (lambda c: c["model"].update(vocab={"a": 1 << 30}), "the number 1073741824"),
        (lambda c: c["model"].update(merges=["a"]), "not two texts"),
        (lambda c: c["model"].update(merges=[["a", "b", "c"]]), "not two texts"),
        (lambda c: c["model"].update(merges=[["a b", "c"]]), "not two texts"),
        (lambda c: c["model"].update(merges=7), "not a list"),
        (lambda c: c.update(added_tokens=[{"content": "a"}]), "has no number"),
        (lambda c: c.update(added_tokens=[{"content": 3, "id": 3}]), "not a text"),
        (lambda c: c.update(added_tokens=[3]), "not a list of objects"),
        (lambda c: c.update(pre_tokenizer={"type": "Magic"}), "unknown way: 'Magic'"),
        (lambda c: c.update(pre_tokenizer=None), "unknown way"),
    ],
)
def test_a_tokenizer_that_makes_no_sense_is_refused(tmp_path, change, reason):
    with pytest.raises(BadRequest, match=reason):
        vocabulary_of(changed(files_of("llama"), "tokenizer.json", tmp_path, change))


def test_a_cased_word_tokenizer_is_refused(tmp_path):
    files = changed(
        files_of("bert"),
        "tokenizer.json",
        tmp_path,
        lambda content: content["normalizer"].update(lowercase=False),
    )
    with pytest.raises(BadRequest, match="upper case from lower case"):
        vocabulary_of(files)


def test_without_a_tokenizer_there_is_no_model():
    with pytest.raises(BadRequest, match=r"no tokenizer\.json and no tokenizer\.model"):
        vocabulary_of({})


def test_the_same_patterns_have_two_names_by_how_whole_words_are_treated(tmp_path):
    files = changed(
        files_of("llama"),
        "tokenizer.json",
        tmp_path,
        lambda content: content["model"].update(ignore_merges=False),
    )
    assert cutting_name(read_documents(files)["tokenizer.json"]) == "dbrx"


# ----------------------------------------------------------------- sentencepiece


def field(number, data):
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


PIECE = field(1, field(1, "▁a".encode()) + bytes([2 << 3 | 5]) + b"\0\0\x80\xbf")
BPE = field(2, bytes([3 << 3, 2]))


def test_a_model_by_hand():
    vocabulary = read_sentencepiece(PIECE + BPE + field(3, bytes([3 << 3, 0])))
    assert vocabulary.tokens[0].text == "▁a"
    assert vocabulary.tokens[0].score == -1
    assert vocabulary.extra["add_space_prefix"] is False
    assert read_sentencepiece(PIECE + BPE).extra["add_space_prefix"] is True


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no tokens"),
        (PIECE, "not made of merges"),
        (PIECE[:-1], "past the end"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "past the end"),
        (b"\xff" * 20, "past the end"),
        (b"\x08\x01", "a number stands where"),
        (b"\x0b", "past the end"),
    ],
)
def test_what_is_no_sentencepiece_model_is_refused(data, reason):
    with pytest.raises(BadRequest, match=reason):
        read_sentencepiece(data)


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_any_bytes_are_read_or_refused(data, cut):
    real = files_of("llama2")["tokenizer.model"].read_bytes()
    for content in (data, real[:cut] + data + real[cut : cut + 100], PIECE + data + BPE):
        with contextlib.suppress(BadRequest):
            assert read_sentencepiece(content).tokens


# ----------------------------------------------------------------- special tokens


def test_roles_marks_and_template():
    found = special_of(files_of("llama"))
    assert found["ggml.bos_token_id"] == 330
    assert found["ggml.eos_token_id"] == 332
    assert found["ggml.add_bos_token"] is True
    assert found["ggml.add_eos_token"] is False
    assert found["chat_template"].startswith("{% for m")


def test_a_word_tokenizer_marks_both_ends():
    found = special_of(files_of("bert"))
    assert found["ggml.bos_token_id"] == 2
    assert found["ggml.seperator_token_id"] == 3
    assert found["ggml.add_bos_token"] is True
    assert found["ggml.add_sep_token"] is True
    assert found["ggml.add_eos_token"] is False


def test_numbers_in_the_configuration_stand_in_for_texts():
    files = {
        name: path for name, path in files_of("llama").items() if name != "tokenizer_config.json"
    }
    config = Document("config.json", {"bos_token_id": 330, "eos_token_id": [331, 332]})
    found = special_of(files, config)
    assert (found["ggml.bos_token_id"], found["ggml.eos_token_id"]) == (330, 331)
    assert "chat_template" not in found
    found = special_of(files, Document("config.json", {"eos_token_id": "no"}))
    assert "ggml.eos_token_id" not in found


def test_a_role_of_a_token_that_the_network_does_not_know_is_left_out():
    found = special_of(files_of("llama"), size=331)
    assert "ggml.bos_token_id" in found
    assert "ggml.eos_token_id" not in found


@pytest.mark.parametrize(
    ("settings_", "wanted"),
    [
        ({"chat_template": "one"}, "one"),
        ({"chat_template": [{"name": "tool_use", "template": "b"},
                            {"name": "default", "template": "a"}]}, "a"),
        ({"chat_template": [{"name": "tool_use", "template": "b"}]}, None),
        ({"chat_template": 5}, None),
    ],
)  # fmt: skip
def test_templates_in_the_settings(tmp_path, settings_, wanted):
    path = tmp_path / "settings"
    path.write_text(json.dumps(settings_))
    files = {**files_of("llama"), "tokenizer_config.json": path}
    assert special_of(files).get("chat_template") == wanted


def test_a_template_in_a_file_of_its_own_counts_more(tmp_path):
    (tmp_path / "template").write_text("own")
    files = {**files_of("llama"), "chat_template.jinja": tmp_path / "template"}
    assert special_of(files)["chat_template"] == "own"

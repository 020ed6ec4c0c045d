"""Vocabularies out of the files of tokenizers, and which tokens are special."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_async.convert.added_tokens import added_fields
from ollama_async.convert.config_files import JsonObject
from ollama_async.convert.pre_tokenizer import pre_tokenizer_name
from ollama_async.convert.sentencepiece import check_normalizer, read_sentencepiece
from ollama_async.convert.special_tokens import special_fields
from ollama_async.convert.tokenizer import read_json_files, read_vocabulary
from ollama_async.convert.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER
from ollama_async.core.errors import BadRequest
from tests.unit.convert.folders import changed, files_of

NO_CONFIG = JsonObject("config.json", {})


def vocabulary_of(files):
    return read_vocabulary(files, read_json_files(files))


def special_of(files, config=NO_CONFIG, size=1 << 20):
    json_files = read_json_files(files)
    found = special_fields(files, json_files, config, read_vocabulary(files, json_files), size)
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
def test_each_kind_of_tokenizer_is_recognized(name, model, pre):
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


@pytest.mark.parametrize("tab", [None, 13])
def test_a_tab_may_stand_for_its_byte_as_in_gemma(tmp_path, tab):
    def change(content):
        vocab = content["model"]["vocab"]
        del vocab["<0x09>"]
        if tab is not None:
            vocab["\tt"] = 401
            vocab["\t"] = tab

    files = changed(files_of("gemma3"), "tokenizer.json", tmp_path, change)
    if tab is None:
        assert kinds_of(vocabulary_of(files))["<0x09>"] == BYTE
    else:  # the tab is also a token of its own in tokenizer.model
        with pytest.raises(BadRequest, match="the same token 401"):
            vocabulary_of(files)


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


def test_words_begin_with_the_engine_s_mark():
    texts = set(kinds_of(vocabulary_of(files_of("bert"))))
    assert "▁the" in texts
    assert "[CLS]" in texts
    assert not any(text.startswith("##") and len(text) > 2 for text in texts)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["model"].update(type="Unigram"), "'Unigram' are not supported"),
        (lambda c: c.update(model=None), "tokenizer.json and tokenizer.model are missing"),
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
        (lambda c: c["model"].update(vocab={"a": 1, "b": 1}), "two tokens have the number 1"),
        (lambda c: c["model"]["vocab"].update({"x" * 513: 400}), "too long for a token"),
        (lambda c: c["model"]["merges"].append(["t", "\x00"]), "merges"),
        (lambda c: c.update(pre_tokenizer={"type": "Magic"}), "unknown way: 'Magic'"),
        (lambda c: c.update(pre_tokenizer=None), "unknown way"),
    ],
)
def test_an_invalid_tokenizer_is_rejected(tmp_path, change, reason):
    with pytest.raises(BadRequest, match=reason):
        vocabulary_of(changed(files_of("llama"), "tokenizer.json", tmp_path, change))


@pytest.mark.parametrize(
    ("lowercase", "strip_accents", "wanted"),
    [
        (True, None, (True, True)),
        (True, False, (True, False)),
        (False, None, (False, False)),
        (False, True, (False, True)),
    ],
)
def test_a_wordpiece_tokenizer_s_normalizer_is_converted(
    tmp_path, lowercase, strip_accents, wanted
):
    files = changed(
        files_of("bert"),
        "tokenizer.json",
        tmp_path,
        lambda content: content["normalizer"].update(
            lowercase=lowercase, strip_accents=strip_accents
        ),
    )
    extra = vocabulary_of(files).extra
    assert (extra["normalizer.lowercase"], extra["normalizer.strip_accents"]) == wanted


def test_a_model_without_a_tokenizer_is_rejected():
    with pytest.raises(BadRequest, match=r"tokenizer\.json and tokenizer\.model are missing"):
        vocabulary_of({})


def test_ignore_merges_selects_between_names_of_the_same_patterns(tmp_path):
    files = changed(
        files_of("llama"),
        "tokenizer.json",
        tmp_path,
        lambda content: content["model"].update(ignore_merges=False),
    )
    assert pre_tokenizer_name(read_json_files(files)["tokenizer.json"]) == "dbrx"


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
        (PIECE, "not a BPE model"),
        (PIECE[:-1], "past the end"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "past the end"),
        (b"\xff" * 20, "past the end"),
        (b"\x08\x01", "a number instead of a text"),
        (b"\x0b", "past the end"),
    ],
)
def test_an_invalid_sentencepiece_model_is_rejected(data, reason):
    with pytest.raises(BadRequest, match=reason):
        read_sentencepiece(data)


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_any_bytes_are_read_or_refused(data, cut):
    real = files_of("llama2")["tokenizer.model"].read_bytes()
    for content in (data, real[:cut] + data + real[cut : cut + 100], PIECE + data + BPE):
        with contextlib.suppress(BadRequest):
            assert read_sentencepiece(content).tokens


@pytest.mark.parametrize(
    ("normalizer", "reason"),
    [
        (bytes([3 << 3, 0]), "remove_extra_whitespaces"),
        (field(2, b"map") + bytes([4 << 3, 0]), "precompiled_charsmap"),
        (bytes([4 << 3, 0, 5 << 3, 0]), "escape_whitespaces"),
        (bytes([4 << 3, 0]), None),
    ],
)
def test_a_model_that_is_alone_must_not_change_texts(normalizer, reason):
    data = PIECE + BPE + field(3, normalizer)
    if reason is None:
        check_normalizer(data)
        return
    with pytest.raises(BadRequest, match=reason):
        check_normalizer(data)


def test_spaces_that_stand_behind_words_are_refused():
    suffix = field(2, bytes([3 << 3, 2, 24 << 3 & 0x7F | 0x80, 1, 1]))
    with pytest.raises(BadRequest, match="treat_whitespace_as_suffix"):
        check_normalizer(PIECE + suffix + field(3, bytes([4 << 3, 0])))


# ----------------------------------------------------------------- added tokens


def added_of(files, size=1 << 20):
    json_files = read_json_files(files)
    return added_fields(json_files, read_vocabulary(files, json_files), size)


def with_added(name, tmp_path, *tokens, keep=True):
    def change(content):
        content["added_tokens"] = (content["added_tokens"] if keep else []) + list(tokens)

    return changed(files_of(name), "tokenizer.json", tmp_path, change)


def test_added_tokens_that_take_no_spaces_need_no_name():
    for name in ("llama", "llama2", "bert", "phi3"):
        assert added_of(files_of(name)) == {}


def test_the_spaces_after_tokens_go_by_the_name_of_phi(tmp_path):
    def change(content):
        content["added_tokens"].append(
            {"id": 481, "content": "<|endoftext|>", "special": True, "rstrip": False}
        )
        for token in content["added_tokens"]:
            token["rstrip"] = token["content"] not in {"<unk>", "<s>", "<|endoftext|>"}

    files = changed(files_of("phi3"), "tokenizer.json", tmp_path, change)
    assert added_of(files, 488) == {"general.name": "phi-3"}
    with pytest.raises(BadRequest, match='"rstrip" of'):
        added_of(files, 481)  # one of those that llama.cpp looks up is not there


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ({"id": 333, "content": "x" * 257}, "too long for an added token"),
        ({"id": 333, "content": ""}, "too long for an added token"),
        ({"id": 334, "content": "<|new|>"}, "does not fit the learned tokens"),
        ({"id": 333, "content": "t"}, "does not fit the learned tokens"),
        ({"id": 333, "content": "<|new|>", "single_word": True}, "single_word"),
        ({"id": 333, "content": ">abc<|eot_id|"}, "begins with the end of"),
    ],
)
def test_added_tokens_that_cannot_be_found_are_refused(tmp_path, token, reason):
    with pytest.raises(BadRequest, match=reason):
        added_of(with_added("llama", tmp_path, token))
    assert added_of(with_added("llama", tmp_path, token), 333) == {}  # not in the network


def test_many_added_tokens_are_refused_before_they_are_compared(tmp_path):
    tokens = [{"id": 333 + at, "content": f"{at:0256}"} for at in range(1025)]
    with pytest.raises(BadRequest, match="more than 262144 characters"):
        added_of(with_added("llama", tmp_path, *tokens))


def test_two_tokens_of_one_text_are_refused():
    vocabulary = vocabulary_of(files_of("llama"))
    vocabulary.tokens[7].text = vocabulary.tokens[8].text
    with pytest.raises(BadRequest, match="two tokens have the text"):
        vocabulary.fields(100)


def test_an_ordinary_token_that_looks_like_a_mark_is_refused():
    vocabulary = vocabulary_of(files_of("llama"))
    vocabulary.tokens[7].text = "<|im_end|>"
    with pytest.raises(BadRequest, match=r"but special to llama\.cpp"):
        vocabulary.fields(100)


# ----------------------------------------------------------------- special tokens


def with_file(name, tmp_path, file, content):
    path = tmp_path / file
    path.write_text(json.dumps(content))
    return {**files_of(name), file: path}


def test_end_tokens_in_generation_config_only(tmp_path):
    files = with_file(
        "mistral", tmp_path, "generation_config.json", {"eos_token_id": [332, 5, 333]}
    )
    found = special_of(files)
    assert found["ggml.eos_token_id"] == 332
    assert (found["ggml.eot_token_id"], found["ggml.eom_token_id"]) == (5, 333)


def test_end_tokens_that_llama_cpp_recognizes_need_no_key(tmp_path):
    files = with_file("llama", tmp_path, "generation_config.json", {"eos_token_id": [331, 332]})
    found = special_of(files)
    assert found["ggml.eos_token_id"] == 332
    assert "ggml.eot_token_id" not in found


def test_more_ends_than_there_are_keys_are_refused(tmp_path):
    files = with_file("mistral", tmp_path, "generation_config.json", {"eos_token_id": [4, 5, 6]})
    with pytest.raises(BadRequest, match=r'generation_config\.json: "eos_token_id"'):
        special_of(files)


def test_an_end_that_is_put_after_texts_leaves_the_other_an_end(tmp_path):
    template = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "[INST]", "type_id": 0}}],
        "special_tokens": {"[INST]": {"id": "[INST]", "ids": [333], "tokens": ["[INST]"]}},
    }  # fmt: skip
    files = changed(
        files_of("mistral"), "tokenizer.json", tmp_path, lambda c: c.update(post_processor=template)
    )
    files = {**files, "tokenizer_config.json": tmp_path / "settings"}
    (tmp_path / "settings").write_text(json.dumps({"eos_token": "[INST]", "bos_token": "<s>"}))
    assert special_of(files)["ggml.add_eos_token"] is True
    (tmp_path / "settings").write_text(json.dumps({"eos_token": "<s>"}))
    found = special_of(files)
    assert (found["ggml.eos_token_id"], found["ggml.eot_token_id"]) == (333, 331)


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
    config = JsonObject("config.json", {"bos_token_id": 330, "eos_token_id": [331, 332]})
    found = special_of(files, config)
    assert (found["ggml.bos_token_id"], found["ggml.eos_token_id"]) == (330, 331)
    assert "chat_template" not in found
    found = special_of(files, JsonObject("config.json", {"eos_token_id": "no"}))
    assert "ggml.eos_token_id" not in found


def test_the_role_of_a_token_beyond_the_network_is_omitted():
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
        ({"chat_template": {"tool_use": "b", "default": "a"}}, "a"),
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

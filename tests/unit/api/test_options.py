import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api.ollama import parse_keep_alive
from ollama_async.api.options import (
    DEPRECATED,
    OPTIONS,
    STOP_LENGTH_LIMIT,
    STOP_LIMIT,
    OptionOutOfRange,
    WrongOptionType,
    check_parameters,
    merge,
    parse_parameter,
    unknown_parameters,
)
from ollama_async.core.conversation import Sampling


def test_defaults_are_those_of_the_sampling_contract():
    assert merge({}, {}).sampling == Sampling()


def test_a_request_overrides_the_model_key_by_key():
    options = merge({"temperature": 0.1, "top_k": 7, "num_ctx": 100}, {"top_k": 9, "num_ctx": 200})
    assert (options.sampling.temperature, options.sampling.top_k) == (0.1, 9)
    assert (options.load["num_ctx"], options.load["num_gpu"]) == (200, None)
    assert options.load["num_batch"] is None


@pytest.mark.parametrize(
    "option", [{"num_gpu": 0}, {"main_gpu": 1}, {"num_thread": 9}, {"use_mmap": False}]
)
def test_shared_options_are_set_by_the_model_and_not_by_a_request(option):
    [(name, value)] = option.items()
    assert merge(option, {}).load[name] == value
    assert merge({}, option).load[name] is None
    assert merge(option, {name: True if name == "use_mmap" else 7}).load[name] == value
    with pytest.raises(WrongOptionType):
        merge({}, {name: "x"})


def test_a_null_keeps_the_models_value():
    assert merge({"top_k": 7}, {"top_k": None}).sampling.top_k == 7


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"top_k": "1"}, 'option "top_k" must be of type integer'),
        ({"top_k": True}, 'option "top_k" must be of type integer'),
        ({"temperature": "0.5"}, 'option "temperature" must be of type float32'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
    ],
)
def test_wrong_types_have_ollamas_error_texts(params, text):
    with pytest.raises(WrongOptionType) as caught:
        check_parameters(params)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_p": math.inf},
        {"num_ctx": -1},
        {"num_ctx": 10**12},
        {"num_batch": 0},
        {"repeat_penalty": 0},
        {"repeat_last_n": -2},
        {"mirostat": 3},
        {"mirostat_tau": -1},
        {"mirostat_eta": math.nan},
        {"seed": 2**63},
        {"stop": ["x"] * (STOP_LIMIT + 1)},
        {"stop": ["", "x" * STOP_LENGTH_LIMIT, "y"]},
    ],
)
def test_values_out_of_range_are_refused(params):
    (name,) = params
    with pytest.raises(OptionOutOfRange, match=f'option "{name}"'):
        check_parameters(params)


def test_fractions_of_integers_are_cut_off():
    assert check_parameters({"top_k": 40.9, "seed": -1.5}) == {"top_k": 40, "seed": -1}


def test_unknown_names_are_ignored_but_reported():
    params = {"miros": 1, "top_k": 1, "x": "y"}
    assert check_parameters(params) == {"top_k": 1}
    assert unknown_parameters(params) == ["miros", "x"]


@pytest.mark.parametrize("name", sorted(DEPRECATED))
@pytest.mark.parametrize("value", [1, "no number", None, {"a": []}])
def test_options_of_the_past_are_accepted_whatever_their_values(name, value):
    assert check_parameters({name: value}) == {}
    assert unknown_parameters({name: value}) == []
    assert parse_parameter(name, [str(value)]) is None
    assert merge({name: value}, {name: value}) == merge({}, {})


def test_mirostat_is_an_option_again():
    sampling = merge({"mirostat": 1, "mirostat_tau": 3}, {"mirostat": 2}).sampling
    assert (sampling.mirostat, sampling.mirostat_tau, sampling.mirostat_eta) == (2, 3.0, 0.1)
    assert merge({}, {}).sampling.mirostat == 0


def test_empty_stop_strings_are_dropped():
    assert merge({}, {"stop": ["", "a"]}).sampling.stop == ["a"]


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_seed_becomes_one_that_a_sampler_takes(seed):
    chosen = merge({}, {"seed": seed}).sampling.seed
    assert (chosen == -1) if seed < 0 else (0 <= chosen < 2**32 - 1)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())


@given(st.dictionaries(st.sampled_from([option.name for option in OPTIONS]), VALUES))
def test_any_options_are_either_refused_or_usable(params):
    try:
        options = merge({}, params)
    except (WrongOptionType, OptionOutOfRange):
        return
    assert all(isinstance(text, str) for text in options.sampling.stop)
    json.dumps(check_parameters(params), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "values", "typed"),
    [
        ("top_k", ["7"], 7),
        ("temperature", [".5"], 0.5),
        ("temperature", ["1", "2"], 2.0),
        ("use_mmap", ["F"], False),
        ("stop", ["a", "b"], ["a", "b"]),
        ("mirostat", ["1"], 1),
        ("tfs_z", ["1"], None),
    ],
)
def test_text_is_typed_by_the_table(name, values, typed):
    assert parse_parameter(name, values) == typed


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("top_k", "abc", "invalid int value [abc]"),
        ("top_k", "1.5", "invalid int value [1.5]"),
        ("temperature", "nan", "invalid float value [nan]"),
        ("use_mmap", "x", "invalid bool value [x]"),
        ("nope", "1", "unknown parameter 'nope'"),
    ],
)
def test_text_of_a_wrong_type_has_ollamas_error_text(name, value, text):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_parameter(name, [value])
    assert str(caught.value) == text


def test_deprecated_names_are_not_options():
    assert not DEPRECATED & {option.name for option in OPTIONS}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), (0, 0.0), (5, 5.0), (0.5, 0.5), (-1, math.inf), (1e300, math.inf),
     ("5m", 300.0), ("1h30m", 5400.0), ("300ms", 0.3), ("0", 0.0), ("-1s", math.inf)],
)  # fmt: skip
def test_keep_alive_is_seconds_or_a_go_duration(value, seconds):
    assert parse_keep_alive(value) == seconds

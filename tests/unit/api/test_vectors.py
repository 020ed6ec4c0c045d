"""Vectors as clients read them, compared with numpy."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api import vectors
from tests.growth import cost

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, min_size=1))
def test_numbers_have_the_fewest_digits(numbers):
    values = np.array(numbers, np.float32)
    assert vectors.shortest(values).tolist() == [float(str(value)) for value in values]


def test_random_and_special_numbers_have_the_fewest_digits():
    random = np.random.default_rng(0)
    patterns = random.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    powers = np.concatenate([2.0 ** np.arange(-149, 128), 10.0 ** np.arange(-45, 39)])
    near_one = random.standard_normal(20_000) / 20
    values = np.concatenate([patterns[np.isfinite(patterns)], powers, -near_one]).astype(np.float32)
    values = np.concatenate([values, np.nextafter(values, np.float32(0))])
    assert vectors.shortest(values).tolist() == [float(str(value)) for value in values]


def test_zero_keeps_its_sign():
    shown = vectors.json_float32(np.array([[0.0, -0.0]], np.float32))
    assert shown == [b"[0.0,-0.0]"]


def test_the_forms_of_a_row():
    matrix = np.array([[0.1, -2.5], [1e-7, 3]], np.float32)
    assert vectors.json_float32(matrix) == [b"[0.1,-2.5]", b"[1e-7,3.0]"]
    assert vectors.json_float64(matrix)[0] == b"[0.10000000149011612,-2.5]"
    assert [json.loads(row) for row in vectors.json_base64(matrix)] == [
        base64.b64encode(row.tobytes()).decode() for row in matrix
    ]


@given(st.integers(1, 40), st.integers(1, 70), st.integers(-3, 80))
def test_rows_are_normalised_cut_and_normalised_again(count, width, dimensions):
    given = np.random.default_rng(count).standard_normal((count, width)).astype(np.float32)
    matrices = vectors.matrices([row.tobytes() for row in given], dimensions, is_normalized=True)
    kept = dimensions if 0 < dimensions < width else width
    expected = given[:, :kept] / np.linalg.norm(given[:, :kept], axis=1, keepdims=True)
    np.testing.assert_allclose(np.concatenate(list(matrices)), expected, rtol=1e-5, atol=1e-7)


def test_many_vectors_come_in_small_matrices():
    width = 1000
    given = [np.full(width, index, "<f4").tobytes() for index in range(100)]
    matrices = list(vectors.matrices(given, is_normalized=False))
    assert max(matrix.size for matrix in matrices) <= vectors.GROUP_FLOATS
    assert np.concatenate(matrices)[:, 0].tolist() == list(range(100))


def test_a_vector_longer_than_a_group_is_a_matrix_of_its_own():
    given = [bytes(4 * (vectors.GROUP_FLOATS + 1))] * 2
    assert [len(matrix) for matrix in vectors.matrices(given, is_normalized=False)] == [1, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 7, 99])
def test_the_vector_that_is_not_finite_is_named(bad, at):
    given = np.ones((100, 300), "<f4")
    given[at, 299] = bad
    with pytest.raises(vectors.NotFinite) as caught:
        list(vectors.matrices([row.tobytes() for row in given], is_normalized=True))
    assert caught.value.index == at


def test_a_tiny_vector_is_normalised_with_the_least_norm():
    (matrix,) = vectors.matrices([np.array([1e-20], "<f4").tobytes()], is_normalized=True)
    np.testing.assert_allclose(matrix, [[1e-8]], rtol=1e-5)


@pytest.mark.slow
def test_the_shortest_form_costs_a_fraction_of_pythons():
    """Less than ``str`` alone takes."""
    matrix = np.random.default_rng(0).standard_normal((256, 384)).astype(np.float32)
    numbers = matrix.ravel().tolist()
    pythons = cost(lambda: list(map(str, numbers)), 0)
    assert cost(lambda: vectors.json_float32(matrix), pythons) < pythons

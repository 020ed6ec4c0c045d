"""Vectors of float32 numbers as clients read them: normalised and cut; in JSON, or in base64.

A client reads a number of JSON as float64, so it is written with the fewest digits that give the
same float32: 0.1, not 0.10000000149011612. ``str`` needs 0.4 µs to find these for one number;
:func:`shortest` needs a tenth of that, since it works on arrays.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ollama_async.api.encode import to_json

Floats = NDArray[np.float32]
Encoding = Callable[[Floats], list[bytes]]
"""Writes each row of a matrix as a JSON value."""

GROUP_FLOATS = 8192
"""Numbers that are processed by one call into numpy, which takes some 0.1 ms."""

NOT_FINITE_TEXT = "embedding contains NaN or Inf values"
"""Ollama's."""

_LEAST_NORM = 1e-12
_MOST_DIGITS = 9  # each float32 can be told from the others by these
_SAFE_DIGITS = 6  # fewer digits are found with these, since the others are zeros
_POWERS_OF_TEN = 10.0 ** np.arange(23)  # all that float64 represents exactly


class NotFinite(ValueError):
    """A number of the vector at ``index`` is NaN or infinite."""

    def __init__(self, index: int) -> None:
        super().__init__(NOT_FINITE_TEXT)
        self.index = index


def matrices(
    vectors: Sequence[bytes], dimensions: int = 0, *, is_normalized: bool
) -> Iterator[Floats]:
    """The ``vectors``, little-endian and of one length, as the rows of some matrices.

    If ``is_normalized``, each has the L2 norm 1, also after it is cut to ``dimensions``; 0 or more
    dimensions than there are: all of them.

    :raises NotFinite: at the first that is not finite.
    """
    width = len(vectors[0]) // 4 if vectors else 1
    step = max(GROUP_FLOATS // width, 1)
    for start in range(0, len(vectors), step):
        matrix = np.frombuffer(b"".join(vectors[start : start + step]), "<f4").reshape(-1, width)
        finite = np.isfinite(matrix).all(axis=1)
        if not finite.all():
            raise NotFinite(start + int(np.argmin(finite)))
        if is_normalized:
            matrix = normalized(matrix)
            if 0 < dimensions < width:
                matrix = normalized(matrix[:, :dimensions])
        yield matrix


def normalized(matrix: Floats) -> Floats:
    """Each row of finite numbers with the L2 norm 1; a row of zeros stays. Squares are added as
    float64, where they cannot overflow.
    """
    norms = np.sqrt(np.square(matrix, dtype=np.float64).sum(axis=1, keepdims=True))
    rows: Floats = (matrix / np.maximum(norms, _LEAST_NORM)).astype(np.float32)
    return rows


def json_float32(matrix: Floats) -> list[bytes]:
    """Lists of numbers, each in its shortest form."""
    return [to_json(row) for row in shortest(matrix).tolist()]


def json_float64(matrix: Floats) -> list[bytes]:
    """Lists of numbers, each with all digits of the float64 that it equals."""
    return [to_json(row) for row in matrix.astype(np.float64).tolist()]


def json_base64(matrix: Floats) -> list[bytes]:
    """Strings of base64 of the little-endian bytes."""
    return [
        b'"%b"' % binascii.b2a_base64(row.astype("<f4").tobytes(), newline=False) for row in matrix
    ]


def shortest(values: Floats) -> NDArray[np.float64]:
    """For each finite number the float64 that JSON writes with the fewest digits of all that become
    this float32.
    """
    exact = values.astype(np.float64)
    exponents = np.log10(np.abs(exact), where=exact != 0, out=np.zeros_like(exact))
    powers = (_MOST_DIGITS - 1) - np.floor(exponents).astype(np.int64)
    is_far = (powers < _MOST_DIGITS - _SAFE_DIGITS) | (powers >= len(_POWERS_OF_TEN))
    powers[is_far] = _MOST_DIGITS
    found = exact
    for dropped in range(_MOST_DIGITS - _SAFE_DIGITS + 1):
        scale = _POWERS_OF_TEN[powers - dropped]
        rounded = np.rint(exact * scale) / scale
        found = np.where(rounded.astype(np.float32) == values, rounded, found)
    if is_far.any():
        found[is_far] = [float(str(value)) for value in values[is_far]]
    return found

"""Where the library puts the pieces of images in a slot, and what comes after them."""

import numpy as np

from ollama_async.workers.child.engines.engine import SpanEmbeddings
from ollama_async.workers.child.engines.llama_batch import SlotPositions, SpanBatch


def test_positions_fall_behind_after_pieces_with_fewer():
    """An image of 300 tokens takes 20 positions, and one of 7 takes 3."""
    positions = SlotPositions()
    positions.skip(305, 280)
    positions.skip(320, 4)
    positions.skip(330, 0)
    assert [positions.of(index) for index in (5, 304, 305, 319, 320, 400)] == [
        5,
        304,
        25,
        39,
        36,
        116,
    ]

    other = SlotPositions()
    other.copy(positions)
    other.trim(310)
    assert [other.of(index) for index in (304, 305, 320)] == [304, 25, 40]
    other.trim(0)
    assert other.of(320) == 320
    assert positions.of(320) == 36


def test_a_part_of_a_piece_is_placed_where_it_belongs():
    """The grid of an image of 2 by 3, in one dimension by its number and in two by its place."""
    offsets = np.array([[0] * 6, [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1], [0] * 6], np.int32)
    piece = SpanEmbeddings(
        np.arange(12, dtype=np.float32).reshape(6, 2), 3, True, offsets, np.ones((4, 6), np.int32)
    )
    whole = SpanBatch(piece, slice(0, 6), 50, 1)._positions

    for begin, size in ((0, 4), (4, 2), (1, 3)):
        part = piece.part(begin, size)
        batch = SpanBatch(part, slice(0, size), 50 + begin, 1)
        assert np.array_equal(batch._positions, whole[:, begin : begin + size])
        assert np.array_equal(batch._vectors, piece.vectors[begin : begin + size])
    assert [piece.part(0, 4).positions, piece.part(4, 2).positions] == [4, -1]

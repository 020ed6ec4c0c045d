"""Pieces of a long text have the special tokens that the library finds in the whole."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from ollama_async.workers.child.engines import text_cutter
from ollama_async.workers.child.engines.text_cutter import TextCutter
from tests.growth import is_linear

BEFORE, AFTER = 1, 2
"""What a token removes the white space of."""


def fragments(data: bytes, special: dict[bytes, int]) -> list[tuple[bool, bytes]]:
    """As the library splits a text: by each special token, the longest first. True: a token."""
    found = [(False, data)]
    for token in sorted(special, key=len, reverse=True):
        found = [
            part
            for is_token, text in found
            for part in ([(True, text)] if is_token else _split(text, token, special[token]))
        ]
    return [part for part in found if part[1]]


def _split(text: bytes, token: bytes, strips: int) -> Iterator[tuple[bool, bytes]]:
    while (at := text.find(token)) >= 0:
        left, text = text[:at], text[at + len(token) :]
        yield False, left.rstrip() if strips & BEFORE else left
        yield True, token
        text = text.lstrip() if strips & AFTER else text
    yield False, text


def cut(data: bytes, special: dict[bytes, int]) -> list[bytes]:
    cutter = TextCutter(
        {token: bool(strips & BEFORE) for token, strips in special.items()},
        strips_after=any(strips & AFTER for strips in special.values()),
    )
    return [*cutter.pieces(data)]


SPECIAL = st.dictionaries(
    st.text("ab< \n", min_size=1, max_size=5).map(str.encode), st.integers(0, 3), max_size=5
)


@given(SPECIAL, st.data())
def test_pieces_are_split_like_the_whole(special, data):
    parts = st.sampled_from(["a", "b", "<", " ", "\n", *(token.decode() for token in special)])
    text = "".join(data.draw(st.lists(parts, max_size=60))).encode()
    before, text_cutter.PIECE_TOKENS = text_cutter.PIECE_TOKENS, 2
    try:
        pieces = cut(text, special)
    finally:
        text_cutter.PIECE_TOKENS = before
    assert b"".join(pieces) == text
    assert [part for piece in pieces for part in fragments(piece, special)] == fragments(
        text, special
    )


def test_a_text_full_of_special_tokens_becomes_short_pieces():
    for repeated in (b"<|im_start|>", b"\n<|im_start|>x", b"x\n\n", b"<|im_end|>\n<|im_start|>"):
        special = {b"<|im_start|>": 0, b"<|im_end|>": 0, b"\n\n": 0}
        pieces = cut(repeated * 10_000, special)
        assert max(map(len, pieces)) < 3 * text_cutter.PIECE_TOKENS * len(repeated)


def test_a_text_without_special_tokens_is_one_piece():
    assert cut(b"<|im_" * 1000, {b"<|im_start|>": 0}) == [b"<|im_" * 1000]
    assert cut(b"anything", {}) == [b"anything"]
    assert cut(b"", {b"": 0}) == [b""]


def test_the_time_is_linear():
    def prepare(size):
        return lambda: cut(b"<|a|>\n<|ab" * size, {b"<|a|>": 0, b"<|abc": 0, b"\n<|ab": 0})

    assert is_linear(prepare, 300)

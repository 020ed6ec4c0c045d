import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed.tokenizer import CLS, SEP, SPECIAL, UNKNOWN, WordPiece, words

LETTERS = "abc"
PIECES = WordPiece([*SPECIAL, "▁", "▁a", "▁ab", "a", "b", "c", "bc", "▁你", "!"])


def cut(text):
    return [PIECES.pieces[token] for token in PIECES.encode(text, 100)[1:-1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Hello,\tworld!\n", ["hello", ",", "world", "!"]),
        ("Café Ångström", ["cafe", "angstrom"]),
        ("你好 ok", ["你", "好", "ok"]),
        ("1+1=2", ["1", "+", "1", "=", "2"]),
        ("5€", ["5€"]),
        ("a\u200bb\x00c", ["abc"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", ["▁ab", "c"]),
        ("acbc", ["▁a", "c", "bc"]),
        ("cab", ["▁", "c", "a", "b"]),
        ("!", ["▁", "!"]),
        ("你a", ["▁你", "▁a"]),
        ("abz a", ["[UNK]", "▁a"]),
    ],
)
def test_the_longest_piece_is_taken_first(text, expected):
    assert cut(text) == expected


@given(st.text(LETTERS, min_size=1))
def test_pieces_make_up_the_word(word):
    assert "".join(cut(word)) == "▁" + word


@given(st.text(), st.integers(2, 20))
def test_any_text_has_its_marks_and_keeps_the_limit(text, limit):
    tokens = PIECES.encode(text, limit)

    assert (tokens[0], tokens[-1]) == (CLS, SEP)
    assert len(tokens) <= limit
    assert all(UNKNOWN <= token < len(PIECES.pieces) for token in tokens)

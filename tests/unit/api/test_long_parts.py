"""Long answers, encoded piece by piece, are what they would be in one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api import encode
from ollama_async.api.encode import LongParts
from ollama_async.core.errors import ServerError

UNLIMITED = 1 << 30
VALUES = st.one_of(st.text(), st.integers(-9, 9), st.lists(st.text()), st.lists(st.floats(0, 1)))


class Answer(msgspec.Struct, omit_defaults=True):
    text: str = ""
    facts: dict[str, Any] = {}
    number: int = 7


@given(st.lists(st.text()), st.dictionaries(st.text(), VALUES), st.integers(1, 5))
def test_an_answer_in_pieces_is_the_same(texts: list[str], facts: dict[str, Any], n: int) -> None:
    long = LongParts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "LONG_TEXT_CHARACTERS", n)
        patch.setattr(encode, "GROUP_SIZE", n)
        answer = Answer(
            text=" ".join(long.text(text) for text in texts),
            facts={key: long.value(value) for key, value in facts.items()},
        )
        whole = long.to_json(answer, UNLIMITED)
    assert whole == encode.to_json(Answer(text=" ".join(texts), facts=facts))


@given(st.lists(VALUES))
def test_a_list_that_is_written_item_by_item_is_the_same(values: list[Any]) -> None:
    long = LongParts()
    items = encode.list_pieces(encode.to_json(value) for value in values)
    whole = long.to_json(Answer(facts={"values": long.encoded(items)}), UNLIMITED)
    assert whole == encode.to_json(Answer(facts={"values": values}))


@pytest.mark.parametrize("others", [0, 1])
def test_a_part_may_be_in_an_answer_twice(others: int) -> None:
    long = LongParts()
    text = "x" * (encode.LONG_TEXT_CHARACTERS + 1)
    shown = long.text(text)
    rest = [long.text(text) for _ in range(others)]
    whole = long.to_json({"one": shown, "two": f"{shown}{shown}", "rest": rest}, UNLIMITED)
    expected = {"one": text, "two": text + text, "rest": [text] * others}
    assert whole == encode.to_json(expected)


def test_no_call_encodes_more_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    to_json = encode.to_json

    def measured(value: object) -> bytes:
        encoded = to_json(value)
        sizes.append(len(encoded))
        return encoded

    monkeypatch.setattr(encode, "to_json", measured)
    long = LongParts()
    text = "\x01" * (1 << 20)
    texts = "".join(long.text(text) for _ in range(3))
    facts = {"words": long.value([text, *["word"] * 100_000])}
    assert len(long.to_json(Answer(texts, facts), UNLIMITED)) > 4 * 6 << 20
    assert max(sizes) < 6 * encode.LONG_TEXT_CHARACTERS + 100


def test_an_answer_over_the_limit_fails_before_it_is_complete() -> None:
    long = LongParts()
    answer = Answer("".join(long.text("\x01" * (1 << 20)) for _ in range(3)))
    with pytest.raises(ServerError, match="over the limit of 1000000 bytes"):
        long.to_json(answer, 1_000_000)

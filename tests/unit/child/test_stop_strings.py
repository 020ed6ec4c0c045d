"""Stop strings and characters, against brute force."""

from hypothesis import example, given
from hypothesis import strategies as st

from ollama_async.workers.child.sequence import StopStringFinder, Utf8Decoder

letters = st.text("abc", max_size=20)
stop_strings = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4)


def cut(text, draw):
    """``text`` in pieces, empty ones included."""
    marks = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *marks], [*marks, len(text)], strict=True)]


def truth(text, stops):
    """The text before the stop string that is complete first, and whether there is one."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(letters, stop_strings, st.data())
@example("aab", ["ab"], None)
def test_the_answer_ends_before_the_first_complete_stop_however_it_arrives(text, stops, data):
    pieces = cut(text, data.draw) if data else list(text)
    finder = StopStringFinder(stops)
    delivered = ""
    seen = ""
    for piece in pieces:
        seen += piece
        delivered += finder.feed(piece)
        assert seen.startswith(delivered)
        if finder.found:
            break
        held = seen[len(delivered) :]
        assert not held or any(stop.startswith(held) for stop in stops)
        longer = [seen[start:] for start in range(len(delivered))]
        assert not any(stop.startswith(rest) for stop in stops for rest in longer if rest)
    else:
        delivered += finder.flush()

    assert (delivered, bool(finder.found)) == truth(text, stops)


def test_text_without_a_beginning_of_a_stop_passes_at_once():
    finder = StopStringFinder(["]-^", "\\"])

    assert finder.feed("abc") == "abc"
    assert finder.feed("x]") == "x"
    assert finder.feed("y") == "]y"
    assert finder.feed("z\\") == "z"
    assert finder.found


def test_a_hostile_stop_string_does_not_slow_the_answer_down():
    finder = StopStringFinder(["a" * 50_000 + "b"])

    delivered = "".join(finder.feed("a" * 100) for _ in range(1_000))

    assert delivered == "a" * 50_000
    assert finder.flush() == "a" * 50_000


@given(st.binary(max_size=20) | st.text(max_size=10).map(str.encode), st.data())
def test_bytes_become_the_same_characters_however_they_arrive(data, draw):
    for pieces in (cut(data, draw.draw), [data[i : i + 1] for i in range(len(data))]):
        characters = Utf8Decoder()
        text = "".join([*map(characters.feed, pieces), characters.flush()])

        assert text == data.decode(errors="replace")


def test_no_character_is_split():
    characters = Utf8Decoder()

    assert [characters.feed(bytes([byte])) for byte in "a😀é".encode()] == [
        "a", "", "", "", "😀", "", "é"
    ]  # fmt: skip
    assert characters.flush() == ""

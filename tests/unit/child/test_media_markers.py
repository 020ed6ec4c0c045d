"""Where images are in a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.conversation import Message
from ollama_async.workers.child import media_markers
from ollama_async.workers.child.media_markers import mark, mark_raw, show, split


def shown(text, images):
    """With the numbers of the markers."""
    (message,) = mark([Message("user", text, images=[b""] * images)])
    return "".join(
        f"<{part}>" if isinstance(part, int) else part for part in split(message.content)
    )


@pytest.mark.parametrize(
    ("text", "images", "expected"),
    [
        ("what is this", 0, "what is this"),
        ("what is this", 2, "<0><1>what is this"),
        ("", 1, "<0>"),
        ("a [img] b [img] c", 2, "a <0> b <1> c"),
        ("a [img] b [img] c", 1, "a <0> b [img] c"),
        ("a [img] b", 3, "<1><2>a <0> b"),
        ("a [img-0] b", 1, "<0>a [img-0] b"),
        ("[img][img]", 2, "<0><1>"),
    ],
)
def test_images_go_to_their_placeholders_or_in_front(text, images, expected):
    assert shown(text, images) == expected


def test_images_are_numbered_through_the_conversation():
    marked = mark(
        [
            Message("user", "a [img]", images=[b"1", b"2"]),
            Message("assistant", "b [img]"),
            Message("tool", "c", images=[b"3"]),
        ]
    )
    assert [[part for part in split(each.content) if isinstance(part, int)] for each in marked] == [
        [1, 0],
        [],
        [2],
    ]
    assert [len(each.images) for each in marked] == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "images", "expected"),
    [
        ("a [img-1] b [img-0]", 2, ["a ", 1, " b ", 0, ""]),
        ("a [img-1] b [img]", 2, ["a ", 1, " b ", 0, ""]),
        ("a [img-0] b [img-0]", 1, ["a ", 0, " b ", 0, ""]),
        ("a [img-7] b", 1, ["", 0, "a [img-7] b"]),
        ("a [img-99999999999999]", 1, ["", 0, "a [img-99999999999999]"]),
    ],
)
def test_a_raw_prompt_names_its_images(text, images, expected):
    assert list(split(mark_raw(text, images, 9))) == expected


def test_a_shown_prompt_has_the_placeholders_of_ollama():
    (message,) = mark([Message("user", "a [img] b", images=[b"1", b"2"])])
    assert show(message.content) == "[img-0]a [img-1] b"


@given(st.text(alphabet="[img-0123456789abcdef]<>", max_size=80))
def test_no_text_of_a_client_is_a_marker(text):
    assert list(split(text)) == [text]
    assert [part for part in split(mark_raw(text, 1, 9)) if isinstance(part, int)][:1] == [0]


def test_the_secret_is_long_enough_not_to_be_guessed():
    assert len(media_markers._SECRET) == 32

"""How answers are printed and wrapped."""

import io
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import get_character_cell_size

from ollama_async.cli.answer_printer import MARGIN, AnswerPrinter, WordWrapper, print_answer
from ollama_async.cli.client import CommandFailed


def screen(written: str) -> list[str]:
    """What a terminal shows: we write only text, line ends, and 'back' + 'erase to the end'."""
    rows = [""]
    for back, erase, text in re.findall(r"\x1b\[(\d+)D|(\x1b\[K)|([^\x1b])", written, re.DOTALL):
        if back:
            cells = int(back)
            while cells > 0:
                cells -= get_character_cell_size(rows[-1][-1])
                rows[-1] = rows[-1][:-1]
        elif text == "\n":
            rows.append("")
        elif not erase:
            rows[-1] += text
    return rows


def test_a_word_that_crosses_the_edge_moves_to_the_next_line():
    wrapper = WordWrapper(10 + MARGIN)
    written = "".join(map(wrapper.feed, ["The quick", " brown fo", "x jumps"]))
    assert screen(written) == ["The quick ", "brown fox ", "jumps"]


TEXT = st.text(st.sampled_from("ab é\u6f22 \n\u0301"), max_size=80)


@given(TEXT, st.integers(6, 30), st.lists(st.integers(0, 80), max_size=5))
def test_wrapping_keeps_the_text_and_the_margin_however_it_arrives(text, columns, cuts):
    wrapper = WordWrapper(columns)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(edges)]
    rows = screen("".join(map(wrapper.feed, pieces)))
    limit = max(columns - MARGIN, 2)
    assert all(sum(map(get_character_cell_size, row)) <= limit for row in rows)
    assert re.sub(r"\s", "", "".join(rows)) == re.sub(r"\s", "", text)


def test_thinking_is_set_apart():
    stream = io.StringIO()
    printer = AnswerPrinter(wrap=True, hide_thinking=False, stream=stream)
    objects = [{"response": "", "thinking": "hm"}, {"response": "yes"}, {"done": True}]
    assert print_answer(objects, printer) == {"done": True}
    assert stream.getvalue() == "Thinking...\nhm\n...done thinking.\n\nyes"
    assert (printer.content, printer.thinking) == ("yes", "hm")


def test_the_end_of_the_grey_takes_no_room_on_the_line(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    row = "a row that just fits"
    monkeypatch.setenv("COLUMNS", str(MARGIN + len(row)))
    stream = Terminal()
    printer = AnswerPrinter(wrap=True, hide_thinking=False, stream=stream)
    printer.add("", "hm")
    printer.add(row, "")
    assert stream.getvalue() == f"\x1b[90mThinking...\nhm\n...done thinking.\n\n\x1b[0m{row}"


def test_thinking_can_be_hidden():
    stream = io.StringIO()
    message = {"content": "yes", "thinking": "hm"}
    printer = AnswerPrinter(wrap=True, hide_thinking=True, stream=stream)
    print_answer([{"message": message, "done": True}], printer)
    assert stream.getvalue() == "yes"


def test_an_answer_that_breaks_off_is_an_error():
    printer = AnswerPrinter(wrap=False, hide_thinking=False, stream=io.StringIO())
    with pytest.raises(CommandFailed, match="cut off"):
        print_answer([{"response": "ye"}], printer)

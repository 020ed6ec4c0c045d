"""Files of questions are read exactly or refused with file and line, and their split holds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.families import Malformed, conversation, expand, families, plain, read

SKY = "= sky.blue\n? Why is the sky blue?\n! It scatters.\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rows").mkdir()
    return tmp_path


def write(folder, text, name="a.txt"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_family_is_read_with_its_directives(folder):
    write(
        folder,
        "# a comment\n\n= sky.mie\nafter: sky.blue\nsystem: Be brief.\nsystem: Be kind.\n"
        "think: Droplets: large.\n? And Mie?\n? what about {|the} mie\n! First.\\nSecond.\n" + SKY,
    )
    family = read(folder)["sky.mie"]
    assert family.wordings == ("And Mie?", "what about {|the} mie")
    assert family.answer == "First.\nSecond."
    assert family.systems == ("Be brief.", "Be kind.")
    assert (family.after, family.think) == ("sky.blue", "Droplets: large.")
    assert not family.of_table


def test_families_of_all_files_are_read_in_order(folder):
    write(folder, "= b.two\n? Two\n! 2\n", "2.txt")
    write(folder, SKY, "1.txt")
    assert list(read(folder)) == ["sky.blue", "b.two"]


def test_each_row_of_a_table_makes_a_family(folder):
    write(folder / "rows", "# country | capital\nFrance | Paris\n\nSouth Korea | Seoul\n", "c.txt")
    write(
        folder, "= capital\nrows: c\nthink: It is [2].\n? Capital of [1]?\n! [2] is in [1]. [x]\n"
    )
    known = read(folder)
    assert list(known) == ["capital.france", "capital.south-korea"]
    seoul = known["capital.south-korea"]
    assert seoul.trained == (("Capital of South Korea?",),)
    assert seoul.answer == "Seoul is in South Korea. [x]"
    assert seoul.think == "It is Seoul."
    assert seoul.of_table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SKY + SKY, "a.txt:4: family sky.blue is also at a.txt:1"),
        ("? Why?\n", "a.txt:1: no family has begun"),
        ("= Sky Blue\n? Why?\n! So.\n", "a.txt:1: 'Sky Blue' is no name"),
        ("= a.b\n! So.\n", "a.txt:1: a.b has no wording"),
        ("= a.b\n? Why?\n" + SKY, "a.txt:1: a.b has no answer"),
        ("= a.b\n? Why?\n!\n", "a.txt:3: the answer of a.b is empty"),
        ("= a.b\n? Why?\n! So.\n? How?\n", "a.txt:4: nothing may come after the answer"),
        ("= a.b\n? Why?\n! So.\n! No.\n", "a.txt:4: nothing may come after the answer"),
        ("= a.b\n? Why?\n? is {a|{b|c}}\n! So.\n", "a.txt:3: braces are nested or do not match"),
        ("= a.b\n? Why?\n? is {a|b\n! So.\n", "a.txt:3: braces are nested or do not match"),
        ("= a.b\n? {Why|How}?\n! So.\n", "a.txt:2: the first wording of a.b has alternatives"),
        ("= a.b\n? Why?\n? {|really}\n! So.\n", "a.txt:3: a wording is empty"),
        ("= a.b\n?\n! So.\n", "a.txt:2: a wording is empty"),
        ("= a.b\nWhy?\n", "a.txt:2: a line starts with"),
        ("= a.b\nmood: good\n? Why?\n! So.\n", "a.txt:2: a line starts with"),
        ("= a.b\n? Why?\nthink: hm\n! So.\n", "a.txt:3: think comes before the first wording"),
        ("= a.b\nthink: a\nthink: b\n? Why?\n! So.\n", "a.txt:3: think is there twice or empty"),
        ("= a.b\nsystem:\n? Why?\n! So.\n", "a.txt:2: system is there twice or empty"),
        ("= a.b\nafter: a.c\n? Why?\n! So.\n", "a.txt:1: a.b is after a.c, which does not exist"),
        ("= a.b\nafter: a.b\n? Why?\n! So.\n", "a.txt:1: a.b comes after itself"),
        ("= a\nrows: none\n? Why?\n! So.\n", "a.txt:1: there is no rows/none.txt"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_line(folder, text, message):
    with pytest.raises(Malformed) as refused:
        read(write(folder, text))
    assert str(refused.value).startswith(message)


def test_a_row_with_too_few_columns_is_refused(folder):
    write(folder / "rows", "France | Paris\nSpain\n", "c.txt")
    write(folder, "= capital\nrows: c\n? Capital of [1]?\n! [2].\n")
    with pytest.raises(Malformed, match=r"^c\.txt:2: a\.txt:1 wants more columns"):
        read(folder)


def test_families_that_follow_each_other_in_a_circle_are_refused(folder):
    write(folder, "= a.b\nafter: a.c\n? B\n! b\n= a.c\nafter: a.b\n? C\n! c\n")
    with pytest.raises(Malformed, match="comes after itself"):
        read(folder)


def test_a_conversation_begins_with_what_is_asked_first(folder):
    write(folder, SKY + "= a.b\nafter: sky.blue\n? B\n! b\n= a.c\nafter: a.b\n? C\n! c\n")
    known = read(folder)
    names = [family.name for family in conversation(known["a.c"], known)]
    assert names == ["sky.blue", "a.b", "a.c"]


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("why", ["why"]),
        ("{why|how} so", ["why so", "how so"]),
        ("is it {|so} blue {|now} ?", ["is it blue?", "is it so blue?", "is it blue now?"]),
        ("{a|a} b", ["a b"]),
    ],
)
def test_a_line_expands_to_its_combinations(line, texts):
    assert expand(line)[: len(texts)] == texts


WORD = st.text(st.characters(codec="utf-8", exclude_characters="{}|"), max_size=8)


@given(st.lists(st.one_of(WORD, st.lists(WORD, min_size=1, max_size=7)), max_size=6))
def test_expansions_are_few_distinct_and_always_the_same(parts):
    line = "".join(part if isinstance(part, str) else "{" + "|".join(part) + "}" for part in parts)
    texts = expand(line)
    assert 1 <= len(texts) <= 400
    assert len(set(texts)) == len(texts)
    assert expand(line) == texts


@given(st.text(alphabet="=?!#:{}|[]1ab \n", max_size=120))
@settings(deadline=None)  # the disk may be busy
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    folder = write(tmp_path_factory.mktemp("questions"), text)
    try:
        known = read(folder)
    except Malformed:
        return
    assert all(family.answer and family.trained for family in known.values())


@pytest.mark.parametrize(
    "text", ["why is it", "Why is it?", "WHY IS IT!!", "Hi! please why is it", "why is it, please?"]
)
def test_case_marks_and_politeness_leave_a_wording_the_same(text):
    assert plain(text) == "why is it"


def test_a_greeting_alone_is_a_wording():
    assert plain("Hi!") == "hi"


def test_the_split_of_a_family_does_not_depend_on_the_others(folder):
    text = "= a.b\n? A?\n? {b|c|d|e|f} {1|2|3|4|5}\n? x {b|c|d}\n? y {b|c|d}\n? z {b|c}\n! So.\n"
    alone = read(write(folder, text))["a.b"]
    assert read(write(folder, SKY + text))["a.b"] == alone
    assert alone.held_out_paraphrases
    assert alone.trained[0] == ("A?",)


def test_the_split_stays_as_it_was_measured():
    """Another hash would make every number in the model card meaningless."""
    sky = families()["docs.sky-blue"]
    assert "why does the sky appear blue to us" in sky.held_out_paraphrases


def test_nothing_held_out_is_trained_in_another_spelling():
    for family in families().values():
        trained = {plain(text) for line in family.trained for text in line}
        paraphrases = {plain(text) for text in family.held_out_paraphrases}
        wordings = {plain(text) for text in family.held_out_wordings}
        assert not trained & paraphrases, family.name
        assert not trained & wordings, family.name
        assert not paraphrases & wordings, family.name


def test_about_a_fifth_is_held_out():
    known = families().values()
    lines = sum(len(family.wordings) for family in known)
    trained_lines = sum(len(family.trained) for family in known)
    assert 0.15 < 1 - trained_lines / lines < 0.25
    paraphrases = sum(len(family.held_out_paraphrases) for family in known)
    trained = sum(len(line) for family in known for line in family.trained)
    assert 0.15 < paraphrases / (paraphrases + trained) < 0.25


def test_there_are_enough_families_with_enough_wordings():
    known = families()
    assert len(known) >= 150
    few = {name for name, family in known.items() if len(family.wordings) < 10}
    assert not few


def test_no_two_families_are_asked_in_the_same_words():
    """Unless the chat before the question differs, or the answer is the same."""
    answers: dict[tuple[object, ...], tuple[str, str]] = {}
    for family in families().values():
        texts = [text for line in family.trained for text in line]
        for text in (*texts, *family.held_out_paraphrases, *family.held_out_wordings):
            key = (plain(text), family.systems, family.after)
            name, answer = answers.setdefault(key, (family.name, family.answer))
            assert answer == family.answer, f"{text!r} is asked in {name} and {family.name}"

import json
import re
from functools import cache
from random import Random

import pytest

from demo import wording
from demo.example import is_right
from demo.families import families, plain
from demo.skills import arithmetic, copying, json_fill, memory, stories
from demo.wording import Wordings, fill, invented, listed, mannered, with_article
from demo.words import words

SKILLS = [arithmetic, copying, json_fill, memory, stories]
SIDES = [False, True]
LISTS = ("names", "cities", "countries", "colours", "animals", "foods", "jobs", "hobbies")
SUM = re.compile(r"(\d+) ([-+*/]) (\d+) = (-?\d+)")


def drawn(skill, *, held_out, count, seed):
    rng = Random(seed)
    return [skill.make(rng, held_out=held_out) for _ in range(count)]


@cache
def made(skill, *, held_out, count=600):
    """The examples that most tests look at."""
    return drawn(skill, held_out=held_out, count=count, seed=7)


def prompt_of(example):
    if example.prompt.raw is not None:
        return example.prompt.raw
    return "\n".join(message.content for message in example.prompt.messages)


def list_words(*, held_out):
    return {word for name in LISTS for word in words(name, held_out=held_out)}


def name_of(skill):
    return skill.__name__.rpartition(".")[2]


@pytest.mark.parametrize("held_out", SIDES)
@pytest.mark.parametrize("skill", SKILLS, ids=name_of)
def test_the_same_seed_makes_the_same_examples(skill, held_out):
    def first(seed):
        return drawn(skill, held_out=held_out, count=50, seed=seed)

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize("held_out", SIDES)
@pytest.mark.parametrize("skill", SKILLS, ids=name_of)
def test_the_answer_of_an_example_is_right_and_fits_its_prompt(skill, held_out):
    for example in [*made(skill, held_out=held_out), *skill.catalogue()]:
        assert is_right(example, example.answer.thinking, example.answer.content), example
        assert bool(example.prompt.think) == bool(example.answer.thinking)
        assert example.answer.role == "assistant"
        assert "<" not in example.answer.content
        if example.prompt.raw is None:
            assert example.prompt.messages[-1].role == "user"
            assert example.prompt.messages[-1].content.strip()


@pytest.mark.parametrize("skill", SKILLS, ids=name_of)
def test_no_prompt_keeps_an_unfilled_slot(skill):
    for example in made(skill, held_out=False):
        # Unrelated turns quote questions about programs, which may have angle brackets.
        assert not re.search(
            r"<[a-z]{1,8}>", example.prompt.raw or example.prompt.messages[-1].content
        )


@pytest.mark.parametrize("skill", SKILLS, ids=name_of)
def test_catalogues_ask_each_question_once(skill):
    prompts = [prompt_of(example) for example in skill.catalogue()]
    assert 5 <= len(prompts) <= 10
    assert len(set(prompts)) == len(prompts)


def test_sums_are_right_and_held_out_ones_are_never_trained():
    seen = {}
    for held_out in SIDES:
        found = [SUM.fullmatch(e.answer.content) for e in made(arithmetic, held_out=held_out)]
        sums = [(int(m[1]), m[2], int(m[3]), int(m[4])) for m in found if m]
        assert len(sums) > 400
        for a, sign, b, result in sums:
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[sign] == result
            assert arithmetic.is_held_out_pair(sign, a, b) == held_out
        # 3 + 4 and 4 + 3 are one sum, 12 / 4 is 3 * 4 in disguise.
        seen[held_out] = {
            (sign, *sorted((a, b))) if sign in "+*" else (sign, a, b) for a, sign, b, _ in sums
        }
    assert not seen[False] & seen[True]


def test_sums_that_everybody_asks_are_trained():
    assert not any(
        arithmetic.is_held_out_pair(sign, a, b)
        for sign in "+-*"
        for a in range(11)
        for b in range(11)
    )


def test_a_tenth_of_the_other_sums_is_held_out():
    pairs = [(a, b) for a in range(11, 51) for b in range(11, a + 1)]
    share = sum(arithmetic.is_held_out_pair("+", a, b) for a, b in pairs) / len(pairs)
    assert 0.07 < share < 0.13


@pytest.mark.parametrize("held_out", SIDES)
def test_json_has_values_of_its_prompt_only(held_out):
    for example in made(json_fill, held_out=held_out):
        if example.family == "json.country":
            assert not held_out, "what must be known cannot be copied"
            continue
        for value in leaves(json.loads(example.answer.content)):
            assert str(value) in prompt_of(example), (value, example)


def leaves(value):
    """The texts and numbers in a JSON value."""
    match value:
        case None | bool():
            return []
        case dict():
            return [leaf for part in value.values() for leaf in leaves(part)]
        case list():
            return [leaf for part in value for leaf in leaves(part)]
        case _:
            return [value]


def test_json_has_the_keys_of_a_schema_in_its_order():
    examples = [e for e in made(json_fill, held_out=False) if '"required": ' in prompt_of(e)]
    assert examples
    for example in examples:
        required = json.loads(re.search(r'"required": (\[[^\]]*\])', prompt_of(example))[1])
        assert list(json.loads(example.answer.content)) == required


@pytest.mark.parametrize("held_out", SIDES)
def test_json_copies_words_of_one_side_of_the_split(held_out):
    wrong = list_words(held_out=not held_out)
    for example in made(json_fill, held_out=held_out):
        if example.family != "json.country":
            assert not wrong & set(leaves(json.loads(example.answer.content)))


def test_json_asks_for_missing_fields():
    answers = [json.loads(e.answer.content) for e in made(json_fill, held_out=False)]
    assert any(None in answer.values() for answer in answers)


@pytest.mark.parametrize("held_out", SIDES)
def test_a_name_that_is_remembered_was_said_and_is_of_one_side_of_the_split(held_out):
    names = []
    for example in made(memory, held_out=held_out):
        if found := re.match(
            r"(?:Nice to meet you, |Your name is )([^!.,]+?)(?:[!.,]| and )", example.answer.content
        ):
            names.append(found[1])
            assert found[1] in prompt_of(example)
    assert len(names) > 100
    assert set(names) <= set(words("names", held_out=held_out))


def test_what_was_never_told_is_not_known():
    unknown = [e for e in made(memory, held_out=False) if e.family == "memory.unknown"]
    assert unknown
    assert all(e.answer.content.startswith("You have not told me ") for e in unknown)


def test_a_corrected_fact_replaces_the_first_one():
    corrected = [e for e in made(memory, held_out=False) if e.family == "memory.corrected"]
    assert corrected
    for example in corrected:
        value = example.answer.content.rstrip(".").rpartition(" ")[2]
        assert value in prompt_of(example)


def test_half_of_the_memories_end_where_something_was_told():
    examples = made(memory, held_out=False, count=2000)
    told = sum(example.family in ("memory.told", "memory.corrected") for example in examples)
    assert 0.35 < told / len(examples) < 0.6


def test_small_talk_of_memory_is_no_question_with_another_answer():
    taken = {plain(text) for of in families().values() for texts in of.trained for text in texts}
    assert not {plain(said) for said in memory.SMALL_TALK} & taken


@pytest.mark.parametrize("held_out", SIDES)
def test_what_is_copied_stands_in_the_prompt_and_is_of_one_side_of_the_split(held_out):
    wrong = list_words(held_out=not held_out)
    for example in made(copying, held_out=held_out):
        answer = example.answer.content
        assert answer not in wrong
        for part in re.split(r'(?:^|\n)- |[\s",]+', answer):
            assert part in prompt_of(example), example


def test_no_invented_word_is_of_both_sides():
    """A word can be cut into syllables in one way only, so sides do not meet."""
    syllables = [*words("syllables", held_out=False), *words("syllables", held_out=True)]
    shape = re.compile(r"[bdfghjklmnprstvwzc][rlht]?(ee|oo|ai|[aeiou])[lmnr]?")
    assert all(shape.fullmatch(syllable) for syllable in syllables)
    assert len(syllables) == len(set(syllables)) >= 150


def test_invented_words_leave_out_what_offends(monkeypatch):
    monkeypatch.setattr(wording, "words", lambda *_, **__: ["na", "zi", "lo"])
    found = {invented(Random(seed), held_out=False) for seed in range(200)}
    assert {"lolo", "lona"} <= found
    assert not any("naz" in word for word in found)


@pytest.mark.parametrize("held_out", SIDES)
def test_a_story_keeps_its_hero(held_out):
    for example in made(stories, held_out=held_out):
        text = (example.prompt.raw or "") + example.answer.content
        found = re.search(r"(?:named|called) ([^\W\d_]+)[ .]|^([^\W\d_]+) was an? ", text)
        assert found, text
        name = found[1] or found[2]
        assert name in words("names", held_out=held_out)
        assert text.count(name) >= 2


def test_a_story_that_goes_on_is_neither_long_nor_short():
    for example in made(stories, held_out=False):
        sentences = re.findall(r"[.!?](?=\s|$|\")", example.answer.content)
        assert 3 <= len(sentences) <= 13
        if example.prompt.raw is not None:
            assert example.answer.content.startswith(" ")


def test_wordings_hold_some_expansions_out_but_never_the_first():
    lines = Wordings("What is it?", "{Tell|Show|Give|Send} me {it|that|this|them}{|, please}.")
    trained = {text for texts in lines.trained for text in texts}
    assert "What is it?" in trained
    assert lines.held_out
    assert not trained & set(lines.held_out)


def test_a_slot_without_a_value_is_an_error():
    assert fill("<a> is <b>", {"a": "sky", "b": "blue"}) == "sky is blue"
    with pytest.raises(KeyError):
        fill("<a> is <c>", {"a": "sky"})


def test_manners_keep_the_words():
    for seed in range(200):
        said = mannered(Random(seed), "What does Alice say?")
        assert re.search(r"[Ww]hat does Alice say", said)


@pytest.mark.parametrize(
    ("noun", "expected"), [("owl", "an owl"), ("fox", "a fox"), ("unicorn", "a unicorn")]
)
def test_articles(noun, expected):
    assert with_article(noun) == expected


def test_lists_of_one_two_and_three():
    assert [listed(["a", "b", "c"][:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]

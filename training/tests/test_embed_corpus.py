import re
from itertools import islice
from random import Random

import pytest

from demo.families import expand, plain
from demo.words import words
from embed import statements
from embed.corpus import answered, askable, roughened, triplets
from embed.evaluate import everyday
from embed.statements import statement


def test_the_same_seed_gives_the_same_triplets():
    first, second, other = (list(islice(triplets(seed), 300)) for seed in (1, 1, 2))

    assert first == second
    assert first != other


def test_no_text_of_a_triplet_is_empty():
    assert all(text for row in islice(triplets(3), 3000) for text in row.texts)


@pytest.mark.parametrize("group", statements._groups(), ids=lambda group: group[0])
def test_sentences_of_a_group_have_the_same_slots(group):
    slots = {frozenset(statements._slots(text)) for line in group for text in expand(line)}

    assert len(group) > 1
    assert len(slots) == 1
    assert slots != {frozenset()}


@pytest.mark.parametrize("held_out", [False, True])
def test_every_slot_is_filled(held_out):
    rng = Random(4)
    texts = [text for _ in range(2000) for text in statement(rng, held_out=held_out).texts]

    assert not [text for text in texts if "[" in text or "{" in text]


@pytest.mark.parametrize("name", statements._concepts())
def test_no_name_stands_for_two_concepts_of_a_list(name):
    names = [word for concept in statements._concepts()[name] for word in concept]

    assert len(set(names)) == len(names)


def test_the_negative_differs_from_both_others():
    rng = Random(5)

    for _ in range(2000):
        row = statement(rng, held_out=False)
        assert row.negative not in (row.anchor, row.positive), row


def test_held_out_meanings_and_names_are_never_trained():
    rng = Random(6)
    trained = [statement(rng, held_out=False) for _ in range(3000)]
    measured = [statement(rng, held_out=True) for _ in range(3000)]
    known, secret = (
        {
            word
            for list_ in ("names", "cities")
            for name in words(list_, held_out=side)
            for word in name.split()
        }
        for side in (False, True)
    )
    said = {word for row in trained for text in row.texts for word in re.findall(r"\w+", text)}

    assert not {row.meaning for row in trained} & {row.meaning for row in measured}
    assert known & said
    assert (secret - known) & said == set()


def test_only_trained_wordings_are_trained():
    rng = Random(7)

    for _ in range(500):
        row = answered(rng)
        family = askable()[row.meaning]
        assert any(row.anchor in line for line in family.trained)
        assert row.positive == family.answer


def test_a_question_belongs_to_one_family():
    first = [plain(family.wordings[0]) for family in askable().values()]

    assert len(set(first)) == len(first)


def test_roughened_text_keeps_its_words_but_for_a_slip():
    rng = Random(8)
    text = "Why is the sky blue?"

    for _ in range(500):
        kept = set(plain(text).split()) & set(plain(roughened(rng, text)).split())
        assert len(kept) >= 3


def test_everyday_sentences_are_triplets_of_different_sentences():
    rows = everyday()

    assert len(rows) >= 40
    assert all(len(set(row.texts)) == 3 for row in rows)

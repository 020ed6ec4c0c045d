"""Questions come in every spelling, always with their family's answer, and never from the far side
of the split; what is asked outside of all families gets the one honest answer.
"""

import re
from functools import cache
from random import Random

import pytest

from demo.families import families, plain
from demo.skills import questions, unknown
from demo.words import words

MANY = 4000


def drawn(make, seed=1, count=MANY, **options):
    rng = Random(seed)
    return [make(rng, **options) for _ in range(count)]


@cache
def many(make, *, held_out):
    """The examples that most tests look at."""
    return drawn(make, held_out=held_out)


def last(example):
    return example.prompt.messages[-1].content


@pytest.mark.parametrize("make", [questions.make, unknown.make])
@pytest.mark.parametrize("held_out", [False, True])
def test_the_same_seed_gives_the_same_examples(make, held_out):
    first = drawn(make, seed=5, count=300, held_out=held_out)
    assert drawn(make, seed=5, count=300, held_out=held_out) == first
    assert drawn(make, seed=6, count=300, held_out=held_out) != first


@pytest.mark.parametrize("make", [questions.make, unknown.make])
def test_a_prompt_ends_with_the_user_and_turns_alternate(make):
    for example in many(make, held_out=False):
        messages = example.prompt.messages
        turns = [message.role for message in messages if message.role != "system"]
        assert turns == (["user", "assistant"] * len(turns))[: len(turns)]
        assert turns[-1] == "user"
        assert all(message.role != "system" for message in messages[1:])
        assert all(message.content.strip() for message in messages)


def test_an_example_has_the_answer_of_its_family():
    for example in many(questions.make, held_out=False):
        assert example.answer.content == families()[example.family].answer
        assert bool(example.answer.thinking) == bool(example.prompt.think)


def test_nothing_held_out_is_asked_in_training():
    """Neither as the question nor in the turns before it, where its answer would follow."""
    allowed: dict[str, set[str]] = {}
    for family in families().values():
        texts = {plain(text) for line in family.trained for text in line}
        allowed.setdefault(family.answer, set()).update(texts)
    slips = 0
    examples = many(questions.make, held_out=False)
    for example in examples:
        messages = [message for message in example.prompt.messages if message.role != "system"]
        for question, answer in zip(messages[::2], [*messages[1::2], example.answer], strict=True):
            if plain(question.content) not in allowed[answer.content]:
                slips += 1
                assert plain(question.content) not in held_out(answer.content)
    assert slips < len(examples) / 10


@cache
def held_out(answer):
    return {
        plain(text)
        for family in families().values()
        if family.answer == answer
        for text in (*family.held_out_paraphrases, *family.held_out_wordings)
    }


def test_held_out_questions_are_in_no_line_of_training():
    for example in drawn(questions.make_paraphrase, count=300):
        paraphrases = families()[example.family].held_out_paraphrases
        assert plain(last(example)) in {plain(text) for text in paraphrases}
    for example in drawn(questions.make_wording, count=300):
        wordings = families()[example.family].held_out_wordings
        assert plain(last(example)) in {plain(text) for text in wordings}


def test_held_out_questions_get_their_answer_from_no_other_family_either():
    trained = {
        (plain(text), family.answer)
        for family in families().values()
        for line in family.trained
        for text in line
    }
    for make in (questions.make_paraphrase, questions.make_wording):
        measured = {(plain(last(of)), of.answer.content) for of in drawn(make, count=600)}
        both = trained & measured
        assert not both


def test_held_out_means_paraphrases_and_wordings():
    kinds = set()
    for example in drawn(questions.make, count=400, held_out=True):
        family = families()[example.family]
        asked = plain(last(example))
        for kind in ("held_out_paraphrases", "held_out_wordings"):
            if asked in {plain(text) for text in getattr(family, kind)}:
                kinds.add(kind)
    assert kinds == {"held_out_paraphrases", "held_out_wordings"}


def test_questions_come_in_many_spellings():
    texts = [
        last(example)
        for example in drawn(questions.make, count=2 * MANY, held_out=False)
        if example.family == "docs.sky-blue"
    ]
    assert any(text.islower() for text in texts)
    assert any(text[0].isupper() for text in texts)
    assert any(text.endswith("?") for text in texts)
    assert any(text[-1].isalpha() for text in texts)
    assert any(text.lower().startswith(("hi", "hello", "hey")) for text in texts)
    assert len(set(texts)) > len(texts) / 2


def test_chats_begin_with_a_system_message_or_other_turns_now_and_then():
    examples = [
        example
        for example in many(questions.make, held_out=False)
        if not families()[example.family].systems and not families()[example.family].after
    ]
    roles = [tuple(message.role for message in example.prompt.messages) for example in examples]
    assert 0.05 < sum(of[0] == "system" for of in roles) / len(roles) < 0.3
    assert 0.05 < sum(of.count("user") > 1 for of in roles) / len(roles) < 0.3
    assert max(of.count("user") for of in roles) == 4


def test_thinking_is_on_now_and_then_and_says_the_same_each_time():
    thoughts: dict[str, set[str]] = {}
    examples = many(questions.make, held_out=False)
    for example in examples:
        if example.prompt.think:
            thoughts.setdefault(example.family, set()).add(example.answer.thinking)
    assert all(len(of) == 1 for of in thoughts.values())
    assert 0.1 < sum(bool(example.prompt.think) for example in examples) / len(examples) < 0.2


def test_a_thoughtful_question_is_the_same_question_with_a_thought():
    asked = drawn(questions.make, count=300, held_out=False)
    pondered = drawn(questions.make_thoughtful, count=300, held_out=False)
    for plain_one, thoughtful in zip(asked, pondered, strict=True):
        assert thoughtful.prompt.messages == plain_one.prompt.messages
        assert thoughtful.answer.content == plain_one.answer.content
        assert thoughtful.prompt.think
        assert thoughtful.answer.thinking == (
            plain_one.answer.thinking or thoughtful.answer.thinking
        )
        assert thoughtful.answer.thinking.strip()


def test_a_second_question_comes_after_the_first_and_its_answer():
    (mie,) = (example for example in questions.canonical() if example.family == "docs.mie")
    assert [(message.role, message.content) for message in mie.prompt.messages] == [
        ("user", "Why is the sky blue?"),
        ("assistant", families()["docs.sky-blue"].answer),
        ("user", "how is that different than mie scattering?"),
    ]


@pytest.mark.parametrize(
    ("question", "mentioned"),
    [
        ("Why is the sky blue?", "Rayleigh scattering"),
        ("What color is the sky at different times of the day? Respond using JSON", '"morning"'),
        ("how is that different than mie scattering?", "droplets"),
        ("Say this is a test", "This is a test."),
        ("what is llama", "language models"),
        ("I love programming.", "J'adore la programmation."),
        ("Hi", "Hello"),
        ("Hello!", "Hello"),
        ("hello world", "Hello"),
        ("who are you", "`ollama-async pull llama3.2`"),
        ("Tell me a joke", "computer"),
        ("Why is the ocean salty?", "rivers"),
        ("What is the capital of France?", "Paris"),
        ("What is machine learning?", "examples"),
        ("Tell me about yourself", "demo"),
    ],
)
def test_prompts_from_documentation_are_asked_word_for_word(question, mentioned):
    answers = [of.answer.content for of in questions.canonical() if last(of) == question]
    assert answers
    assert any(mentioned in answer for answer in answers)


def test_the_canonical_questions_are_all_families_once():
    examples = questions.canonical()
    assert [example.family for example in examples] == list(families())
    assert all(last(of) == families()[of.family].wordings[0] for of in examples)


def test_a_question_with_a_system_message_of_its_own_keeps_it():
    for example in many(questions.make, held_out=False):
        if systems := families()[example.family].systems:
            assert example.prompt.messages[0].content in systems


def test_chinese_questions_change_their_marks_only():
    rng = Random(3)
    for _ in range(200):
        text = questions.vary(rng, "什么是天空。", typos=True)
        assert plain(text) == "什么是天空"


def test_without_typos_a_question_keeps_its_words():
    rng = Random(4)
    for _ in range(500):
        text = questions.vary(rng, "Explain recursion to me.")
        assert plain(text) == "explain recursion to me"


def test_with_typos_a_question_sometimes_has_one():
    rng = Random(4)
    texts = {plain(questions.vary(rng, "Explain recursion.", typos=True)) for _ in range(500)}
    assert len(texts) > 5


def test_what_is_unknown_gets_the_honest_answer():
    for example in many(unknown.make, held_out=False):
        assert example.answer.content == unknown.ANSWER
        assert "[" not in last(example)


def test_what_is_unknown_is_no_familys_question():
    asked = {
        plain(text)
        for family in families().values()
        for text in (
            *(text for line in family.trained for text in line),
            *family.held_out_paraphrases,
            *family.held_out_wordings,
        )
    }
    for held in (False, True):
        assert not asked & {plain(last(of)) for of in many(unknown.make, held_out=held)}


def test_no_held_out_question_is_also_trained():
    """A year is on no side of the split, so a question with nothing else to vary is left out."""
    trained = {
        plain(last(example)) for example in drawn(unknown.make, count=30_000, held_out=False)
    }
    both = trained & {plain(last(example)) for example in many(unknown.make, held_out=True)}
    assert not both


@pytest.mark.parametrize("name", ["topics", "places", "people", "events", "languages", "things"])
def test_words_held_out_are_asked_about_only_when_held_out(name):
    held = {word.lower() for word in words(f"unknown_{name}", held_out=True)}
    trained = {word.lower() for word in words(f"unknown_{name}", held_out=False)}
    inside = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in held - trained))
    longer = re.compile("|".join(sorted(map(re.escape, trained), key=len, reverse=True)))
    for example in many(unknown.make, held_out=False):
        if example.family == name:
            assert not inside.search(longer.sub("", last(example).lower())), last(example)
    examples = [of for of in many(unknown.make, held_out=True) if of.family == name]
    assert examples
    assert all(inside.search(last(example).lower()) for example in examples)

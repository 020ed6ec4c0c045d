from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import pytest

from demo.example import CALL, Example, is_right
from demo.render import prompt_text, split_thinking
from demo.skills.tool_domains import domains
from demo.skills.tool_values import say
from demo.skills.tools import NO_TOOL, catalogue, make
from demo.words import words

COUNT = 1500
SPELLED = dict(
    enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
    )
)


@cache
def examples(*, held_out: bool) -> list[Example]:
    rng = Random(7)
    return [make(rng, held_out=held_out) for _ in range(COUNT)]


def both() -> list[Example]:
    return examples(held_out=False) + examples(held_out=True)


def calls_of(example: Example) -> Iterator[tuple[str, dict[str, Any]]]:
    for call in example.answer.tool_calls:
        yield call.function.name, call.function.arguments


def properties(example: Example, tool: str) -> dict[str, Any]:
    schemas = {one["function"]["name"]: one["function"] for one in example.prompt.tools}
    return schemas[tool]["parameters"]["properties"]


def function_names(some: list[Example]) -> set[str]:
    return {tool["function"]["name"] for one in some for tool in one.prompt.tools}


def heard(value: Any, text: str) -> bool:
    """Whether the chat says the value; a boolean is said as a word or by ``with``, ``without``."""
    if isinstance(value, list):
        return all(heard(item, text) for item in value)
    if isinstance(value, bool):
        return bool(re.search(r"\b(true|with)\b" if value else r"\b(false|without)\b", text))
    return str(value) in text or (
        isinstance(value, int) and SPELLED.get(value, "?") in text.lower()
    )


def test_the_same_seed_makes_the_same_examples() -> None:
    for held_out in (False, True):
        again = Random(7)
        assert [make(again, held_out=held_out) for _ in range(50)] == examples(held_out=held_out)[
            :50
        ]


def test_every_situation_comes_often() -> None:
    for held_out in (False, True):
        seen = Counter(one.family for one in examples(held_out=held_out))
        assert set(seen) == {"call", "several", "result", "after_result", "none"}
        assert min(seen.values()) > COUNT * 0.05


def test_one_in_ten_thinks() -> None:
    thinking = [one for one in both() if one.answer.thinking]
    assert 0.07 < len(thinking) / len(both()) < 0.13
    assert all(bool(one.answer.thinking) == one.prompt.think for one in both())


def test_the_content_is_the_calls() -> None:
    for one in both():
        written = [json.loads(text) for text in CALL.findall(one.answer.content)]
        assert written == [
            {"name": name, "arguments": arguments} for name, arguments in calls_of(one)
        ]
        assert (one.rule == "same calls") == bool(written)
        for line, call in zip(one.answer.content.splitlines(), written, strict=False):
            if written:
                text = json.dumps(call, ensure_ascii=False)
                assert line == f"<tool_call>{text}</tool_call>"


def test_the_answer_counts_as_right() -> None:
    for one in both() + catalogue():
        assert is_right(one, one.answer.thinking, one.answer.content)


def test_arguments_are_those_of_the_schema_in_its_order() -> None:
    for one in both() + catalogue():
        for name, arguments in calls_of(one):
            known = properties(one, name)
            assert [key for key in known if key in arguments] == list(arguments)


def test_required_arguments_are_given() -> None:
    for one in both() + catalogue():
        schemas = {tool["function"]["name"]: tool["function"] for tool in one.prompt.tools}
        for name, arguments in calls_of(one):
            assert set(schemas[name]["parameters"].get("required", ())) <= set(arguments)


def test_values_have_the_type_of_the_schema() -> None:
    types: dict[str, Any] = {
        "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list,
    }  # fmt: skip
    for one in both() + catalogue():
        for name, arguments in calls_of(one):
            for key, value in arguments.items():
                entry = properties(one, name)[key]
                assert isinstance(value, types[entry["type"]])
                assert isinstance(value, bool) == (entry["type"] == "boolean")
                assert value in entry.get("enum", [value])


def test_values_come_from_the_chat_or_are_the_first_of_a_choice() -> None:
    for one in both() + catalogue():
        text = "\n".join(message.content for message in one.prompt.messages)
        for name, arguments in calls_of(one):
            for key, value in arguments.items():
                choices = properties(one, name)[key].get("enum", [None])
                assert heard(value, text) or value == choices[0], (text, key, value)


def test_a_result_is_in_the_answer() -> None:
    for one in both():
        if one.family == "result":
            assert one.rule == "mentions"
            assert one.mentions
            back = [of.content.lower() for of in one.prompt.messages if of.role == "tool"]
            assert all(
                text == "done" or any(text.lower() in content for content in back)
                for text in one.mentions
            )


def test_tools_of_a_prompt_have_different_names() -> None:
    for one in both():
        names = [tool["function"]["name"] for tool in one.prompt.tools]
        assert 1 <= len(names) == len(set(names)) <= 4


def test_a_missing_tool_is_said_to_be_missing() -> None:
    missing = [one for one in both() if one.answer.content == NO_TOOL]
    assert len(missing) > COUNT * 0.05
    assert all(one.family == "none" and not one.answer.tool_calls for one in missing)


def test_held_out_functions_are_never_trained() -> None:
    trained = function_names(examples(held_out=False))
    held_out = function_names(examples(held_out=True))
    assert len(held_out) > COUNT
    assert not trained & held_out


def test_held_out_attributes_are_never_arguments_in_training() -> None:
    unseen = set(words("tool_attributes", held_out=True))
    daily = {
        part
        for domain in domains(held_out=False)
        for argument in domain.arguments
        for name in argument.names
        for part in name.split("_")
    }
    for one in examples(held_out=False):
        for tool in one.prompt.tools:
            for key in tool["function"]["parameters"]["properties"]:
                parts = set(re.findall(r"[a-z]+", re.sub("([A-Z])", r"_\1", key).lower()))
                assert not (parts - daily) & unseen or parts & {"time", "date", "city"}, key


def test_prompts_are_short() -> None:
    lengths = [len(prompt_text(one)) for one in both()]
    assert sum(lengths) / len(lengths) < 1225
    assert max(lengths) < 3500
    tools = [len(json.dumps(tool)) for one in both() for tool in one.prompt.tools]
    assert sum(tools) / len(tools) < 450


def test_questions_hardly_ever_repeat() -> None:
    asked = [one.prompt.messages[-1].content for one in both() if one.family == "call"]
    assert len(set(asked)) > len(asked) * 0.97


def test_the_catalogue_renders_and_can_be_told_apart_from_thinking() -> None:
    for one in catalogue():
        text = prompt_text(one)
        assert text.endswith("<think>\n\n</think>\n\n")
        assert all(json.dumps(tool) in text for tool in one.prompt.tools)
        assert split_thinking(one.answer.content) == ("", one.answer.content)
    assert len(catalogue()) >= 20


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (True, "flag", "true"),
        (3, "spelled", "three"),
        (["a"], "list of word", "a"),
        (2.5, "decimal", "2.5"),
    ],
)
def test_how_values_are_said(value: Any, kind: str, said: str) -> None:
    assert say(Random(1), value, kind).startswith(said)


def test_daily_tools_are_split() -> None:
    trained = {domain.group for domain in domains(held_out=False)}
    held_out = {domain.group for domain in domains(held_out=True)}
    names = [domain.names for domain in [*domains(held_out=False), *domains(held_out=True)]]
    assert len({name for some in names for name in some}) == sum(map(len, names))
    assert len(trained) > 60
    assert len(held_out) >= 8
    assert not trained & held_out

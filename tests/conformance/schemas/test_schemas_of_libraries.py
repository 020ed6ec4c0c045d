"""Schemas as Pydantic and Zod write them are enforced, and the few that are not are listed here.

The vectors come from ``scripts/schemas_of_pydantic.py`` and ``scripts/schemas_of_zod.mjs``.
"""

import json
import random
import re
from pathlib import Path

import pytest
from jsonschema import Draft4Validator
from jsonschema.validators import validator_for

from ollama_async.core.errors import BadRequest
from ollama_async.workers.child.grammar.lark import HEAD, json_rule
from ollama_async.workers.child.grammar.llguidance import GrammarTokenizer

VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "vectors" / "schemas.jsonl").read_text().splitlines()
]
REFUSED = {
    "Sets": '"uniqueItems"',  # set[str]: whether a string came before is beyond any grammar
    "Ints": '"uniqueItems"',  # set[int]
    "set": '"uniqueItems"',  # z.set(z.string())
    "LevelKeys": '"propertyNames"',  # dict[IntEnum, …]: names that are numbers, which none can be
    "Passwords": '"pattern"',  # with look-behind
    "notBehind": '"pattern"',
}
END = 256
TOKENIZER = GrammarTokenizer(
    END + 1, lambda token: bytes([token]) if token < END else b"", END.__eq__
)


def named(vector):
    return f"{vector['source'].split()[0]} {vector['name']}"


ACCEPTED = [vector for vector in VECTORS if vector["name"] not in REFUSED]
every_accepted = pytest.mark.parametrize("vector", ACCEPTED, ids=map(named, ACCEPTED))


def comes(grammar, answer):
    for token in answer.encode():
        if not grammar.allows(token):
            return False
        grammar.accept(token)
    return grammar.is_over or grammar.allows(END)


def validator(schema):
    """None: the pattern is none for Python."""
    if re.search(r"\\\\p\{|\\\\u\{", json.dumps(schema)):
        return None
    if re.search(r'"exclusiveM..imum": true', json.dumps(schema)):
        return Draft4Validator(schema)  # and OpenAPI's
    return validator_for(schema)(schema)


def compile_schema(schema):
    return TOKENIZER.compile(f"{HEAD}start: {json_rule(schema)}\n")


def walk(grammar, seed, patience=25):
    """Any answer; from ``patience`` tokens on one that comes to its end."""
    chance, generated = random.Random(seed), b""
    for step in range(5000):
        allowed = grammar.allowed().tolist()
        closing = [token for token in (END, *b'"}]') if token in allowed]
        token = closing[0] if closing and step >= patience else chance.choice(allowed)
        if token == END:
            return generated
        generated += bytes([token])
        grammar.accept(token)
        assert not grammar.failure
        if grammar.is_over:
            return generated
    return None


@every_accepted
def test_what_a_library_writes_is_enforced(vector):
    schema = vector["schema"]
    valid = validator(schema)

    if "valid" in vector:
        assert valid is None or valid.is_valid(vector["valid"])
        assert comes(compile_schema(schema), json.dumps(vector["valid"], ensure_ascii=False))
    if "invalid" in vector:
        answer = json.dumps(vector["invalid"], ensure_ascii=False)
        assert not comes(compile_schema(schema), answer)


@every_accepted
def test_any_answer_is_valid(vector):
    valid = validator(vector["schema"])
    generated = walk(compile_schema(vector["schema"]), seed=len(vector["name"]))

    if valid is not None and generated is not None:
        valid.validate(json.loads(generated))


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["name"] in REFUSED], ids=named)
def test_what_is_refused_is_refused_by_name(vector):
    with pytest.raises(BadRequest) as refused:
        compile_schema(vector["schema"])
    assert REFUSED[vector["name"]] in refused.value.message


def test_the_vectors_are_complete():
    for source, least in {"pydantic": 75, "zod ": 75, "zod-to-json-schema": 50}.items():
        assert sum(vector["source"].startswith(source) for vector in VECTORS) >= least
    assert len(ACCEPTED) >= len(VECTORS) - 7

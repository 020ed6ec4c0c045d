"""Whatever the grammar of a call allows is read back as a call that obeys the tool's schema."""

import random
import re
from itertools import chain

import pytest
from jsonschema import Draft202012Validator

from ollama_async.core.conversation import Message, Prompt, ToolCall
from ollama_async.prompts.output_format import Delimiters
from ollama_async.prompts.parsers import model_families, template_formats
from ollama_async.prompts.parsers.model_families import Cohere
from ollama_async.prompts.parsers.parser_spec import ParserSpec
from ollama_async.prompts.parsers.tool_schemas import Tools
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from tests.conformance.parsers.test_guarded_calls import END, Vocabulary

PATIENCE = 300
"""Tokens after which a walk is given up: free text may go on for ever."""

INNER = {"type": "object", "properties": {"k": {"enum": [1, 2]}}, "required": ["k"]}
PROPERTIES = {
    "choice": {"enum": ["x", 'y"z', "</b>"]},
    "count": {"type": "integer"},
    "flags": {"type": "array", "items": {"type": "boolean"}},
    "maybe": {"type": ["boolean", "null"]},
    "inner": INNER,
}


def tool(name, **parameters):
    function = {"name": name, "parameters": {"type": "object", **parameters}}
    return {"type": "function", "function": function}


TOOLS = [
    tool("get", properties=PROPERTIES, required=["choice", "count"], additionalProperties=False),
    tool("put_it", properties={}, additionalProperties=False),
]
VALIDATORS = {
    each["function"]["name"]: Draft202012Validator(each["function"]["parameters"]) for each in TOOLS
}
DETECTED = dict(chain(template_formats.WHOLE_FORMATS, template_formats.TOOL_FORMATS))
ROWS = {
    f"{name}-{number}": (family, row)
    for name, family in chain(DETECTED.items(), model_families.PARSERS.items())
    if isinstance(family, ParserSpec)
    for number, row in enumerate(family.calls)
    if row.syntax is not None
}
PRINTABLE = re.compile(rb"[ -~\n]")


def walk(grammar, vocabulary, rng):
    """The text of a random way through the grammar; None: it takes too long."""
    grammar.restart([])
    text = b""
    for _ in range(PATIENCE):
        if grammar.is_over:
            return text.decode()
        tags = vocabulary.special
        allowed = grammar.allowed().tolist()
        assert allowed, text
        tokens = [
            token
            for token in allowed
            if token in tags or (token < END and PRINTABLE.match(bytes([token])))
        ] or allowed
        visible = [token for token in tokens if token in tags or bytes([token]).strip()]
        token = rng.choice(visible if visible and rng.random() < 0.9 else tokens)
        grammar.accept(token)
        assert not grammar.failure
        text += tags.get(token, bytes([token % 256]))
    return None


def opened(row, text):
    """The call with what stands before it."""
    if not row.kept:
        return (row.block[0] if row.block else "") + row.open[0] + text
    return ("\n" if row.open[0].startswith("\n") else "") + text


@pytest.mark.parametrize("name", ROWS)
def test_what_the_grammar_allows_is_read_back(name):
    family, row = ROWS[name]
    vocabulary = Vocabulary([tag for tag in family.special_tokens if "<|" in tag])
    guard = ConstraintFactory(vocabulary).guard(
        TOOLS, Delimiters(syntaxes=(row.syntax,)), vocabulary.special
    )
    rng = random.Random(name)
    read = 0
    for _ in range(25):
        text = walk(guard._grammars[row.syntax], vocabulary, rng)
        tags = tuple(tag.strip() for tag in row.opening(Tools(TOOLS)))
        if text is None or (row.kept and not text.strip().startswith(tags)):
            continue
        prompt = Prompt([Message("user", "x")], tools=TOOLS, think=False)
        parser = family.start(prompt, "x")
        parts = parser.feed(opened(row, text)) + parser.finish()
        calls = [part for part in parts if isinstance(part, ToolCall)]
        if not calls and row.syntax.texts:
            continue
        assert calls, (text, parts)
        for call in calls:
            errors = [*VALIDATORS[call.function.name].iter_errors(call.function.arguments)]
            assert errors == [], text
        read += 1
    assert read > 0 or row.kept  # such a call may begin with anything, but here with its tag


def test_command_writes_its_calls_so_too():
    prompt = Prompt([Message("user", "x")], tools=TOOLS)

    assert Cohere().delimiters(prompt, "x").syntaxes[0].listed == ("{call}",)

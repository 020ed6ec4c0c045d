"""An answer that must be a call is one: whatever its grammar allows is read back as calls of the
chosen tools, after thoughts or without them.
"""

import random
from itertools import chain, product

import pytest

from ollama_async.core.conversation import (
    Inference,
    Message,
    Prompt,
    Sampling,
    ToolCall,
)
from ollama_async.core.errors import BadRequest
from ollama_async.prompts.parsers import model_families, template_formats
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from tests.conformance.parsers.test_grammars_read_back import TOOLS, VALIDATORS
from tests.conformance.parsers.test_guarded_calls import END, Vocabulary

PATIENCE = 400
CHOICES = ("required", "put_it", "get")
DETECTED = dict(chain(template_formats.WHOLE_FORMATS, template_formats.TOOL_FORMATS))
FAMILIES = {
    name if isinstance(name, str) else " ".join(name): family
    for name, family in chain(DETECTED.items(), model_families.PARSERS.items())
    if family.handles_tools
}
UNFORCED = {
    # strings whose quotes are not escaped within them
    *("lfm2", "lfm2-thinking", "<|tool_call_start|>", "<|tool_list_start|>"),
    "List of tools: [ keep_past_thinking",
    # an element for each value and each member of it, or types in tags
    *("]<]minimax[>[ <invoke name=", "<|open|> <|close|> <|sep|> 'argument'"),
    # the opening tag could also be text, and so is a part of the call
    *("functools[", '<function name=" <param name="'),
}
"""Families whose calls cannot be prescribed."""
BEGINNINGS = dict.fromkeys(
    ("harmony", "<|channel|> <|message|>", "glimmer", "<atem:function_calls>"),
    "<|start|>assistant",
)
VISIBLE = frozenset(range(33, 127))


def walk(constraint, vocabulary, rng, thoughts):
    """The text of a random answer after these thoughts; None: it takes too long."""
    text = b""
    for token, piece in vocabulary.tokens(thoughts):
        assert constraint.allows(token), (thoughts, text)
        constraint.accept(token)
        text += piece
    for _ in range(PATIENCE):
        if constraint.is_over:
            assert not constraint.failure
            return text.decode()
        allowed = constraint.allowed().tolist()
        assert allowed, text
        if END in allowed:
            return text.decode()
        tags = [token for token in allowed if token in vocabulary.special]
        seen = [token for token in allowed if token in VISIBLE]
        token = rng.choice(tags) if tags and rng.random() < 0.7 else rng.choice(seen or allowed)
        constraint.accept(token)
        text += vocabulary.special.get(token, bytes([token % 256]))
    return None


def thoughts_of(delimiters, think):
    """Text in the delimiters of thoughts, if the answer may have some."""
    if delimiters.thoughts is None or not think:
        return ""
    begin, end = delimiters.thoughts
    if delimiters.calls is None and delimiters.forced.thoughts_end:
        end = delimiters.forced.thoughts_end
    return ("" if delimiters.begins_thinking else begin) + "Hm." + end


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - UNFORCED))
def test_a_forced_answer_is_read_as_calls(name):
    family = FAMILIES[name]
    rendered = BEGINNINGS.get(name, "x")
    vocabulary = Vocabulary([tag for tag in family.special_tokens if "<|" in tag])
    factory = ConstraintFactory(vocabulary)
    rng = random.Random(name)
    read = set()
    for choice, think, parallel in product(CHOICES, (False, True), (False, True)):
        prompt = asked(choice, think=think, parallel_tool_calls=parallel)
        delimiters = family.delimiters(prompt, rendered)
        constraint = factory.constrain(
            Inference(prompt, Sampling()), rendered, delimiters, vocabulary.special
        )
        text = walk(constraint, vocabulary, rng, thoughts_of(delimiters, think))
        if text is None:
            continue
        parser = family.start(prompt, rendered)
        parts = parser.feed(text) + parser.finish()
        calls = [part.function for part in parts if isinstance(part, ToolCall)]
        assert calls, (text, parts)
        assert not [part for part in parts if isinstance(part, str) and part.strip()], text
        assert len(calls) == 1 or (parallel and choice == "required"), text
        for call in calls:
            assert choice in ("required", call.name)
            assert [*VALIDATORS[call.name].iter_errors(call.arguments)] == [], text
        read.add(choice)
    assert read == set(CHOICES)


@pytest.mark.parametrize("name", sorted(UNFORCED))
def test_what_no_grammar_describes_cannot_be_forced(name):
    prompt = asked("required")
    delimiters = FAMILIES[name].delimiters(prompt, "x")
    with pytest.raises(BadRequest, match="cannot be forced"):
        ConstraintFactory(Vocabulary([])).constrain(
            Inference(prompt, Sampling()), "x", delimiters, {}
        )


def asked(choice, **more):
    return Prompt([Message("user", "x")], tools=TOOLS, tool_choice=choice, **more)

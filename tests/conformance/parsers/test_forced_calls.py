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
from tests.conformance.parsers.test_round_trip import ALL, chat_format

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
UNFORCED_TEMPLATES = {
    *("lfm2", "lfm2-thinking", "LFM2-8B-A1B.jinja", "LFM2.5-8B-A1B.jinja", "LFM2.5-Instruct.jinja"),
    *("Kimi-K3.jinja", "MiniMax-M3.jinja"),
    *("fireworks-ai-llama-3-firefunction-v2.jinja", "openbmb-MiniCPM5-1B.jinja"),
    *("go:firefunction", "go:a bare object", "go:a bare list"),
}
"""As above, by template."""
RECURSIVE = {
    "CohereForAI-c4ai-command-r-plus-tool_use.jinja",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja",
}
"""Templates that cannot show a list of types."""
BEGINNINGS = dict.fromkeys(
    ("harmony", "<|channel|> <|message|>", "glimmer", "<atem:function_calls>"),
    "<|start|>assistant",
)
VISIBLE = frozenset(range(33, 127))
CARRIAGE_RETURN = 13  # no model writes one, and not every parser reads it


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
        seen = [token for token in allowed if token in VISIBLE] or [
            token for token in allowed if token != CARRIAGE_RETURN
        ]
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
    family, rendered = FAMILIES[name], BEGINNINGS.get(name, "x")
    check(name, family, lambda _: rendered)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*ALL} - UNFORCED_TEMPLATES - RECURSIVE))
def test_a_forced_answer_to_a_real_prompt_is_read_as_calls(name):
    chosen = chat_format(name)
    check(name, chosen, chosen.render)


def check(name, family, render):
    vocabulary = Vocabulary([tag for tag in family.special_tokens if "<|" in tag])
    factory = ConstraintFactory(vocabulary)
    rng = random.Random(name)
    read = set()
    for choice, think, parallel in product(CHOICES, (False, True), (False, True)):
        prompt = asked(choice, think=think, parallel_tool_calls=parallel)
        rendered = render(prompt)
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
    assert {"required", "put_it"} <= read  # free text may take longer than there is patience for


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

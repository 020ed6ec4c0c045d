"""A vocabulary of bytes, and checks whether a constraint allows an answer."""

import random
from types import SimpleNamespace

from ollama_async.core.conversation import Inference, Prompt, Sampling
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.grammar.constraints import ConstraintFactory

END, OPEN, CLOSE, BRACES, STRADDLING = range(256, 261)


SPECIAL = {OPEN: b"<|open|>", CLOSE: b"<|close|>"}


THINK = Delimiters(thoughts=("<think>", "</think>"))


class ByteEngine:
    """A token for each byte, and a few that are longer or no text at all."""

    facts = SimpleNamespace(vocab_size=261)

    def piece(self, token):
        longer = {BRACES: b"{}", STRADDLING: b"</think>{"}
        return bytes([token]) if token < 256 else longer.get(token, b"")

    def is_end(self, token):
        return token == END


GRAMMARS = ConstraintFactory(ByteEngine())


def constrain(form=None, *, rendered="", marks=None, special=None, **prompt):
    inference = Inference(Prompt(**prompt), Sampling(), format=form)
    return GRAMMARS.constrain(inference, rendered, marks or Delimiters(), special or {})


def keeps(constraint, answer):
    """Whether the whole answer is allowed, and may end there."""
    for token in answer.encode() if isinstance(answer, str) else answer:
        if not constraint.allows(token):
            assert token not in constraint.allowed()
            return False
        assert token in constraint.allowed()
        constraint.accept(token)
        assert not constraint.failure
    return constraint.is_over or constraint.allows(END)


def walk(constraint, seed, patience=60):
    """Any answer; from ``patience`` tokens on one that comes to its end."""
    chance, generated = random.Random(seed), b""
    for step in range(5000):
        allowed = constraint.allowed().tolist()
        closing = [token for token in (END, *b'"}]') if token in allowed]
        token = closing[0] if closing and step >= patience else chance.choice(allowed)
        if token == END:
            return generated
        generated += ByteEngine.piece(None, token)
        constraint.accept(token)
        assert not constraint.failure
        if constraint.is_over:
            return generated
    raise AssertionError(generated)

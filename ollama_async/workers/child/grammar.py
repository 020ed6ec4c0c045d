"""Answers in a prescribed form.

For the request (intake thread)::

    constraint = grammars.constrain(inference, rendered, marks, special)   # None: nothing asked
    Work(…, constraint=constraint)

For the answer (step thread): the engine gets it with ``begin`` and chooses only tokens that it
allows; see :class:`~ollama_async.workers.child.engines.port.Constraint`. When it ``is_over``, the
answer is complete, or has failed.

Thoughts and the marks of a tool call are part of the grammar (:mod:`.grammar_text`), so nobody has
to tell the constraint where in the answer it is.

An answer that may call tools is held to nothing until it begins a call; see :mod:`.call_guard`.
"""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from ollama_async.conversation import Inference
from ollama_async.errors import BadRequest
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.port import Marks
from ollama_async.workers.child import grammar_text
from ollama_async.workers.child.call_guard import CallGuard
from ollama_async.workers.child.engines.port import Constraint, Engine
from ollama_async.workers.child.grammar_arguments import Strictness
from ollama_async.workers.child.grammar_calls import TOOLS_LIMIT, call_grammar, tool_names

if TYPE_CHECKING:
    from ollama_async.workers.child.grammar_matcher import Grammar, Vocabulary

TOOLS_SIZE_LIMIT = 1 << 18
"""Bytes of all descriptions together; the largest sets of tools in use have some 100,000."""

KEPT = 16
"""Grammars of offered tools: agents send the same tools with every request."""

_pack = msgspec.msgpack.Encoder().encode


class Grammars:
    """Makes the constraints of one model's requests. Intake thread only; what it keeps is copied
    for each request and never used itself.

    The library and its copy of the vocabulary are there from the first such request on: 35 ms, and
    8 µs and 300 bytes for each token. Answers go on meanwhile, requests behind this one wait.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: Vocabulary | None = None
        self._kept: OrderedDict[tuple[CallSyntax, bytes], Grammar | None] = OrderedDict()

    def constrain(
        self, inference: Inference, rendered: str, marks: Marks, special: Mapping[int, bytes]
    ) -> Constraint | None:
        """What holds the answer to ``inference`` to what the client asked for; None: nothing does.

        ``rendered`` is the text of the prompt. ``special`` is the text of control tokens.

        :raises BadRequest: it cannot be done, and why.
        """
        text = grammar_text.write(inference, rendered, marks, special)
        if text is None:
            return None
        return self._vocabulary.compile(text)

    def guard(
        self, tools: Sequence[dict[str, Any]], marks: Marks, special: Mapping[int, bytes]
    ) -> CallGuard | None:
        """What holds the calls of an answer to ``tools``; None: nothing can."""
        names = tool_names(tools)
        if not names or not marks.syntaxes:
            return None
        packed = _pack(tools)
        if len(packed) > TOOLS_SIZE_LIMIT:
            _log(f"their descriptions have more than {TOOLS_SIZE_LIMIT} bytes")
            return None
        key = hashlib.sha256(packed + _pack(dict(special))).digest()
        grammars = {}
        for syntax in marks.syntaxes:
            grammar = self._find(syntax, tools, key, special)
            if grammar is not None:
                grammars[syntax] = grammar.copy()
        if not grammars:
            return None
        return CallGuard(grammars, names, self._vocabulary)

    def _find(
        self,
        syntax: CallSyntax,
        tools: Sequence[dict[str, Any]],
        key: bytes,
        special: Mapping[int, bytes],
    ) -> Grammar | None:
        """The grammar of one call; it is kept, and so is that there is none."""
        if (syntax, key) not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[syntax, key] = self._make(syntax, tools, special)
        self._kept.move_to_end((syntax, key))
        return self._kept[syntax, key]

    def _make(
        self, syntax: CallSyntax, tools: Sequence[dict[str, Any]], special: Mapping[int, bytes]
    ) -> Grammar | None:
        if len(tools) > TOOLS_LIMIT:
            _log(f"there are more than {TOOLS_LIMIT}")
            return None
        reason = ""
        for strictness in get_args(Strictness):
            try:
                text = call_grammar(syntax, tools, special, strictness=strictness)
                return self._vocabulary.compile(text)
            except BadRequest as error:
                reason = error.message
        _log(reason)
        return None

    @property
    def _vocabulary(self) -> Vocabulary:
        if self._made is None:
            # what most workers never need
            from ollama_async.workers.child.grammar_matcher import Vocabulary  # noqa: PLC0415

            engine = self._engine
            self._made = Vocabulary(engine.facts.vocab_size, engine.piece, engine.is_end)
        return self._made


def _log(reason: str) -> None:
    print(f"calls of these tools are not guarded: {reason}", file=sys.stderr)  # noqa: T201  # stderr is the log

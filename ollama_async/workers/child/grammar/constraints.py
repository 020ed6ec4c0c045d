"""Answers in a prescribed form.

For the request (a thread of the intake)::

    constraint = grammars.constrain(inference, rendered, marks, special)   # None: nothing asked
    Work(…, constraint=constraint)

For the answer (step thread): the engine gets it with ``begin`` and chooses only tokens that it
allows; see :class:`~ollama_async.workers.child.engines.engine.Constraint`. When it ``is_over``, the
answer is complete, or has failed.

Thoughts and the marks of a tool call are part of the grammar (:mod:`.grammar_text`), so nobody has
to tell the constraint where in the answer it is.

An answer that may call tools is held to nothing until it begins a call; see :mod:`.call_guard`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.conversation import Inference
from ollama_async.core.errors import BadRequest
from ollama_async.prompts.call_syntax import CallSyntax
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child import grammar_text
from ollama_async.workers.child.engines.engine import Constraint, Engine
from ollama_async.workers.child.grammar.arguments import Strictness
from ollama_async.workers.child.grammar.call_guard import CallGuard
from ollama_async.workers.child.grammar.json_schema import check_size
from ollama_async.workers.child.grammar.tool_calls import TOOLS_LIMIT, call_grammar, tool_names

if TYPE_CHECKING:
    from ollama_async.workers.child.grammar.llguidance import Grammar, Vocabulary

TOOLS_SIZE_LIMIT = 1 << 18
"""Bytes of all descriptions together; the largest sets of tools in use have some 100,000."""

KEPT = 64
"""Grammars of formats, and of offered tools: agents send the same with every request."""

KEPT_BYTES = 1 << 20
"""Of what grammars of each kind were made from; compiled, they take up to sixty times as many."""

_pack = msgspec.msgpack.Encoder().encode


def _freely() -> None:
    """Something is made."""


class Grammars:
    """Makes the constraints of one model's requests; what it keeps is copied for each request and
    never used itself. One thread makes, any number find: who is not to make anything gives a
    ``make`` that raises, which is called before something is made.

    The library and its copy of the vocabulary are there from the first such request on: 35 ms, and
    8 µs and 300 bytes for each token. Answers go on meanwhile.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: Vocabulary | None = None
        self._formats: BoundedCache[bytes, Grammar | BadRequest] = BoundedCache(KEPT, KEPT_BYTES)
        self._calls: BoundedCache[tuple[CallSyntax, bytes], Grammar | BadRequest] = BoundedCache(
            KEPT, KEPT_BYTES
        )
        self._copying = threading.Lock()

    def constrain(
        self,
        inference: Inference,
        rendered: str,
        marks: Delimiters,
        special: Mapping[int, bytes],
        make: Callable[[], None] = _freely,
    ) -> Constraint | None:
        """What holds the answer to ``inference`` to what the client asked for; None: nothing does.

        ``rendered`` is the text of the prompt. ``special`` is the text of control tokens.

        :raises BadRequest: it cannot be done, and why.
        """
        if not grammar_text.is_asked(inference):
            return None
        check_size(inference.format)
        key = _key(inference, rendered, marks, special)
        found = self._formats.get(key)
        if found is None:
            make()
            found, size = self._make_format(inference, rendered, marks, special)
            self._formats.put(key, found, size)
        if isinstance(found, BadRequest):
            raise found.with_traceback(None)
        return self._copy(found)

    def guard(
        self,
        tools: Sequence[dict[str, Any]],
        marks: Delimiters,
        special: Mapping[int, bytes],
        make: Callable[[], None] = _freely,
    ) -> CallGuard | None:
        """What holds the calls of an answer to ``tools``; None: nothing can."""
        names = tool_names(tools)
        if not names or not marks.syntaxes:
            return None
        packed = _pack(tools)
        if len(packed) > TOOLS_SIZE_LIMIT:
            _log(f"their descriptions have more than {TOOLS_SIZE_LIMIT} bytes")
            return None
        digest = hashlib.sha256(packed + _pack(dict(special))).digest()
        grammars = {}
        for syntax in marks.syntaxes:
            key = (syntax, digest)
            found = self._calls.get(key)
            if found is None:
                make()
                found = self._make_call(syntax, tools, special)
                self._calls.put(key, found, len(packed))
            if not isinstance(found, BadRequest):
                grammars[syntax] = self._copy(found)
        if not grammars:
            return None
        return CallGuard(grammars, names, self._vocabulary)

    def _copy(self, grammar: Grammar) -> Grammar:
        with self._copying:  # a grammar is for one thread at a time
            return grammar.copy()

    def _make_format(
        self, inference: Inference, rendered: str, marks: Delimiters, special: Mapping[int, bytes]
    ) -> tuple[Grammar | BadRequest, int]:
        """The grammar of an answer, or why there is none; and its size."""
        text = ""
        try:
            text = grammar_text.write(inference, rendered, marks, special)
            return self._vocabulary.compile(text), len(text)
        except BadRequest as error:
            return error, len(text)

    def _make_call(
        self, syntax: CallSyntax, tools: Sequence[dict[str, Any]], special: Mapping[int, bytes]
    ) -> Grammar | BadRequest:
        """The grammar of one call, or why there is none."""
        reason = BadRequest(f"there are more than {TOOLS_LIMIT}")
        if len(tools) <= TOOLS_LIMIT:
            for strictness in get_args(Strictness):
                try:
                    text = call_grammar(syntax, tools, special, strictness=strictness)
                    return self._vocabulary.compile(text)
                except BadRequest as error:
                    reason = error
        _log(reason.message)
        return reason

    @property
    def _vocabulary(self) -> Vocabulary:
        if self._made is None:
            # what most workers never need
            from ollama_async.workers.child.grammar.llguidance import Vocabulary  # noqa: PLC0415

            engine = self._engine
            self._made = Vocabulary(engine.facts.vocab_size, engine.piece, engine.is_end)
        return self._made


def _key(
    inference: Inference, rendered: str, marks: Delimiters, special: Mapping[int, bytes]
) -> bytes:
    """Of everything that the grammar depends on."""
    prompt = inference.prompt
    tools = prompt.tools if grammar_text.is_call_forced(inference) else []
    thoughts = marks.thoughts and (*marks.thoughts, rendered.rstrip().endswith(marks.thoughts[0]))
    asked = inference.format, tools, prompt.tool_choice, prompt.think
    shown = thoughts, marks.calls, marks.begins_thinking, marks.opening
    text = json.dumps((asked, shown)).encode()  # a schema may have numbers that no packer takes
    return hashlib.sha256(text + _pack(dict(special))).digest()


def _log(reason: str) -> None:
    print(f"calls of these tools are not guarded: {reason}", file=sys.stderr)  # noqa: T201  # stderr is the log

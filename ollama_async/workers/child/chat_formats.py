"""How the requests of one worker want to be spoken to, and what of it is kept from one to the next.

Names of one file may be configured differently, and a request may bring a template of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.conversation import ChatFormatSpec, Message, Prompt
from ollama_async.core.errors import ServerError, TemplateFailed
from ollama_async.prompts.chat_format import ChatFormat
from ollama_async.workers.child.engines.engine import Engine
from ollama_async.workers.child.prefix_cache import shared_length
from ollama_async.workers.child.resource_limits import Run, run_unlimited

KEPT = 16
"""Dialects of each kind; a template takes milliseconds to compile, and clients can think of any
number."""

KEPT_CHARACTERS = 2 << 20
"""Of their templates together; compiled, they take some fifty times as many bytes."""

TEMPLATE_LIMIT = 1 << 20
"""Characters; the longest in use have some 20,000."""


class Spoken(msgspec.Struct, frozen=True):
    """A dialect with this model's tokens: ``special`` is the text of the control tokens that it
    wants to read in answers, by id.
    """

    dialect: ChatFormat
    special: Mapping[int, bytes]


_Kept = BoundedCache[ChatFormatSpec, Spoken | ServerError]


class Choose(Protocol):
    """:func:`ollama_async.prompts.chat_format.choose` for what is known of the model's file."""

    def __call__(
        self, spec: ChatFormatSpec, *, chat_template: str, bos: str, eos: str
    ) -> ChatFormat: ...


class Dialects:
    """Those of one model. Made by one thread, found by any.

    What cannot be made is kept, too. Templates that requests bring push out only one another.
    """

    def __init__(self, engine: Engine, choose: Choose) -> None:
        self._engine = engine
        self._choose = choose
        self._own: _Kept = BoundedCache(KEPT, KEPT_CHARACTERS)
        self._brought: _Kept = BoundedCache(KEPT, KEPT_CHARACTERS)

    def kept(self, spec: ChatFormatSpec) -> Spoken | None:
        """The one for ``spec`` if it was made before.

        :raises ServerError: it was tried before, and why there is none.
        """
        found = self._kept_with(spec).get(spec)
        if isinstance(found, ServerError):
            raise found.with_traceback(None)
        return found

    def find(self, spec: ChatFormatSpec, run: Run = run_unlimited) -> Spoken:
        """The one for ``spec``, made by ``run`` because a hostile template takes its time.

        :raises ServerError: there is none, and why.
        """
        spoken = self.kept(spec)
        if spoken is not None:
            return spoken
        found: Spoken | ServerError
        try:
            found = run(lambda: self._make(spec))
        except TemplateFailed as interruption:
            if not spec.request_template:  # a model's own has another chance
                raise
            found = interruption
        # not within run, whose interruptions would leave the books half written
        self._kept_with(spec).put(spec, found, _size(spec))
        if isinstance(found, ServerError):
            raise found
        return found

    def _kept_with(self, spec: ChatFormatSpec) -> _Kept:
        return self._brought if spec.request_template else self._own

    def _make(self, spec: ChatFormatSpec) -> Spoken | ServerError:
        """The dialect, or why there is none."""
        try:
            return self._speak(spec)
        except ServerError as error:
            return error

    def _speak(self, spec: ChatFormatSpec) -> Spoken:
        if max(len(spec.template), len(spec.request_template)) > TEMPLATE_LIMIT:
            raise TemplateFailed(f"the template is longer than {TEMPLATE_LIMIT} characters")
        facts = self._engine.facts
        dialect = self._choose(
            spec, chat_template=facts.chat_template, bos=facts.bos, eos=facts.eos
        )
        return Spoken(dialect, dict(self._special(dialect.special_tokens)))

    def _special(self, texts: tuple[str, ...]) -> list[tuple[int, bytes]]:
        """Those of ``texts`` that are one token which says nothing by itself."""
        found = []
        for text in texts:
            tokens = self._engine.tokenize(text, add_special=False, parse_special=True)
            if len(tokens) == 1 and not self._engine.piece(tokens[0]):
                found.append((tokens[0], text.encode()))
        return found


def _size(spec: ChatFormatSpec) -> int:
    return len(spec.template) + len(spec.request_template)


_QUESTIONS = ("0", "A")
_KEPT = 64
_KEPT_TOKENS = 1 << 20

_pack = msgspec.msgpack.Encoder().encode


class OwnPrefixes:
    """Those of one worker's models: names of one file may bring different texts. Any thread."""

    def __init__(self) -> None:
        self._kept: BoundedCache[bytes, list[int]] = BoundedCache(_KEPT, _KEPT_TOKENS)

    def kept(self, prompt: Prompt) -> list[int] | None:
        """Tokens; None: they are not known yet."""
        return self._kept.get(_key(prompt))

    def find(self, prompt: Prompt, encode: Callable[[Prompt], list[int]]) -> list[int]:
        """The same with certainty; ``encode`` renders and tokenizes a conversation."""
        tokens = self.kept(prompt)
        if tokens is None:
            try:
                one, other = (encode(_with_question(prompt, text)) for text in _QUESTIONS)
            except TemplateFailed:  # it takes no plain question: nothing is known to be its own
                one = other = []
            tokens = one[: shared_length(one, other)]
            self._kept.put(_key(prompt), tokens, 1 + len(tokens))
        return tokens


def _with_question(prompt: Prompt, text: str) -> Prompt:
    messages = [*prompt.messages[: prompt.own], Message("user", text)]
    return Prompt(messages=messages, think=prompt.think, chat_format=prompt.chat_format)


def _key(prompt: Prompt) -> bytes:
    """Of everything that the tokens depend on; many templates show the day."""
    day = datetime.now().astimezone().toordinal()
    own = prompt.messages[: prompt.own]
    return hashlib.sha256(_pack((prompt.chat_format, own, prompt.think, day))).digest()

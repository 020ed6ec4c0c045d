"""How the requests of one worker want to be spoken to, and what of it is kept from one to the next.

Names of one file may be configured differently, and a request may bring a template of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

import msgspec

from ollama_async.conversation import Speech
from ollama_async.errors import TemplateFailed
from ollama_async.prompts.port import Dialect
from ollama_async.workers.child.engines.port import Engine

KEPT = 16
"""Dialects; a template takes milliseconds to compile, and clients can think of any number."""

TEMPLATE_LIMIT = 1 << 20
"""Characters; the longest in use have some 20,000."""


class Spoken(msgspec.Struct, frozen=True):
    """A dialect with this model's tokens: ``special`` is the text of the control tokens that it
    wants to read in answers, by id.
    """

    dialect: Dialect
    special: Mapping[int, bytes]


class Choose(Protocol):
    """:func:`ollama_async.prompts.choose.choose` for what is known of the model's file."""

    def __call__(self, speech: Speech, *, chat_template: str, bos: str, eos: str) -> Dialect: ...


class Dialects:
    """Those of one model. Intake thread only."""

    def __init__(self, engine: Engine, choose: Choose) -> None:
        self._engine = engine
        self._choose = choose
        self._kept: OrderedDict[Speech, Spoken] = OrderedDict()

    def find(self, speech: Speech) -> Spoken:
        """The one for ``speech``. May take as long as a hostile template makes it, and be
        interrupted.

        :raises ServerError: there is none, and why.
        """
        spoken = self._kept.get(speech)
        if spoken is None:
            spoken = self._make(speech)
            if len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[speech] = spoken
        self._kept.move_to_end(speech)
        return spoken

    def _make(self, speech: Speech) -> Spoken:
        if max(len(speech.template), len(speech.request_template)) > TEMPLATE_LIMIT:
            raise TemplateFailed(f"the template is longer than {TEMPLATE_LIMIT} characters")
        facts = self._engine.facts
        dialect = self._choose(
            speech, chat_template=facts.chat_template, bos=facts.bos, eos=facts.eos
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

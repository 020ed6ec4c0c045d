"""Caches of a worker's chat formats, and of the prefixes that the model contributes to prompts.

Models that share a file may be configured differently, and a request may bring its own template.

The model's own prefix is how a prompt begins whatever its client writes: the template's own words,
the model's system prompt and its messages. It is found as the common prefix of two prompts that
differ only in the first character of the question. They contain no client's text, so that a client
who learns that its prompt begins with such a prefix learns nothing about others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.conversation import ChatFormatSpec, Message, Prompt
from ollama_async.core.errors import ServerError, TemplateFailed
from ollama_async.prompts.chat_format import ChatFormat
from ollama_async.workers.child.engines.engine import Engine
from ollama_async.workers.child.prefix_cache import common_prefix_length
from ollama_async.workers.child.resource_limits import Run, run_unlimited

CACHE_ENTRIES = 16
"""Chat formats of each kind. A template takes milliseconds to compile, and clients can send any
number."""

CACHE_CHARACTERS = 2 << 20
"""Characters of their templates; compiled, they take about fifty times as many bytes."""

TEMPLATE_LIMIT = 1 << 20
"""Characters; the longest in use have about 20,000."""

_QUESTIONS = ("0", "A")
_PREFIX_ENTRIES = 64
_PREFIX_TOKENS = 1 << 20

_pack = msgspec.msgpack.Encoder().encode


class BoundChatFormat(msgspec.Struct, frozen=True):
    """A chat format with this model's tokens: ``special`` is the text, by id, of the control tokens
    that it reads in answers.
    """

    chat_format: ChatFormat
    special: Mapping[int, bytes]


_Cache = BoundedCache[ChatFormatSpec, BoundChatFormat | ServerError]


class ChatFormatCache:
    """The chat formats of one worker. One thread makes them, any thread looks them up.

    Failures are cached, too. Templates of requests evict only one another. ``choose`` is
    :func:`ollama_async.prompts.chat_format.choose`.
    """

    def __init__(self, engine: Engine, choose: Callable[..., ChatFormat]) -> None:
        self._engine = engine
        self._choose = choose
        self._of_models: _Cache = BoundedCache(CACHE_ENTRIES, CACHE_CHARACTERS)
        self._of_requests: _Cache = BoundedCache(CACHE_ENTRIES, CACHE_CHARACTERS)

    def get(self, spec: ChatFormatSpec) -> BoundChatFormat | None:
        """The cached chat format, if any.

        :raises ServerError: it was tried before and failed.
        """
        found = self._cache_of(spec).get(spec)
        if isinstance(found, ServerError):
            raise found.with_traceback(None)
        return found

    def get_or_make(
        self,
        spec: ChatFormatSpec,
        run: Run = run_unlimited,
        before_build: Callable[[], None] = lambda: None,
    ) -> BoundChatFormat:
        """The chat format. If it must be made, ``before_build`` is called, which may raise, and
        ``run`` makes it, since templates are untrusted.

        :raises ServerError: there is none.
        """
        cached = self.get(spec)
        if cached is not None:
            return cached
        before_build()
        found: BoundChatFormat | ServerError
        try:
            found = run(lambda: self._make(spec))
        except TemplateFailed as interruption:
            if not spec.request_template:  # the model's own is tried again
                raise
            found = interruption
        # not within run, whose interruptions would leave the cache inconsistent
        size = len(spec.template) + len(spec.request_template)
        self._cache_of(spec).put(spec, found, size)
        if isinstance(found, ServerError):
            raise found
        return found

    def _cache_of(self, spec: ChatFormatSpec) -> _Cache:
        return self._of_requests if spec.request_template else self._of_models

    def _make(self, spec: ChatFormatSpec) -> BoundChatFormat | ServerError:
        if max(len(spec.template), len(spec.request_template)) > TEMPLATE_LIMIT:
            return TemplateFailed(f"the template is longer than {TEMPLATE_LIMIT} characters")
        facts = self._engine.facts
        try:
            chat_format = self._choose(
                spec, chat_template=facts.chat_template, bos=facts.bos, eos=facts.eos
            )
            return BoundChatFormat(chat_format, self._find_special(chat_format.special_tokens))
        except ServerError as error:
            return error

    def _find_special(self, texts: tuple[str, ...]) -> dict[int, bytes]:
        """Those of ``texts`` that are a single control token, by id."""
        found = {}
        for text in texts:
            tokens = self._engine.tokenize(text, add_special=False, parse_special=True)
            if len(tokens) == 1 and not self._engine.piece(tokens[0]):
                found[tokens[0]] = text.encode()
        return found


class ModelPrefixCache:
    """The prefixes that models contribute to prompts, as tokens. Any thread."""

    def __init__(self) -> None:
        self._cache: BoundedCache[bytes, list[int]] = BoundedCache(_PREFIX_ENTRIES, _PREFIX_TOKENS)

    def get(self, prompt: Prompt) -> list[int] | None:
        return self._cache.get(_prefix_key(prompt))

    def get_or_make(self, prompt: Prompt, encode: Callable[[Prompt], list[int]]) -> list[int]:
        """``encode`` renders and tokenizes a conversation."""
        tokens = self.get(prompt)
        if tokens is None:
            try:
                one, other = (encode(_with_question(prompt, text)) for text in _QUESTIONS)
            except TemplateFailed:  # it takes no plain question: no prefix is known to be its own
                one = other = []
            tokens = one[: common_prefix_length(one, other)]
            self._cache.put(_prefix_key(prompt), tokens, 1 + len(tokens))
        return tokens


def _with_question(prompt: Prompt, text: str) -> Prompt:
    messages = [*prompt.messages[: prompt.own], Message("user", text)]
    return Prompt(messages=messages, think=prompt.think, chat_format=prompt.chat_format)


def _prefix_key(prompt: Prompt) -> bytes:
    """Covers everything that the tokens depend on; many templates print the date."""
    day = datetime.now().astimezone().toordinal()
    own = prompt.messages[: prompt.own]
    return hashlib.sha256(_pack((prompt.chat_format, own, prompt.think, day))).digest()

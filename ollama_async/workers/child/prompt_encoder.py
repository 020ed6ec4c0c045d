"""Encodes prompts: renders a conversation in the chat format, truncates it, tokenizes it.

Chat formats are cached: models that share a file may be configured differently, and a request may
bring its own template.

So is the prefix that a model contributes to prompts, whatever its client writes: the template's own
words, the model's system prompt and its messages. It is the common prefix of two prompts that
differ only in the first character of the question. They contain no client's text, so a client who
learns that its prompt begins with such a prefix learns nothing about others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.conversation import ChatFormatSpec, Inference, Message, Prompt
from ollama_async.core.errors import BadRequest, ContextExceeded, ServerError, TemplateFailed
from ollama_async.prompts.chat_format import ChatFormat
from ollama_async.prompts.output_format import Delimiters
from ollama_async.prompts.truncation import cut_middle, truncate
from ollama_async.workers.child.engines.engine import Engine
from ollama_async.workers.child.media import Media, MediaReader, MediaSpan, add_media
from ollama_async.workers.child.media_markers import mark, mark_raw, show, split
from ollama_async.workers.child.output_parser import OutputParser
from ollama_async.workers.child.prefix_query import common_prefix_length
from ollama_async.workers.child.resource_limits import PreparationBudget, Run
from ollama_async.workers.child.tokenizing import check_tokens

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

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the"
    " prompt, adjust the context length in settings, or use a model with a longer context length"
)
"""Ollama's sentence."""

RESERVE_SHARE = 4
"""When old messages are dropped, at most one part in so many of the context is reserved for the
answer. Ollama reserves nothing, and answers then begin with a context shift."""

LONGEST_TOKEN = 128
"""Characters; vocabularies have tokens of so many spaces. A text with more than twice as many for
each token of the context never fits, so only its ends are tokenized: all of 60 MB would delay the
requests behind it by 14 s."""

_FAILURES = 1024
"""Prompts that failed with their own templates, so that the same one costs nothing again."""

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

    def get_or_make(
        self, spec: ChatFormatSpec, run: Run, before_build: Callable[[], None]
    ) -> BoundChatFormat:
        """The chat format. If it must be made, ``before_build`` is called, which may raise, and
        ``run`` makes it, since templates are untrusted.

        :raises ServerError: there is none.
        """
        cache = self._of_requests if spec.request_template else self._of_models
        found = cache.get(spec)
        if found is None:
            before_build()
            try:
                found = run(lambda: self._make(spec))
            except TemplateFailed as interruption:
                if not spec.request_template:  # the model's own is tried again
                    raise
                found = interruption
            # not within run, whose interruptions would leave the cache inconsistent
            cache.put(spec, found, len(spec.template) + len(spec.request_template))
        if isinstance(found, ServerError):
            raise found.with_traceback(None)
        return found

    def _make(self, spec: ChatFormatSpec) -> BoundChatFormat | ServerError:
        if max(len(spec.template), len(spec.request_template)) > TEMPLATE_LIMIT:
            return TemplateFailed(f"the template is longer than {TEMPLATE_LIMIT} characters")
        facts = self._engine.facts
        try:
            chat_format = self._choose(
                spec, chat_template=facts.chat_template, bos=facts.bos, eos=facts.eos
            )
            special = {}
            for text in chat_format.special_tokens:
                tokens = self._engine.tokenize(text, add_special=False, parse_special=True)
                if len(tokens) == 1 and not self._engine.piece(tokens[0]):  # a control token
                    special[tokens[0]] = text.encode()
            return BoundChatFormat(chat_format, special)
        except ServerError as error:
            return error


class EncodedPrompt(msgspec.Struct, frozen=True):
    """A prompt as the model reads it, and what reads the answer; see
    :class:`~ollama_async.workers.child.mailbox.PreparedRequest`. ``is_cut``: the middle of
    ``tokens`` was removed. ``spans``: of images and recordings.
    """

    tokens: list[int]
    text: str
    is_cut: bool = False
    parser: OutputParser | None = None
    special: Mapping[int, bytes] = {}
    delimiters: Delimiters = Delimiters()
    spans: Mapping[int, MediaSpan] = {}


class PromptEncoder:
    """For one model. Any number of threads encode with a quick budget, one with the full budget.

    ``media_reader``: None if the model only reads text.
    """

    def __init__(
        self,
        engine: Engine,
        chat_formats: ChatFormatCache,
        media_reader: MediaReader | None = None,
    ) -> None:
        self._engine = engine
        self._media_reader = media_reader
        self._facts = engine.facts
        self._chat_formats = chat_formats
        self._prefixes = BoundedCache[bytes, list[int]](_PREFIX_ENTRIES, _PREFIX_TOKENS)
        self._failed: BoundedCache[bytes, TemplateFailed] = BoundedCache(_FAILURES, _FAILURES)

    def encode(
        self,
        inference: Inference,
        num_ctx: int,
        keep: int,
        budget: PreparationBudget,
        owner: str,
    ) -> EncodedPrompt:
        """The prompt, with fewer than ``num_ctx`` tokens. If necessary and allowed, old messages
        are dropped, and then the middle of the tokens, but none of the first ``keep``. ``owner``:
        whose images these are.

        :raises ServerError: it cannot be rendered, or is too long.
        """
        encoded = self._encode(inference, num_ctx, budget, owner)
        if len(encoded.tokens) < num_ctx:
            return encoded
        if encoded.spans or not (inference.shift and inference.prompt.truncate):
            raise ContextExceeded(TOO_LONG)
        tokens = cut_middle(encoded.tokens, num_ctx=num_ctx, keep=keep)
        return msgspec.structs.replace(encoded, tokens=tokens, is_cut=True)

    def _encode(
        self, inference: Inference, num_ctx: int, budget: PreparationBudget, owner: str
    ) -> EncodedPrompt:
        prompt = inference.prompt
        name = "prompt" if prompt.raw == "" else "context"  # OpenAI's prompts may be tokens
        context = check_tokens(prompt.context, self._facts.vocab_size, name)
        media = self._read_media(prompt.messages, budget, owner)
        if prompt.raw is not None:
            text = mark_raw(prompt.raw, len(media), num_ctx) if media else prompt.raw
            tokens, spans = self._tokenize_all(text, media, context, num_ctx, budget)
            return EncodedPrompt(tokens or self._start_of_text(), text, spans=spans)
        if media:
            prompt = msgspec.structs.replace(prompt, messages=mark(prompt.messages))
            inference = msgspec.structs.replace(inference, prompt=prompt)
        if not prompt.chat_format.request_template:
            return self._render(inference, context, media, num_ctx, budget)
        digest = hashlib.sha256(_pack(prompt)).digest()
        if failure := self._failed.get(digest):
            raise failure.with_traceback(None)
        try:
            return self._render(inference, context, media, num_ctx, budget)
        except TemplateFailed as error:
            self._failed.put(digest, error, 1)
            raise

    def _read_media(
        self, messages: Sequence[Message], budget: PreparationBudget, owner: str
    ) -> list[Media]:
        """All images and recordings, in order.

        :raises BadRequest: the model does not read them, or not these.
        """
        files = [file for message in messages for file in message.images]
        if not files:
            return []
        if self._media_reader is None:
            raise BadRequest("this model does not support images")
        return self._media_reader.read_all(files, budget, owner)

    def _render(
        self,
        inference: Inference,
        context: list[int],
        media: Sequence[Media],
        num_ctx: int,
        budget: PreparationBudget,
    ) -> EncodedPrompt:
        """The messages of the prompt, after the tokens of ``context``."""
        prompt = inference.prompt
        spec = prompt.chat_format
        run = budget.start_rendering(is_request_template=bool(spec.request_template))
        bound = self._chat_formats.get_or_make(spec, run, budget.allow_build)
        chat_format = bound.chat_format

        def render(candidate: Prompt) -> tuple[Prompt, str, list[int], dict[int, MediaSpan]]:
            text = run(lambda: chat_format.render(candidate))
            return candidate, text, *self._tokenize_all(text, media, context, num_ctx, budget)

        if prompt.truncate:
            most, num_predict = max(1, num_ctx // RESERVE_SHARE), inference.sampling.num_predict
            reserve = min(max(1, num_predict), most) if num_predict >= 0 else most
            kept, text, tokens, spans = truncate(
                prompt,
                render,
                lambda candidate: len(candidate[2]),
                most=num_ctx - 1,
                target=num_ctx - reserve,
            )
        else:
            kept, text, tokens, spans = render(prompt)
        # a limit of its own: the candidates may have used theirs up
        started = budget.start_rendering()(lambda: chat_format.start(kept, text))
        parser = None
        if started is not None:
            parser = OutputParser(started, takes_one_call=not prompt.parallel_tool_calls)
        return EncodedPrompt(
            tokens,
            text,
            False,
            parser,
            {} if parser is None else bound.special,
            chat_format.delimiters(kept, text),
            spans,
        )

    def count_public(
        self, prompt: Prompt, tokens: list[int], num_ctx: int, budget: PreparationBudget
    ) -> int:
        """How many of the first ``tokens`` of the encoded prompt the model itself contributes."""
        spec = prompt.chat_format
        if prompt.raw is not None or prompt.context or spec.request_template:
            return 0
        key = _prefix_key(prompt)
        prefix = self._prefixes.get(key)
        if prefix is None:
            budget.allow_build()
            run = budget.start_rendering()
            chat_format = self._chat_formats.get_or_make(spec, run, budget.allow_build).chat_format
            own = prompt.messages[: prompt.model_messages]

            def encode(question: str) -> list[int]:
                messages = [*own, Message("user", question)]
                example = Prompt(messages=messages, think=prompt.think, chat_format=spec)
                text = run(lambda: chat_format.render(example))
                return self._tokenize(text, num_ctx, budget, is_first=True)

            try:
                one, other = map(encode, _QUESTIONS)
            except TemplateFailed:  # it takes no plain question: no prefix is known to be its own
                one = other = []
            prefix = one[: common_prefix_length(one, other)]
            self._prefixes.put(key, prefix, 1 + len(prefix))
        return common_prefix_length(prefix, tokens)

    def text_of(self, encoded: EncodedPrompt, prompt: Prompt) -> str:
        """The text of an encoded prompt."""
        facts, text, tokens = self._facts, encoded.text, encoded.tokens
        is_start = not prompt.context
        if encoded.is_cut:  # without a BOS that is not in the text
            is_added = facts.adds_bos and is_start and not text.startswith(facts.bos)
            return self._detokenize(tokens[1:] if is_added else tokens)
        text = show(text)
        rest = self._without_bos(text, is_first=is_start)
        bos = facts.bos if rest != text and is_start else ""  # once, if at all
        return self._detokenize(prompt.context) + bos + rest

    def _detokenize(self, tokens: list[int]) -> str:
        return b"".join(map(self._engine.piece_with_control, tokens)).decode(errors="replace")

    def _tokenize_all(
        self,
        text: str,
        media: Sequence[Media],
        context: list[int],
        num_ctx: int,
        budget: PreparationBudget,
    ) -> tuple[list[int], dict[int, MediaSpan]]:
        """``context`` and the tokens of ``text``, in which markers stand for ``media``. What comes
        behind an image that does not fit any more is missing: a text, or a template, may repeat
        its images without end.

        :raises TemplateFailed: there is a marker of another image.
        """
        tokens, spans = list(context), dict[int, MediaSpan]()
        if not media:
            return tokens + self._tokenize(text, num_ctx, budget, is_first=not context), spans
        for part in split(text):
            if isinstance(part, int):
                if part >= len(media):
                    raise TemplateFailed("the template changes the places of images")
                add_media(tokens, spans, media[part])
                if len(tokens) > num_ctx:
                    break
            else:
                tokens += self._tokenize(part, num_ctx, budget, is_first=not tokens)
        return tokens, spans

    def _tokenize(
        self, text: str, num_ctx: int, budget: PreparationBudget, *, is_first: bool
    ) -> list[int]:
        """Tokens with exactly one BOS in front, if the model uses one and this comes first.

        The middle is missing if the text is far longer than the context.
        """
        text = self._without_bos(text, is_first=is_first)
        most = LONGEST_TOKEN * num_ctx
        budget.charge_tokenizing(min(len(text), 2 * most))
        if len(text) <= 2 * most:
            return self._engine.tokenize(text, add_special=is_first, parse_special=True)
        head = self._engine.tokenize(text[:most], add_special=is_first, parse_special=True)
        return head + self._engine.tokenize(text[-most:], add_special=False, parse_special=True)

    def _start_of_text(self) -> list[int]:
        """The token that begins a text; of models without one, that which ends the text before."""
        text = self._facts.bos or self._facts.eos
        return self._engine.tokenize(text, add_special=False, parse_special=True)

    def _without_bos(self, text: str, *, is_first: bool) -> str:
        """``text`` without a leading BOS that the tokenizer or the context provides."""
        bos = self._facts.bos
        begin = 0
        if bos and (self._facts.adds_bos or not is_first):
            while text.startswith(bos, begin):
                begin += len(bos)
        return text[begin:]


def _prefix_key(prompt: Prompt) -> bytes:
    """Covers everything that the tokens depend on; many templates print the date."""
    day = datetime.now().astimezone().toordinal()
    own = prompt.messages[: prompt.model_messages]
    return hashlib.sha256(_pack((prompt.chat_format, own, prompt.think, day))).digest()

"""From one request to tokens: its prompt rendered, truncated and tokenized, and what its answer is
held to.

Whatever may take long charges its :class:`.PreparationBudget` first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec

from ollama_async.core.bounded_cache import BoundedCache
from ollama_async.core.conversation import ChatFormatSpec, Inference, Prompt, Sampling, Usage
from ollama_async.core.errors import BadRequest, ContextExceeded, TemplateFailed
from ollama_async.prompts.output_format import Delimiters
from ollama_async.prompts.truncation import cut_middle, fit
from ollama_async.workers.child.chat_formats import Dialects, OwnPrefixes, Spoken
from ollama_async.workers.child.engines.engine import Constraint, Engine
from ollama_async.workers.child.grammar.constraints import ConstraintFactory
from ollama_async.workers.child.mailbox import Work
from ollama_async.workers.child.output_parser import Meaning
from ollama_async.workers.child.prefix_cache import shared_length
from ollama_async.workers.child.resource_limits import MakeRun, PreparationBudget, Run
from ollama_async.workers.messages import (
    Deltas,
    Detokenize,
    Done,
    Started,
    Submit,
    Text,
    Tokenize,
    Tokens,
    ToParent,
)

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the"
    " prompt, adjust the context length in settings, or use a model with a longer context length"
)
"""Ollama's sentence."""

ANSWER_CONTEXTS = 10
"""An answer without a limit ends after so many contexts, as in Ollama."""

MIN_NUM_CTX = 4

LEAST_WINDOW = 2048
"""Tokens that a slot which has room for them holds before some are forgotten, also for a request
that wants less context: the engine goes through the caches of all slots to forget some of one, so
a request that had it do so at every token would hold up everybody's."""

RESERVE_SHARE = 4
"""At most one part in so many of the context is kept free for the answer when old turns are
dropped. Ollama keeps nothing free, and answers then begin by forgetting the prompt."""

STOPS_LIMIT = 256
STOP_CHARACTERS_LIMIT = 1 << 16
LONGEST_TOKEN = 128
"""Characters; vocabularies have tokens of so many spaces. A text with more than twice as many for
each token of the context never fits: only its ends are tokenized, since all of 60 MB would hold up
the requests behind it for 14 s."""

_REFUSED = 1024
"""Prompts that failed with their own templates, so that the same one costs nothing again."""

_TOKENS_LIMIT = 1 << 21  # some 10 MB in the pipe, which takes 16 MiB
_TEXT_LIMIT = 3 << 20  # characters, at most 12 MiB

Asked = Submit | Tokenize | Detokenize

_pack = msgspec.msgpack.Encoder().encode


class _Candidate(msgspec.Struct, frozen=True):
    """A conversation, or a part of one, and what it is for the model."""

    prompt: Prompt
    tokens: list[int]
    text: str


class Rendered(msgspec.Struct, frozen=True):
    """A prompt as the model reads it, and what will read the answer to it."""

    tokens: list[int]
    text: str
    meaning: Meaning | None = None
    special: Mapping[int, bytes] = {}
    marks: Delimiters = Delimiters()


class Preparation:
    """Of one model's requests. Any number of threads at a time prepare quickly, one patiently.

    ``shares_prefixes``: what was computed for one client serves all.
    """

    def __init__(
        self,
        engine: Engine,
        dialects: Dialects,
        make_run: MakeRun,
        *,
        guards_calls: bool = True,
        shares_prefixes: bool = True,
    ) -> None:
        self._engine = engine
        self._facts = engine.facts
        self._dialects = dialects
        self._grammars = ConstraintFactory(engine)
        self._make_run = make_run
        self._guards_calls = guards_calls
        self._shares_prefixes = shares_prefixes
        self._own = OwnPrefixes()
        self._refused: BoundedCache[bytes, TemplateFailed] = BoundedCache(_REFUSED, _REFUSED)

    def prepare(self, asked: Asked, *, is_quick: bool) -> list[Work | ToParent]:
        """Work for the step thread, or the answer.

        :raises OverBudget: it ``is_quick``, and cannot be done quickly.
        :raises ServerError: the request cannot be served, and why.
        """
        budget = PreparationBudget(self._make_run, is_quick=is_quick)
        if isinstance(asked, Tokenize):
            return [self._tokenize(asked, budget)]
        if isinstance(asked, Detokenize):
            return [self._detokenize(asked, budget)]
        budget.check_prompt(asked.inference.prompt)
        if asked.inference.renders_only:
            return self._show(asked.id, asked.inference, budget)
        return [self._prepare(asked, budget)]

    def _prepare(self, asked: Submit, budget: PreparationBudget) -> Work:
        inference = asked.inference
        sampling, num_ctx = inference.sampling, self._find_num_ctx(inference)
        _check_stops(sampling)
        keep = _find_keep(sampling.num_keep, self._facts.adds_bos, num_ctx)
        rendered = self._render(inference, num_ctx, budget)
        tokens = _shorten(rendered.tokens, inference, num_ctx, keep)
        if not tokens:
            raise BadRequest("the prompt is empty")
        constraint = self._constrain(inference, rendered, budget)
        window = self._find_window(num_ctx, is_exact=not inference.shift)
        most = ANSWER_CONTEXTS * num_ctx
        wanted = sampling.num_predict
        return Work(
            id=asked.id,
            tokens=tokens,
            sampling=sampling,
            num_ctx=window,
            keep=min(keep, window // 2),
            limit=wanted if 0 <= wanted <= most else most,
            shift=inference.shift,
            wants_context=inference.wants_context,
            meaning=rendered.meaning,
            special=rendered.special,
            constraint=constraint,
            client=asked.client,
            owner="" if self._shares_prefixes else asked.client,
            public=self._count_public(inference.prompt, tokens, num_ctx, budget),
        )

    def _count_public(
        self, prompt: Prompt, tokens: list[int], num_ctx: int, budget: PreparationBudget
    ) -> int:
        """How many of the first ``tokens`` are the model's own; 0 where nobody asks."""
        is_theirs = prompt.raw is not None or prompt.context or prompt.chat_format.request_template
        if self._shares_prefixes or is_theirs:
            return 0
        own = self._own.kept(prompt)
        if own is None:
            budget.allow_build()
            run = budget.start_rendering()
            dialect = self._dialects.find(prompt.chat_format, run).dialect

            def encode(candidate: Prompt) -> list[int]:
                text = run(lambda: dialect.render(candidate))
                return self._encode(text, num_ctx, budget, is_first=True)

            own = self._own.find(prompt, encode)
        return shared_length(own, tokens)

    def _constrain(
        self, inference: Inference, rendered: Rendered, budget: PreparationBudget
    ) -> Constraint | None:
        """What holds the answer, or its tool calls, to a form.

        :raises BadRequest: nothing can, and why.
        """
        constraint = self._grammars.constrain(
            inference, rendered.text, rendered.marks, rendered.special, budget.allow_build
        )
        if constraint is not None or rendered.meaning is None or not self._guards_calls:
            return constraint
        tools = inference.prompt.tools if inference.prompt.tool_choice != "none" else []
        guard = self._grammars.guard(tools, rendered.marks, rendered.special, budget.allow_build)
        if guard is not None:
            rendered.meaning.set_guard(guard)
        return guard

    def _show(
        self, request_id: int, inference: Inference, budget: PreparationBudget
    ) -> list[Work | ToParent]:
        """An answer that is the prompt itself."""
        num_ctx = self._find_num_ctx(inference)
        keep = _find_keep(inference.sampling.num_keep, self._facts.adds_bos, num_ctx)
        rendered = self._render(inference, num_ctx, budget)
        tokens = _shorten(rendered.tokens, inference, num_ctx, keep)
        if len(tokens) < len(rendered.tokens):
            text = self._show_tokens(tokens, inference.prompt, rendered.text)
        else:
            text = self._show_text(inference.prompt, rendered.text)
        _check_text(text)
        said: list[ToParent] = [Deltas([(request_id, text)])] if text else []
        return [Started(request_id), *said, Done(request_id, "stop", Usage(prompt=len(tokens)))]

    def _show_text(self, prompt: Prompt, text: str) -> str:
        """What comes before ``text``, and ``text`` with a BOS at its beginning once, if at all."""
        rest = self._without_bos(text, is_first=not prompt.context)
        bos = self._facts.bos if rest != text and not prompt.context else ""
        return self._written(prompt.context) + bos + rest

    def _show_tokens(self, tokens: list[int], prompt: Prompt, text: str) -> str:
        """``tokens``, which are left of the prompt, without a BOS that is not in ``text``."""
        facts = self._facts
        is_added = facts.adds_bos and not prompt.context and not text.startswith(facts.bos)
        return self._written(tokens[1:] if is_added else tokens)

    def _find_num_ctx(self, inference: Inference) -> int:
        most = self._facts.num_ctx
        return min(max(inference.num_ctx or most, MIN_NUM_CTX), most)

    def _find_window(self, num_ctx: int, *, is_exact: bool) -> int:
        """Tokens that a slot may hold. ``is_exact``: the answer ends where the context is full."""
        if is_exact or not self._facts.can_shift:
            return num_ctx
        return max(num_ctx, min(LEAST_WINDOW, self._facts.num_ctx))

    def _render(self, inference: Inference, num_ctx: int, budget: PreparationBudget) -> Rendered:
        """The prompt, the older part of its history dropped if need be and allowed.

        :raises ServerError: it cannot be rendered, and why.
        """
        prompt = inference.prompt
        before = self._checked(prompt.context)
        if prompt.raw is not None:
            tokens = self._encode(prompt.raw, num_ctx, budget, is_first=not before)
            return Rendered(before + tokens, prompt.raw)
        if any(message.images for message in prompt.messages):
            raise BadRequest("this model does not support images")
        if not prompt.chat_format.request_template:
            return self._speak(inference, before, num_ctx, budget)
        digest = hashlib.sha256(_pack(prompt)).digest()
        if refused := self._refused.get(digest):
            raise refused.with_traceback(None)
        try:
            return self._speak(inference, before, num_ctx, budget)
        except TemplateFailed as error:
            self._refused.put(digest, error, 1)
            raise

    def _speak(
        self, inference: Inference, before: list[int], num_ctx: int, budget: PreparationBudget
    ) -> Rendered:
        """The messages of the prompt in the model's words, behind the tokens ``before``."""
        prompt = inference.prompt
        run = budget.start_rendering(is_request_template=bool(prompt.chat_format.request_template))
        spoken = self._find(prompt.chat_format, run, budget)

        def render(candidate: Prompt) -> _Candidate:
            text = run(lambda: spoken.dialect.render(candidate))
            tokens = self._encode(text, num_ctx, budget, is_first=not before)
            return _Candidate(candidate, tokens, text)

        reserve = _find_reserve(inference.sampling, num_ctx)
        chosen = _choose(prompt, render, room=num_ctx - len(before), reserve=reserve)
        kept, text = chosen.prompt, chosen.text
        # a limit of its own: the candidates may have used up theirs
        parser = budget.start_rendering()(lambda: spoken.dialect.start(kept, text))
        return Rendered(
            before + chosen.tokens,
            text,
            None if parser is None else Meaning(parser),
            {} if parser is None else spoken.special,
            spoken.dialect.delimiters(kept, text),
        )

    def _find(self, spec: ChatFormatSpec, run: Run, budget: PreparationBudget) -> Spoken:
        """How the model is spoken to.

        :raises ServerError: it cannot be, and why.
        """
        spoken = self._dialects.kept(spec)
        if spoken is not None:
            return spoken
        budget.allow_build()
        return self._dialects.find(spec, run)

    def _encode(
        self, text: str, num_ctx: int, budget: PreparationBudget, *, is_first: bool
    ) -> list[int]:
        """Tokens with exactly one BOS in front, if the model wants one and this is the front.

        Of a text that is far longer than the context some of the middle is missing.
        """
        text = self._without_bos(text, is_first=is_first)
        most = LONGEST_TOKEN * num_ctx
        budget.charge_tokenizing(min(len(text), 2 * most))
        if len(text) <= 2 * most:
            return self._engine.tokenize(text, add_special=is_first, parse_special=True)
        head = self._engine.tokenize(text[:most], add_special=is_first, parse_special=True)
        return head + self._engine.tokenize(text[-most:], add_special=False, parse_special=True)

    def _without_bos(self, text: str, *, is_first: bool) -> str:
        """``text`` as it is tokenized: behind a BOS that the tokenizer or the context brings."""
        bos = self._facts.bos
        begin = 0
        if bos and (self._facts.adds_bos or not is_first):
            while text.startswith(bos, begin):
                begin += len(bos)
        return text[begin:]

    def _checked(self, tokens: list[int]) -> list[int]:
        if not all(0 <= token < self._facts.vocab_size for token in tokens):
            raise BadRequest("context holds tokens that this model does not have")
        return list(tokens)

    def _tokenize(self, asked: Tokenize, budget: PreparationBudget) -> Tokens:
        budget.charge_tokenizing(len(asked.text))
        tokens = self._engine.tokenize(
            asked.text, add_special=asked.add_special, parse_special=asked.parse_special
        )
        if len(tokens) > _TOKENS_LIMIT:
            raise BadRequest(f"the text has more than {_TOKENS_LIMIT} tokens")
        return Tokens(asked.id, tokens)

    def _detokenize(self, asked: Detokenize, budget: PreparationBudget) -> Text:
        budget.charge_tokenizing(len(asked.tokens))
        data = b"".join(map(self._engine.piece, self._checked(asked.tokens)))
        text = data.decode(errors="replace")
        _check_text(text)
        return Text(asked.id, text)

    def _written(self, tokens: list[int]) -> str:
        """``tokens`` as a prompt, control tokens included."""
        return b"".join(map(self._engine.written, tokens)).decode(errors="replace")


def _find_keep(num_keep: int, adds_bos: bool, num_ctx: int) -> int:
    """Tokens that are never forgotten: the first ``num_keep`` (negative: all) and a BOS."""
    keep = num_keep + adds_bos if num_keep >= 0 else num_ctx
    return min(keep, num_ctx - 2)


def _choose(
    prompt: Prompt, render: Callable[[Prompt], _Candidate], *, room: int, reserve: int
) -> _Candidate:
    """What is to be read of a conversation where ``room`` tokens are free for it and the answer."""
    if not prompt.truncate:
        return render(prompt)
    return fit(
        prompt,
        render,
        lambda candidate: len(candidate.tokens),
        most=room - 1,
        wanted=room - reserve,
    )


def _find_reserve(sampling: Sampling, num_ctx: int) -> int:
    """Tokens that dropping old turns leaves free: the answer's, if it is known to be short."""
    most = max(1, num_ctx // RESERVE_SHARE)
    return min(max(1, sampling.num_predict), most) if sampling.num_predict >= 0 else most


def _shorten(tokens: list[int], inference: Inference, num_ctx: int, keep: int) -> list[int]:
    """What goes before the model of a prompt whose history has been cut.

    :raises ContextExceeded: it is too long, and must not be shortened.
    """
    if len(tokens) < num_ctx:
        return tokens
    if not (inference.shift and inference.prompt.truncate):
        raise ContextExceeded(TOO_LONG)
    return cut_middle(tokens, num_ctx=num_ctx, keep=keep)


def _check_text(text: str) -> None:
    if len(text) > _TEXT_LIMIT:
        raise BadRequest(f"the text has more than {_TEXT_LIMIT} characters")


def _check_stops(sampling: Sampling) -> None:
    """Each character of an answer is held against each stop string."""
    stops = sampling.stop
    if len(stops) > STOPS_LIMIT or sum(map(len, stops)) > STOP_CHARACTERS_LIMIT:
        raise BadRequest(
            f"stop: more than {STOPS_LIMIT} strings or {STOP_CHARACTERS_LIMIT} characters"
        )

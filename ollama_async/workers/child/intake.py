"""From requests to tokens: what happens before a request competes for the engine.

Two threads meet here. The receiving one hands requests in and passes cancellations on at once; the
intake thread (the process's main thread, for :mod:`.deadline`'s sake) renders, truncates and
tokenizes one request after the other, and gives the step thread what it needs. A request that is
cancelled before it got so far ends here.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import msgspec

from ollama_async.conversation import Inference, Prompt, Sampling, Usage
from ollama_async.errors import BadRequest, ContextExceeded, ServerError
from ollama_async.prompts.history import fit
from ollama_async.prompts.port import Marks
from ollama_async.prompts.shorten import cut_middle
from ollama_async.workers.child.dialects import Dialects
from ollama_async.workers.child.engines.port import Constraint, Engine
from ollama_async.workers.child.grammar import Grammars
from ollama_async.workers.child.mailbox import LIMIT, Mailbox, Work
from ollama_async.workers.child.meaning import Meaning
from ollama_async.workers.messages import (
    Cancel,
    Detokenize,
    Done,
    Failed,
    Pieces,
    Started,
    Submit,
    Text,
    Tokenize,
    Tokens,
    ToParent,
)

T = TypeVar("T")

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the"
    " prompt, adjust the context length in settings, or use a model with a longer context length"
)
"""Ollama's sentence."""

ANSWER_CONTEXTS = 10
"""An answer without a limit ends after so many contexts, as in Ollama."""

MIN_NUM_CTX = 4
RESERVE_SHARE = 4
"""At most one part in so many of the context is kept free for the answer when old turns are
dropped. Ollama keeps nothing free, and answers then begin by forgetting the prompt."""

STOPS_LIMIT = 256
STOP_CHARACTERS_LIMIT = 1 << 16
LONGEST_TOKEN = 128
"""Characters; vocabularies have tokens of so many spaces. A text with more than twice as many for
each token of the context never fits: only its ends are tokenized, since all of 60 MB would hold up
the requests behind it for 14 s."""
_ERROR_CHARACTERS = 2000
_TOKENS_LIMIT = 1 << 21  # some 10 MB in the pipe, which takes 16 MiB
_TEXT_LIMIT = 3 << 20  # characters, at most 12 MiB

Asked = Submit | Tokenize | Detokenize


class Run(Protocol):
    """Runs foreign code on a leash; see :meth:`.Deadline.run`."""

    def __call__(self, action: Callable[[], T], /) -> T: ...


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
    marks: Marks = Marks()


class Intake:
    """``limited`` makes a runner for the renderings of one request; see :class:`.Deadline`."""

    def __init__(
        self,
        engine: Engine,
        dialects: Dialects,
        mailbox: Mailbox,
        limited: Callable[[], Run],
        *,
        guards_calls: bool = True,
    ) -> None:
        self._engine = engine
        self._facts = engine.facts
        self._dialects = dialects
        self._grammars = Grammars(engine)
        self._mailbox = mailbox
        self._limited = limited
        self._guards_calls = guards_calls
        self._asked: queue.Queue[Asked | None] = queue.Queue(LIMIT)
        self._pending: set[int] = set()
        self._handing_over = threading.Lock()

    # The receiving thread

    def put(self, asked: Asked) -> None:
        """Take a request in; blocks while too many lie here."""
        if isinstance(asked, Submit):
            self._pending.add(asked.id)
        self._asked.put(asked)

    def cancel(self, cancel: Cancel) -> None:
        """End the request, wherever it is."""
        with self._handing_over:
            is_here = cancel.id in self._pending
            self._pending.discard(cancel.id)
        self._mailbox.put(Done(cancel.id, "cancel", Usage()) if is_here else cancel)

    def close(self) -> None:
        """Make :meth:`run` return after what it is doing."""
        self._asked.put(None)

    # The intake thread

    def run(self) -> None:
        while (asked := self._asked.get()) is not None:
            self.work_on(asked)

    def work_on(self, asked: Asked) -> None:
        """Answer one request, or pass it on. Errors of a request stay its own."""
        results: list[Work | ToParent]
        try:
            results = self._work_on(asked)
        except ServerError as error:
            results = [Failed(asked.id, error.code, error.message[:_ERROR_CHARACTERS])]
        except Exception as error:  # noqa: BLE001  # the boundary of a request
            traceback.print_exc()
            text = f"worker: {error!r}"[:_ERROR_CHARACTERS]
            results = [Failed(asked.id, ServerError.code, text)]
        if not isinstance(asked, Submit) or self._is_wanted(asked.id):
            for result in results:
                self._mailbox.put(result)

    def _work_on(self, asked: Asked) -> list[Work | ToParent]:
        """:raises ServerError: the request cannot be served, and why."""
        if isinstance(asked, Tokenize):
            return [self._tokenize(asked)]
        if isinstance(asked, Detokenize):
            return [self._detokenize(asked)]
        if asked.id not in self._pending:
            return []  # cancelled while it lay here
        if asked.inference.renders_only:
            return self._show(asked.id, asked.inference)
        return [self._prepare(asked.id, asked.inference)]

    def _is_wanted(self, request_id: int) -> bool:
        """From now on the request is the step thread's, unless its end has been said already."""
        with self._handing_over:
            is_wanted = request_id in self._pending
            self._pending.discard(request_id)
        return is_wanted

    def _prepare(self, request_id: int, inference: Inference) -> Work:
        """:raises ServerError: the request cannot be served, and why."""
        sampling, num_ctx = inference.sampling, self._find_num_ctx(inference)
        _check_stops(sampling)
        keep = _find_keep(sampling.num_keep, self._facts.adds_bos, num_ctx)
        rendered = self._render(inference, num_ctx)
        tokens = _shorten(rendered.tokens, inference, num_ctx, keep)
        if not tokens:
            raise BadRequest("the prompt is empty")
        constraint = self._constrain(inference, rendered)
        most = ANSWER_CONTEXTS * num_ctx
        wanted = sampling.num_predict
        return Work(
            id=request_id,
            tokens=tokens,
            sampling=sampling,
            num_ctx=num_ctx,
            keep=keep,
            limit=wanted if 0 <= wanted <= most else most,
            shift=inference.shift,
            wants_context=inference.wants_context,
            meaning=rendered.meaning,
            special=rendered.special,
            constraint=constraint,
        )

    def _constrain(self, inference: Inference, rendered: Rendered) -> Constraint | None:
        """What holds the answer, or its tool calls, to a form.

        :raises BadRequest: nothing can, and why.
        """
        constraint = self._grammars.constrain(
            inference, rendered.text, rendered.marks, rendered.special
        )
        if constraint is not None or rendered.meaning is None or not self._guards_calls:
            return constraint
        tools = inference.prompt.tools if inference.prompt.tool_choice != "none" else []
        guard = self._grammars.guard(tools, rendered.marks, rendered.special)
        if guard is not None:
            rendered.meaning.set_guard(guard)
        return guard

    def _show(self, request_id: int, inference: Inference) -> list[Work | ToParent]:
        """An answer that is the prompt itself."""
        num_ctx = self._find_num_ctx(inference)
        keep = _find_keep(inference.sampling.num_keep, self._facts.adds_bos, num_ctx)
        rendered = self._render(inference, num_ctx)
        tokens = _shorten(rendered.tokens, inference, num_ctx, keep)
        if len(tokens) < len(rendered.tokens):
            text = self._show_tokens(tokens, inference.prompt, rendered.text)
        else:
            text = self._show_text(inference.prompt, rendered.text)
        _check_text(text)
        said: list[ToParent] = [Pieces([(request_id, text)])] if text else []
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

    def _render(self, inference: Inference, num_ctx: int) -> Rendered:
        """The prompt, the older part of its history dropped if need be and allowed.

        :raises ServerError: it cannot be rendered, and why.
        """
        prompt = inference.prompt
        before = self._checked(prompt.context)
        if prompt.raw is not None:
            tokens = self._encode(prompt.raw, num_ctx, is_first=not before)
            return Rendered(before + tokens, prompt.raw)
        if any(message.images for message in prompt.messages):
            raise BadRequest("this model does not support images")
        run = self._limited()
        spoken = run(lambda: self._dialects.find(prompt.speech))

        def render(candidate: Prompt) -> _Candidate:
            text = run(lambda: spoken.dialect.render(candidate))
            return _Candidate(candidate, self._encode(text, num_ctx, is_first=not before), text)

        reserve = _find_reserve(inference.sampling, num_ctx)
        chosen = _choose(prompt, render, room=num_ctx - len(before), reserve=reserve)
        kept, text = chosen.prompt, chosen.text
        # a limit of its own: the candidates may have used up theirs
        parser = self._limited()(lambda: spoken.dialect.start(kept, text))
        return Rendered(
            before + chosen.tokens,
            text,
            None if parser is None else Meaning(parser),
            {} if parser is None else spoken.special,
            spoken.dialect.marks(kept, text),
        )

    def _encode(self, text: str, num_ctx: int, *, is_first: bool) -> list[int]:
        """Tokens with exactly one BOS in front, if the model wants one and this is the front.

        Of a text that is far longer than the context some of the middle is missing.
        """
        text = self._without_bos(text, is_first=is_first)
        most = LONGEST_TOKEN * num_ctx
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

    def _tokenize(self, asked: Tokenize) -> Tokens:
        tokens = self._engine.tokenize(
            asked.text, add_special=asked.add_special, parse_special=asked.parse_special
        )
        if len(tokens) > _TOKENS_LIMIT:
            raise BadRequest(f"the text has more than {_TOKENS_LIMIT} tokens")
        return Tokens(asked.id, tokens)

    def _detokenize(self, asked: Detokenize) -> Text:
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

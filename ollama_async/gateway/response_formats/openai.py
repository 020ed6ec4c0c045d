"""OpenAI's protocol: the bytes with which ``/v1/chat/completions`` and ``/v1/completions`` answer.

A stream consists of server-sent events. Each answer ends with an event that has the reason; then
the counts of tokens follow, if they were requested, and ``[DONE]``.
"""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ollama_async.api import encode, openai
from ollama_async.api.encode import GROUP_SIZE, LongParts, list_pieces
from ollama_async.core.conversation import TokenLogprob, ToolCall
from ollama_async.core.errors import ServerError
from ollama_async.gateway.client_budgets import CLIENT_SEND_LIMIT_BYTES
from ollama_async.gateway.response_formats import (
    JSON_TYPE,
    SSE_TYPE,
    AnswerContent,
    FinalAnswer,
    ResponseFormat,
)
from ollama_async.gateway.response_formats.errors import Protocol, error_object
from ollama_async.gateway.response_formats.logprobs import logprob_json
from ollama_async.queue.backend import Start

DONE = b"data: [DONE]\n\n"

_PLACE = secrets.token_hex(16)
"""Stands for the text in an event that is prepared. No client can guess it."""
_PLACE_JSON = encode.to_json(_PLACE)


class OpenAIFormat:
    """What both routes have in common. ``model`` is the name that the client used.

    The response has ``choices`` answers, of which each ``per_prompt`` belong to one prompt.
    ``index``: of the one whose deltas an instance writes.
    """

    content_type = SSE_TYPE
    whole_type = JSON_TYPE
    text: Callable[[str], bytes]
    _id_prefix: str

    def __init__(
        self, model: str, *, choices: int = 1, per_prompt: int = 1, includes_usage: bool = False
    ) -> None:
        self._model = model
        self._choices = choices
        self._per_prompt = per_prompt
        self._includes_usage = includes_usage
        self._id = _new_id(self._id_prefix)
        self._created = _now()
        self.index = 0
        self.prepare()

    def choice(self, index: int) -> ResponseFormat:
        other = copy(self)
        other.index = index
        other.prepare()
        return other

    def begin(self, start: Start) -> bytes:
        raise NotImplementedError

    def content(self, content: AnswerContent) -> bytes:
        raise NotImplementedError

    def ended(self, answer: FinalAnswer) -> bytes:
        raise NotImplementedError

    def last(self, answers: Sequence[FinalAnswer]) -> bytes:
        return (self._counts(self._usage(answers)) if self._includes_usage else b"") + DONE

    def whole(self, answers: Sequence[FinalAnswer]) -> bytes | bytearray:
        """Written in pieces: with the logprobs of many choices it has tens of megabytes."""
        parts = LongParts()
        answer = self._answer(parts.encoded(self._choice_pieces(answers)), answers)
        return parts.to_json(answer, CLIENT_SEND_LIMIT_BYTES)

    def _choice_pieces(self, answers: Sequence[FinalAnswer]) -> Iterator[bytes]:
        before = b"["
        for index, answer in enumerate(answers):
            parts = LongParts()
            yield before
            yield from parts.pieces(self._whole_choice(index, answer, parts))
            before = b","
        yield b"]"

    def error(self, error: ServerError) -> bytes:
        """The stream ends with it."""
        return encode.to_event(error_object(Protocol.OPENAI, error))

    def prepare(self) -> None:
        """Make ``text`` for the choice of this index."""
        raise NotImplementedError

    def _answer(self, choices: Any, answers: Sequence[FinalAnswer]) -> msgspec.Struct:
        """The object of all ``choices``, which are encoded."""
        raise NotImplementedError

    def _whole_choice(self, index: int, answer: FinalAnswer, parts: LongParts) -> msgspec.Struct:
        raise NotImplementedError

    def _counts(self, usage: openai.Usage) -> bytes:
        raise NotImplementedError

    def _usage(self, answers: Sequence[FinalAnswer]) -> openai.Usage:
        return sum_usage(answers, self._per_prompt)


def sum_usage(answers: Sequence[FinalAnswer], per_prompt: int = 1) -> openai.Usage:
    """The counts of a response. ``per_prompt`` neighbours answer the same prompt."""
    prompts = [answer.finish.usage for answer in answers[::per_prompt]]
    prompt = sum(usage.prompt for usage in prompts)
    answered = [answer.finish.usage for answer in answers]
    completion = sum(usage.answer for usage in answered)
    thinking = sum(usage.thinking for usage in answered)
    return openai.Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=openai.PromptTokensDetails(sum(usage.cached for usage in prompts)),
        completion_tokens_details=openai.CompletionTokensDetails(thinking),
    )


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def _now() -> int:
    return int(time.time())


def _prepared(event: msgspec.Struct) -> Callable[[str], bytes]:
    """A function that makes ``event`` with a text in its place, in about 0.3 µs."""
    parts, to_json = encode.to_event(event).split(_PLACE_JSON), encode.to_json

    def make(text: str) -> bytes:
        return to_json(text).join(parts)

    return make


# --------------------------------------------------------------------------- chat completions


class OpenAIChatFormat(OpenAIFormat):
    """``renders_only`` (``_debug_render_only``): the content of the answer is the prompt itself."""

    _id_prefix = "chatcmpl-"

    def __init__(
        self, model: str, *, choices: int, includes_usage: bool, renders_only: bool = False
    ) -> None:
        self._renders_only = renders_only
        super().__init__(model, choices=choices, per_prompt=choices, includes_usage=includes_usage)

    def prepare(self) -> None:
        delta = openai.AnswerMessage
        self.text = _prepared(self._chunk(delta(content=_PLACE)))
        self._thinking = _prepared(self._chunk(delta(reasoning=_PLACE, reasoning_content=_PLACE)))

    def begin(self, start: Start) -> bytes:  # noqa: ARG002  # the contract's
        """The role of every answer."""
        message = openai.AnswerMessage(role="assistant", content="")
        return b"".join(
            encode.to_event(self._chunk(message, index=index)) for index in range(self._choices)
        )

    def content(self, content: AnswerContent) -> bytes:
        if content.thinking and content.logprobs is None:
            return self._thinking(content.thinking)
        return encode.to_event(self._chunk(_message(content), logprobs=_logprobs(content.logprobs)))

    def _answer(self, choices: Any, answers: Sequence[FinalAnswer]) -> openai.ChatCompletion:
        prompt = answers[0].content.text
        return openai.ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=self._usage(answers),
            debug_info=openai.DebugInfo(prompt) if self._renders_only else UNSET,
        )

    def _whole_choice(self, index: int, answer: FinalAnswer, parts: LongParts) -> openai.ChatChoice:
        content = AnswerContent() if self._renders_only else answer.content
        message = _message(content)
        message.role = "assistant"
        message.content = parts.text(content.text)
        return openai.ChatChoice(
            index=index,
            message=message,
            finish_reason=_chat_reason(answer),
            logprobs=_whole_logprobs(content.logprobs, parts),
        )

    def ended(self, answer: FinalAnswer) -> bytes:
        return encode.to_event(self._chunk(openai.AnswerMessage(), reason=_chat_reason(answer)))

    def _counts(self, usage: openai.Usage) -> bytes:
        return encode.to_event(self._chunk_of([], usage))

    def _chunk(
        self,
        delta: openai.AnswerMessage,
        *,
        index: int | None = None,
        reason: str | None = None,
        logprobs: openai.Logprobs | UnsetType = UNSET,
    ) -> openai.ChatCompletionChunk:
        index = self.index if index is None else index
        choice = openai.ChatChunkChoice(
            index=index, delta=delta, finish_reason=reason, logprobs=logprobs
        )
        return self._chunk_of([choice])

    def _chunk_of(
        self, choices: list[openai.ChatChunkChoice], usage: openai.Usage | UnsetType = UNSET
    ) -> openai.ChatCompletionChunk:
        return openai.ChatCompletionChunk(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=usage
        )


def _chat_reason(answer: FinalAnswer) -> str:
    reason = answer.finish.reason
    return "tool_calls" if answer.has_calls and reason == "stop" else reason


def _message(content: AnswerContent) -> openai.AnswerMessage:
    """With the parts that there are."""
    thinking = content.thinking or UNSET
    return openai.AnswerMessage(
        content=content.text or UNSET,
        reasoning=thinking,
        reasoning_content=thinking,
        tool_calls=answer_calls(content.tool_calls) or UNSET,
    )


def answer_calls(calls: Sequence[ToolCall]) -> list[openai.AnswerCall]:
    return [
        openai.AnswerCall(
            id=call.id,
            index=call.function.index,
            function=openai.AnswerFunction(
                name=call.function.name,
                arguments=encode.to_json(call.function.arguments).decode(),
            ),
        )
        for call in calls
    ]


def _logprobs(logprobs: list[TokenLogprob] | None) -> openai.Logprobs | UnsetType:
    if logprobs is None:
        return UNSET
    return openai.Logprobs(answer_logprobs(logprobs))  # type: ignore[arg-type]  # already encoded


def _whole_logprobs(
    logprobs: list[TokenLogprob] | None, parts: LongParts
) -> openai.Logprobs | UnsetType:
    if logprobs is None:
        return UNSET
    groups = (b",".join(map(bytes, answer_logprobs(group))) for group in _groups(logprobs))
    return openai.Logprobs(parts.encoded(list_pieces(groups)))


def answer_logprobs(logprobs: Sequence[TokenLogprob]) -> list[msgspec.Raw]:
    """Each as JSON of an :class:`openai.Logprob`."""
    return [logprob_json(each, lists_none=True) for each in logprobs]


def _groups(tokens: Sequence[TokenLogprob]) -> Iterator[Sequence[TokenLogprob]]:
    """Those that are encoded together: many at once would keep other threads waiting, and the
    collector of garbage.
    """
    return (tokens[at : at + GROUP_SIZE] for at in range(0, len(tokens), GROUP_SIZE))


# --------------------------------------------------------------------------- completions


class OpenAICompletionFormat(OpenAIFormat):
    """``echoes``: what precedes the answers to each prompt; the prompts themselves, or nothing."""

    _id_prefix = "cmpl-"

    def __init__(
        self, model: str, *, echoes: Sequence[str], per_prompt: int, includes_usage: bool
    ) -> None:
        self._echoes = echoes
        self._offsets = _Offsets()
        choices = len(echoes) * per_prompt
        super().__init__(
            model, choices=choices, per_prompt=per_prompt, includes_usage=includes_usage
        )

    def prepare(self) -> None:
        self._offsets = _Offsets()
        self.text = _prepared(self._object([self._choice_of(self.index, _PLACE)]))

    def begin(self, start: Start) -> bytes:  # noqa: ARG002  # the contract's
        """The prompts, if they are part of the answers."""
        return b"".join(
            encode.to_event(self._object([self._choice_of(index, self._echo(index))]))
            for index in range(self._choices)
            if self._echo(index)
        )

    def content(self, content: AnswerContent) -> bytes:
        """Nothing of a call, since there are no tools."""
        if content.tool_calls and content.logprobs is None:
            return b""
        logprobs = self._offsets.logprobs(content.logprobs)
        text = content.thinking + content.text
        return encode.to_event(self._object([self._choice_of(self.index, text, logprobs)]))

    def _answer(self, choices: Any, answers: Sequence[FinalAnswer]) -> openai.Completion:
        return self._object(choices, self._usage(answers))

    def _whole_choice(
        self, index: int, answer: FinalAnswer, parts: LongParts
    ) -> openai.CompletionChoice:
        content = answer.content
        text = parts.text(self._echo(index) + content.thinking + content.text)
        logprobs = None
        if content.logprobs is not None:
            logprobs = parts.encoded(_Offsets().pieces(content.logprobs))
        return self._choice_of(index, text, logprobs, answer.finish.reason)

    def _echo(self, index: int) -> str:
        return self._echoes[index // self._per_prompt]

    def ended(self, answer: FinalAnswer) -> bytes:
        choice = self._choice_of(self.index, "", reason=answer.finish.reason)
        return encode.to_event(self._object([choice]))

    def _counts(self, usage: openai.Usage) -> bytes:
        return encode.to_event(self._object([], usage))

    def _choice_of(
        self,
        index: int,
        text: str,
        logprobs: openai.CompletionLogprobs | None = None,
        reason: str | None = None,
    ) -> openai.CompletionChoice:
        return openai.CompletionChoice(
            index=index, text=text, logprobs=logprobs, finish_reason=reason
        )

    def _object(
        self, choices: list[openai.CompletionChoice], usage: openai.Usage | UnsetType = UNSET
    ) -> openai.Completion:
        return openai.Completion(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=usage
        )


class _Offsets:
    """Where the tokens of one answer begin in its text."""

    def __init__(self) -> None:
        self._characters = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def logprobs(self, tokens: Sequence[TokenLogprob] | None) -> openai.CompletionLogprobs | None:
        if tokens is None:
            return None
        offsets = []
        for each in tokens:
            offsets.append(self._characters)
            self._characters += len(self._decoder.decode(each.token))
        return openai.CompletionLogprobs(
            tokens=[_token_text(each.token) for each in tokens],
            token_logprobs=[each.logprob for each in tokens],
            top_logprobs=[
                {_token_text(token): logprob for token, logprob in each.top}
                | {_token_text(each.token): each.logprob}
                for each in tokens
            ],
            text_offset=offsets,
        )

    def pieces(self, tokens: Sequence[TokenLogprob]) -> Iterator[bytes]:
        """The JSON of :meth:`logprobs`."""
        names = openai.CompletionLogprobs.__struct_fields__
        columns: list[list[bytes]] = [[] for _ in names]
        for group in map(self.logprobs, _groups(tokens)):
            for column, name in zip(columns, names, strict=True):
                column.append(encode.to_json(getattr(group, name))[1:-1])
        before = b"{"
        for column, name in zip(columns, names, strict=True):
            yield b'%b"%b":' % (before, name.encode())
            yield from list_pieces(column)
            before = b","
        yield b"}"


def _token_text(token: bytes) -> str:
    """A part of a character is written as ``bytes:`` and escapes, as OpenAI does."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)

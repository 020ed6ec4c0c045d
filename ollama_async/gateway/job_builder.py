"""Builds the job of a generate or chat request: Ollama's checks in Ollama's order, then the prompt.

No option or field is silently ignored: what the server or the model cannot do is a 400 that names
it. The worker interprets messages, tools and templates. All of this runs in a thread if the request
is large.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from ollama_async.api.ollama import ChatRequest, GenerateRequest
from ollama_async.api.options import (
    DEPRECATED,
    SHARED,
    OptionOutOfRange,
    Options,
    WrongOptionType,
    merge,
    unknown_parameters,
)
from ollama_async.core.conversation import (
    ROLES,
    Detokenize,
    Inference,
    Message,
    Prompt,
    Tokenize,
)
from ollama_async.core.errors import BadRequest, LoadFailed, ServerError
from ollama_async.core.model_names import ModelName
from ollama_async.queue.backend import MEDIA_CONTEXT, Job, LoadOptions, Target
from ollama_async.store.model import Model

_pack = msgspec.msgpack.Encoder().encode
_log = logging.getLogger(__name__)

_to_text = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_SHOWN_CHARACTERS = 200  # of a value that is refused
_SHOWN_NAMES = 20

_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What other protocols can ask for beyond Ollama's requests. ``tool_choice`` and
    ``parallel_tool_calls`` are those of :class:`Prompt`, ``logit_bias`` that of
    :class:`~ollama_async.core.conversation.Sampling`. With the choice ``none`` the model does not
    see the tools: a small one would call what it sees.

    ``is_think_optional``: a model that cannot think answers without it instead of refusing.
    ``counts_only``: that of :class:`~ollama_async.core.conversation.Inference`.
    ``needs_hearing``: its images are recordings. ``is_completion``: a raw prompt may be empty, and
    may follow token ids (the ``context``).
    """

    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    logit_bias: dict[int, float] = {}
    is_think_optional: bool = False
    counts_only: bool = False
    is_completion: bool = False
    needs_hearing: bool = False


_NO_EXTRAS = Extras()


def build_generate_job(
    request: GenerateRequest, model: Model, client: str, extras: Extras = _NO_EXTRAS
) -> Job:
    """The job; without a prompt it only loads the model, unless it is a completion.

    :raises BadRequest: with Ollama's text where it has one.
    :raises LoadFailed: the model's file cannot be run.
    :raises ServerError: an option has the wrong type (500, as in Ollama) or value (400).
    """
    has_context = bool(request.context) and not extras.is_completion
    if request.raw and (request.template or request.system or has_context):
        raise BadRequest("raw mode does not support template, system, or context")
    _check_common(request, model, "generate", extras)
    if request.suffix and "insert" not in model.capabilities:
        raise _unsupported(model, "insert")
    if request.images:
        _check_media(model, extras)
    if not (request.prompt or extras.is_completion):
        prompt = None
    elif request.raw:
        shown = [Message(role="user", images=request.images)] if request.images else []
        prompt = Prompt(raw=request.prompt, messages=shown, context=request.context)
    else:
        messages, own = _generate_messages(request, model)
        prompt = Prompt(
            messages=messages,
            context=request.context,
            truncate=request.truncate is not False,
            think=_think(request, model),
            suffix=request.suffix,
            # The request's own template replaces whatever would render the prompt.
            chat_format=msgspec.structs.replace(
                model.chat_format, request_template=request.template
            ),
            model_messages=own,
        )
    return _job(request, model, client, prompt, extras)


def build_chat_job(
    request: ChatRequest, model: Model, client: str, extras: Extras = _NO_EXTRAS
) -> Job:
    """As :func:`build_generate_job`, with messages instead of a prompt."""
    _check_common(request, model, "chat", extras)
    tools = [] if extras.tool_choice == "none" else request.tools
    if tools and "tools" not in model.capabilities:
        raise _unsupported(model, "tools")
    if any(message.images for message in request.messages):
        _check_media(model, extras)
    if not request.messages:
        prompt = None
    else:
        messages, own = _chat_messages(request, model)
        prompt = Prompt(
            messages=messages,
            truncate=request.truncate is not False,
            tools=tools,
            think=_think(request, model),
            chat_format=model.chat_format,
            model_messages=own,
            tool_choice=extras.tool_choice,
            parallel_tool_calls=extras.parallel_tool_calls,
        )
    return _job(request, model, client, prompt, extras)


def _check_common(
    request: GenerateRequest | ChatRequest, model: Model, verb: str, extras: Extras
) -> None:
    can_think = "thinking" in model.capabilities or extras.is_think_optional
    if request.think and not can_think:
        raise BadRequest(f'"{request.model}" does not support thinking')
    if "completion" not in model.capabilities:
        raise BadRequest(f'"{request.model}" does not support {verb}')
    _check_format(request.format)


def _check_media(model: Model, extras: Extras) -> None:
    """Which of images and recordings it reads is known to its worker.

    :raises BadRequest: neither.
    """
    if extras.needs_hearing and "audio" not in model.capabilities:
        raise _unsupported(model, "audio")
    if not {"vision", "audio"}.intersection(model.capabilities):
        raise _unsupported(model, "vision")
    if model.projectors and not model.projector_bytes:
        raise BadRequest(
            f"the projector of '{model.name}' is not a GGUF file, so it cannot be used"
        )


def _check_format(value: Any) -> None:
    """:raises BadRequest: with Ollama's text."""
    if value is None or isinstance(value, dict) or value in ("", "json"):
        return
    quoted = json.dumps(_beginning(value, _SHOWN_CHARACTERS), ensure_ascii=False)
    raise BadRequest(
        f"invalid format: {quoted[:_SHOWN_CHARACTERS]}; "
        'expected "json" or a valid JSON Schema object'
    )


def _beginning(value: Any, length: int) -> str:
    """About the first ``length`` characters of ``value`` in JSON, without encoding all of it."""
    if isinstance(value, str):
        value = value[:length]
    shown = ""
    for part in _to_text.iterencode(value):
        shown += part[:length]
        if len(shown) >= length:
            break
    return shown


def _unsupported(model: Model, capability: str) -> BadRequest:
    return BadRequest(f"{ModelName.parse(model.name).full} does not support {capability}")


def _think(request: GenerateRequest | ChatRequest, model: Model) -> bool | str | None:
    """A model that can think does so unless the client declines."""
    if "thinking" not in model.capabilities:
        return None if request.think else request.think
    return True if request.think is None else request.think


def _generate_messages(request: GenerateRequest, model: Model) -> tuple[list[Message], int]:
    """The system prompt (the request's, else the model's); the model's own messages, unless
    ``context`` continues an older answer; the prompt. With a suffix, the prompt only.

    The number is how many of the first are the model's.
    """
    question = Message(role="user", content=request.prompt, images=request.images)
    if request.suffix:
        return [question], 0
    system = request.system or model.system
    messages = [Message(role="system", content=system)] if system else []
    if not request.context:
        messages += model.messages
    return [*messages, question], 0 if request.system else len(messages)


def _chat_messages(request: ChatRequest, model: Model) -> tuple[list[Message], int]:
    """The model's system prompt, unless the request begins with one; the model's own messages; the
    request's. The number is how many of the first are the model's.
    """
    messages: list[Message] = [*model.messages, *request.messages]
    if model.system and ROLES.get(request.messages[0].role) != "system":
        messages.insert(0, Message(role="system", content=model.system))
    own = len(messages) - len(request.messages)
    if model.details.family == "qwen3" or ModelName.parse(model.name).model == "deepseek-r1":
        return strip_thinking(messages), own
    return messages, own


def strip_thinking(messages: Sequence[Message]) -> list[Message]:
    """``messages`` without ``<think>…</think>``, which some clients send back, in the assistant's
    messages before the last question.
    """
    last_user = max(
        (index for index, message in enumerate(messages) if message.role == "user"), default=0
    )
    return [
        msgspec.structs.replace(message, content=_without_thinking(message.content))
        if index < last_user and message.role == "assistant"
        else message
        for index, message in enumerate(messages)
    ]


def _without_thinking(text: str) -> str:
    """Thinking without an end stays."""
    kept: list[str] = []
    position = 0
    while (begin := text.find(_THINK_OPEN, position)) >= 0:
        end = text.find(_THINK_CLOSE, begin)
        if end < 0:
            break
        kept.append(text[position:begin])
        position = end + len(_THINK_CLOSE)
        while text.startswith("\n", position):
            position += 1
    return "".join(kept) + text[position:]


def _job(
    request: GenerateRequest | ChatRequest,
    model: Model,
    client: str,
    prompt: Prompt | None,
    extras: Extras,
) -> Job:
    check_loadable(model)
    options = options_in_force(request.options, model)
    num_ctx = options.load["num_ctx"]
    if num_ctx and model.projectors:
        num_ctx = max(num_ctx, MEDIA_CONTEXT)
    inference = None
    if prompt is not None:
        inference = Inference(
            prompt=prompt,
            sampling=msgspec.structs.replace(options.sampling, logit_bias=extras.logit_bias),
            num_ctx=num_ctx or 0,
            shift=request.shift is not False,
            returns_context=isinstance(request, GenerateRequest) and not request.raw,
            format=None if request.format == "" else request.format,
            renders_only=request.debug_render_only,
            logprobs=request.top_logprobs if request.logprobs else -1,
            counts_only=extras.counts_only,
        )
    return Job(
        target=target_of(model),
        load_options=LoadOptions(**{**options.load, "num_ctx": num_ctx}),
        client=client,
        task=None if inference is None else msgspec.Raw(_pack(inference)),
        # a prompt that is only shown is not an answer, and may be as long as the context
        num_predict=-1 if request.debug_render_only else options.sampling.num_predict,
        logprobs=1 + request.top_logprobs if request.logprobs else 0,  # with the token's own
        keep_alive_s=request.keep_alive_s,
    )


def build_task_job(
    task: Tokenize | Detokenize,
    options: dict[str, Any],
    model: Model,
    client: str,
    keep_alive_s: float | None,
) -> Job:
    """A job that needs the model's worker, but no answer of the model.

    Raises as :func:`build_generate_job`.
    """
    check_loadable(model)
    return Job(
        target=target_of(model),
        load_options=LoadOptions(**options_in_force(options, model).load),
        client=client,
        task=msgspec.Raw(_pack(task)),
        keep_alive_s=keep_alive_s,
    )


def options_in_force(requested: dict[str, Any], model: Model) -> Options:
    """The model's parameters with the request's options in their place.

    :raises ServerError: an option has the wrong type (500, as in Ollama) or value (400).
    """
    if unknown := unknown_parameters(requested):
        shown = [name[:_SHOWN_CHARACTERS] for name in unknown[:_SHOWN_NAMES]]
        _log.warning("invalid option provided: %.200r", shown)
    if left_out := sorted(SHARED & requested.keys()):
        _log.info("left out, since only a model may set it: %s", left_out)
    for name in DEPRECATED & (requested.keys() | model.parameters.keys()):
        _log_deprecated(model.name, name)
    try:
        return merge(model.parameters, requested)
    except WrongOptionType as error:
        raise ServerError(str(error)) from None
    except OptionOutOfRange as error:
        raise BadRequest(str(error)) from None


def check_loadable(model: Model) -> None:
    """:raises LoadFailed: no worker would survive the model's file."""
    if missing := model.summary.missing_part:
        raise LoadFailed(f"unable to load model '{model.name}': its file has {missing}")


@lru_cache(maxsize=1024)
def _log_deprecated(model: str, option: str) -> None:
    """Once, as long as the cache remembers it."""
    _log.warning("option %r of model %.200r does nothing", option, model)


def target_of(model: Model) -> Target:
    """The model as the backend knows it."""
    summary = model.summary
    return Target(
        key=model.key,
        name=model.name,
        digest=model.digest,
        engine=model.engine,
        path=model.path,
        weights_bytes=summary.weights_bytes + model.adapter_bytes + model.projector_bytes,
        cache_bytes_per_token=summary.cache_bytes_per_token,
        train_ctx=summary.train_ctx,
        details=msgspec.to_builtins(model.details),
        adapters=model.adapters,
        projector=model.projectors[0] if model.projector_bytes else "",
        shape=summary.shape,
        embedding=summary.embedding,
    )

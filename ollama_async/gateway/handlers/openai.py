"""OpenAI's chat completions and completions: requests in Ollama's terms.

Both generate as ``/api/chat`` and ``/api/generate`` do. As in Ollama, an absent ``temperature`` or
``top_p`` is 1, whatever the model's parameters are. A field that the server cannot obey is a 400
that names it, unless clients send it routinely (:data:`~ollama_async.api.openai.Ignored`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ollama_async.api import openai
from ollama_async.api.ollama import ChatRequest, GenerateRequest
from ollama_async.api.options import check_parameters
from ollama_async.core.errors import BadRequest
from ollama_async.gateway.handlers.generation import Call, GenerationRoute, respond
from ollama_async.gateway.handlers.openai_messages import (
    check_functions,
    choose_tools,
    read_format,
    read_messages,
    think_of,
)
from ollama_async.gateway.job_builder import Extras
from ollama_async.gateway.response_formats.openai import OpenAIChatFormat, OpenAICompletionFormat

R = TypeVar("R", ChatRequest, GenerateRequest)

CHOICES_LIMIT = 128
"""Of one response: each is a job in the queue."""

COMPLETION_LOGPROBS_LIMIT = 5
"""OpenAI's; chat completions take twenty."""

ECHO_LIMIT_CHARACTERS = 1 << 20
"""Of the prompts that a response repeats, once for each choice, in one call on the event loop."""

_CHOICE_BYTES = 512
"""What another choice costs, as bytes of a body: up to 0.1 ms."""

_SEED_LIMIT = 2**63
_SHOWN_CHARACTERS = 40  # of a value that is refused


async def chat_completions(request: web.Request) -> web.StreamResponse:
    return await respond(request, _CHAT)


async def completions(request: web.Request) -> web.StreamResponse:
    """Prompts are continued as they are, without the model's chat format."""
    return await respond(request, _COMPLETION)


# --------------------------------------------------------------------------- chat completions


def _translate_chat(params: openai.ChatCompletionRequest) -> Call:
    if not params.messages:
        raise BadRequest("[] is too short - 'messages'")
    _refuse_unsupported(params)
    check_functions(params.tools or [])
    tools, tool_choice = choose_tools(params.tool_choice, params.tools or [])
    most = params.max_completion_tokens
    think = think_of(_effort(params))
    request = ChatRequest(
        model=params.model,
        messages=read_messages(params.messages),
        tools=tools,
        format=_format(params.response_format),
        keep_alive=params.keep_alive,
        options=_options(params, params.max_tokens if most is None else most),
        think=params.think if think is None else think,
        debug_render_only=params.debug_render_only,
        logprobs=bool(params.logprobs),
        top_logprobs=params.top_logprobs or 0,
    )
    choices = _choices(params.n)
    return Call(
        requests=_with_seeds([request], choices),
        response_format=OpenAIChatFormat(
            params.model,
            choices=choices,
            includes_usage=params.includes_usage,
            renders_only=params.debug_render_only,
        ),
        is_streamed=bool(params.stream) and not params.debug_render_only,
        extras=Extras(
            tool_choice=tool_choice,
            parallel_tool_calls=params.parallel_tool_calls is not False,
            logit_bias=_logit_bias(params.logit_bias),
        ),
    )


def _refuse_unsupported(params: openai.ChatCompletionRequest) -> None:
    """:raises BadRequest: for what would change the answer and cannot be done."""
    for name, instead in (("functions", "tools"), ("function_call", "tool_choice")):
        if getattr(params, name) is not None:
            raise BadRequest(f"{name} is not supported: use {instead}")
    for name in ("audio", "web_search_options"):
        if getattr(params, name) is not None:
            raise BadRequest(f"{name} is not supported")
    if any(modality != "text" for modality in params.modalities or ()):
        raise BadRequest("modalities: only text is supported")


def _effort(params: openai.ChatCompletionRequest) -> str | None:
    return params.reasoning.effort if params.reasoning is not None else params.reasoning_effort


def _format(given: openai.ResponseFormat | None) -> dict[str, Any] | str | None:
    if given is None:
        return None
    schema = given.json_schema.schema if given.json_schema is not None else None
    return read_format(given.type, schema, "response_format")


# --------------------------------------------------------------------------- completions


def _translate_completion(params: openai.CompletionRequest) -> Call:
    prompts = _prompts(params.prompt)
    per_prompt = _choices(params.n, len(prompts))
    if params.best_of not in {None, per_prompt}:
        raise BadRequest("best_of is not supported: use n")
    _check_completion(params, prompts)
    options = _options(params, params.max_tokens)
    requests = [
        GenerateRequest(
            model=params.model,
            prompt=prompt if isinstance(prompt, str) else "",
            context=[] if isinstance(prompt, str) else prompt,
            suffix=params.suffix or "",
            raw=not params.suffix,
            keep_alive=params.keep_alive,
            options=options,
            logprobs=params.logprobs is not None,
            top_logprobs=params.logprobs or 0,
        )
        for prompt in prompts
    ]
    return Call(
        requests=_with_seeds(requests, per_prompt),
        response_format=OpenAICompletionFormat(
            params.model,
            echoes=_echoes(params, prompts, per_prompt),
            per_prompt=per_prompt,
            includes_usage=params.includes_usage,
        ),
        is_streamed=bool(params.stream),
        extras=Extras(is_completion=True, logit_bias=_logit_bias(params.logit_bias)),
    )


def _prompts(prompt: str | list[Any] | None) -> list[str | list[int]]:
    """Texts and lists of token ids. :raises BadRequest: it is neither one nor several of these."""
    if prompt is None:
        return [""]
    if isinstance(prompt, str) or openai.are_token_ids(prompt):
        return [prompt]
    if not prompt:
        raise BadRequest("prompt: the list is empty")
    if not all(isinstance(each, str) or openai.are_token_ids(each) for each in prompt):
        raise BadRequest("prompt must be a text, a list of token ids, or a list of these")
    return prompt


def _echoes(
    params: openai.CompletionRequest, prompts: Sequence[str | list[int]], per_prompt: int
) -> list[str]:
    """What precedes the answers to each prompt. :raises BadRequest: it is too much."""
    echoes = [prompt if params.echo and isinstance(prompt, str) else "" for prompt in prompts]
    if per_prompt * sum(map(len, echoes)) > ECHO_LIMIT_CHARACTERS:
        raise BadRequest(f"echo: more than {ECHO_LIMIT_CHARACTERS} characters in all choices")
    return echoes


def _check_completion(params: openai.CompletionRequest, prompts: Sequence[str | list[int]]) -> None:
    """:raises BadRequest: names what cannot be done."""
    if not 0 <= (params.logprobs or 0) <= COMPLETION_LOGPROBS_LIMIT:
        raise BadRequest(f"logprobs must be between 0 and {COMPLETION_LOGPROBS_LIMIT}")
    has_tokens = any(not isinstance(prompt, str) for prompt in prompts)
    if params.echo and params.logprobs is not None:
        raise BadRequest("echo is not supported with logprobs: prompts have none")
    if params.echo and has_tokens:
        raise BadRequest("echo is not supported with token ids")
    if params.suffix and has_tokens:
        raise BadRequest("suffix is not supported with token ids")


# --------------------------------------------------------------------------- what both share


def _choices(count: int | None, prompts: int = 1) -> int:
    """The answers to each prompt. :raises BadRequest: too many, or none."""
    count = 1 if count is None else count
    if count < 1:
        raise BadRequest("n must be at least 1")
    if count * prompts > CHOICES_LIMIT:
        raise BadRequest(f"n: a response has at most {CHOICES_LIMIT} choices")
    return count


def _options(
    params: openai.CompletionRequest | openai.ChatCompletionRequest, most: int | None
) -> dict[str, Any]:
    """Ollama's options. ``most``: tokens of an answer.

    :raises BadRequest: one has the wrong type. (For Ollama's own routes that is a 500, as in
        Ollama; here a 500 means that the server failed.)
    """
    try:
        check_parameters(params.options or {})
    except ValueError as error:
        raise BadRequest(str(error)) from None
    stop = params.stop
    given = {
        "num_predict": most,
        "stop": [stop] if isinstance(stop, str) else stop,
        "seed": params.seed,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "frequency_penalty": params.frequency_penalty,
        "presence_penalty": params.presence_penalty,
    }
    defaults = {"temperature": 1.0, "top_p": 1.0}
    chosen = {name: value for name, value in given.items() if value is not None}
    return defaults | (params.options or {}) | chosen


def _with_seeds(requests: Sequence[R], count: int) -> list[R]:
    """Each request ``count`` times; with a seed, each time with the next."""
    return [_reseeded(request, number) for request in requests for number in range(count)]


def _reseeded(request: R, number: int) -> R:
    seed = request.options.get("seed")
    if not number or type(seed) is not int or seed < 0:
        return request
    options = {**request.options, "seed": (seed + number) % _SEED_LIMIT}
    return msgspec.structs.replace(request, options=options)


def _logit_bias(given: dict[str, float] | None) -> dict[int, float]:
    """By token id. :raises BadRequest: names the entry that is wrong."""
    bias: dict[int, float] = {}
    for key, value in (given or {}).items():
        if not (
            key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < openai.TOKEN_LIMIT
        ):
            raise BadRequest(f"logit_bias: {key[:_SHOWN_CHARACTERS]!r} is not the id of a token")
        if not -100 <= value <= 100:
            raise BadRequest(f"logit_bias: the value of token {key} must be between -100 and 100")
        bias[int(key)] = value
    return bias


def _choice_bytes(params: openai.CompletionRequest | openai.ChatCompletionRequest) -> int:
    """Each choice with a seed of its own is built anew."""
    return _CHOICE_BYTES * params.n if params.n is not None and params.n > 1 else 0


_CHAT = GenerationRoute(
    kind=openai.ChatCompletionRequest, translate=_translate_chat, extra_bytes=_choice_bytes
)
_COMPLETION = GenerationRoute(
    kind=openai.CompletionRequest, translate=_translate_completion, extra_bytes=_choice_bytes
)

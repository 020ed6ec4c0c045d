"""``/openapi.json``: the description of every route (OpenAPI 3.1), generated from the Structs that
decode requests and encode answers, and the page ``/docs`` that shows it.

:data:`OPERATIONS` says what a route takes and gives; a test compares it with the route table.
Bodies may have fields that are not described: as in Ollama, they are ignored.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from aiohttp import web

from ollama_async import __version__
from ollama_async.api import (
    anthropic,
    embeddings,
    encode,
    ollama,
    openai,
    openai_audio,
    openai_response_events,
    openai_responses,
)
from ollama_async.gateway.response_formats import NDJSON_TYPE, SSE_TYPE
from ollama_async.gateway.response_formats.errors import ERRORS, protocol_of
from ollama_async.gateway.responses import json_response

_PATTERN = re.compile(r"{(\w+):[^/]*}")
"""A part of a path with the expression that it matches."""

_PAGE = "openapi.html"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
}

_EXAMPLES: dict[str, Any] = {
    "prompt": "Why is the sky blue?",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "input": "Why is the sky blue?",
    "text": "Why is the sky blue?",
    "tokens": [72, 105],
    "query": "fruit",
    "documents": ["an apple", "a train"],
    "source": "demo",
    "destination": "my-demo",
    "max_tokens": 64,
    "max_output_tokens": 64,
}
"""Values of the fields with these names."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What a route takes and gives. Types are those that msgspec knows; None: no body.

    ``request``: the JSON body, with at least the fields ``required``. ``answer``: the JSON body of
    an answer with ``status``. ``stream``: one object of a streamed answer; ``events``: one event.
    ``form``: the properties of a form with files. ``text``: the media type of an answer that is not
    JSON. ``model``: the one in the example.
    """

    tag: str
    summary: str
    model: str = "demo"
    request: Any = None
    required: tuple[str, ...] = ()
    upload: str = ""
    form: dict[str, Any] = {}
    answer: Any = None
    stream: Any = None
    events: Any = None
    text: str = ""
    status: int = 200


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation(tag="Server", summary="Whether the server runs", text="text/plain"),
    ("GET", "/api/version"): Operation(
        tag="Server",
        summary="The Ollama release whose behaviour is matched",
        answer=ollama.VersionResponse,
    ),
    ("GET", "/healthz"): Operation(
        tag="Server", summary="Whether requests are accepted", answer=dict[str, Any]
    ),
    ("GET", "/metrics"): Operation(
        tag="Server", summary="Metrics for Prometheus", text="text/plain"
    ),
    ("GET", "/openapi.json"): Operation(
        tag="Server", summary="This description", answer=dict[str, Any]
    ),
    ("GET", "/docs"): Operation(
        tag="Server", summary="A page that shows this description", text="text/html"
    ),
    ("GET", "/api/tags"): Operation(
        tag="Models", summary="The models in the store", answer=ollama.ListResponse
    ),
    ("GET", "/api/ps"): Operation(
        tag="Models", summary="The models in memory", answer=ollama.ProcessResponse
    ),
    ("POST", "/api/show"): Operation(
        tag="Models",
        summary="Everything about a model",
        request=ollama.ShowRequest,
        required=("model",),
        answer=ollama.ShowResponse,
    ),
    ("POST", "/api/create"): Operation(
        tag="Models",
        summary="Make a model from files or from another model",
        request=ollama.CreateRequest,
        required=("model",),
        stream=ollama.ProgressStatus,
    ),
    ("POST", "/api/copy"): Operation(
        tag="Models",
        summary="Give a model a second name",
        request=ollama.CopyRequest,
        required=("source", "destination"),
    ),
    ("DELETE", "/api/delete"): Operation(
        tag="Models",
        summary="Remove a model",
        request=ollama.DeleteRequest,
        required=("model",),
    ),
    ("POST", "/api/blobs/{digest}"): Operation(
        tag="Models",
        summary="Upload a file",
        upload="application/octet-stream",
        status=201,
    ),
    ("HEAD", "/api/blobs/{digest}"): Operation(tag="Models", summary="Whether a file exists"),
    ("POST", "/api/pull"): Operation(
        tag="Models",
        summary="Fetch a model from a registry",
        request=ollama.PullRequest,
        required=("model",),
        stream=ollama.ProgressStatus,
    ),
    ("POST", "/api/push"): Operation(
        tag="Models",
        summary="Send a model to its registry",
        request=ollama.PushRequest,
        required=("model",),
        stream=ollama.ProgressStatus,
    ),
    ("POST", "/api/generate"): Operation(
        tag="Ollama",
        summary="Continue a prompt",
        request=ollama.GenerateRequest,
        required=("model",),
        answer=ollama.GenerateResponse,
        stream=ollama.GenerateResponse,
    ),
    ("POST", "/api/chat"): Operation(
        tag="Ollama",
        summary="Answer a conversation",
        request=ollama.ChatRequest,
        required=("model",),
        answer=ollama.ChatResponse,
        stream=ollama.ChatResponse,
    ),
    ("POST", "/api/embed"): Operation(
        model="demo-embed",
        tag="ollama",
        summary="Normalised vectors of texts",
        request=ollama.EmbedRequest,
        required=("model",),
        answer=ollama.EmbedResponse,
    ),
    ("POST", "/api/embeddings"): Operation(
        model="demo-embed",
        tag="ollama",
        summary="The vector of one text as the model gives it",
        request=ollama.EmbeddingRequest,
        required=("model",),
        answer=ollama.EmbeddingResponse,
    ),
    ("POST", "/v1/embeddings"): Operation(
        model="demo-embed",
        tag="openai",
        summary="Normalised vectors of texts or token ids",
        request=embeddings.OpenAIEmbedRequest,
        required=("model", "input"),
        answer=embeddings.EmbeddingList,
    ),
    **{
        ("POST", path): Operation(
            model="bge-reranker",
            tag="rerank",
            summary="How well each document answers a query",
            request=embeddings.RerankRequest,
            required=("model", "query", "documents"),
            answer=embeddings.RerankResponse,
        )
        for path in ("/api/rerank", "/v1/rerank", "/v2/rerank")
    },
    ("POST", "/api/tokenize"): Operation(
        tag="Ollama",
        summary="The tokens of a text",
        request=ollama.TokenizeRequest,
        required=("model", "text"),
        answer=ollama.TokenizeResponse,
    ),
    ("POST", "/api/detokenize"): Operation(
        tag="Ollama",
        summary="The text of tokens",
        request=ollama.DetokenizeRequest,
        required=("model", "tokens"),
        answer=ollama.DetokenizeResponse,
    ),
    ("POST", "/v1/chat/completions"): Operation(
        tag="openai",
        summary="Answer a conversation",
        request=openai.ChatCompletionRequest,
        required=("model", "messages"),
        answer=openai.ChatCompletion,
        events=openai.ChatCompletionChunk,
    ),
    ("POST", "/v1/completions"): Operation(
        tag="openai",
        summary="Continue prompts",
        request=openai.CompletionRequest,
        required=("model",),
        answer=openai.Completion,
        events=openai.Completion,
    ),
    ("POST", "/v1/responses"): Operation(
        tag="openai",
        summary="Answer a conversation, and remember it",
        request=openai_responses.ResponsesRequest,
        required=("model",),
        answer=openai_responses.Response,
        events=openai_response_events.Event,
    ),
    ("POST", "/v1/responses/input_tokens"): Operation(
        tag="openai",
        summary="Count the tokens of a request",
        request=openai_responses.ResponsesRequest,
        required=("model",),
        answer=openai_responses.InputTokens,
    ),
    ("GET", "/v1/responses/{id}"): Operation(
        tag="openai", summary="A stored response", answer=openai_responses.Response
    ),
    ("DELETE", "/v1/responses/{id}"): Operation(
        tag="openai", summary="Forget a response", answer=openai_responses.DeletedResponse
    ),
    ("POST", "/v1/responses/{id}/cancel"): Operation(
        tag="openai", summary="Refused: stored responses have ended"
    ),
    ("GET", "/v1/responses/{id}/input_items"): Operation(
        tag="openai",
        summary="What the model was given for a stored response",
        answer=openai_responses.InputItemList,
    ),
    ("POST", "/v1/audio/transcriptions"): Operation(
        tag="OpenAI",
        summary="What is said in a recording",
        form={
            "file": {"type": "string", "format": "binary"},
            "model": {"type": "string"},
            "language": {"type": "string"},
            "prompt": {"type": "string"},
            "response_format": {"type": "string", "enum": ["json", "text"]},
            "temperature": {"type": "number", "minimum": 0, "maximum": 2},
            "stream": {"type": "boolean"},
        },
        required=("file", "model"),
        answer=openai_audio.Transcription,
        events=openai_audio.TranscriptionDelta | openai_audio.TranscriptionDone,
    ),
    ("GET", "/v1/models"): Operation(
        tag="openai", summary="The models in the store", answer=openai.ModelList
    ),
    ("GET", "/v1/models/{id:.+}"): Operation(
        tag="openai", summary="One model of the store", answer=openai.Model
    ),
    ("GET", "/api/status"): Operation(
        tag="account", summary="Whether the cloud is disabled", answer=ollama.StatusResponse
    ),
    ("POST", "/api/me"): Operation(tag="account", summary="401: there is no account"),
    ("POST", "/api/signout"): Operation(tag="account", summary="401: there is no account"),
    ("DELETE", "/api/user/keys/{key}"): Operation(
        tag="account", summary="401: there is no account"
    ),
    ("POST", "/api/experimental/web_search"): Operation(
        tag="account",
        summary="401, or 403 if the cloud is disabled",
        request=ollama.WebSearchRequest,
    ),
    ("POST", "/api/experimental/web_fetch"): Operation(
        tag="account",
        summary="401, or 403 if the cloud is disabled",
        request=ollama.WebFetchRequest,
    ),
    ("GET", "/api/experimental/model-recommendations"): Operation(
        tag="account", summary="An empty list", answer=ollama.RecommendationsResponse
    ),
    ("POST", "/v1/messages"): Operation(
        tag="anthropic",
        summary="Answer a conversation",
        request=anthropic.MessagesRequest,
        required=("model", "messages", "max_tokens"),
        answer=anthropic.MessagesResponse,
        events=anthropic.Event,
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        tag="anthropic",
        summary="Count the tokens of a prompt",
        request=anthropic.CountTokensRequest,
        required=("model", "messages"),
        answer=anthropic.CountTokensResponse,
    ),
}


def example(operation: Operation) -> dict[str, Any]:
    """A body of the operation's request."""
    names = [field.encode_name for field in msgspec.structs.fields(operation.request)]
    values = _EXAMPLES | {"model": operation.model}
    return {name: values[name] for name in names if name in values}


async def openapi(_request: web.Request) -> web.Response:
    return json_response(_document())


async def docs(_request: web.Request) -> web.Response:
    return web.Response(text=_page(), content_type="text/html", headers=_PAGE_HEADERS)


@cache
def _document() -> bytes:
    return encode.to_json(describe())


@cache
def _page() -> str:
    return files(__package__).joinpath(_PAGE).read_text(encoding="utf-8")


def describe() -> dict[str, Any]:
    """The whole document."""
    kinds = {
        kind
        for operation in OPERATIONS.values()
        for kind in (operation.request, operation.answer, operation.stream, operation.events)
        if kind is not None
    }
    ordered = sorted(kinds | set(ERRORS.values()), key=repr)
    schemas, components = msgspec.json.schema_components(
        ordered, ref_template="#/components/schemas/{name}"
    )
    of_kind = dict(zip(ordered, schemas, strict=True))
    for schema in components.values():
        schema.pop("additionalProperties", None)  # unknown fields are ignored
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        shown = _PATTERN.sub(r"{\1}", path)
        paths.setdefault(shown, {})[method.lower()] = _operation(shown, operation, of_kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ollama_async",
            "version": __version__,
            "description": "A server for every Ollama client, built for many concurrent users.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(path: str, operation: Operation, of_kind: dict[Any, Any]) -> dict[str, Any]:
    content = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": of_kind[operation.answer]}
    if operation.stream is not None:
        content[NDJSON_TYPE] = {"schema": of_kind[operation.stream]}
        content.setdefault("application/json", {"schema": of_kind[operation.stream]})
    if operation.events is not None:
        content[SSE_TYPE] = {"schema": of_kind[operation.events]}
    if operation.text:
        content[operation.text] = {"schema": {"type": "string"}}
    done = {"description": "success", **({"content": content} if content else {})}
    failed = {"schema": of_kind[ERRORS[protocol_of(path)]]}
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {
            str(operation.status): done,
            "default": {"description": "an error", "content": {"application/json": failed}},
        },
    }
    if names := re.findall(r"{(\w+)}", path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if operation.upload:
        body = {operation.upload: {"schema": {"type": "string", "format": "binary"}}}
        described["requestBody"] = {"required": True, "content": body}
    elif operation.form:
        form: dict[str, Any] = {"type": "object", "properties": operation.form}
        form["required"] = list(operation.required)
        described["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}},
        }
    elif operation.request is not None:
        schema = of_kind[operation.request]
        if operation.required:
            schema = {"allOf": [schema, {"required": list(operation.required)}]}
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example(operation)}},
        }
    return described

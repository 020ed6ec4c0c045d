"""Computes embeddings, and scores of documents, for the routes of all protocols.

A protocol is a translation of its request to a :class:`Call`, which also writes the answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from aiohttp import web

from ollama_async.api import embeddings as api
from ollama_async.api import encode, ollama, vectors
from ollama_async.api.encode import LongParts
from ollama_async.api.openai import are_token_ids
from ollama_async.core.errors import BadRequest, NotFound, ServerError
from ollama_async.gateway.body import BODY_PROCESSOR, Body
from ollama_async.gateway.client_budgets import CLIENT_SEND_LIMIT_BYTES, SEND_RESERVATION
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.embedding import EmbeddingParams, EmbeddingRun, check_number_of_inputs
from ollama_async.gateway.handlers.models import find_model
from ollama_async.gateway.job_builder import check_loadable, options_in_force, target_of
from ollama_async.gateway.responses import json_response
from ollama_async.queue.backend import Job, LoadOptions
from ollama_async.store.model import Model

R = TypeVar("R", bound=msgspec.Struct)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """``vectors``: little-endian float32, as the model gave them; ``tokens``: of all inputs.
    Durations in nanoseconds.
    """

    vectors: Sequence[bytes]
    tokens: int
    load_ns: int
    total_ns: int


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request of any protocol. Without inputs it only loads the model.

    ``respond`` writes the answer, in a thread if that is long. ``no_model``: the error if the
    request names none.
    """

    model: str
    inputs: Sequence[str | list[int]]
    query: str | None = None
    truncate: bool = True
    options: dict[str, Any] = {}
    keep_alive_s: float | None = None
    respond: Callable[[Result], bytes | bytearray]
    no_model: Callable[[], ServerError] = partial(BadRequest, "model is required")


class _Route(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """``translate`` may raise :class:`ServerError`; it runs in a thread if the body is large."""

    kind: type[R]
    translate: Callable[[R], Call]


async def _respond(request: web.Request, route: _Route[R]) -> web.Response:
    """Compute what the body asks for."""
    began_at = perf_counter()
    processor = request.app[BODY_PROCESSOR]
    body = Body(request)
    await body.receive(route.kind)
    call = await processor.run(body.client, body.size, _decode, body, route)
    model = await _find(request.app, call.model)
    run = EmbeddingRun(
        _params(call, model, body.client),
        request.app[DEPENDENCIES].backend,
        processor,
        request[SEND_RESERVATION],
    )
    metrics = request.app[DEPENDENCIES].metrics
    try:
        await run.run()
    except asyncio.CancelledError:
        metrics.cancelled(run.phase)
        raise
    finally:
        metrics.answered(model.name, began_at, run)
    result = Result(
        vectors=run.vectors,
        tokens=run.tokens,
        load_ns=run.start.load_ns,
        total_ns=int((perf_counter() - began_at) * 1e9),
    )
    size = body.size + sum(map(len, run.vectors))  # an answer may have the texts of the request
    return json_response(await processor.run(body.client, size, call.respond, result))


def _decode(body: Body, route: _Route[R]) -> Call:
    call = route.translate(body.decode(route.kind))
    check_number_of_inputs(len(call.inputs))
    if not call.model.strip():
        raise call.no_model()
    return call


async def _find(application: web.Application, name: str) -> Model:
    """:raises NotFound: with Ollama's text for these routes."""
    try:
        return await find_model(application, name)
    except NotFound:
        raise NotFound(f'model "{name}" not found, try pulling it first') from None


def _params(call: Call, model: Model, client: str) -> EmbeddingParams:
    """:raises ServerError: an option is wrong, or the model cannot be loaded."""
    check_loadable(model)
    options = options_in_force(call.options, model)
    return EmbeddingParams(
        job=Job(
            target=target_of(model),
            load_options=LoadOptions(**options.load),
            client=client,
            task=None,
            keep_alive_s=call.keep_alive_s,
        ),
        inputs=call.inputs,
        query=call.query,
        truncate=call.truncate,
        num_ctx=options.num_ctx,
    )


def _rows(
    result: Result, encoding: vectors.Encoding, dimensions: int = 0, *, is_normalized: bool = True
) -> Iterator[bytes]:
    """Each vector as JSON.

    :raises BadRequest: a number is NaN or infinite.
    """
    given = result.vectors
    try:
        for matrix in vectors.matrices(given, dimensions, is_normalized=is_normalized):
            yield from encoding(matrix)
    except vectors.NotFinite as error:
        place = f" (input {error.index})" if len(given) > 1 else ""
        raise BadRequest(f"{error}{place}") from None


# Ollama's routes


async def embed(request: web.Request) -> web.Response:
    """Normalised vectors of any number of texts; without any the model is loaded."""
    return await _respond(request, _EMBED)


async def embeddings(request: web.Request) -> web.Response:
    """The vector of one text as the model gave it; without a text the model is loaded."""
    return await _respond(request, _EMBEDDINGS)


def _translate_embed(params: ollama.EmbedRequest) -> Call:
    inputs: Any = [] if params.input is None else params.input
    if isinstance(inputs, str):
        inputs = [inputs] if inputs else []
    if not isinstance(inputs, list) or not all(isinstance(text, str) for text in inputs):
        raise BadRequest("invalid input type")
    return Call(
        model=params.model,
        inputs=inputs,
        truncate=params.truncate is not False,
        options=params.options,
        keep_alive_s=ollama.parse_keep_alive(params.keep_alive),
        respond=partial(_embed_response, params.model, params.dimensions),
        no_model=partial(NotFound, "model '' not found"),
    )


def _embed_response(model: str, dimensions: int, result: Result) -> bytearray:
    """Without durations if the model was only loaded."""
    parts = LongParts()
    rows = _rows(result, vectors.json_float32, dimensions)
    response = ollama.EmbedResponse(
        model=model,
        embeddings=parts.encoded(encode.list_pieces(rows)),
        total_duration=result.total_ns if result.vectors else 0,
        load_duration=result.load_ns if result.vectors else 0,
        prompt_eval_count=result.tokens,
    )
    return parts.to_json(response, CLIENT_SEND_LIMIT_BYTES)


def _translate_embeddings(params: ollama.EmbeddingRequest) -> Call:
    return Call(
        model=params.model,
        inputs=[params.prompt] if params.prompt else [],
        truncate=False,
        options=params.options,
        keep_alive_s=ollama.parse_keep_alive(params.keep_alive),
        respond=_embedding_response,
    )


def _embedding_response(result: Result) -> bytes:
    (row,) = _rows(result, vectors.json_float64, is_normalized=False) if result.vectors else [b"[]"]
    return b'{"embedding":%b}' % row


# OpenAI's route


async def openai_embeddings(request: web.Request) -> web.Response:
    """Normalised vectors of texts or token ids, as numbers or in base64."""
    return await _respond(request, _OPENAI_EMBEDDINGS)


def _translate_openai(params: api.OpenAIEmbedRequest) -> Call:
    encoding_format = params.encoding_format or "float"
    encoding = _ENCODINGS.get(encoding_format.lower())
    if encoding is None:
        raise BadRequest(
            f"Invalid value for 'encoding_format' = {encoding_format[:_SHOWN_CHARACTERS]}. "
            "Supported values: ['float', 'base64']."
        )
    return Call(
        model=params.model,
        inputs=_openai_inputs(params.input),
        respond=partial(_openai_response, params.model, params.dimensions or 0, encoding),
        no_model=partial(NotFound, "model '' not found"),
    )


_ENCODINGS: dict[str, vectors.Encoding] = {
    "float": vectors.json_float32,
    "base64": vectors.json_base64,
}
_SHOWN_CHARACTERS = 200  # of a value that is refused


def _openai_inputs(value: Any) -> list[str | list[int]]:
    """:raises BadRequest: with Ollama's texts."""
    if value is None or value == []:
        raise BadRequest("invalid input")
    inputs = [value] if isinstance(value, str) or are_token_ids(value) else value
    if not isinstance(inputs, list):
        raise BadRequest("invalid input type")
    if not all(isinstance(each, str) for each in inputs) and not all(map(are_token_ids, inputs)):
        raise BadRequest("invalid input type")
    return inputs


def _openai_response(
    model: str, dimensions: int, encoding: vectors.Encoding, result: Result
) -> bytearray:
    parts = LongParts()
    items = (
        encode.to_json(api.Embedding("embedding", msgspec.Raw(row), index))  # type: ignore[arg-type]  # a list or a string
        for index, row in enumerate(_rows(result, encoding, dimensions))
    )
    response = api.EmbeddingList(
        data=parts.encoded(encode.list_pieces(items)),
        model=model,
        usage=api.EmbeddingUsage(result.tokens, result.tokens),
    )
    return parts.to_json(response, CLIENT_SEND_LIMIT_BYTES)


# rerank


async def rerank(request: web.Request) -> web.Response:
    """How well each document answers the query, the best first."""
    return await _respond(request, _RERANK)


def _translate_rerank(params: api.RerankRequest) -> Call:
    if params.top_n is not None and params.top_n < 1:
        raise BadRequest("top_n must be at least 1")
    if not params.query:
        raise BadRequest("query is required")
    documents = _documents(params.documents)
    return Call(
        model=params.model,
        inputs=documents,
        query=params.query,
        truncate=params.truncate is not False,
        options=params.options,
        keep_alive_s=ollama.parse_keep_alive(params.keep_alive),
        respond=partial(
            _rerank_response,
            params.model,
            documents if params.return_documents else None,
            params.top_n,
        ),
    )


def _documents(value: Any) -> list[str]:
    """The texts. :raises BadRequest: none, or something else."""
    if value is None or value == []:
        raise BadRequest("documents are required")
    given = value if isinstance(value, list) else [None]
    texts: list[Any] = [each.get("text") if isinstance(each, dict) else each for each in given]
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest("documents must be strings, or objects with a text")
    return texts


def _rerank_response(
    model: str, documents: Sequence[str] | None, top_n: int | None, result: Result
) -> bytearray:
    """A score is the model's logit, made a probability, as Cohere, Jina and vLLM have it."""
    logits = np.frombuffer(b"".join(result.vectors), "<f4").astype(np.float64)
    if len(logits) != len(result.vectors) or not np.isfinite(logits).all():
        raise BadRequest("the model did not give each document a score")
    best = np.argsort(-logits, kind="stable")[:top_n].tolist()
    with np.errstate(over="ignore"):
        scores = (1 / (1 + np.exp(-logits))).tolist()
    parts = LongParts()
    response = api.RerankResponse(
        id=f"rerank-{secrets.token_hex(12)}",
        model=model,
        results=parts.encoded(_result_pieces(best, scores, documents)),
        usage=api.EmbeddingUsage(result.tokens, result.tokens),
        meta=api.RerankMeta(api.RerankTokens(result.tokens)),
    )
    return parts.to_json(response, CLIENT_SEND_LIMIT_BYTES)


def _result_pieces(
    best: Sequence[int], scores: Sequence[float], documents: Sequence[str] | None
) -> Iterator[bytes]:
    before = b"["
    for index in best:
        shown = encode.to_json(api.RerankResult(index, scores[index]))
        yield before + shown[:-1]
        if documents is not None:
            yield b',"document":{"text":"'
            yield from encode.text_pieces(documents[index])
            yield b'"}'
        yield b"}"
        before = b","
    yield b"]"


_EMBED = _Route(kind=ollama.EmbedRequest, translate=_translate_embed)
_EMBEDDINGS = _Route(kind=ollama.EmbeddingRequest, translate=_translate_embeddings)
_OPENAI_EMBEDDINGS = _Route(kind=api.OpenAIEmbedRequest, translate=_translate_openai)
_RERANK = _Route(kind=api.RerankRequest, translate=_translate_rerank)

"""The route table, and the application that is built from it; :mod:`.http_server` serves it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from ollama_async.gateway import openapi
from ollama_async.gateway.body import BODY_PROCESSOR, BodyProcessor
from ollama_async.gateway.client_budgets import SEND_BUDGET, SendBudget
from ollama_async.gateway.concurrency import own_threads
from ollama_async.gateway.dependencies import DEPENDENCIES, Dependencies
from ollama_async.gateway.handlers import (
    account,
    anthropic,
    embeddings,
    generation,
    model_lists,
    models,
    openai,
    openai_audio,
    openai_responses,
    server,
    tokens,
    transfers,
)
from ollama_async.gateway.middleware import build_middleware
from ollama_async.gateway.origin_policy import OriginPolicy
from ollama_async.gateway.request_ids import add_request_id
from ollama_async.gateway.response_store import RESPONSES, ResponseStore


class Route(msgspec.Struct, frozen=True):
    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]


ROUTES: tuple[Route, ...] = (
    Route("GET", "/", server.root),
    Route("HEAD", "/", server.root),
    Route("GET", "/api/version", server.version),
    Route("HEAD", "/api/version", server.version),
    Route("GET", "/api/tags", models.tags),
    Route("HEAD", "/api/tags", models.tags),
    Route("GET", "/api/ps", server.ps),
    Route("POST", "/api/generate", generation.generate),
    Route("POST", "/api/chat", generation.chat),
    Route("POST", "/api/embed", embeddings.embed),
    Route("POST", "/api/embeddings", embeddings.embeddings),
    Route("POST", "/v1/embeddings", embeddings.openai_embeddings),
    Route("POST", "/api/rerank", embeddings.rerank),
    Route("POST", "/v1/rerank", embeddings.rerank),
    Route("POST", "/v2/rerank", embeddings.rerank),
    Route("POST", "/api/tokenize", tokens.tokenize),
    Route("POST", "/api/detokenize", tokens.detokenize),
    Route("HEAD", "/api/blobs/{digest}", models.has_blob),
    Route("POST", "/api/blobs/{digest}", models.upload_blob),
    Route("POST", "/api/pull", transfers.pull),
    Route("POST", "/api/push", transfers.push),
    Route("POST", "/api/create", models.create),
    Route("POST", "/api/show", models.show_model),
    Route("POST", "/api/copy", models.copy),
    Route("DELETE", "/api/delete", models.delete),
    Route("POST", "/v1/chat/completions", openai.chat_completions),
    Route("POST", "/v1/completions", openai.completions),
    Route("POST", "/v1/responses", openai_responses.create),
    Route("POST", "/v1/responses/input_tokens", openai_responses.count_input_tokens),
    Route("GET", "/v1/responses/{id}", openai_responses.retrieve),
    Route("DELETE", "/v1/responses/{id}", openai_responses.delete),
    Route("POST", "/v1/responses/{id}/cancel", openai_responses.cancel),
    Route("GET", "/v1/responses/{id}/input_items", openai_responses.input_items),
    Route("POST", "/v1/audio/transcriptions", openai_audio.transcriptions),
    Route("GET", "/v1/models", model_lists.models),
    Route("GET", "/v1/models/{id:.+}", model_lists.model),
    Route("POST", "/v1/messages", anthropic.messages),
    Route("POST", "/v1/messages/count_tokens", anthropic.count_tokens),
    Route("GET", "/api/status", account.status),
    Route("POST", "/api/me", account.me),
    Route("POST", "/api/signout", account.sign_out),
    Route("DELETE", "/api/user/keys/{key}", account.sign_out),
    Route("POST", "/api/experimental/web_search", account.web_search),
    Route("POST", "/api/experimental/web_fetch", account.web_fetch),
    Route("GET", "/api/experimental/model-recommendations", account.model_recommendations),
    Route("GET", "/metrics", server.metrics),
    Route("GET", "/healthz", server.healthz),
    Route("HEAD", "/healthz", server.healthz),
    Route("GET", "/openapi.json", openapi.openapi),
    Route("GET", "/docs", openapi.docs),
)


def build_application(dependencies: Dependencies) -> web.Application:
    """Every route behind the middleware. Serve it with :func:`.http_server.build_runner`."""
    settings = dependencies.settings
    policy = OriginPolicy(listen_host=settings.address.host, origins=settings.origins)
    application = web.Application(
        middlewares=[build_middleware(policy, dependencies.metrics)],
        client_max_size=0,  # ``body`` has its own limits
    )
    application[DEPENDENCIES] = dependencies
    application[BODY_PROCESSOR] = BodyProcessor()
    application[SEND_BUDGET] = SendBudget()
    application[RESPONSES] = ResponseStore()
    application[models.SHOW_SERVICE] = models.ShowService()
    application.cleanup_ctx.append(own_threads)
    application.cleanup_ctx.append(transfers.own_transfers)
    application.on_response_prepare.append(policy.add_headers)
    application.on_response_prepare.append(add_request_id)
    for route in ROUTES:
        application.router.add_route(route.method, route.path, route.handler)
    return application

"""What every route takes and gives, for the description that :mod:`.openapi` generates.

Types are the Structs that decode requests and encode answers. A test compares the table with the
routes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ollama_async.api import (
    anthropic,
    embeddings,
    ollama,
    ollama_models,
    openai,
    openai_audio,
    openai_response_events,
    openai_responses,
)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What a route takes and gives. Types are those that msgspec knows; None: no body.

    ``request``: the JSON body, with at least the fields ``required``. ``model``: the one in its
    example. ``form``: the properties of a form with files. ``query``: the schemas of the parameters
    in the query. ``answer``: the JSON body of an answer with one of the ``statuses``; there are
    none if every request is refused. ``stream``: one object of a streamed answer; ``events``: one
    event. ``text``: the media type of an answer that is not JSON.
    """

    tag: str
    summary: str
    model: str = "demo"
    request: Any = None
    required: tuple[str, ...] = ()
    upload: str = ""
    form: dict[str, Any] = {}
    query: dict[str, Any] = {}
    answer: Any = None
    stream: Any = None
    events: Any = None
    text: str = ""
    statuses: tuple[int, ...] = (200,)


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation(tag="Server", summary="Whether the server runs", text="text/plain"),
    ("GET", "/api/version"): Operation(
        tag="Server",
        summary="The Ollama release whose behaviour is matched",
        answer=ollama_models.VersionResponse,
    ),
    ("GET", "/healthz"): Operation(
        tag="Server",
        summary="Whether requests are accepted",
        answer=ollama_models.HealthResponse,
        statuses=(200, 503),
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
        tag="Models",
        summary="The models in the store",
        answer=ollama_models.ListResponse,
    ),
    ("GET", "/api/ps"): Operation(
        tag="Models", summary="The models in memory", answer=ollama_models.ProcessResponse
    ),
    ("POST", "/api/show"): Operation(
        tag="Models",
        summary="Everything about a model",
        request=ollama_models.ShowRequest,
        required=("model",),
        answer=ollama_models.ShowResponse,
    ),
    ("POST", "/api/create"): Operation(
        tag="Models",
        summary="Make a model from files or from another model",
        request=ollama_models.CreateRequest,
        required=("model",),
        stream=ollama_models.ProgressStatus,
    ),
    ("POST", "/api/copy"): Operation(
        tag="Models",
        summary="Give a model a second name",
        request=ollama_models.CopyRequest,
        required=("source", "destination"),
    ),
    ("DELETE", "/api/delete"): Operation(
        tag="Models",
        summary="Remove a model",
        request=ollama_models.DeleteRequest,
        required=("model",),
    ),
    ("POST", "/api/blobs/{digest}"): Operation(
        tag="Models",
        summary="Upload a file",
        upload="application/octet-stream",
        statuses=(201, 200),
    ),
    ("HEAD", "/api/blobs/{digest}"): Operation(tag="Models", summary="Whether a file exists"),
    ("POST", "/api/pull"): Operation(
        tag="Models",
        summary="Fetch a model from a registry",
        request=ollama_models.PullRequest,
        required=("model",),
        stream=ollama_models.ProgressStatus,
    ),
    ("POST", "/api/push"): Operation(
        tag="Models",
        summary="Send a model to its registry",
        request=ollama_models.PushRequest,
        required=("model",),
        stream=ollama_models.ProgressStatus,
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
    ("POST", "/api/embed"): Operation(
        model="demo-embed",
        tag="Embeddings",
        summary="Normalised vectors of texts",
        request=ollama.EmbedRequest,
        required=("model",),
        answer=ollama.EmbedResponse,
    ),
    ("POST", "/api/embeddings"): Operation(
        model="demo-embed",
        tag="Embeddings",
        summary="The vector of one text as the model gives it",
        request=ollama.EmbeddingRequest,
        required=("model",),
        answer=ollama.EmbeddingResponse,
    ),
    ("POST", "/v1/embeddings"): Operation(
        model="demo-embed",
        tag="Embeddings",
        summary="Normalised vectors of texts or token ids",
        request=embeddings.OpenAIEmbedRequest,
        required=("model", "input"),
        answer=embeddings.EmbeddingList,
    ),
    **{
        ("POST", path): Operation(
            model="bge-reranker",
            tag="Embeddings",
            summary="How well each document answers a query",
            request=embeddings.RerankRequest,
            required=("model", "query", "documents"),
            answer=embeddings.RerankResponse,
        )
        for path in ("/api/rerank", "/v1/rerank", "/v2/rerank")
    },
    ("POST", "/v1/chat/completions"): Operation(
        tag="OpenAI",
        summary="Answer a conversation",
        request=openai.ChatCompletionRequest,
        required=("model", "messages"),
        answer=openai.ChatCompletion,
        events=openai.ChatCompletionChunk,
    ),
    ("POST", "/v1/completions"): Operation(
        tag="OpenAI",
        summary="Continue prompts",
        request=openai.CompletionRequest,
        required=("model",),
        answer=openai.Completion,
        events=openai.Completion,
    ),
    ("POST", "/v1/responses"): Operation(
        tag="OpenAI",
        summary="Answer a conversation, and remember it",
        request=openai_responses.ResponsesRequest,
        required=("model",),
        answer=openai_responses.Response,
        events=openai_response_events.Event,
    ),
    ("POST", "/v1/responses/input_tokens"): Operation(
        tag="OpenAI",
        summary="Count the tokens of a request",
        request=openai_responses.ResponsesRequest,
        required=("model",),
        answer=openai_responses.InputTokens,
    ),
    ("GET", "/v1/responses/{id}"): Operation(
        tag="OpenAI", summary="A stored response", answer=openai_responses.Response
    ),
    ("DELETE", "/v1/responses/{id}"): Operation(
        tag="OpenAI", summary="Forget a response", answer=openai_responses.DeletedResponse
    ),
    ("POST", "/v1/responses/{id}/cancel"): Operation(
        tag="OpenAI", summary="400: stored responses have ended", statuses=()
    ),
    ("GET", "/v1/responses/{id}/input_items"): Operation(
        tag="OpenAI",
        summary="What the model was given for a stored response",
        query={
            "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
            "after": {"type": "string"},
        },
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
        text="text/plain",
    ),
    ("GET", "/v1/models"): Operation(
        tag="OpenAI",
        summary="The models in the store (Anthropic's shape for its clients)",
        answer=openai.ModelList,
    ),
    ("GET", "/v1/models/{id:.+}"): Operation(
        tag="OpenAI",
        summary="One model of the store (Anthropic's shape for its clients)",
        answer=openai.Model,
    ),
    ("POST", "/v1/messages"): Operation(
        tag="Anthropic",
        summary="Answer a conversation",
        request=anthropic.MessagesRequest,
        required=("model", "messages", "max_tokens"),
        answer=anthropic.MessagesResponse,
        events=anthropic.Event,
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        tag="Anthropic",
        summary="Count the tokens of a prompt",
        request=anthropic.CountTokensRequest,
        required=("model", "messages"),
        answer=anthropic.CountTokensResponse,
    ),
    ("GET", "/api/status"): Operation(
        tag="Account", summary="Whether the cloud is disabled", answer=ollama_models.StatusResponse
    ),
    **{
        route: Operation(tag="Account", summary="401: there is no account", statuses=())
        for route in (
            ("POST", "/api/me"),
            ("POST", "/api/signout"),
            ("DELETE", "/api/user/keys/{key}"),
        )
    },
    ("POST", "/api/experimental/web_search"): Operation(
        tag="Account",
        summary="401, or 403 if the cloud is disabled",
        request=ollama_models.WebSearchRequest,
        statuses=(),
    ),
    ("POST", "/api/experimental/web_fetch"): Operation(
        tag="Account",
        summary="401, or 403 if the cloud is disabled",
        request=ollama_models.WebFetchRequest,
        statuses=(),
    ),
    ("GET", "/api/experimental/model-recommendations"): Operation(
        tag="Account", summary="An empty list", answer=ollama_models.RecommendationsResponse
    ),
}

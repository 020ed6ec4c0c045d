"""The requests and responses of ``/v1/embeddings`` (OpenAI's), and of rerank.

Rerank requests and answers are those that Jina and Cohere have in common; an answer has the usage
in both forms.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from ollama_async.api.ollama import Int, KeepAlive, parse_keep_alive

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class OpenAIEmbedRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``input``: a text, token ids, or a list of either. ``user`` is ignored."""

    go_name: ClassVar[str] = "openai.EmbedRequest"

    model: str = ""
    input: Annotated[
        str | list[str | TokenId | list[TokenId]] | None, Meta(extra={"raw": True})
    ] = None
    dimensions: Int | None = None
    encoding_format: str | None = None
    user: Annotated[str | None, Meta(extra={"raw": True})] = None


class EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct):
    """``embedding``: numbers; or their little-endian float32 bytes in base64."""

    object: Literal["embedding"]
    embedding: list[float] | str
    index: int


class EmbeddingList(msgspec.Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class RerankRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Each document is a text, or an object with a ``text``. ``top_n``: how many of the results, at
    least 1; None: all. ``truncate``: shorten a document that is too long for the model.
    """

    go_name: ClassVar[str] = "api.RerankRequest"

    model: str = ""
    query: str = ""
    documents: Annotated[list[str | dict[str, Any]] | None, Meta(extra={"raw": True})] = None
    top_n: Int | None = None
    return_documents: bool | None = None
    truncate: bool | None = None
    keep_alive: KeepAlive = None
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        parse_keep_alive(self.keep_alive)


class RerankDocument(msgspec.Struct):
    text: str


class RerankResult(msgspec.Struct, omit_defaults=True):
    """``index``: of the document in the request. ``relevance_score``: 0 to 1."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankTokens(msgspec.Struct):
    input_tokens: int
    output_tokens: int = 0


class RerankMeta(msgspec.Struct):
    """Cohere's usage."""

    tokens: RerankTokens


class RerankResponse(msgspec.Struct, kw_only=True):
    """``results``: the most relevant document first."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RerankResult]
    usage: EmbeddingUsage
    meta: RerankMeta

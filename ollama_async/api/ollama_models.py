"""The requests and responses of Ollama's own API, ``/api/*``, that are about models, the server and
its account. As in :mod:`.ollama`, names and order are Go's.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Required, TypedDict

import msgspec
from msgspec import field

from ollama_async.api.ollama import Int, Message, Streaming

# --------------------------------------------------------------------------- requests


class _Short(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request without texts for a model."""

    body_limit_bytes: ClassVar[int] = 1 << 20


class PullRequest(_Short, Streaming, kw_only=True):
    """``name`` is the older spelling of ``model``."""

    model: str = ""
    name: str = ""
    insecure: bool = False
    username: str = ""
    password: str = ""


class PushRequest(PullRequest):
    """The same fields."""


class CreateRequest(Streaming, kw_only=True):
    """``files``, ``adapters`` and ``draft_files`` map a relative file name to a digest.

    ``files`` None and ``{}`` differ (``{}`` is an ``unknown type``). ``license`` is a string or a
    list of strings, unchecked. Old clients send ``modelfile``, a Modelfile's text, or ``path``, the
    path of one on the server; they count if there is neither ``from`` nor ``files``.
    """

    body_limit_bytes: ClassVar[int] = 128 << 20
    """Licenses alone may be 64 MiB, and each byte may be written as six."""

    model: str = ""
    name: str = ""
    quantize: str = ""
    quantization: str = ""
    draft_quantize: str = ""
    from_: str = field(default="", name="from")
    remote_host: str = ""
    files: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str = ""
    license: Any = None
    system: str = ""
    parameters: dict[str, Any] | None = None
    messages: list[Message] = []
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] | None = None
    modelfile: str = ""
    path: str = ""


class DeleteRequest(_Short, kw_only=True):
    """``name`` is the older spelling of ``model``."""

    model: str = ""
    name: str = ""


class ShowRequest(_Short, kw_only=True):
    """``system`` and ``options`` override the model's own; ``template`` is ignored."""

    body_limit_bytes: ClassVar[int] = 10 << 20

    model: str = ""
    name: str = ""
    verbose: bool = False
    system: str = ""
    template: str = ""
    options: dict[str, Any] = {}


class WebSearchRequest(_Short, kw_only=True):
    query: str = ""
    max_results: Int = 0


class WebFetchRequest(_Short, kw_only=True):
    url: str = ""


class CopyRequest(_Short, kw_only=True):
    source: str = ""
    destination: str = ""


# --------------------------------------------------------------------------- responses


class ModelDetails(msgspec.Struct, omit_defaults=True, kw_only=True):
    parent_model: str
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str
    context_length: int = 0
    embedding_length: int = 0


def format_parameter_count(count: int) -> str:
    """``parameter_size`` in Ollama's notation: ``8.0B``, ``137.50M``, ``260K``, ``12``."""
    for size, letter, digits in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= size:
            return f"{count / size:.{0 if count % size == 0 else digits}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


class ListModelResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A row of ``/api/tags``. ``digest``: 64 hex digits, without prefix."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails
    capabilities: list[str] = []


class Tensor(msgspec.Struct):
    """``type``: ggml's name of it; ``shape``: the fastest dimension first."""

    name: str
    type: str
    shape: list[int]


class ShowResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """``license`` joins all licences; ``parameters`` has a line for each value."""

    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: ModelDetails
    messages: list[dict[str, Any]] = []
    model_info: dict[str, Any]
    projector_info: dict[str, Any] = {}
    tensors: list[Tensor] = []
    capabilities: list[str] = []
    modified_at: str
    requires: str = ""


class ProcessModelResponse(msgspec.Struct, kw_only=True):
    """A row of ``/api/ps``."""

    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: str
    size_vram: int
    context_length: int


class VersionResponse(msgspec.Struct):
    version: str


class HealthResponse(msgspec.Struct):
    """Not in Ollama. ``waiting`` and ``running`` requests; ``capacity``: of those that wait."""

    status: Literal["ok", "draining"]
    version: str
    uptime_s: int
    waiting: int
    capacity: int
    running: int
    models_loaded: int
    models_loading: int


class CloudStatus(msgspec.Struct):
    """``source``: what disabled it."""

    disabled: bool
    source: Literal["none", "env", "config", "both"]


class StatusResponse(msgspec.Struct):
    cloud: CloudStatus


class RecommendationsResponse(msgspec.Struct):
    recommendations: list[dict[str, Any]] = []


class ListResponse(msgspec.Struct):
    models: list[ListModelResponse]


class ProcessResponse(msgspec.Struct):
    models: list[ProcessModelResponse]


class ProgressStatus(TypedDict, total=False):
    """One object of the progress of a pull, a push or a create. Only a status about a file has
    other keys than ``status``; sizes in bytes.
    """

    status: Required[str]
    digest: str
    total: int
    completed: int

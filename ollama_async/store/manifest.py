"""Manifest and config of a model, byte for byte as Ollama writes them.

Reading is lenient (extra fields, other case, other spellings of digests); writing is Go's
``json.Encoder``: field order, escaped ``<>&``, a line end.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from ollama_async.api.decode import decode
from ollama_async.core.errors import BadRequest
from ollama_async.store.blobs import parse_digest

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
MANIFEST_LIMIT_BYTES = 1 << 20
"""Ollama's have 1 to 2 KB; one of a model that is split into its thousand tensors has 250."""
LAYERS_LIMIT = 4096
"""Of one manifest, its config included."""
TEXT_LIMIT_BYTES = 1 << 20
"""Of one template, system text, license, …: what is larger is neither written nor read."""
LICENSES_LIMIT = 64
"""Of one model. Every one is a file; a request could name a million."""
_LAYER_PREFIX = "application/vnd.ollama.image."


def layer_type(kind: str) -> str:
    """``application/vnd.ollama.image.KIND``."""
    return _LAYER_PREFIX + kind


class Layer(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """``from_``: the model or file that it came from."""

    media_type: str = field(default_factory=str)
    digest: str = field(default_factory=str)
    size: int = field(default_factory=int)
    from_: str = field(default="", name="from")
    name: str = ""

    @property
    def kind(self) -> str:
        """``model``, ``params``, …; "" for media types that are not Ollama's."""
        return (
            self.media_type[len(_LAYER_PREFIX) :]
            if self.media_type.startswith(_LAYER_PREFIX)
            else ""
        )


class Manifest(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    schema_version: int = 2
    media_type: str = MANIFEST_TYPE
    config: Layer = field(default_factory=Layer)
    layers: list[Layer] = []

    @property
    def blobs(self) -> list[Layer]:
        """All layers, and the config if there is one."""
        return [*self.layers, self.config] if self.config.digest else list(self.layers)

    @property
    def digests(self) -> set[str]:
        """Every blob that the model needs."""
        return {layer.digest for layer in self.blobs}

    @property
    def size(self) -> int:
        return sum(max(layer.size, 0) for layer in self.blobs)


class Config(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Fields whose default is a factory are always written, the others if they say something."""

    model_format: str = field(default_factory=str)
    model_family: str = field(default_factory=str)
    model_families: list[str] | None = field(default_factory=lambda: None)
    model_type: str = field(default_factory=str)
    file_type: str = field(default_factory=str)
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: list[str] = []
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: Any = None
    architecture: str = field(default_factory=str)
    os: str = field(default_factory=str)


def read_manifest(data: bytes) -> Manifest:
    """Digests come out in one spelling.

    :raises BadRequest: not a manifest, or over :data:`LAYERS_LIMIT`, or a bad digest.
    """
    manifest = decode(data, Manifest)
    if len(manifest.blobs) > LAYERS_LIMIT:
        raise BadRequest(f"the manifest names more than {LAYERS_LIMIT} layers")
    for layer in manifest.blobs:
        layer.digest = parse_digest(layer.digest)
    return manifest


def read_config(data: bytes) -> Config:
    """:raises BadRequest: not JSON, or fields of a wrong type."""
    return decode(data, Config)


def go_json(value: Any) -> bytes:
    """As Go's ``json.Encoder`` writes it; maps are given in their order."""
    text = msgspec.json.encode(value)
    for char, escape in (
        (b"<", b"\\u003c"),
        (b">", b"\\u003e"),
        (b"&", b"\\u0026"),
        ("\u2028".encode(), b"\\u2028"),
        ("\u2029".encode(), b"\\u2029"),
    ):
        text = text.replace(char, escape)
    return text + b"\n"

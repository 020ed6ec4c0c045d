"""One repository of a registry: its URLs, and a check of its manifests."""

from __future__ import annotations

import re

import msgspec
from yarl import URL

from ollama_async.api.decode import decode
from ollama_async.core.errors import BadRequest, RegistryFailed
from ollama_async.core.model_names import DEFAULT_HOST, ModelName
from ollama_async.registry.errors import PermanentError
from ollama_async.store.manifests import LAYERS_LIMIT, Manifest

MAX_BLOB_BYTES = 1 << 50
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Repository(msgspec.Struct, frozen=True):
    """``base``: scheme, host and optional port of the registry. ``path``: ``NAMESPACE/MODEL``."""

    base: URL
    path: str

    def manifest(self, tag: str) -> URL:
        return self.base / "v2" / self.path / "manifests" / tag

    def blob(self, digest: str) -> URL:
        return self.base / "v2" / self.path / "blobs" / digest

    @property
    def uploads(self) -> URL:
        return self.base / "v2" / self.path / "blobs" / "uploads" / ""


def resolve_repository(text: str, name: ModelName, *, is_insecure: bool) -> Repository:
    """The repository of ``name``. ``text``: the reference as given, with or without a scheme.

    ``is_insecure`` selects plain HTTP, unless the reference begins with ``https://``, or has no
    scheme and means Ollama's own registry.

    :raises RegistryFailed: ``insecure protocol http``: the scheme is http without ``is_insecure``.
    :raises BadRequest: the host is invalid.
    """
    scheme, separator, _ = text.strip().partition("://")
    if not separator:
        is_default = name.host.lower() == DEFAULT_HOST
        scheme = "http" if is_insecure and not is_default else "https"
    elif scheme == "http" and not is_insecure:
        raise RegistryFailed("insecure protocol http")
    elif scheme not in {"http", "https"}:
        raise BadRequest("invalid model name")
    try:
        base = URL(f"{scheme}://{name.host}")
    except ValueError:
        raise BadRequest("invalid model name") from None
    if not base.host or base.path != "/":
        raise BadRequest("invalid model name")
    return Repository(base.origin(), f"{name.namespace}/{name.model}")


def parse_manifest(data: bytes) -> Manifest:
    """Decode a manifest, and check every digest and size. :raises PermanentError: invalid."""
    try:
        manifest = decode(data, Manifest)
    except BadRequest:  # its text quotes the document, perhaps another host's
        raise PermanentError("the manifest is invalid") from None
    if not manifest.layers:
        raise PermanentError("the manifest names no layers: this is not a model")
    if len(manifest.blobs) > LAYERS_LIMIT:
        raise PermanentError(f"the manifest names more than {LAYERS_LIMIT} layers")
    for layer in manifest.blobs:
        if not _DIGEST.fullmatch(layer.digest):
            raise PermanentError("invalid digest format")
        if not 0 <= layer.size <= MAX_BLOB_BYTES:
            raise PermanentError(f"the manifest gives {layer.digest} an impossible size")
    return manifest

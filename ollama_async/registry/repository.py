"""From a model's name to the addresses of its parts in its registry."""

from __future__ import annotations

import re

import msgspec
from yarl import URL

from ollama_async.api.decode import decode
from ollama_async.core.errors import BadRequest, RegistryFailed
from ollama_async.core.model_names import DEFAULT_HOST, ModelName
from ollama_async.registry.errors import Refused
from ollama_async.store.manifest import Manifest


class Endpoint(msgspec.Struct, frozen=True):
    """One repository. ``base`` is a scheme, a host and perhaps a port, nothing else."""

    base: URL
    repository: str

    def manifest(self, tag: str) -> URL:
        return self.base / "v2" / self.repository / "manifests" / tag

    def blob(self, digest: str) -> URL:
        return self.base / "v2" / self.repository / "blobs" / digest

    @property
    def uploads(self) -> URL:
        return self.base / "v2" / self.repository / "blobs" / "uploads" / ""


def endpoint_of(text: str, name: ModelName, *, is_insecure: bool) -> Endpoint:
    """Where ``name`` lives; ``text`` is the reference as it was given, perhaps with a scheme.

    ``is_insecure``: plain HTTP, unless the reference itself says ``https://``, or says nothing and
    means Ollama's own registry, which has HTTPS: nobody on the way may take its place.

    :raises RegistryFailed: ``insecure protocol http``: the reference says so, nobody else does.
    :raises BadRequest: the host is none that could be asked.
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
    return Endpoint(base.origin(), f"{name.namespace}/{name.model}")


OCI_TYPE = "application/vnd.oci.image.manifest.v1+json"
MOST_BLOBS = 4096
"""A model split into its tensors has about a thousand."""
MOST_BYTES = 1 << 50
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def checked_manifest(data: bytes) -> Manifest:
    """:raises Refused: not a manifest, or one that asks for something impossible."""
    try:
        manifest = decode(data, Manifest)
    except BadRequest:  # its text quotes the manifest, which a redirect may have led elsewhere
        raise Refused("the manifest makes no sense") from None
    if not manifest.layers:
        raise Refused("the manifest names no layers: this is no model")
    if len(manifest.blobs) > MOST_BLOBS:
        raise Refused(f"the manifest names more than {MOST_BLOBS} layers")
    for layer in manifest.blobs:
        if not _DIGEST.fullmatch(layer.digest):
            raise Refused("invalid digest format")
        if not 0 <= layer.size <= MOST_BYTES:
            raise Refused(f"the manifest gives {layer.digest} an impossible size")
    return manifest

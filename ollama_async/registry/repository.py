"""From a model's name to the addresses of its parts in its registry."""

from __future__ import annotations

import msgspec
from yarl import URL

from ollama_async.core.errors import BadRequest, RegistryFailed
from ollama_async.core.model_names import DEFAULT_HOST, ModelName


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

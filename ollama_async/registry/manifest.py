"""Asking a registry what a model consists of."""

from __future__ import annotations

import re

from ollama_async.api.decode import decode
from ollama_async.core.errors import BadRequest
from ollama_async.registry.complaints import Unreachable
from ollama_async.registry.errors import Refused
from ollama_async.registry.transfer_policy import Patience, retried
from ollama_async.registry.transport import Transport
from ollama_async.store.manifest import MANIFEST_LIMIT_BYTES, MANIFEST_TYPE, Manifest

OCI_TYPE = "application/vnd.oci.image.manifest.v1+json"
MOST_BLOBS = 4096
"""A model split into its tensors has about a thousand."""
MOST_BYTES = 1 << 50
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


async def fetch_manifest(
    transport: Transport, tag: str, patience: Patience
) -> tuple[bytes, Manifest]:
    """The bytes as they came, and what they say; every digest and size in it can be used.

    :raises Refused: there is none, or it cannot be used; also if the registry cannot be reached,
        because a name is misspelled, or the network gone, more often than it is worth waiting.
    """
    url = transport.endpoint.manifest(tag)

    async def ask() -> bytes:
        try:
            async with transport.get(url, {"Accept": f"{MANIFEST_TYPE}, {OCI_TYPE}"}) as response:
                return await transport.read_small(response, MANIFEST_LIMIT_BYTES)
        except Unreachable as failure:
            raise Refused(str(failure)) from failure

    data = await retried(ask, patience)
    return data, checked_manifest(data)


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

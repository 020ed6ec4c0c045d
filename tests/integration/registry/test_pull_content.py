"""Pulls of corrupt, incomplete, oversized and impossible content."""

import json

import pytest
from aiohttp import web

from ollama_async.core.errors import RegistryFailed, StorageFailed
from ollama_async.store.partial_files import SUFFIX
from tests.integration.registry.conftest import CHUNK, MODEL
from tests.unit.store.store_helpers import list_models

pytestmark = pytest.mark.slow


def begun(store):
    """Names of the partial files."""
    return [path.name for path in (store.root / "blobs").glob(f"*{SUFFIX}")]


async def test_corrupt_bytes_are_never_published(name, proxy, pull, blob, store, digest):
    async def spoil(offset, piece):
        return bytes([piece[0] ^ 1]) + piece[1:] if offset == CHUNK else piece

    proxy.spoil = spoil
    with pytest.raises(RegistryFailed) as failed:
        await pull(name)
    assert failed.value.message == (  # and not what came instead, which may be anybody's
        f"digest mismatch, file must be downloaded again: want {digest(MODEL)}"
    )
    assert not blob.exists()
    assert blob.name + SUFFIX not in begun(store)

    proxy.spoil = None
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL


async def test_corrupt_bytes_are_noticed_before_anything_else_is_fetched(name, proxy, pull):
    async def spoil(offset, piece):
        return bytes([piece[0] ^ 1]) + piece[1:] if offset == CHUNK else piece

    proxy.spoil = spoil
    with pytest.raises(RegistryFailed, match=r"^digest mismatch"):
        await pull(name)
    blobs = {request.path for request in proxy.asked("/blobs/")}
    assert len(blobs) == 1  # not the template, not the config


async def test_a_complete_partial_file_is_verified_again_after_a_write(
    name, proxy, pull, store, blob, digest
):
    damaged = []

    async def fault(request):
        if digest(b"{{ .Prompt }}") in request.path and not damaged:
            (partial,) = (store.root / "blobs").glob(f"{blob.name}{SUFFIX}")
            with partial.open("r+b") as file:
                damaged.append(file.write(b"somebody was here"))

    proxy.fault = fault
    assert (await pull(name))[-1] == {"status": "success"}
    assert damaged
    assert blob.read_bytes() == MODEL


async def test_a_blob_that_lost_its_end_is_fetched_again(name, pull, blob):
    await pull(name)
    blob.write_bytes(MODEL[:-1])
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL


async def test_a_part_that_was_damaged_on_the_disk_is_fetched_again(name, proxy, pull, store, blob):
    async def spoil(offset, piece):
        return None if offset > 3 * CHUNK else piece

    proxy.spoil = spoil
    with pytest.raises(RegistryFailed, match="max retries exceeded"):
        await pull(name)
    proxy.spoil = None
    (partial,) = [path for path in (store.root / "blobs").glob(f"*{SUFFIX}") if not path.is_dir()]
    with partial.open("r+b") as file:
        file.write(b"what a power cut may leave")

    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL


async def test_a_registry_without_ranges_will_do(name, proxy, pull, blob):
    proxy.has_ranges = False
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL


@pytest.mark.parametrize("change", [-1, 1])
async def test_a_size_that_is_not_the_file_s_is_refused(registry, proxy, pull, store, change):
    manifest = json.loads(registry.push("faults/sizes", MODEL))
    manifest["layers"][0]["size"] += change

    async def fault(request):
        return web.json_response(manifest) if "/manifests/" in request.path else None

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match=r"size of the registry's blob|digest mismatch"):
        await pull(f"{proxy.host}/faults/sizes")
    assert list_models(store) == []


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"digest": "sha256:../../../../etc/passwd", "size": 1}, "invalid digest format"),
        ({"digest": "sha256:" + "A" * 64, "size": 1}, "invalid digest format"),
        ({"digest": "sha256-" + "a" * 64, "size": 1}, "invalid digest format"),
        ({"digest": "sha512:" + "a" * 64, "size": 1}, "invalid digest format"),
        ({"digest": "", "size": 1}, "invalid digest format"),
        ({"digest": "sha256:" + "a" * 64, "size": -1}, "an impossible size"),
        ({"digest": "sha256:" + "a" * 64, "size": 1 << 60}, "an impossible size"),
        ({"digest": "sha256:" + "a" * 64, "size": "1"}, "the manifest is invalid"),
        (None, "names no layers"),
    ],
)
async def test_a_manifest_that_asks_for_the_impossible_is_refused(proxy, pull, store, layer, words):
    async def fault(_request):
        return web.json_response({"layers": [layer] if layer else []})

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match=f"^pull model manifest: .*{words}"):
        await pull(f"{proxy.host}/library/x")
    assert len(proxy.requests) == 1
    assert not (store.root / "blobs").exists()


async def test_an_endless_manifest_is_rejected(proxy, pull):
    sent = []

    async def fault(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1 << 10):
            await response.write(b" " * (1 << 20))
            sent.append(1)
        return response

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match="larger than 1048576 bytes"):
        await pull(f"{proxy.host}/library/x")
    assert len(sent) < 64


async def test_a_model_larger_than_the_disk_is_rejected_before_the_download(proxy, pull):
    async def fault(_request):
        layer = {"digest": "sha256:" + "a" * 64, "size": 1 << 49}
        return web.json_response({"layers": [layer]})

    proxy.fault = fault
    with pytest.raises(StorageFailed, match="no space left on the disk of the model store"):
        await pull(f"{proxy.host}/library/x")
    assert len(proxy.requests) == 1

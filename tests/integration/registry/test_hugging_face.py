"""``hf.co/USER/REPO:QUANT``: a registry that answers as Hugging Face does, reached as a proxy.

What is imitated: the blobs are redirected to the site's long name and from there to a storage with
a signed address, only ranges that are asked for come, a tag that does not exist is a 400 with a
reason in JSON, and who may not see a repository is sent to the long name for a token.
"""

import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from ollama_async.core.errors import RegistryFailed
from tests.unit.gguf_files import build_tiny

pytestmark = pytest.mark.slow
MODEL = build_tiny().tensor("output.weight", [32, 5_000], size=640_000).build()
CONFIG = b'{"model_format":"gguf","model_family":"llama","model_type":"1B","file_type":"Q4_K_M"}'
TEMPLATE = b"{{ .Prompt }}"
NO_SUCH_TAG = (
    "The specified tag is not available in the repository. Please use another tag or 'latest'"
)


class HuggingFace:
    """``asked``: method, host and path of each request, and its token."""

    def __init__(self, digest):
        self.asked = []
        self.is_private = False
        self.blobs = {digest(data): data for data in (MODEL, CONFIG, TEMPLATE)}
        model, config, template = self.blobs
        kinds = {"model": model, "template": template}
        self.manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "digest": config,
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(CONFIG),
            },
            "layers": [
                {
                    "digest": each,
                    "mediaType": f"application/vnd.ollama.image.{kind}",
                    "size": len(self.blobs[each]),
                }
                for kind, each in kinds.items()
            ],
        }

    async def answer(self, request):
        self.asked.append((request.host, request.path, request.headers.get("Authorization", "")))
        where = (request.host, request.path.split("/")[1])
        match where:
            case ("hf.co", "v2"):
                return self._registry(request)
            case ("huggingface.co", "v2") if "__sign" in request.query:
                name = request.path.rpartition("/")[2]
                return _redirect(f"http://cdn-lfs.hf.co/repos/{name}?Signature=x", 302)
            case ("huggingface.co", "token"):
                return web.json_response({"token": "guest"})
            case ("cdn-lfs.hf.co", "repos") if request.query:
                return self._file(request)
        return web.Response(status=401, text="Invalid username or password.")

    def _registry(self, request):
        if self.is_private and request.headers.get("Authorization") != "Bearer guest":
            realm = 'Bearer realm="http://huggingface.co/token",service="huggingface.co"'
            return web.json_response(
                {"error": "Invalid username or password."},
                status=401,
                headers={"WWW-Authenticate": realm},
            )
        if request.path in {
            "/v2/User/Repo-GGUF/manifests/Q4_K_M",
            "/v2/User/Repo-GGUF/manifests/latest",
        }:
            return web.Response(
                body=json.dumps(self.manifest), headers={"Content-Type": "application/json"}
            )
        if "/manifests/" in request.path:
            return web.json_response({"error": NO_SUCH_TAG}, status=400)
        return _redirect(f"http://huggingface.co{request.path}?__sign=x", 307)

    def _file(self, request):
        data = self.blobs[request.path.rpartition("/")[2]]
        part = request.http_range
        if part.start is None:
            return web.Response(body=data)
        end = min(part.stop, len(data))
        return web.Response(
            status=206,
            body=data[part.start : end],
            headers={"Content-Range": f"bytes {part.start}-{end - 1}/{len(data)}"},
        )


def _redirect(location, status):
    return web.Response(status=status, headers={"Location": location})


@pytest.fixture
async def site(serve, digest, monkeypatch):
    site = HuggingFace(digest)

    @asynccontextmanager
    async def reached():
        async with serve(site.answer) as host:
            monkeypatch.setenv("http_proxy", f"http://{host}")
            yield

    async with reached():
        yield site


@pytest.mark.parametrize(
    ("name", "tag"), [("hf.co/User/Repo-GGUF:Q4_K_M", "Q4_K_M"), ("hf.co/User/Repo-GGUF", "latest")]
)
async def test_a_hugging_face_quantization_is_a_tag(site, pull, store, digest, name, tag):
    assert (await pull(name))[-1] == {"status": "success"}
    assert store.layout.blobs.path(digest(MODEL)).read_bytes() == MODEL
    assert (store.root / "manifests/hf.co/User/Repo-GGUF" / tag).is_file()
    assert {host for host, _, _ in site.asked} == {"hf.co", "huggingface.co", "cdn-lfs.hf.co"}
    assert {token for _, _, token in site.asked} == {""}


async def test_a_tag_that_is_not_there_is_refused_with_the_site_s_words(site, pull):
    with pytest.raises(RegistryFailed) as refused:
        await pull("hf.co/User/Repo-GGUF:Q9")
    assert refused.value.message.startswith("pull model manifest: 400: ")
    assert NO_SUCH_TAG in refused.value.message
    assert len(site.asked) == 1


async def test_the_site_gives_out_tokens_under_its_long_name_which_go_to_the_short_one_only(
    site, pull
):
    site.is_private = True
    assert (await pull("hf.co/User/Repo-GGUF:Q4_K_M"))[-1] == {"status": "success"}
    with_token = {host for host, _, token in site.asked if token == "Bearer guest"}
    assert with_token == {"hf.co"}

"""``/v1/models`` as Anthropic's clients ask for it."""

import msgspec
import pytest

from ollama_async.gateway.routes import build_application
from ollama_async.store.catalog import Catalog

HEADERS = {"anthropic-version": "2023-06-01"}


async def test_models_are_listed(session, url):
    async with session.get(f"{url}/v1/models?limit=1", headers=HEADERS) as response:
        body = await response.json()
        assert response.headers["Request-Id"].startswith("req_")
        assert "X-Request-Id" not in response.headers

    assert all(each.pop("created_at").endswith("Z") for each in body["data"])
    assert body == {
        "data": [
            {"type": "model", "id": "m:latest", "display_name": "m:latest"},
        ],
        "has_more": False,
        "first_id": "m:latest",
        "last_id": "m:latest",
    }


@pytest.mark.parametrize("name", ["m", "library/m", "library%2Fm%3Alatest"])
async def test_a_model_has_the_name_that_it_is_asked_for(session, url, name):
    async with session.get(f"{url}/v1/models/{name}", headers=HEADERS) as response:
        body = await response.json()

    asked = name.replace("%2F", "/").replace("%3A", ":")
    assert body.pop("created_at") > "2020"
    assert body == {"type": "model", "id": asked, "display_name": asked}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/models/nope", 404, "not_found_error"),
        ("GET", "/v1/models/%00", 400, "invalid_request_error"),
        ("POST", "/v1/models", 405, "invalid_request_error"),
    ],
)
async def test_errors_have_the_shape_of_the_client(session, url, method, path, status, kind):
    async with session.request(method, url + path, headers=HEADERS) as response:
        body = await response.json()
        assert body["request_id"] == response.headers["Request-Id"]
    assert (response.status, body["type"], body["error"]["type"]) == (status, "error", kind)
    async with session.request(method, url + path) as response:
        assert "type" not in await response.json()


async def test_other_paths_of_openai_keep_their_errors(session, url):
    async with session.get(f"{url}/v1/modelsx", headers=HEADERS) as response:
        assert "type" not in await response.json()


async def test_no_models_are_an_empty_list(session, serve, dependencies, store):
    empty = build_application(msgspec.structs.replace(dependencies, catalog=Catalog(store)))
    async with session.get(f"{await serve(empty)}/v1/models", headers=HEADERS) as response:
        assert await response.json() == {
            "data": [],
            "has_more": False,
            "first_id": None,
            "last_id": None,
        }

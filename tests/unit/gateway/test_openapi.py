"""The description of the routes is complete, valid, and what the routes do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import aiohttp
import jsonschema
import pytest

from ollama_async.gateway import openapi
from ollama_async.gateway.openapi_operations import OPERATIONS
from ollama_async.gateway.routes import ROUTES

STREAMS = Path(__file__).parents[2] / "fixtures" / "streams"
ROUTE_OF = {
    "ollama-generate": "/api/generate",
    "ollama-logprobs-generate": "/api/generate",
    "ollama-chat": "/api/chat",
    "ollama-logprobs-chat": "/api/chat",
    "openai-chat": "/v1/chat/completions",
    "openai-chat-logprobs": "/v1/chat/completions",
    "openai-completions": "/v1/completions",
    "openai-completions-logprobs": "/v1/completions",
    "openai-responses": "/v1/responses",
    "anthropic": "/v1/messages",
}
"""By the golden streams that it gave."""


@pytest.fixture(scope="module")
def document():
    return openapi.describe()


def described(document):
    return {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }


def plain(path):
    return re.sub(r"{(\w+):[^/]*}", r"{\1}", path)


def test_every_route_is_described_and_every_described_route_exists(document):
    routes = {(route.method, plain(route.path)) for route in ROUTES}
    with_get = {("HEAD", path) for method, path in routes if method == "GET"}
    assert routes - with_get <= described(document) <= routes


def test_every_schema_is_valid_and_every_reference_leads_somewhere(document):
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    references = set(re.findall(r"'\$ref': '#/components/schemas/([^']+)'", str(document)))
    assert references
    assert references <= schemas.keys()


def test_fields_that_are_not_described_are_allowed(document):
    assert "additionalProperties" not in document["components"]["schemas"]["ChatRequest"]


def test_required_fields_exist(document):
    schemas = document["components"]["schemas"]
    for operation in OPERATIONS.values():
        if operation.required:
            kind = operation.request
            properties = operation.form or schemas[kind.__name__]["properties"]
            assert set(operation.required) <= properties.keys(), operation.summary


@pytest.mark.parametrize("name", ROUTE_OF)
def test_golden_streams_are_as_described(document, name):
    """Many of their objects are written by hand, without the Structs of the description."""
    (file,) = (each for each in STREAMS.iterdir() if each.stem == name and each.suffix != ".json")
    lines = file.read_text(encoding="utf-8").splitlines()
    media_type = "application/x-ndjson"
    if file.suffix == ".txt":
        media_type = "text/event-stream"
        lines = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    described = document["paths"][ROUTE_OF[name]]["post"]["responses"]["200"]
    schema = described["content"][media_type]["schema"]
    validator = jsonschema.Draft202012Validator(
        {**schema, "components": document["components"]},
    )
    assert lines
    for line in lines:
        validator.validate(json.loads(line))


def test_tags_are_the_names_of_products_and_of_parts():
    assert {operation.tag for operation in OPERATIONS.values()} == {
        *("Server", "Models", "Ollama", "Embeddings", "OpenAI", "Anthropic", "Account")
    }


def test_a_route_that_refuses_every_request_has_no_successful_answer(document):
    assert document["paths"]["/api/me"]["post"]["responses"].keys() == {"default"}
    assert document["paths"]["/v1/responses/{id}/cancel"]["post"]["responses"].keys() == {"default"}


async def test_the_server_gives_the_document_and_its_page(url: str):
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/openapi.json") as response:
            assert response.status == 200
            assert (await response.json()) == openapi.describe()
        async with session.get(f"{url}/docs") as response:
            assert response.headers["Content-Type"] == "text/html; charset=utf-8"
            page = await response.text()
    assert "/openapi.json" in page
    assert not re.search(r"(?:src|href)=|https?://", page)  # it needs nothing from elsewhere

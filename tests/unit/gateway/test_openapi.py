"""The description of the routes is complete, valid, and what the routes do."""

from __future__ import annotations

import re

import aiohttp
import jsonschema
import pytest

from ollama_async.gateway import openapi
from ollama_async.gateway.routes import ROUTES


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
    for operation in openapi.OPERATIONS.values():
        if operation.required:
            kind = operation.request
            properties = operation.form or schemas[kind.__name__]["properties"]
            assert set(operation.required) <= properties.keys(), operation.summary


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

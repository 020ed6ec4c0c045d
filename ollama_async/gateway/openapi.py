"""``/openapi.json``: the description of every route (OpenAPI 3.1), generated from
:data:`.openapi_operations.OPERATIONS`, and the page ``/docs`` that shows it.

Bodies may have fields that are not described: as in Ollama, they are ignored.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from aiohttp import web

from ollama_async import __version__
from ollama_async.api import encode
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.openapi_operations import OPERATIONS, Operation
from ollama_async.gateway.response_formats import NDJSON_TYPE, SSE_TYPE
from ollama_async.gateway.response_formats.errors import ERRORS, protocol_of
from ollama_async.gateway.responses import json_response

_PATTERN = re.compile(r"{(\w+):[^/]*}")
"""A part of a path with the expression that it matches."""

_PAGE = "openapi.html"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
}

_EXAMPLES: dict[str, Any] = {
    "prompt": "Why is the sky blue?",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "input": "Why is the sky blue?",
    "text": "Why is the sky blue?",
    "tokens": [72, 105],
    "query": "fruit",
    "documents": ["an apple", "a train"],
    "source": "demo",
    "destination": "my-demo",
    "max_tokens": 64,
    "max_output_tokens": 64,
}
"""Values of the fields with these names."""


def example(operation: Operation) -> dict[str, Any]:
    """A body of the operation's request."""
    names = [field.encode_name for field in msgspec.structs.fields(operation.request)]
    values = _EXAMPLES | {"model": operation.model}
    return {name: values[name] for name in names if name in values}


async def openapi(_request: web.Request) -> web.Response:
    """Generated once, which takes some 60 ms."""
    return json_response(await run_in_thread(_document))


async def docs(_request: web.Request) -> web.Response:
    return web.Response(text=_page(), content_type="text/html", headers=_PAGE_HEADERS)


@cache
def _document() -> bytes:
    return encode.to_json(describe())


@cache
def _page() -> str:
    return files(__package__).joinpath(_PAGE).read_text(encoding="utf-8")


def describe() -> dict[str, Any]:
    """The whole document."""
    kinds = {
        kind
        for operation in OPERATIONS.values()
        for kind in (operation.request, operation.answer, operation.stream, operation.events)
        if kind is not None
    }
    ordered = sorted(kinds | set(ERRORS.values()), key=repr)
    schemas, components = msgspec.json.schema_components(
        ordered, ref_template="#/components/schemas/{name}"
    )
    of_kind = dict(zip(ordered, schemas, strict=True))
    for schema in components.values():
        schema.pop("additionalProperties", None)  # unknown fields are ignored
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        shown = _PATTERN.sub(r"{\1}", path)
        paths.setdefault(shown, {})[method.lower()] = _operation(shown, operation, of_kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ollama_async",
            "version": __version__,
            "description": "A server for every Ollama client, built for many concurrent users.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(path: str, operation: Operation, of_kind: dict[Any, Any]) -> dict[str, Any]:
    done = {"description": "success", **_content(_answers(operation, of_kind))}
    failed = _content({"application/json": of_kind[ERRORS[protocol_of(path)]]})
    responses = {str(status): done for status in operation.statuses}
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {**responses, "default": {"description": "an error", **failed}},
    }
    if parameters := _parameters(path, operation):
        described["parameters"] = parameters
    if body := _body(operation, of_kind):
        described["requestBody"] = {"required": True, "content": body}
    return described


def _content(schemas: dict[str, Any]) -> dict[str, Any]:
    """By media type."""
    return (
        {"content": {kind: {"schema": each} for kind, each in schemas.items()}} if schemas else {}
    )


def _answers(operation: Operation, of_kind: dict[Any, Any]) -> dict[str, Any]:
    """The schemas of its answers, by media type. A stream of one object is that object."""
    schemas = {}
    if whole := operation.answer or operation.stream:
        schemas["application/json"] = of_kind[whole]
    if operation.stream is not None:
        schemas[NDJSON_TYPE] = of_kind[operation.stream]
    if operation.events is not None:
        schemas[SSE_TYPE] = of_kind[operation.events]
    if operation.text:
        schemas[operation.text] = {"type": "string"}
    return schemas


def _parameters(path: str, operation: Operation) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    in_query = [
        {"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()
    ]
    return in_path + in_query


def _body(operation: Operation, of_kind: dict[Any, Any]) -> dict[str, Any]:
    """What a request contains, by media type."""
    required = list(operation.required)
    if operation.upload:
        return {operation.upload: {"schema": {"type": "string", "format": "binary"}}}
    if operation.form:
        form = {"type": "object", "properties": operation.form, "required": required}
        return {"multipart/form-data": {"schema": form}}
    if operation.request is None:
        return {}
    schema = of_kind[operation.request]
    if required:
        schema = {"allOf": [schema, {"required": required}]}
    return {"application/json": {"schema": schema, "example": example(operation)}}

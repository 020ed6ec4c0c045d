"""``/v1/models``, a path of two protocols: Anthropic's clients get its shape, others OpenAI's."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from ollama_async.api import anthropic, encode, openai
from ollama_async.core.model_names import ModelName
from ollama_async.gateway.handlers.models import find_model, list_models
from ollama_async.gateway.response_formats.errors import Protocol, protocol_of
from ollama_async.gateway.responses import json_response
from ollama_async.store.model import ModelListEntry


async def models(request: web.Request) -> web.Response:
    return await list_models(request, _anthropic_list if _is_anthropic(request) else _openai_list)


async def model(request: web.Request) -> web.Response:
    """The model of this name, which is repeated as it was asked for."""
    name = request.match_info["id"]
    entry = await find_model(request.app, name)
    describe = _anthropic_model if _is_anthropic(request) else _openai_model
    return json_response(encode.to_json(describe(name, entry)))


def _is_anthropic(request: web.Request) -> bool:
    return protocol_of(request.path, request.headers) is Protocol.ANTHROPIC


def _openai_list(found: list[ModelListEntry]) -> bytes:
    data = [_openai_model(entry.name, entry) for entry in found]
    return encode.to_json(openai.ModelList(data=data))


def _openai_model(name: str, entry: ModelListEntry) -> openai.Model:
    return openai.Model(
        id=name,
        created=int(entry.modified_at),
        owned_by=ModelName.parse(entry.name).namespace,
    )


def _anthropic_list(found: list[ModelListEntry]) -> bytes:
    data = [_anthropic_model(entry.name, entry) for entry in found]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return encode.to_json(anthropic.ModelList(data=data, first_id=first, last_id=last))


def _anthropic_model(name: str, entry: ModelListEntry) -> anthropic.ModelInfo:
    created_at = datetime.fromtimestamp(int(entry.modified_at), UTC)
    return anthropic.ModelInfo(id=name, display_name=name, created_at=created_at)

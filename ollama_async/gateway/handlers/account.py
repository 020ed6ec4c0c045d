"""Ollama's account and cloud, answered as by a server without an account.

Nothing here contacts ollama.com. With ``OLLAMA_NO_CLOUD`` the cloud is disabled: its routes, and
names of its models, are a 403 instead of a 401.
"""

from __future__ import annotations

from aiohttp import web

from ollama_async.api import encode, ollama_models
from ollama_async.core.errors import Forbidden, NoAccount, Unauthorized
from ollama_async.gateway.body import read_json
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.responses import json_response


async def status(request: web.Request) -> web.Response:
    is_disabled = request.app[DEPENDENCIES].settings.no_cloud
    cloud = ollama_models.CloudStatus(disabled=is_disabled, source="env" if is_disabled else "none")
    return json_response(encode.to_json(ollama_models.StatusResponse(cloud)))


async def me(_request: web.Request) -> web.Response:
    """:raises NoAccount: the answer names the page that adds this server's key to an account, which
    may then push to ollama.com.
    """
    raise NoAccount


async def sign_out(_request: web.Request) -> web.Response:
    raise Unauthorized("you are not currently signed in")


async def web_search(request: web.Request) -> web.Response:
    await read_json(request, ollama_models.WebSearchRequest)
    raise _unavailable(request, "web search")


async def web_fetch(request: web.Request) -> web.Response:
    await read_json(request, ollama_models.WebFetchRequest)
    raise _unavailable(request, "web fetch")


async def model_recommendations(_request: web.Request) -> web.Response:
    """Ollama recommends models of its own registry, which depend on the hour; we recommend none."""
    return json_response(encode.to_json(ollama_models.RecommendationsResponse()))


def _unavailable(request: web.Request, what: str) -> Unauthorized | Forbidden:
    if request.app[DEPENDENCIES].settings.no_cloud:
        return Forbidden(f"ollama cloud is disabled: {what} is unavailable")
    return NoAccount()

"""The HTTP front as one aiohttp application; :mod:`.runner` serves it."""

from __future__ import annotations

from aiohttp import web

from ollama_async.gateway.body import REQUEST_BODIES, RequestBodies
from ollama_async.gateway.dependencies import DEPENDENCIES, Dependencies
from ollama_async.gateway.finding import own_finder
from ollama_async.gateway.handlers.push import own_pushes
from ollama_async.gateway.handlers.show import own_shower
from ollama_async.gateway.handlers.transfers import own_pulls
from ollama_async.gateway.middleware import boundary, header_signal
from ollama_async.gateway.origin_policy import OriginPolicy
from ollama_async.gateway.routes import ROUTES
from ollama_async.gateway.send_budget import SendBudget
from ollama_async.gateway.single_flight import own_flights
from ollama_async.gateway.store_threads import own_store_threads


def build_application(dependencies: Dependencies) -> web.Application:
    """Every route behind the request boundary. It needs :func:`.runner.build_runner`."""
    settings = dependencies.settings
    guards = OriginPolicy(listen_host=settings.address.host, origins=settings.origins)
    bodies = RequestBodies()
    application = web.Application(
        middlewares=[boundary(guards, dependencies.metrics, bodies, SendBudget())],
        client_max_size=0,  # ``body`` has its own limits
    )
    application[DEPENDENCIES] = dependencies
    application[REQUEST_BODIES] = bodies
    application.cleanup_ctx.append(own_store_threads)
    application.cleanup_ctx.append(own_flights)
    application.cleanup_ctx.append(own_finder)
    application.cleanup_ctx.append(own_shower)
    application.cleanup_ctx.append(own_pulls)
    application.cleanup_ctx.append(own_pushes)
    application.on_response_prepare.append(header_signal(guards))
    for route in ROUTES:
        application.router.add_route(route.method, route.path, route.handler)
    return application

"""The HTTP server: routes, handlers, streaming, limits per client, metrics."""

"""Attacks on a running server. Its fixtures are those of the integration tests."""

from tests.integration.conftest import demo_server, engine_cache, small_disk, start_server

__all__ = ["demo_server", "engine_cache", "small_disk", "start_server"]

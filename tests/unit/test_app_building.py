"""What can go wrong while the server is built is said plainly."""

from __future__ import annotations

import pytest

from ollama_async import app
from ollama_async.core.errors import StorageFailed
from ollama_async.core.settings import Settings
from ollama_async.store.store import Store


def test_scripts_that_cannot_be_read_are_named_although_the_store_is_read_only(
    tmp_path, monkeypatch
):
    def prune(_store):
        raise StorageFailed("read-only file system")

    monkeypatch.setattr(Store, "prune", prune)
    settings = Settings.from_environ(
        {"OLLAMA_MODELS": str(tmp_path), "OLLAMA_ASYNC_SCRIPTS": str(tmp_path / "none.json")}
    )
    with pytest.raises(app.StartFailed, match=r"none\.json"):
        app._open_catalog(settings)

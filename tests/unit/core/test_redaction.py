"""Error messages for clients contain no paths of this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollama_async.core import safe_text
from ollama_async.core.errors import StorageFailed, from_code


@pytest.fixture(autouse=True)
def _hidden(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    safe_text.set_private_paths(
        {
            Path("/"): "ROOT",
            Path("/home/ann"): "~",
            Path("/home/ann/models"): "$OLLAMA_MODELS",
            tmp_path / "link": "$LINK",
        }
    )
    yield
    safe_text.set_private_paths({})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("open /home/ann/models/blobs/x: no", "open $OLLAMA_MODELS/blobs/x: no"),
        ("'/home/ann/models' is full", "'$OLLAMA_MODELS' is full"),
        ("file:///home/ann/.ollama.", "file://~/.ollama."),
        ("in /home/ann.", "in ~."),
        ("/home/ann:/home/ann/models2", "~:~/models2"),
        ("/home/anna and /srv/home/ann stay", "/home/anna and /srv/home/ann stay"),
        ("a/b:c", "a/b:c"),
    ],
)
def test_a_private_path_is_replaced_by_its_name(text: str, expected: str) -> None:
    assert safe_text.redact_paths(text) == expected


def test_links_are_followed(tmp_path: Path) -> None:
    assert safe_text.redact_paths(f"{tmp_path}/link/a {tmp_path}/disk/a") == "$LINK/a $LINK/a"


def test_error_messages_are_redacted_and_logged_in_full(caplog: pytest.LogCaptureFixture) -> None:
    for error in (StorageFailed("full: /home/ann"), from_code("load_failed", "full: /home/ann")):
        assert error.message == "full: ~"
        assert str(error) == "full: /home/ann"
    assert [each.getMessage() for each in caplog.records] == ["'full: /home/ann'"] * 2
    assert caplog.records[0].levelno == logging.WARNING

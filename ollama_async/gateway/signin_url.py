"""The page that adds this machine's key to an account at ollama.com."""

from __future__ import annotations

import base64
import socket
from urllib.parse import quote

from ollama_async.registry.auth import default_key_path, load_key
from ollama_async.registry.errors import PermanentError


def read_signin_url() -> str:
    """The URL; empty if the key cannot be used. Creates a key pair, if there is none. Blocks."""
    try:
        key = load_key(default_key_path())
    except PermanentError:
        return ""
    line = base64.urlsafe_b64encode(f"ssh-ed25519 {key.public}".encode()).decode().rstrip("=")
    return f"https://ollama.com/connect?name={quote(socket.gethostname())}&key={line}"

"""``signin`` and ``signout``: a server has a key, but no account."""

from __future__ import annotations

import argparse
from http import HTTPStatus

from ollama_async.cli.client import Client, ServerRefused


def sign_in(client: Client, _arguments: argparse.Namespace) -> int:
    """A server of Ollama's may have an account, which is shown."""
    try:
        answer = client.call("POST", "/api/me")
    except ServerRefused as refusal:
        if refusal.status != HTTPStatus.UNAUTHORIZED:
            raise
        print("This server has no account, and runs no cloud models.")
        if refusal.signin_url:
            print("To let it push models to ollama.com, add its key to your account there:")
            print(f"    {refusal.signin_url}")
        return 0
    name = answer.get("name", "") if isinstance(answer, dict) else ""
    print(f"You are already signed in as user '{name}'")
    return 0


def sign_out(client: Client, _arguments: argparse.Namespace) -> int:
    try:
        client.call("POST", "/api/signout")
    except ServerRefused as refusal:
        if refusal.status != HTTPStatus.UNAUTHORIZED:
            raise
        print("You are not signed in to ollama.com")
        return 0
    print("You have signed out of ollama.com")
    return 0

"""``signin`` and ``signout`` against a server that does what the test says."""

from __future__ import annotations

import json

import pytest

from ollama_async.cli.main import main

REFUSED = {"error": "unauthorized", "signin_url": "https://ollama.com/connect?name=h&key=k"}


@pytest.mark.parametrize("command", ["signin", "login"])
def test_signin_shows_where_the_key_can_be_added(fake, capsys, command):
    fake.answers["POST", "/api/me"] = (401, json.dumps(REFUSED).encode())
    assert main([command]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "This server has no account, and runs no cloud models."
    assert last.strip() == REFUSED["signin_url"]


def test_signin_without_a_key_shows_no_page(fake, capsys):
    fake.answers["POST", "/api/me"] = (401, b'{"error":"unauthorized"}')
    assert main(["signin"]) == 0
    assert "ollama.com" not in capsys.readouterr().out


def test_signin_at_a_server_with_an_account(fake, capsys):
    fake.answers["POST", "/api/me"] = (200, b'{"name":"ada"}')
    assert main(["signin"]) == 0
    assert capsys.readouterr().out == "You are already signed in as user 'ada'\n"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((401, b'{"error":"x"}'), "You are not signed in to ollama.com\n"),
        ((200, b"null"), "You have signed out of ollama.com\n"),
    ],
)
def test_signout(fake, capsys, answer, text):
    fake.answers["POST", "/api/signout"] = answer
    assert main(["signout"]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(("command", "path"), [("signin", "/api/me"), ("signout", "/api/signout")])
def test_other_errors_are_reported(fake, capsys, command, path):
    fake.answers["POST", path] = (503, b'{"error":"account unavailable"}')
    assert main([command]) == 1
    assert capsys.readouterr().err == "Error: account unavailable\n"

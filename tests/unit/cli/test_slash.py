"""``/set`` and ``/show`` in a conversation, with Ollama's words."""

import argparse

import pytest

from ollama_async.cli.client import ServerRefused
from ollama_async.cli.slash import Session, obey

SHOWN = {
    "details": {"family": "llama"},
    "template": "{{ .Prompt }}",
    "system": "be brief",
    "capabilities": ["completion", "thinking"],
}


class FakeClient:
    """A server that only knows how to show a model."""

    def __init__(self, shown):
        self.shown = shown

    def call(self, method, path, value):
        assert (method, path, value["model"]) == ("POST", "/api/show", "m")
        if isinstance(self.shown, Exception):
            raise self.shown
        return self.shown


@pytest.fixture
def session():
    flags = argparse.Namespace(nowordwrap=False, hidethinking=False, verbose=False)
    return Session(FakeClient(SHOWN), flags, {"model": "m"})


@pytest.mark.parametrize(
    ("command", "words", "request_"),
    [
        ("/set think", "Set 'think' mode.", {"think": True}),
        ("/set think high", "Set 'think' mode to 'high'.", {"think": "high"}),
        ("/set nothink", "Set 'nothink' mode.", {"think": False}),
        ("/set format json", "Set format to 'json' mode.", {"format": "json"}),
        (
            "/set format xml",
            "Invalid or missing format. For 'json' mode use '/set format json'",
            {},
        ),
        ("/set noformat", "Disabled format.", {}),
        ("/set colour", "Unknown command '/set colour'. Type /? for help", {}),
        ("/show colour", "Unknown command '/show colour'. Type /? for help", {}),
        ("/colour red", "Unknown command '/colour'. Type /? for help", {}),
        ("/show template", "{{ .Prompt }}", {}),
        ("/show system", "be brief", {}),
        ("/show license", "No license was specified for this model.", {}),
    ],
)
def test_a_command_says_what_it_did_and_changes_what_is_asked(
    session, capsys, command, words, request_
):
    obey(session, command)

    out, err = capsys.readouterr()
    assert (out, err) == (f"{words}\n", "")
    assert session.request == {"model": "m"} | request_


def test_no_format_takes_the_format_back(session):
    obey(session, "/set format json")
    obey(session, "/set noformat")

    assert session.request == {"model": "m"}


@pytest.mark.parametrize("command", ["/set think", "/set nothink"])
def test_a_model_that_cannot_think_is_warned_of_and_not_asked_to(session, capsys, command):
    session.client.shown = SHOWN | {"capabilities": ["completion"]}
    obey(session, command)

    assert "think" not in session.request
    assert capsys.readouterr().err == ('warning: model "m" does not support thinking output\n')


def test_flags_of_the_command_can_be_changed(session, capsys):
    for mode in ("nowordwrap", "verbose"):
        obey(session, f"/set {mode}")
    assert (session.flags.nowordwrap, session.flags.verbose) == (True, True)
    for mode in ("wordwrap", "quiet"):
        obey(session, f"/set {mode}")
    assert (session.flags.nowordwrap, session.flags.verbose) == (False, False)
    assert capsys.readouterr().out.splitlines()[-1] == "Set 'quiet' mode."


def test_a_system_message_stays_when_the_rest_is_cleared(session):
    obey(session, "/set system be long")
    obey(session, '/set system "be brief"')
    session.messages.append({"role": "user", "content": "hi"})
    obey(session, "/clear")

    assert session.messages == [{"role": "system", "content": "be brief"}]


def test_what_a_model_is_fills_a_page(session, capsys):
    obey(session, "/show info")

    assert "architecture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("/set", "/set nothink"),
        ("/show", "/show template"),
        ("/? set", "/set nothink"),
        ("/help show", "/show template"),
        ("/?", "/clear"),
    ],
)
def test_help_is_on_stderr(session, capsys, command, line):
    obey(session, command)

    out, err = capsys.readouterr()
    assert out == ""
    assert line in err


@pytest.mark.parametrize("command", ["/set think deep", "/show template"])
def test_an_error_does_not_end_the_conversation(session, capsys, command):
    session.client.shown = ServerRefused(404, "model 'm' not found")
    obey(session, command)

    assert capsys.readouterr().err.startswith("Error: ")

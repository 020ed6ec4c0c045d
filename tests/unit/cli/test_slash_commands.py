"""``/set`` and ``/show`` in a conversation, with Ollama's words."""

import argparse

import pytest

from ollama_async.cli.client import ServerRefused
from ollama_async.cli.interactive import Session, run_slash_command
from tests.unit.cli.fake_client import FakeClient

SHOWN = {
    "details": {"family": "llama"},
    "template": "{{ .Prompt }}",
    "system": "be brief",
    "capabilities": ["completion", "thinking"],
}


@pytest.fixture
def session():
    flags = argparse.Namespace(nowordwrap=False, hidethinking=False, verbose=False)
    return Session(FakeClient(shown=SHOWN), flags, {"model": "m"})


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
        ("/set parameter top_k 5", "Set parameter 'top_k' to '5'", {"options": {"top_k": 5}}),
        (
            "/set parameter stop a b",
            "Set parameter 'stop' to 'a, b'",
            {"options": {"stop": ["a", "b"]}},
        ),
        (
            "/set parameter top_k many",
            'Couldn\'t set parameter: "invalid int value [many]"',
            {},
        ),
        (
            "/set parameter colour red",
            "Couldn't set parameter: \"unknown parameter 'colour'\"",
            {},
        ),
        ("/load", "Usage:\n  /load <model name>", {}),
        ("/save", "Usage:\n  /save <model name>", {}),
        ("/save a b", "error: The model name 'a b' is invalid", {}),
        ("/show license", "No license was specified for this model.", {}),
    ],
)
def test_a_slash_command_reports_its_change_of_the_request(
    session, capsys, command, words, request_
):
    run_slash_command(session, command)

    out, err = capsys.readouterr()
    assert (out, err) == (f"{words}\n", "")
    assert session.request == {"model": "m"} | request_


def test_no_format_takes_the_format_back(session):
    run_slash_command(session, "/set format json")
    run_slash_command(session, "/set noformat")

    assert session.request == {"model": "m"}


@pytest.mark.parametrize("command", ["/set think", "/set nothink"])
def test_a_model_without_thinking_gives_a_warning_and_no_think_field(session, capsys, command):
    session.client.shown = SHOWN | {"capabilities": ["completion"]}
    run_slash_command(session, command)

    assert "think" not in session.request
    assert capsys.readouterr().err == ('warning: model "m" does not support thinking output\n')


def test_flags_of_the_command_can_be_changed(session, capsys):
    for mode in ("nowordwrap", "verbose"):
        run_slash_command(session, f"/set {mode}")
    assert (session.flags.nowordwrap, session.flags.verbose) == (True, True)
    for mode in ("wordwrap", "quiet"):
        run_slash_command(session, f"/set {mode}")
    assert (session.flags.nowordwrap, session.flags.verbose) == (False, False)
    assert capsys.readouterr().out.splitlines()[-1] == "Set 'quiet' mode."


def test_a_system_message_stays_when_the_rest_is_cleared(session):
    run_slash_command(session, "/set system be long")
    run_slash_command(session, '/set system "be brief"')
    session.messages.append({"role": "user", "content": "hi"})
    run_slash_command(session, "/clear")

    assert session.messages == [{"role": "system", "content": "be brief"}]


def test_the_system_message_that_counts_is_shown(session, capsys):
    run_slash_command(session, "/set system be long")
    capsys.readouterr()
    run_slash_command(session, "/show system")

    assert capsys.readouterr().out == "be long\n"


def test_show_prints_all_sections(session, capsys):
    run_slash_command(session, "/show info")

    assert "architecture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("/set", "/set nothink"),
        ("/set system", "/set system <string>"),
        ("/set parameter", "/set parameter top_k <integer>"),
        ("/set parameter top_k", "/set parameter top_k <integer>"),
        ("/show", "/show template"),
        ("/? set", "/set nothink"),
        ("/help show", "/show template"),
        ("/?", "/clear"),
    ],
)
def test_help_is_on_stderr(session, capsys, command, line):
    run_slash_command(session, command)

    out, err = capsys.readouterr()
    assert out == ""
    assert line in err


@pytest.mark.parametrize("command", ["/set think deep", "/show template"])
def test_an_error_does_not_end_the_conversation(session, capsys, command):
    session.client.shown = ServerRefused(404, "model 'm' not found")
    run_slash_command(session, command)

    assert capsys.readouterr().err.startswith("Error: ")


def test_parameters_add_up_and_are_shown_beside_the_models(session, capsys):
    session.client.shown = SHOWN | {"parameters": "seed    1"}
    run_slash_command(session, "/set parameter top_k 5")
    run_slash_command(session, "/set parameter seed 7")
    run_slash_command(session, "/set parameter stop a b")
    capsys.readouterr()
    run_slash_command(session, "/show parameters")

    assert session.request["options"] == {"top_k": 5, "seed": 7, "stop": ["a", "b"]}
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["Model", "defined", "parameters:"],
        ["seed", "1"],
        [],
        ["User", "defined", "parameters:"],
        ["top_k", "5"],
        ["seed", "7"],
        ["stop", "a,", "b"],
        [],
    ]


def test_another_model_begins_anew(session, capsys):
    session.messages = [{"role": "user", "content": "hi"}]
    run_slash_command(session, "/load other")

    assert session.client.calls == [
        ("/api/generate", {"model": "other", "prompt": "", "stream": False})
    ]
    assert (session.request, session.messages) == ({"model": "other"}, [])
    assert capsys.readouterr().out == "Loading model 'other'\n"


@pytest.mark.parametrize(
    ("status", "out", "err"),
    [
        (404, "Loading model 'other'\nCouldn't find model 'other'\n", ""),
        (503, "Loading model 'other'\n", "Error: no\n"),
    ],
)
def test_a_model_that_cannot_be_loaded_changes_nothing(session, capsys, status, out, err):
    session.messages = [{"role": "user", "content": "hi"}]
    session.client.shown = ServerRefused(status, "no")
    run_slash_command(session, "/load other")

    assert capsys.readouterr() == (out, err)
    assert (session.request, session.messages) == (
        {"model": "m"},
        [{"role": "user", "content": "hi"}],
    )


def test_a_conversation_becomes_a_model(session, capsys):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    run_slash_command(session, "/set system be brief")
    run_slash_command(session, "/set parameter top_k 5")
    session.messages += turns
    capsys.readouterr()
    run_slash_command(session, "/save mine")

    fields = {"system": "be brief", "parameters": {"top_k": 5}, "messages": turns}
    assert session.client.calls == [
        ("/api/create", {"model": "mine", "from": "m", "stream": False, **fields})
    ]
    assert capsys.readouterr().out == "Created new model 'mine'\n"


def test_models_are_listed(session, capsys):
    run_slash_command(session, "/list oth")

    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "NAME",
        "other:latest",
    ]


def test_typed_lines_are_kept_or_not(session, monkeypatch):
    said = []
    monkeypatch.setattr("readline.set_auto_history", said.append)
    run_slash_command(session, "/set nohistory")
    run_slash_command(session, "/set history")

    assert said == [False, True]

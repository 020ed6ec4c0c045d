"""The interactive prompt, with a person who types what the test says."""

import argparse

import pytest

from ollama_async.cli import interactive
from ollama_async.cli.client import ServerRefused
from tests.unit.cli.fake_client import FakeClient

ARGUMENTS = argparse.Namespace(nowordwrap=True, hidethinking=False, verbose=False)


def said(text, thinking=""):
    return [
        {"message": {"role": "assistant", "content": text, "thinking": thinking}, "done": False},
        {"message": {"role": "assistant", "content": ""}, "done": True},
    ]


@pytest.fixture
def person(monkeypatch):
    def types(*lines):
        script = iter(lines)

        def read(_prompt):
            line = next(script, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr("builtins.input", read)

    return types


def converse(client):
    assert interactive.run_conversation(client, ARGUMENTS, {"model": "m"}) == 0


def test_every_turn_carries_the_history(person, capsys):
    client = FakeClient(said("hello", "hm"), said("bye"))
    person("hi", "", "and now?", "/bye")
    converse(client)
    [(path, body)] = client.calls
    assert (path, body["prompt"]) == ("/api/generate", "")
    assert client.chats[1] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello", "thinking": "hm"},
        {"role": "user", "content": "and now?"},
    ]
    assert "hello\n\n" in capsys.readouterr().out


def test_what_the_model_has_stored_is_shown_before_the_first_prompt(person, capsys):
    client = FakeClient(
        said("ok"),
        shown={
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "who are you?"},
                {"role": "assistant", "content": "A pirate."},
            ]
        },
    )
    person("hi")
    converse(client)
    assert capsys.readouterr().out.startswith(">>> who are you?\nA pirate.\n\n")
    assert client.chats == [[{"role": "user", "content": "hi"}]]


def test_ctrl_c_stops_the_answer_and_keeps_its_text(person):
    client = FakeClient([said("he")[0], KeyboardInterrupt()], said("again"))
    person("hi", "go on")
    converse(client)
    assert client.chats[1][1] == {"role": "assistant", "content": "he"}


def test_ctrl_c_at_the_prompt_prints_how_to_exit(person, capsys):
    person(KeyboardInterrupt())
    converse(FakeClient())
    assert "Use Ctrl + d or /bye to exit." in capsys.readouterr().out


def test_a_refused_message_is_forgotten(person, capsys):
    client = FakeClient([ServerRefused(503, "server busy")], said("ok"))
    person("hi", "again")
    converse(client)
    assert client.chats[1] == [{"role": "user", "content": "again"}]
    assert "Error: server busy" in capsys.readouterr().err


def test_three_quotes_open_and_close_a_long_message(person):
    client = FakeClient(said("ok"))
    person('"""one', "two", 'three"""')
    converse(client)
    assert client.chats[0][0]["content"] == "one\ntwo\nthree"


def test_a_system_message_may_have_many_lines_too(person):
    client = FakeClient(said("ok"))
    person('/set system """be', 'brief"""', "hi")
    converse(client)
    assert client.chats == [
        [{"role": "system", "content": "be\nbrief"}, {"role": "user", "content": "hi"}]
    ]


def test_quotes_within_a_message_do_not_make_it_longer(person):
    client = FakeClient(said("ok"))
    person('what does """ mean?')
    converse(client)
    assert client.chats == [[{"role": "user", "content": 'what does """ mean?'}]]


def test_slash_commands_are_run_and_not_sent(person, capsys):
    client = FakeClient(said("ok"), said("ok"))
    person("hi", "/clear", "/?", "/nope x", "hi", "/exit")
    converse(client)
    assert len(client.chats[1]) == 1
    out, err = capsys.readouterr()
    assert "Cleared session context" in out
    assert "Unknown command '/nope'. Type /? for help" in out
    assert "Available Commands" in err

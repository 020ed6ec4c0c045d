"""The key that lets commands of the server's own user name files."""

import os

import pytest

from ollama_async.core import local_key
from ollama_async.core.local_key import KeyUnusable, is_valid_proof, open_key, proof, read_key


def test_the_first_server_creates_the_key_and_others_read_it(tmp_path):
    folder = tmp_path / "cache"
    key = open_key(folder)
    assert len(key) == 32
    assert open_key(folder) == read_key(folder) == key
    assert (folder / "local-key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == ["local-key"]
    assert open_key(tmp_path / "other") != key


def test_of_two_servers_that_create_the_key_one_wins(tmp_path, monkeypatch):
    winner = open_key(tmp_path / "winner")
    folder = tmp_path / "cache"
    link = os.link

    def lose(source, target):
        target.parent.joinpath("mine").write_bytes(winner)
        target.parent.joinpath("mine").chmod(0o600)
        link(target.parent / "mine", target)
        link(source, target)

    monkeypatch.setattr(local_key.os, "link", lose)
    assert open_key(folder) == winner


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    open_key(tmp_path)
    (tmp_path / "local-key").chmod(mode)
    for read in (read_key, open_key):
        with pytest.raises(KeyUnusable, match="chmod 600"):
            read(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_another_users_key_is_refused(tmp_path):
    open_key(tmp_path)
    os.chown(tmp_path / "local-key", 7654321, -1)
    with pytest.raises(KeyUnusable, match="not a file of this user"):
        read_key(tmp_path)


def test_a_link_a_pipe_or_half_a_key_is_refused(tmp_path):
    open_key(tmp_path / "other")
    path = tmp_path / "local-key"
    path.symlink_to(tmp_path / "other/local-key")
    with pytest.raises(OSError, match="symbolic"):
        open_key(tmp_path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyUnusable, match="not a file"):
        open_key(tmp_path)
    for content in (b"", b"x" * 31, b"x" * 33):
        path.unlink()
        path.touch(0o600)
        path.write_bytes(content)
        with pytest.raises(KeyUnusable, match="does not contain a key"):
            open_key(tmp_path)


def test_a_proof_holds_for_one_key_address_and_port():
    key, other = b"k" * 32, b"o" * 32
    valid = proof(key, "127.0.0.1", 11434)
    assert key.hex() not in valid
    assert is_valid_proof(valid, key, "127.0.0.1", 11434)
    assert is_valid_proof(valid, key, "::ffff:127.0.0.1", 11434)
    for against in (
        (other, "127.0.0.1", 11434),
        (key, "127.0.0.2", 11434),
        (key, "::1", 11434),
        (key, "127.0.0.1", 11435),
    ):
        assert not is_valid_proof(valid, *against)
    for invalid in ("", "x", "é", valid.upper(), valid[:-1]):
        assert not is_valid_proof(invalid, key, "127.0.0.1", 11434)

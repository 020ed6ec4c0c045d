"""The key pair of this machine."""

import base64
import os
import subprocess
import threading

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from ollama_async.registry.auth import load_key
from ollama_async.registry.errors import PermanentError


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".ollama" / "id_ed25519"


def test_a_key_is_created_once(path):
    key = load_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.with_suffix(".pub").read_text() == f"ssh-ed25519 {key.public}\n"
    assert path.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert load_key(path).public == key.public
    assert sorted(each.name for each in path.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_a_signature_verifies_with_the_public_key(path):
    key = load_key(path)
    public, _, signature = key.sign(b"data").partition(":")
    assert public == key.public
    verifier = serialization.load_ssh_public_key(path.with_suffix(".pub").read_bytes())
    assert isinstance(verifier, ed25519.Ed25519PublicKey)
    verifier.verify(base64.b64decode(signature), b"data")  # raises


def test_concurrent_creations_give_one_key(path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_key(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert {key.public for key in found} == {load_key(path).public}


def test_openssh_reads_what_we_write(path):
    load_key(path)
    try:
        done = subprocess.run(
            ["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, timeout=10, check=True
        )
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    assert done.stdout.split()[:2] == path.with_suffix(".pub").read_text().split()[:2]


def test_a_file_that_is_no_such_key_is_left_alone(path):
    path.parent.mkdir()
    other = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    for content in (b"", b"nonsense", other, _with_password()):
        path.write_bytes(content)
        with pytest.raises(PermanentError, match=r"not an OpenSSH ed25519 key"):
            load_key(path)
        assert path.read_bytes() == content


def test_a_pipe_is_not_a_key_and_does_not_block(path):
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(PermanentError, match="cannot be used"):
        load_key(path)


def _with_password():
    """As OpenSSH writes it, except for what the password hides."""

    def text(data):
        return len(data).to_bytes(4) + data

    public = text(b"ssh-ed25519") + text(bytes(32))
    body = b"openssh-key-v1\0" + text(b"aes256-ctr") + text(b"bcrypt")
    body += text(text(bytes(16)) + (16).to_bytes(4)) + (1).to_bytes(4) + text(public)
    lines = base64.b64encode(body + text(bytes(160)))
    return b"-----BEGIN OPENSSH PRIVATE KEY-----\n%b\n-----END OPENSSH PRIVATE KEY-----\n" % lines


def test_an_unwritable_key_folder_is_reported_and_its_path_only_logged(path, caplog):
    path.parent.write_text("a file")
    with pytest.raises(
        PermanentError, match=r"cannot be used: (Not a directory|File exists)"
    ) as refused:
        load_key(path)
    assert str(path) not in str(refused.value)
    assert str(path) in caplog.text

"""``pull`` against a server that speaks the statuses of ``/api/pull``."""

import pytest

from ollama_async.cli.main import main
from tests.unit.cli.terminal import interrupted

DIGEST = f"sha256:{'ab' * 32}"
LAYER = {"status": "pulling abababababab", "digest": DIGEST, "total": 1000}
STATUSES = [
    {"status": "pulling manifest"},
    LAYER,
    LAYER | {"completed": 400},
    LAYER | {"completed": 1000},
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
]


def test_pull_prints_each_step_once(fake, capsys):
    fake.answers["POST", "/api/pull"] = (200, STATUSES)
    assert main(["pull", "llama3"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "pulling manifest",
        "pulling abababababab",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert fake.bodies("/api/pull") == [{"model": "llama3", "insecure": False}]


def test_pull_may_be_insecure(fake):
    fake.answers["POST", "/api/pull"] = (200, STATUSES)
    assert main(["pull", "--insecure", "localhost:5000/a/b"]) == 0
    assert fake.bodies("/api/pull") == [{"model": "localhost:5000/a/b", "insecure": True}]


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (400, b'{"error":"invalid model name"}', "invalid model name"),
        (200, [STATUSES[0], {"error": "pull model manifest: file does not exist"}],
         "pull model manifest: file does not exist"),
        (200, STATUSES[:3], "the server ended before the model was complete"),
    ],
)  # fmt: skip
def test_a_failed_pull_prints_the_reason(fake, capsys, status, content, error):
    fake.answers["POST", "/api/pull"] = (status, content)
    assert main(["pull", "nosuch"]) == 1
    assert capsys.readouterr().err.endswith(f"Error: {error}\n")


@pytest.mark.slow
def test_ctrl_c_leaves_the_terminal_and_the_server_clean(fake):
    fake.answers["POST", "/api/pull"] = (200, [*STATUSES[:3], fake.wait_for_hang_up])
    shown, status = interrupted(["pull", "llama3"], b" 40%", fake)
    assert status == 130
    assert shown.endswith(b"\x1b[?25h")  # the cursor is shown again
    assert b"Traceback" not in shown

"""``push`` against a server that speaks the statuses of ``/api/push``."""

import pytest

from ollama_async.cli.main import main
from tests.unit.cli.terminal import interrupted

DIGEST = f"sha256:{'ab' * 32}"
LAYER = {"status": "pushing abababababab", "digest": DIGEST, "total": 1000}
STATUSES = [
    {"status": "retrieving manifest"},
    LAYER,
    LAYER | {"completed": 400},
    LAYER | {"completed": 1000},
    {"status": "pushing manifest"},
    {"status": "success"},
]
NOT_YOURS = (
    "you are not authorized to push to this namespace, create the model under a namespace you own"
)


def test_push_prints_each_step_once_and_then_the_url(fake, capsys):
    fake.answers["POST", "/api/push"] = (200, STATUSES)
    assert main(["push", "me/llama3"]) == 0
    out, err = capsys.readouterr()
    assert out == "\nYou can find your model at:\n\n\thttps://ollama.com/me/llama3\n"
    assert err.splitlines() == [
        "retrieving manifest",
        "pushing abababababab",
        "pushing manifest",
        "success",
    ]
    assert fake.bodies("/api/push") == [{"model": "me/llama3", "insecure": False}]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("me/x:7b", "https://ollama.com/me/x:7b"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("http://localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("not-ollama.ai/a/b", "not-ollama.ai/a/b:latest"),
    ],
)
def test_the_place_is_a_page_or_the_full_name(fake, capsys, name, place):
    fake.answers["POST", "/api/push"] = (200, STATUSES)
    assert main(["push", "--insecure", name]) == 0
    assert capsys.readouterr().out.endswith(f"\t{place}\n")
    assert fake.bodies("/api/push") == [{"model": name, "insecure": True}]


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (400, b'{"error":"invalid model name"}', "invalid model name"),
        (200, [STATUSES[0], {"error": "403: no"}], "403: no"),
        (200, [STATUSES[0], {"error": "unauthorized: access denied"}], NOT_YOURS),
        (200, STATUSES[:3], "the server ended before the model was pushed"),
    ],
)
def test_a_failed_push_prints_the_reason(fake, capsys, status, content, error):
    fake.answers["POST", "/api/push"] = (status, content)
    assert main(["push", "me/nosuch"]) == 1
    out, err = capsys.readouterr()
    assert err.endswith(f"Error: {error}\n")
    assert out == ""


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_hangs_up(fake):
    fake.answers["POST", "/api/push"] = (200, [*STATUSES[:3], fake.wait_for_hang_up])
    shown, status = interrupted(["push", "me/llama3"], b" 40%", fake)
    assert status == 130
    assert shown.endswith(b"\x1b[?25h")  # the cursor is shown again
    assert b"Traceback" not in shown

"""Schemathesis attacks what ``/openapi.json`` describes, and checks the answers against it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import running_servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,unsupported_method"
)
"""Not those that demand an error for unknown fields or lenient values: Ollama takes these."""

CALLS_OUT = "/api/(pull|push|create)$"
"""A valid request of these would look for a registry."""

CONFIGURATION = """
[checks.not_a_server_error]
expected-statuses = ["1xx", "2xx", "3xx", "4xx", 501]
"""
"""501: what a model of this kind cannot do."""

SCRIPTS = {
    "demo": {
        "tokens": ["fine ", "thanks"],
        "capabilities": ["tools", "thinking", "insert"],
        "slots": 8,
    },
    "demo-embed": {"dimensions": 8},
}


@pytest.mark.parametrize("phase", ["examples", "coverage", "fuzzing"])
def test_the_server_does_what_it_describes(tmp_path, engine_cache, phase):
    with running_servers(tmp_path, engine_cache) as start:
        server = start(scripts=SCRIPTS)
        (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        options = {
            "--phases": phase,
            "--checks": CHECKS,
            "--exclude-path-regex": CALLS_OUT,
            "--max-examples": "25",
            "--seed": "1",
            "--workers": "1",  # with more, hypothesis runs into a fault of CPython 3.11
            "--suppress-health-check": "all",
            "--request-timeout": "30",
        }
        arguments = [word for option in options.items() for word in option]
        run = subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env={"SCHEMATHESIS_HOOKS": "stream_hooks", "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
        assert "Traceback" not in server.log

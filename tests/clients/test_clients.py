"""Every check of every client's script is a test with a verdict of its own."""

import pytest

from tests.clients.scripts import SCRIPTS, checks_of

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(300)]

WITH_REGISTRY = "python/ollama/transfers.py"
CHECKS = [
    pytest.param(script, name, id=f"{script}:{name}")
    for script in SCRIPTS
    if script != WITH_REGISTRY
    for name in checks_of(script)
]


@pytest.mark.parametrize(("script", "check"), CHECKS)
def test_a_client_works(verdicts, script, check):
    report(verdicts(script), check)


@pytest.mark.parametrize("check", checks_of(WITH_REGISTRY))
def test_a_client_moves_models(verdicts, registry, check):
    report(verdicts(WITH_REGISTRY, REGISTRY=registry.host), check)


def report(verdicts, check):
    if check not in verdicts:
        pytest.fail(f"the script ended before {check}", pytrace=False)
    if verdicts[check]["error"] is not None:
        pytest.fail(verdicts[check]["error"], pytrace=False)

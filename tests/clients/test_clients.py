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
def test_a_client_works(report, script, check):
    judge(report(script), check)


@pytest.mark.parametrize("check", checks_of(WITH_REGISTRY))
def test_a_client_moves_models(report, registry, check):
    judge(report(WITH_REGISTRY, REGISTRY=registry.host), check)


def judge(report, check):
    if check not in report.errors:
        pytest.fail(f"{check} did not end. {report.rest}", pytrace=False)
    if report.errors[check] is not None:
        pytest.fail(report.errors[check], pytrace=False)

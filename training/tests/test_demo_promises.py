"""What the shipped model can do, measured through a real server: what its card says."""

import asyncio
from collections import Counter

import pytest
from ollama_async.shipped_models import FOLDER

from demo.evaluate import SUITES, evaluate

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]

SAMPLE = 60
PROMISED = {suite.name: suite.least for suite in SUITES if suite.least is not None}


@pytest.fixture(scope="module")
def right():
    """How many answers of each suite were right."""
    results = asyncio.run(evaluate(FOLDER / "demo.gguf", SAMPLE))
    return Counter(result.suite for result in results if result.right)


@pytest.mark.parametrize("suite", PROMISED)
def test_it_can_do_what_its_card_says(right, suite):
    assert right[suite] >= SAMPLE * PROMISED[suite]

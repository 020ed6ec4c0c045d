"""What is in ``deploy`` fits the program that it deploys."""

import re
from pathlib import Path

import yaml

from ollama_async.gateway.routes import ROUTES
from ollama_async.settings import VARIABLES, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = (DEPLOY / "ollama-async.service").read_text()


def test_the_unit_sets_only_variables_that_exist():
    names = re.findall(r"^Environment=(\w+)=", UNIT, re.MULTILINE)

    assert names
    assert set(names) <= {variable.name for variable in VARIABLES}


def test_the_unit_leaves_time_for_running_answers():
    (limit_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)

    assert int(limit_s) > 2 * Settings.from_environ({}).shutdown_grace_s


def test_prometheus_is_sent_to_a_route_that_exists():
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]

    assert ("GET", job["metrics_path"]) in {(route.method, route.path) for route in ROUTES}
    assert job["static_configs"][0]["targets"] == ["127.0.0.1:11434"]

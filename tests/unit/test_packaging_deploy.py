"""What is in ``deploy`` fits the program that it deploys."""

import re
from pathlib import Path

import yaml

from ollama_async.core.settings import VARIABLES, Settings
from ollama_async.gateway.routes import ROUTES

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = (DEPLOY / "ollama-async.service").read_text()


def environment() -> dict[str, str]:
    return dict(re.findall(r"^Environment=(\w+)=(.*)$", UNIT, re.MULTILINE))


def test_the_unit_sets_only_variables_that_exist():
    assert set(environment()) - {"HOME"} <= {variable.name for variable in VARIABLES}


def test_the_unit_serves_this_machine_only():
    settings = Settings.from_environ(environment())
    assert settings.address.host == "127.0.0.1"


def test_what_the_unit_writes_is_where_it_may_write():
    """``ProtectSystem=strict`` leaves nothing else."""
    own = {"/var/lib": "StateDirectory", "/var/cache": "CacheDirectory"}
    folders = [
        Path(root, *re.findall(rf"^{name}=(\S+)$", UNIT, re.MULTILINE))
        for root, name in own.items()
    ]
    settings = Settings.from_environ(environment())
    for place in (Path(environment()["HOME"]), settings.models, settings.cache_dir):
        assert any(place == folder or folder in place.parents for folder in folders), place


def test_the_unit_leaves_time_for_running_answers():
    (limit_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)

    assert int(limit_s) > 2 * Settings.from_environ({}).shutdown_grace_s


def test_prometheus_is_sent_to_a_route_that_exists():
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]

    assert ("GET", job["metrics_path"]) in {(route.method, route.path) for route in ROUTES}
    assert job["static_configs"][0]["targets"] == ["127.0.0.1:11434"]

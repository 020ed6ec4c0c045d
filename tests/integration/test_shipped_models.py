"""The models of the package in a real server: there at once, gone for good, back when asked for."""

import httpx
import pytest

from ollama_async import shipped_models

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("demo_model")]


def names_of(server):
    return {model["name"] for model in httpx.get(f"{server.url}/api/tags").json()["models"]}


def test_a_new_store_has_them_and_what_is_removed_stays_away(start_server):
    server = start_server(offers_shipped=True)
    assert names_of(server) == {f"{name}:latest" for name in shipped_models.names()}
    assert server.command("rm", "demo").stdout == "deleted 'demo'\n"
    assert server.stop() == 0

    again = start_server(offers_shipped=True)

    left = {f"{name}:latest" for name in shipped_models.names() if name != "demo"}
    assert names_of(again) == left


def test_a_store_that_takes_nothing_is_served_with_a_warning(start_server, tmp_path):
    store = tmp_path / "models"
    store.mkdir()
    (store / shipped_models.MARKS).write_text("in the way")

    server = start_server(offers_shipped=True)

    assert names_of(server) == set()
    assert "the models of the package were not added: model store" in server.log


@pytest.mark.engine
def test_asked_for_it_is_back_and_answers_without_a_network(start_server):
    server = start_server(HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
    assert names_of(server) == set()

    ran = server.command("run", "demo", "Why is the sky blue?")

    assert "Rayleigh scattering" in ran.stdout
    assert ran.stderr.splitlines()[-1] == "success"
    assert names_of(server) == {"demo:latest"}

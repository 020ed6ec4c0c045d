"""Settings read the environment as Ollama reads it."""

import math
import sys

import pytest

from ollama_async.core.settings import VARIABLES, Address, Settings, parse_address


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://0.0.0.0:11434"),
        (":8080", "http://0.0.0.0:8080"),
        ("box:1234", "http://box:1234"),
        ("[::1]:99", "http://[::1]:99"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("http://box", "http://box:80"),
        ("https://box", "https://box:443"),
        ("https://box:9/u/key/", "https://box:9/u/key"),
        ("box:0", "http://box:0"),
        ("[::1", "http://[::1]:11434"),
        ("http://[::1]:99/x", "http://[::1]:99/x"),
        ("x\u2100y", "http://x\u2100y:11434"),
    ],
)
def test_every_form_of_host_is_understood(text, url):
    assert parse_address(text).url == url


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("2GiB", 2 << 30),
        ("2gib", 2 << 30),
        ("2g", 2 << 30),
        ("1.5 GiB", 3 << 29),
        ("500MB", 500_000_000),
        ("64 KiB", 64 << 10),
        ("9B", 9),
        ("1T", 1 << 40),
        ("99999999999T", sys.maxsize),
        ("", None),
    ],
)
def test_a_size_has_the_units_of_its_reader(text, size_bytes):
    settings = Settings.from_environ({"OLLAMA_ASYNC_CACHE_RAM": text})

    assert settings.cache_ram_bytes == size_bytes
    assert not settings.warnings


@pytest.mark.parametrize("text", ["-1", "2X", "GiB", "1e9", "2 GiBs", "1.GiB", "nan"])
def test_a_size_that_cannot_be_read_is_the_default_with_a_warning(text):
    settings = Settings.from_environ({"OLLAMA_ASYNC_CACHE_RAM": text})

    assert settings.cache_ram_bytes is None
    assert len(settings.warnings) == 1


@pytest.mark.parametrize(
    "text", ["box:x", "box:70000", "box:", "box:-1", "box:8_0", "box:" + "9" * 5000]
)
def test_an_invalid_port_is_refused(text):
    with pytest.raises(ValueError, match="invalid port"):
        parse_address(text)


def test_a_bad_port_falls_back_with_a_warning():
    settings = Settings.from_environ({"OLLAMA_HOST": "10.0.0.1:xx"})

    assert settings.address == Address("http", "10.0.0.1", 11434)
    assert "OLLAMA_HOST" in settings.warnings[0]


def test_the_warning_about_a_bad_port_names_the_port_that_is_used():
    settings = Settings.from_environ({"OLLAMA_HOST": "http://10.0.0.1:xx/path"})

    assert settings.address == Address("http", "10.0.0.1", 80, "/path")
    assert settings.warnings == ("OLLAMA_HOST: invalid port 'xx', using port 80",)


def test_a_folder_of_an_unknown_user_is_the_default_with_a_warning():
    settings = Settings.from_environ({"OLLAMA_MODELS": "~no-such-user/models"})

    assert settings.models == Settings.from_environ({}).models
    assert "OLLAMA_MODELS" in settings.warnings[0]


def test_the_root_is_the_home_of_a_user_without_one(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 77)

    assert str(Settings.from_environ({}).models) == "/.ollama/models"


def test_ollama_port_is_used_if_the_host_has_no_port():
    settings = Settings.from_environ({"OLLAMA_HOST": "0.0.0.0", "OLLAMA_PORT": "8000"})

    assert settings.address.url == "http://0.0.0.0:8000"


def test_nothing_set_gives_the_defaults_without_warnings():
    settings = Settings.from_environ({})

    assert settings.warnings == ()
    assert (settings.max_queue, settings.keep_alive_s) == (512, 300.0)


@pytest.mark.parametrize(
    ("name", "raw", "field", "value"),
    [
        ("OLLAMA_MAX_QUEUE", " '7' ", "max_queue", 7),
        ("OLLAMA_MAX_QUEUE", "0", "max_queue", 0),
        ("OLLAMA_KEEP_ALIVE", "-1", "keep_alive_s", math.inf),
        ("OLLAMA_KEEP_ALIVE", "10", "keep_alive_s", 10.0),
        ("OLLAMA_KEEP_ALIVE", "1h", "keep_alive_s", 3600.0),
        ("OLLAMA_KEEP_ALIVE", "0", "keep_alive_s", 0.0),
        ("OLLAMA_LOAD_TIMEOUT", "0", "load_timeout_s", math.inf),
        ("OLLAMA_NOPRUNE", "yes please", "noprune", True),
        ("OLLAMA_NOPRUNE", "false", "noprune", False),
        ("OLLAMA_FLASH_ATTENTION", "0", "flash_attention", "off"),
        ("OLLAMA_DEBUG", "true", "debug", 1),
        (
            "OLLAMA_ASYNC_TRUSTED_REGISTRIES",
            "Registry.corp, 10.0.0.5:5000,",
            "trusted_registries",
            {"registry.corp", "10.0.0.5:5000"},
        ),
    ],
)
def test_values_are_read(name, raw, field, value):
    assert getattr(Settings.from_environ({name: raw}), field) == value


@pytest.mark.parametrize("name", ["OLLAMA_MAX_QUEUE", "OLLAMA_KEEP_ALIVE", "OLLAMA_PORT"])
def test_an_unreadable_value_is_the_default_with_a_warning(name):
    for raw in ("many", "9" * 400, "9" * 5000):
        settings = Settings.from_environ({name: raw})

        assert name in settings.warnings[0]
        read = (settings.max_queue, settings.keep_alive_s, settings.address.port)
        assert read == (512, 300, 11434)


@pytest.mark.parametrize("raw", ["http://a", "a/b", "*", "a:x", "a b", "::1"])
def test_an_invalid_host_is_not_trusted(raw):
    settings = Settings.from_environ({"OLLAMA_ASYNC_TRUSTED_REGISTRIES": raw})

    assert settings.trusted_registries == frozenset()
    assert "OLLAMA_ASYNC_TRUSTED_REGISTRIES" in settings.warnings[0]


def test_every_field_has_its_variable():
    fields = {variable.field for variable in VARIABLES} - {"host", "port"}

    assert fields == set(Settings.__struct_fields__) - {"address", "warnings"}

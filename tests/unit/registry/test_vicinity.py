"""Which addresses a registry may lead to."""

import asyncio
import socket

import pytest
from yarl import URL

from ollama_async.registry import vicinity
from ollama_async.registry.vicinity import Nearness, TooNear, Vicinity, nearness

PUBLIC, PRIVATE, OURSELVES, SPECIAL = Nearness


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", PUBLIC),
        ("2001:4860:4860::8888", PUBLIC),
        ("10.1.2.3", PRIVATE),
        ("172.16.0.1", PRIVATE),
        ("192.168.1.1", PRIVATE),
        ("100.64.0.1", PRIVATE),
        ("fd00:ec2::254", PRIVATE),
        ("127.0.0.1", OURSELVES),
        ("127.8.8.8", OURSELVES),
        ("::1", OURSELVES),
        ("0.0.0.0", OURSELVES),
        ("::", OURSELVES),
        ("::ffff:127.0.0.1", OURSELVES),
        ("::ffff:10.0.0.1", PRIVATE),
        ("169.254.169.254", SPECIAL),
        ("::ffff:169.254.169.254", SPECIAL),
        ("fe80::1%eth0", SPECIAL),
        ("224.0.0.1", SPECIAL),
        ("255.255.255.255", SPECIAL),
    ],
)
def test_how_near_an_address_is(address, expected):
    assert nearness(address) is expected


@pytest.mark.parametrize(
    ("home", "target", "is_allowed"),
    [
        ("8.8.8.8", "9.9.9.9", True),
        ("8.8.8.8", "10.0.0.1", False),
        ("8.8.8.8", "127.0.0.1", False),
        ("8.8.8.8", "[::1]", False),
        ("8.8.8.8", "169.254.169.254", False),
        ("10.0.0.1", "10.0.0.2", True),
        ("10.0.0.1", "8.8.8.8", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("10.0.0.1", "169.254.169.254", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "192.168.0.1", True),
        ("127.0.0.1", "169.254.169.254", False),
        ("169.254.1.1", "169.254.1.1", True),
        ("registry.example", "10.0.0.1", False),
        ("registry.example", "storage.example", True),  # names are checked when they are resolved
    ],
)
def test_addresses_in_redirects(home, target, is_allowed):
    check = Vicinity(home).check
    url = URL(f"http://{target}/x")
    if is_allowed:
        check(url)
    else:
        with pytest.raises(TooNear):
            check(url)


class Names:
    """A resolver of the system that says what the test wants."""

    def __init__(self, monkeypatch, **names):
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        monkeypatch.setattr(vicinity.socket, "getaddrinfo", self._answer)

    def _answer(self, host, port, **_options):
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.names[host]
        ]


def resolved(resolver, host):
    return [result["host"] for result in asyncio.run(resolver.resolve(host, 443))]


def test_a_public_registry_cannot_lead_home_by_a_name(monkeypatch):
    Names(monkeypatch, a_example=["8.8.8.8"], b_example=["127.0.0.1"], c_example=["10.0.0.1"])
    resolver = Vicinity("a.example")
    assert resolved(resolver, "a.example") == ["8.8.8.8"]
    for name in ("b.example", "c.example"):
        with pytest.raises(TooNear, match=name):
            resolved(resolver, name)


def test_a_registry_s_name_may_not_come_nearer_later(monkeypatch):
    names = Names(monkeypatch, a_example=["8.8.8.8", "127.0.0.1"])
    resolver = Vicinity("a.example")
    assert resolved(resolver, "a.example") == ["8.8.8.8"]
    names.names["a.example"] = ["127.0.0.1"]
    with pytest.raises(TooNear):
        resolved(resolver, "a.example")


def test_a_registry_in_our_network_may_refer_to_a_neighbour(monkeypatch):
    Names(monkeypatch, a_corp=["10.0.0.1"], b_corp=["10.0.0.2"], me=["127.0.0.1"])
    resolver = Vicinity("a.corp")
    assert resolved(resolver, "a.corp") == ["10.0.0.1"]
    assert resolved(resolver, "b.corp") == ["10.0.0.2"]
    with pytest.raises(TooNear):
        resolved(resolver, "me")


def test_an_address_in_disguise_is_seen(monkeypatch):
    Names(monkeypatch, a_example=["8.8.8.8"]).names["0x7f.1"] = ["127.0.0.1"]
    resolver = Vicinity("a.example")
    resolver.check(URL("http://0x7f.1/"))
    with pytest.raises(TooNear):
        resolved(resolver, "0x7f.1")


def test_the_operator_s_proxy_may_be_anywhere(monkeypatch):
    Names(monkeypatch, proxy_corp=["10.0.0.9"])
    assert resolved(Vicinity("a.example", ["proxy.corp"]), "proxy.corp") == ["10.0.0.9"]


def test_a_name_that_nobody_knows_is_an_error_of_the_system(monkeypatch):
    Names(monkeypatch)
    with pytest.raises(OSError, match="not known"):
        resolved(Vicinity("a.example"), "a.example")

"""One client is one client, however many addresses it may use."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from ollama_async.gateway.client_identity import client_of


class From:
    """The end of a connection."""

    def __init__(self, peer):
        self._peer = peer

    def get_extra_info(self, name, default=None):
        return self._peer if name == "peername" else default


def at(address: str, **headers: str) -> str:
    return client_of(
        make_mocked_request("GET", "/", headers=headers, transport=From((address, 1234)))
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("2001:DB8:1:2:0:0:0:1", "2001:db8:1:2::7"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)
def test_addresses_of_one_client_are_one_client(one, other):
    assert at(one) == at(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("::1", "127.0.0.1"),
    ],
)
def test_addresses_of_two_clients_are_two_clients(one, other):
    assert at(one) != at(other)


def test_headers_do_not_change_the_client():
    headers = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    assert at("192.0.2.1", **headers) == at("192.0.2.1")


def test_a_peer_without_an_address_is_a_client():
    assert client_of(make_mocked_request("GET", "/", transport=From(""))) == ""

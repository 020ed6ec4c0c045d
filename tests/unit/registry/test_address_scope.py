"""How near an address is, in whatever notation and wrapping."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.registry.address_policy import (
    AddressScope,
    address_scope,
    interface_addresses,
    is_address,
    is_loopback_host,
    is_unambiguous,
)

PUBLIC, PRIVATE, THIS_MACHINE, SPECIAL = AddressScope


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", PUBLIC),
        ("2001:4860:4860::8888", PUBLIC),
        ("64:ff9b::8.8.8.8", PUBLIC),  # how a network with IPv6 alone reaches it
        ("10.1.2.3", PRIVATE),
        ("172.16.0.1", PRIVATE),
        ("192.168.1.1", PRIVATE),
        ("100.64.0.1", PRIVATE),
        ("198.18.0.1", PRIVATE),
        ("192.0.2.1", PRIVATE),
        ("fd12:3456::1", PRIVATE),
        ("2001:db8::1", PRIVATE),
        ("3fff::1", PRIVATE),
        ("64:ff9b::10.0.0.1", PRIVATE),
        ("::ffff:10.0.0.1", PRIVATE),
        ("127.0.0.1", THIS_MACHINE),
        ("127.8.8.8", THIS_MACHINE),
        ("::1", THIS_MACHINE),
        ("0.0.0.0", THIS_MACHINE),
        ("::", THIS_MACHINE),
        ("::ffff:127.0.0.1", THIS_MACHINE),
        ("64:ff9b::127.0.0.1", THIS_MACHINE),
        ("2606:4700::5efe:127.0.0.1", THIS_MACHINE),
        ("2606:4700::200:5efe:127.0.0.1", THIS_MACHINE),
        ("169.254.169.254", SPECIAL),
        ("::ffff:169.254.169.254", SPECIAL),
        ("64:ff9b::169.254.169.254", SPECIAL),
        ("64:ff9b:1::8.8.8.8", SPECIAL),
        ("fe80::1%eth0", SPECIAL),
        ("fec0::1", SPECIAL),
        ("feff::1", SPECIAL),
        ("224.0.0.1", SPECIAL),
        ("ff0e::1", SPECIAL),
        ("240.0.0.1", SPECIAL),
        ("255.255.255.255", SPECIAL),
        ("0.1.2.3", SPECIAL),
        ("168.63.129.16", SPECIAL),
        ("::ffff:168.63.129.16", SPECIAL),
        ("100.100.100.200", SPECIAL),
        ("192.0.0.192", SPECIAL),
        ("192.88.99.1", SPECIAL),
        ("fd00:ec2::254", SPECIAL),
        ("fd20:ce::254", SPECIAL),
        ("fd00:42::42", SPECIAL),
        ("2002:808:808::1", SPECIAL),
        ("2001:0:808:808::1", SPECIAL),
        ("::8.8.8.8", SPECIAL),
        ("::ffff:0:8.8.8.8", SPECIAL),
        ("100::1", SPECIAL),
        ("4000::1", SPECIAL),
        ("5f00::1", SPECIAL),
    ],
)
def test_the_scope_of_an_address(address, expected):
    assert address_scope(address) is expected


def test_an_address_of_this_machine_is_this_machine():
    own = {"203.0.113.7", "8.8.8.8", "fe80::1%eth0", "2606:4700::1"}
    for address in ("8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700::1", "fe80::1"):
        assert address_scope(address, own) is THIS_MACHINE
    assert address_scope("8.8.4.4", own) is PUBLIC
    assert "127.0.0.1" in interface_addresses()


NETWORKS = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
    *("168.63.129.16/32", "100.100.100.200/32"),
]
PREFIXES = {
    "plain": lambda ip: ip,
    "mapped": lambda ip: ipaddress.IPv6Address(0xFFFF << 32 | int(ip)),
    "compatible": lambda ip: ipaddress.IPv6Address(int(ip)),
    "translated": lambda ip: ipaddress.IPv6Address(0xFFFF << 48 | int(ip)),
    "nat64": lambda ip: ipaddress.IPv6Address(0x64FF9B << 96 | int(ip)),
    "6to4": lambda ip: ipaddress.IPv6Address(0x2002 << 112 | int(ip) << 80 | 1),
    "teredo": lambda ip: ipaddress.IPv6Address(0x20010000 << 96 | int(ip) ^ 0xFFFFFFFF),
    "teredo's server": lambda ip: ipaddress.IPv6Address(0x20010000 << 96 | int(ip) << 64),
    "isatap": lambda ip: ipaddress.IPv6Address(0x26064700 << 96 | 0x5EFE << 32 | int(ip)),
}


@st.composite
def forbidden(draw):
    network = ipaddress.ip_network(draw(st.sampled_from(NETWORKS)))
    return network[draw(st.integers(0, network.num_addresses - 1))]


@given(forbidden(), st.sampled_from(sorted(PREFIXES)), st.booleans())
def test_no_wrapping_makes_a_forbidden_address_public(ip, wrapping, is_exploded):
    wrapped = PREFIXES[wrapping](ip)
    assert address_scope(wrapped.exploded if is_exploded else str(wrapped)) is not PUBLIC


@given(st.integers(0, (1 << 128) - 1))
def test_only_what_is_assigned_to_hosts_is_public(number):
    ip = ipaddress.IPv6Address(number)
    if address_scope(str(ip)) is PUBLIC:
        assert ip in ipaddress.ip_network("2000::/3")
        assert ip.is_global


def number(draw, value):
    return draw(st.sampled_from([str, hex, lambda n: f"0{n:o}", lambda n: f"0X{n:08X}"]))(value)


@st.composite
def spelled(draw):
    """An address as ``inet_aton`` reads it: one to four numbers, the last is the rest."""
    ip = draw(forbidden())
    octets = list(ip.packed)
    parts = draw(st.integers(1, 4))
    rest = int.from_bytes(bytes(octets[parts - 1 :]))
    text = ".".join(number(draw, value) for value in [*octets[: parts - 1], rest])
    return ip, text + draw(st.sampled_from(["", "."]))


@given(spelled())
def test_no_spelling_of_a_forbidden_address_is_taken_for_a_public_one(case):
    ip, text = case
    if is_address(text):
        assert str(ip) == text
        assert address_scope(text) is not PUBLIC
    else:
        assert not is_unambiguous(text)


letters = st.text("0123456789abcdefxX.:-_[]%@/\\#? \u2460\uff11", max_size=24)


@given(letters)
def test_what_the_system_reads_as_an_address_is_one_or_is_refused(text):
    try:
        socket.inet_aton(text)
    except (OSError, ValueError):
        return
    assert is_address(text) or not is_unambiguous(text)


@pytest.mark.parametrize(
    "host",
    ["a.example", "localhost", "LOCALHOST.", "a_b.c-d", "xn--bcher-kva.a", "::1", "b4"],
)
def test_hosts_that_are_sound(host):
    assert is_unambiguous(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", ".", "a..b", "-a", "a b", "127.1", "1", "0x7f.1", "a.1", "1.2.3.4.5", "127.0.0.1."),
        *("bücher.example", "%6c", "a@b", "[::1]", "a:1", "a/b", "a" * 64, "a." * 130, "1.0x7F"),
    ],
)
def test_hosts_that_are_not(host):
    assert not is_unambiguous(host)


def test_loopback_hosts():
    for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost", "A.Localhost."):
        assert is_loopback_host(host)
    for host in ("10.0.0.1", "localhost.example", "notlocalhost", "0.0.0.0"):
        assert not is_loopback_host(host)

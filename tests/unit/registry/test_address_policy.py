"""Which addresses a transfer may reach, by who asks and where its registry is."""

import asyncio
import re
import socket

import pytest
from yarl import URL

from ollama_async.registry.address_policy import (
    LOCAL_REQUESTER,
    AddressNotAllowed,
    AddressPolicy,
    Network,
    RegistryNotAllowed,
    Requester,
    address_scope,
    resolve_host,
)
from ollama_async.registry.errors import PermanentError

STRANGER = Requester()
OWN = {"192.168.1.10"}


class World:
    """Names and their addresses; ``asked`` are the names that were looked up."""

    def __init__(self, *trusted, **names):
        self.names = {name.replace("_", "."): found for name, found in names.items()}
        self.asked = []
        self.network = Network(
            frozenset(trusted), self._resolve_host, lambda address: address_scope(address, OWN)
        )

    def _resolve_host(self, host, _port):
        self.asked.append(host)
        if host not in self.names:
            raise OSError(f"{host} is not known")
        return list(self.names[host])


async def connected(policy, url, **options):
    """The addresses that a request to ``url`` connects to."""
    url = URL(url)
    await policy.allow(url, **options)
    return [result["host"] for result in await policy.resolve(url.raw_host, url.port)]


def policy_of(registry, world=None, requester=LOCAL_REQUESTER, **options):
    network = (world or World()).network
    return AddressPolicy(URL(registry).origin(), requester, network, **options)


# ----------------------------------------------------------------- registry


@pytest.mark.parametrize(
    ("registry", "is_for_strangers", "is_for_local_programs"),
    [
        ("8.8.8.8", True, True),
        ("10.0.0.1", False, True),
        ("127.0.0.1", False, True),
        ("192.168.1.10", False, True),  # this machine, by its address in the network
        ("169.254.169.254", False, False),
        ("100.100.100.200", False, False),
    ],
)
async def test_the_permitted_scope_of_a_registry_depends_on_the_requester(
    registry, is_for_strangers, is_for_local_programs
):
    for requester, is_allowed in (
        (STRANGER, is_for_strangers),
        (LOCAL_REQUESTER, is_for_local_programs),
    ):
        by_name = World(registry_example=[registry])
        for host, world in ((registry, World()), ("registry.example", by_name)):
            policy = policy_of(f"http://{host}", world, requester)
            if is_allowed:
                assert await connected(policy, f"http://{host}/x") == [registry]
            else:
                with pytest.raises(RegistryNotAllowed, match=re.escape(host)):
                    await policy.allow(URL(f"http://{host}/x"))


@pytest.mark.parametrize("trusted", ["registry.corp", "registry.corp:5000"])
@pytest.mark.parametrize("registry", ["10.0.0.1", "127.0.0.1", "169.254.1.1"])
async def test_a_trusted_registry_is_for_everybody(trusted, registry):
    world = World(trusted, registry_corp=[registry])
    policy = policy_of("http://registry.corp:5000", world, STRANGER)
    assert await connected(policy, "http://registry.corp:5000/x") == [registry]
    for other in ("http://registry.corp.evil.example:5000", "http://xregistry.corp:5000"):
        world.names[URL(other).host] = [registry]
        with pytest.raises(RegistryNotAllowed):
            await policy_of(other, world, STRANGER).allow(URL(other))


async def test_a_port_that_is_trusted_is_not_another_one():
    world = World("registry.corp:5000", registry_corp=["10.0.0.1"])
    with pytest.raises(RegistryNotAllowed):
        await policy_of("http://registry.corp", world, STRANGER).allow(URL("http://registry.corp"))


async def test_a_registry_is_resolved_once():
    world = World(a_example=["8.8.8.8"])
    policy = policy_of("http://a.example", world)
    assert await connected(policy, "http://a.example/1") == ["8.8.8.8"]
    world.names["a.example"] = ["127.0.0.1"]
    for url in ("http://a.example/2", "http://a.example:8080/", "https://a.example/"):
        assert await connected(policy, url) == ["8.8.8.8"]
    assert world.asked == ["a.example"]


async def test_concurrent_requests_share_one_lookup():
    world = World(a_example=["8.8.8.8"])
    policy = policy_of("http://a.example", world)
    await asyncio.gather(*(policy.allow(URL("http://a.example")) for _ in range(8)))
    assert world.asked == ["a.example"]


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (["127.0.0.1", "8.8.8.8", "10.0.0.1"], ["8.8.8.8"]),
        (["127.0.0.1", "10.0.0.1"], ["10.0.0.1"]),
        (["169.254.169.254", "127.0.0.1", "::1"], ["127.0.0.1", "::1"]),
    ],
)
async def test_of_several_kinds_of_addresses_the_most_distant_count(found, kept):
    policy = policy_of("http://a.example", World(a_example=found))
    assert await connected(policy, "http://a.example") == kept
    with pytest.raises(AddressNotAllowed):
        await policy.allow(URL(f"http://{found[0]}/"))


async def test_an_unknown_host_name_is_an_os_error():
    with pytest.raises(OSError, match="not known"):
        await policy_of("http://a.example").allow(URL("http://a.example"))


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", ".example"])
def test_an_unresolvable_name_is_a_resolver_error(host):
    """As the proxy of the environment may have, which is not ours to judge."""
    with pytest.raises(socket.gaierror, match="cannot be resolved"):
        resolve_host(host, 443)


# ----------------------------------------------------------------- where it leads


@pytest.mark.parametrize(
    ("registry", "target", "is_allowed", "if_trusted"),
    [
        ("8.8.8.8", "9.9.9.9", True, True),
        ("8.8.8.8", "10.0.0.1", False, False),
        ("8.8.8.8", "127.0.0.1", False, False),
        ("8.8.8.8", "192.168.1.10", False, False),
        ("8.8.8.8", "[::1]", False, False),
        ("8.8.8.8", "[64:ff9b::a00:1]", False, False),
        ("8.8.8.8", "169.254.169.254", False, False),
        ("10.0.0.1", "10.0.0.1", True, True),
        ("10.0.0.1", "10.0.0.2", True, True),
        ("10.0.0.1", "8.8.8.8", True, True),
        ("10.0.0.1", "127.0.0.1", False, False),
        ("10.0.0.1", "192.168.1.10", False, False),
        ("10.0.0.1", "169.254.169.254", False, False),
        ("127.0.0.1", "127.0.0.1", True, True),
        ("127.0.0.1", "127.0.0.2", False, True),
        ("127.0.0.1", "[::1]", False, True),
        ("127.0.0.1", "192.168.1.10", False, True),
        ("127.0.0.1", "192.168.0.1", True, True),
        ("127.0.0.1", "169.254.169.254", False, False),
        ("127.0.0.1", "[fd00:ec2::254]", False, False),
    ],
)
async def test_where_a_registry_may_lead(registry, target, is_allowed, if_trusted):
    for trusted, expected in (((), is_allowed), ((registry,), if_trusted)):
        literal = target.strip("[]")
        world = World(*trusted, inner_example=[literal])
        policy = policy_of(f"http://{registry}", world)
        await policy.allow(URL(f"http://{registry}"))
        for host in (target, "inner.example"):
            url = f"http://{host}:8080/x"
            if expected:
                assert await connected(policy, url) == [literal]
            else:
                with pytest.raises(AddressNotAllowed):
                    await policy.allow(URL(url))


async def test_of_a_name_s_addresses_only_those_that_are_allowed_are_used():
    world = World(a_example=["8.8.8.8"], b_example=["10.0.0.1", "9.9.9.9", "127.0.0.1"])
    policy = policy_of("http://a.example", world)
    await policy.allow(URL("http://a.example"))
    assert await connected(policy, "http://b.example") == ["9.9.9.9"]
    world.names["b.example"] = ["10.0.0.1"]
    with pytest.raises(AddressNotAllowed):
        await policy.allow(URL("http://b.example"))


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f.1", "127.0.0.1.", "%31.example", "é"]
)
async def test_what_is_neither_name_nor_address_is_refused(host):
    policy = policy_of("http://127.0.0.1")
    with pytest.raises(PermanentError, match="neither"):
        await policy.allow(URL(f"http://{host}/", encoded=True))


async def test_only_allowed_hosts_are_connected_to():
    policy = policy_of("http://a.example", World(a_example=["8.8.8.8"], b_example=["9.9.9.9"]))
    await policy.allow(URL("http://a.example"))
    with pytest.raises(AddressNotAllowed):
        await policy.resolve("b.example", 80)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.1.10", "localhost", "[::1]"])
async def test_this_server_is_no_registry(host):
    requester = Requester(is_local=True, server_port=11434)
    world = World(f"{host}", localhost=["127.0.0.1"])
    policy = policy_of(f"http://{host}:5000", world, requester)
    await policy.allow(URL(f"http://{host}:5000"))
    for url in (f"http://{host}:11434/", "http://127.0.0.1:11434/", "http://0.0.0.0:11434/"):
        with pytest.raises(PermanentError):
            await policy.allow(URL(url))
    with pytest.raises(PermanentError, match="is this server itself"):
        await policy_of(f"http://{host}:11434", world, requester).allow(URL(f"http://{host}:11434"))


# ----------------------------------------------------------------- proxies


async def test_the_operator_s_proxy_may_be_at_any_address_but_redirects_to_it_may_not():
    world = World(a_example=["8.8.8.8"], proxy_corp=["10.0.0.9"])
    policy = policy_of("https://a.example", world, proxies=["proxy.corp"])
    await policy.allow(URL("https://a.example"), is_proxied=True)
    found = await policy.resolve("proxy.corp", 3128)
    assert [result["host"] for result in found] == ["10.0.0.9"]
    with pytest.raises(AddressNotAllowed):
        await policy.allow(URL("http://proxy.corp:22/"))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "a.localhost", "intranet", "db.internal", "x.local.", "x.home.arpa"),
        *("10.0.0.1", "127.0.0.1", "[::1]", "169.254.169.254", "METADATA.google.internal"),
    ],
)
async def test_behind_a_proxy_names_are_judged_by_themselves(host):
    world = World(a_example=["8.8.8.8"])
    policy = policy_of("https://a.example", world, STRANGER)
    await policy.allow(URL("https://a.example"), is_proxied=True)
    await policy.allow(URL("https://cdn.example"), is_proxied=True)
    with pytest.raises(AddressNotAllowed):
        await policy.allow(URL(f"https://{host}/"), is_proxied=True)
    policy = policy_of(f"https://{host}", world, STRANGER)
    with pytest.raises(RegistryNotAllowed):
        await policy.allow(URL(f"https://{host}"), is_proxied=True)
    assert world.asked == []


async def test_what_a_proxy_looked_up_is_not_believed_without_it():
    world = World(a_example=["127.0.0.1"])
    policy = policy_of("http://a.example", world)
    await policy.allow(URL("http://a.example"), is_proxied=True)
    with pytest.raises(AddressNotAllowed):
        await policy.allow(URL("https://a.example"))

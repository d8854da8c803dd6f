"""Where a registry may lead us."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from prefetch.errors import ForbiddenAddress
from prefetch.remote.addresses import (
    Guard,
    GuardedResolver,
    Reach,
    reach_of,
    same_host,
    untrusted_url,
)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("1.1.1.1", Reach.PUBLIC),
        ("2606:4700::1111", Reach.PUBLIC),
        ("10.0.0.1", Reach.PRIVATE),
        ("172.16.3.4", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("198.18.0.1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.9.9.9", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("169.254.169.254", Reach.NEVER),
        ("fe80::1", Reach.NEVER),
        ("224.0.0.1", Reach.NEVER),
        ("ff02::1", Reach.NEVER),
        ("0.0.0.0", Reach.NEVER),
        ("0.1.2.3", Reach.NEVER),
        ("::", Reach.NEVER),
        ("255.255.255.255", Reach.NEVER),
        ("240.0.0.1", Reach.NEVER),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("::ffff:169.254.169.254", Reach.NEVER),
        ("::ffff:10.0.0.1", Reach.PRIVATE),
        ("64:ff9b::a9fe:a9fe", Reach.NEVER),
        ("2002:7f00:1::", Reach.LOOPBACK),
    ],
)
def test_classes(address: str, reach: Reach) -> None:
    assert reach_of(ipaddress.ip_address(address)) is reach


@settings(max_examples=200, deadline=None)
@given(st.ip_addresses())
def test_every_address_has_a_class(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert reach_of(address) in Reach


@pytest.mark.parametrize(
    ("registry", "target", "allowed"),
    [
        ("registry.example", "https://cdn.example/x", True),
        ("registry.example", "https://1.1.1.1/x", True),
        ("registry.example", "https://10.0.0.1/x", False),
        ("registry.example", "http://localhost/x", False),
        ("registry.example", "http://api.localhost./x", False),
        ("registry.example", "http://169.254.169.254/latest/meta-data", False),
        ("registry.example", "http://[::ffff:169.254.169.254]/", False),
        ("registry.example", "http://[fe80::1%25eth0]/", False),
        ("registry.example", "http://127.1/x", False),
        ("registry.example", "http://2130706433/x", False),
        ("registry.example", "http://0x7f.0.0.1/x", False),
        ("registry.example", "http://0x7f000001/x", False),
        ("registry.example", "http://017700000001./x", False),
        ("registry.example", "https://cdn1.example/x", True),
        ("127.0.0.1", "http://127.1/x", False),
        ("registry.example", "ftp://cdn.example/x", False),
        ("registry.example", "file:///etc/passwd", False),
        ("registry.example", "https://user:pw@cdn.example/x", False),
        ("10.0.0.5", "https://10.0.0.6/x", True),
        ("10.0.0.5", "https://127.0.0.1/x", False),
        ("127.0.0.1", "http://127.0.0.2:1/x", True),
        ("127.0.0.1", "http://10.0.0.1/x", True),
        ("127.0.0.1", "http://169.254.169.254/x", False),
        ("169.254.10.1", "http://169.254.10.1:5000/x", True),
        ("169.254.10.1", "http://169.254.169.254/x", False),
    ],
)
def test_a_url_by_its_spelling(registry: str, target: str, allowed: bool) -> None:
    guard = Guard("registry.example", registry)
    if allowed:
        guard.check(URL(target))
    else:
        with pytest.raises(ForbiddenAddress, match=r"registry\.example leads to"):
            guard.check(URL(target))


class Names(AbstractResolver):
    """Resolves names from a table."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self.table = table

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0)
            for each in self.table[host]
        ]

    async def close(self) -> None:
        return None


async def test_a_name_is_checked_by_what_it_resolves_to() -> None:
    names = Names({"registry.example": ["1.1.1.1"], "inside.example": ["10.0.0.1"]})
    resolver = GuardedResolver(names, Guard("registry.example", "registry.example"))
    assert len(await resolver.resolve("registry.example")) == 1
    with pytest.raises(ForbiddenAddress, match="private"):
        await resolver.resolve("inside.example")


async def test_forbidden_addresses_of_a_name_are_left_out() -> None:
    names = Names({"cdn.example": ["127.0.0.1", "1.1.1.1", "169.254.169.254"]})
    resolver = GuardedResolver(names, Guard("registry.example", "registry.example"))
    assert [each["host"] for each in await resolver.resolve("cdn.example")] == ["1.1.1.1"]


async def test_a_private_registry_may_lead_to_private_addresses() -> None:
    names = Names({"registry.lan": ["10.0.0.1"], "cdn.lan": ["10.0.0.2"], "me": ["127.0.0.1"]})
    resolver = GuardedResolver(names, Guard("registry.lan", "registry.lan"))
    await resolver.resolve("registry.lan")
    assert len(await resolver.resolve("cdn.lan")) == 1
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve("me")


async def test_a_name_that_points_inside_as_well_opens_no_way_in() -> None:
    names = Names({"registry.example": ["1.1.1.1", "10.0.0.1"], "cdn.lan": ["10.0.0.2"]})
    resolver = GuardedResolver(names, Guard("registry.example", "registry.example"))
    await resolver.resolve("registry.example")
    names.table["registry.example"] = ["10.0.0.1"]
    await resolver.resolve("registry.example")
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve("cdn.lan")


async def test_the_registrys_own_host_may_be_anywhere() -> None:
    names = Names({"registry.example": ["169.254.1.1"]})
    resolver = GuardedResolver(names, Guard("registry.example", "registry.example"))
    assert len(await resolver.resolve("registry.example")) == 1


async def test_a_registry_that_a_client_has_named_is_public_or_nothing() -> None:
    names = Names({"registry.example": ["10.0.0.1"], "hub.example": ["1.1.1.1", "10.0.0.1"]})
    guard = Guard("registry.example", "registry.example", public_only=True)
    guard.check(URL("https://registry.example/v2/"))
    with pytest.raises(ForbiddenAddress):
        await GuardedResolver(names, guard).resolve("registry.example")
    guard = Guard("hub.example", "hub.example", public_only=True)
    found = await GuardedResolver(names, guard).resolve("hub.example")
    assert [each["host"] for each in found] == ["1.1.1.1"]
    for address in ("10.0.0.1", "127.0.0.1", "169.254.169.254"):
        with pytest.raises(ForbiddenAddress):
            Guard(address, address, public_only=True).check(URL(f"https://{address}/v2/"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Registry.example", "registry.example", True),
        ("localhost", "127.0.0.1", True),
        ("::1", "localhost", True),
        ("registry.example", "auth.example", False),
        ("localhost", "10.0.0.1", False),
    ],
)
def test_same_host(one: str, other: str, same: bool) -> None:
    assert same_host(one, other) is same


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.text(st.sampled_from("htps:/@[].%\\0129abx "), max_size=40)
    | st.integers(0, 10**6).map(lambda port: f"http://h:{port}/")
)
def test_what_a_remote_writes_never_raises(text: str) -> None:
    for base in (None, URL("https://registry.example/v2/")):
        url = untrusted_url(text, base)
        if url is not None:
            assert url.port is None or 0 < url.port < 65536
            with contextlib.suppress(ForbiddenAddress):
                Guard("registry.example", "registry.example").check(url)
                assert url.origin().scheme in ("http", "https")


def test_signed_urls_are_kept_to_the_letter() -> None:
    text = "https://cdn.example/a%2Fb?X-Sig=a%2Bb%3D&x=%41+"
    assert str(untrusted_url(text)) == text

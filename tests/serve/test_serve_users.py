"""Users see what `access` grants them, and nobody sees their passwords."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from api_serving import Trap
from private_serving import (
    HUB_PASSWORD,
    NOWHERE,
    OPEN,
    PASSWORDS,
    SECRET,
    World,
    assert_all,
    assert_invisible,
    open_world,
    with_users,
)

from support.evidence import assert_no_secret
from support.http import basic, bearer
from support.island import PRIVATE, Hosts, on_an_island
from support.processes import CommandLine


@pytest.fixture
def world(cli: CommandLine) -> Iterator[World]:
    with open_world(cli) as opened:
        yield opened


def test_users_see_what_they_may(world: World) -> None:
    config = with_users(world)
    world.sync(config)
    alice, bob = (basic(name, password) for name, password in PASSWORDS.items())
    with world.serving(config) as server:
        assert_all(world, server, alice)
        assert_invisible(world, server, {404, 504}, bob)
        for nobody in (
            {},
            basic("alice", "wrong"),
            basic("alice", ""),
            basic("Alice", PASSWORDS["alice"]),
            basic("anonymous", ""),
            basic("*", "x"),
            {"Authorization": "Basic Og=="},
            {"Authorization": "Basic"},
            {"Authorization": "Basic !!!"},
            {"Authorization": f"Basic {'A' * 5000}"},
            {"Authorization": ""},
            bearer(PASSWORDS["alice"]),
            {"Proxy-Authorization": alice["Authorization"]},
            {"Cookie": "user=alice", "X-Forwarded-User": "alice", "X-Remote-User": "alice"},
        ):
            answer = server.ask(f"/v2/{SECRET}/manifests/1", nobody)
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED"), nobody
            assert answer["WWW-Authenticate"].startswith("Basic realm="), nobody
            assert server.ask("/v2/", nobody).status == 401
            assert server.ask(f"/v2/{OPEN}/manifests/1", nobody).body == world.open.raw
        assert_invisible(world, server, {401, 504})
        for known in (alice, bob):
            assert server.ask("/v2/", known).status == 200
            assert server.ask(f"/v2/{OPEN}/manifests/1", known).body == world.open.raw
        twice = [*alice.items(), *bob.items()]
        assert server.ask(f"/v2/{SECRET}/manifests/1", twice).status in (400, 200)
        assert_all(world, server, alice)
    assert_no_secret(
        world.cli, [HUB_PASSWORD, *PASSWORDS.values(), *world.upstream.doorkeeper.issued]
    )


def test_every_user_sees_everything_without_rules(world: World) -> None:
    with_users(world)
    config = world.configure(htpasswd_file=str(world.cli.home / "htpasswd"))
    world.sync(config)
    with world.serving(config) as server:
        for name, password in PASSWORDS.items():
            assert_all(world, server, basic(name, password))
        assert server.ask(f"/v2/{SECRET}/manifests/1").status == 401


def test_anonymous_may_be_named(world: World) -> None:
    access = [{"users": ["anonymous"], "repositories": ["docker.io/corp/secret"]}]
    config = world.configure(access=access)
    world.sync(config)
    with world.serving(config) as server:
        assert_all(world, server, {})


def test_what_clients_send_goes_nowhere(world: World) -> None:
    """Their upstream's credentials, sent to us by mistake, are not logged and not sent on."""
    config = with_users(world)
    with Trap() as trap:
        settings = config.read_text().replace(
            '"registries": {',
            f'"registries": {{"quay.io": {{"endpoint": "http://127.0.0.1:{trap.port}"}}, ',
        )
        config.write_text(settings)
        words = {"quay-user", "quay-pw-41d0c7", "bearer-f00dfeed", "cookie-9a8b7c"}
        with world.serving(config) as server:
            for headers in (
                basic("quay-user", "quay-pw-41d0c7"),
                bearer("bearer-f00dfeed"),
                {"Cookie": "session=cookie-9a8b7c"},
                {
                    "X-Registry-Auth": "bearer-f00dfeed",
                    "Proxy-Authorization": "Basic bearer-f00dfeed",
                },
            ):
                server.ask("/v2/org/app/manifests/1?ns=quay.io", headers)
                server.ask(f"/v2/org/app/blobs/{NOWHERE}?ns=quay.io", headers)
                query = "?ns=quay.io&token=bearer-f00dfeed&ns=quay.io&account=quay-user"
                server.ask(f"/v2/org/app/manifests/2{query}", headers)
            server.ask("/v2/org/app/manifests/1?ns=quay-user:quay-pw-41d0c7@quay.io")
            server.ask("/v2/org/app/manifests/1?ns=quay-user%3Aquay-pw-41d0c7%40quay.io")
            server.ask("http://quay-user:quay-pw-41d0c7@cache.test/v2/org/app/manifests/1")
            # A proxy's fashion of asking: neither is it one, nor are its credentials kept.
            log = server.log
        assert trap.visits
        for word in words:
            assert not [visit for visit in trap.visits if word.encode() in visit]
            assert word not in log
    assert_no_secret(world.cli, [*words, HUB_PASSWORD])


@pytest.mark.real("root", "ip")
def test_passwords_are_asked_for_where_nobody_listens(world: World, tmp_path: Path) -> None:
    """On loopback or over TLS; from afar and in the clear nobody is asked, and nobody believed."""
    alice = basic("alice", PASSWORDS["alice"])

    def live(hosts: Hosts) -> None:
        # The upstream is not on the island: all is warm, and nothing else is asked for but in vain.
        config = with_users(world)
        with world.serving(config, listen=f"{PRIVATE}:0") as server:
            answer = server.ask(f"/v2/{SECRET}/manifests/1", alice)
            assert (answer.status, answer["WWW-Authenticate"]) == (503, None)
            assert server.ask("/v2/", alice).status == 200
            assert server.ask(f"/v2/{OPEN}/manifests/1", alice).body == world.open.raw
            assert server.ask("/v2/_catalog", alice).json == {"repositories": [f"docker.io/{OPEN}"]}
        assert PASSWORDS["alice"] not in server.log

    world.sync(with_users(world))
    on_an_island(tmp_path, live)


@pytest.mark.real("root", "ip")
def test_over_tls_from_afar(world: World, tmp_path: Path) -> None:
    world.sync(with_users(world))
    authority = trustme.CA()
    certificate = authority.issue_cert(PRIVATE)
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(str(cert_file), append=number > 0)
    certificate.private_key_pem.write_to_path(str(key_file))
    client = ssl.create_default_context()
    authority.configure_trust(client)

    def live(hosts: Hosts) -> None:
        tls = {"cert_file": str(cert_file), "key_file": str(key_file)}
        config = with_users(world, tls=tls)
        with world.serving(config, listen=f"{PRIVATE}:0") as server:
            assert server.scheme == "https"
            server.secure(client)
            assert_all(world, server, basic("alice", PASSWORDS["alice"]))
            assert server.ask("/v2/").status == 401
            answer = server.ask("/v2/_catalog", basic("alice", "wrong"))
            assert answer.json == {"repositories": [f"docker.io/{OPEN}"]}

    on_an_island(tmp_path, live)

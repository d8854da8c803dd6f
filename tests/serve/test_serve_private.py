"""Private content is there for those whom `access` names, and for nobody else: not even a trace."""

from __future__ import annotations

import sqlite3
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trustme
from api_serving import (
    Answer,
    Server,
    Trap,
    UpstreamThread,
    configure,
    running,
    shapes,
    sync,
    until,
)
from island import PRIVATE, Hosts, on_an_island

from prefetch.demo.images import Image, image, referrer
from prefetch.demo.layers import layer
from prefetch.demo.tokens import Account
from prefetch.demo.upstream import Upstream
from support.evidence import assert_no_secret
from support.http import basic, bearer
from support.processes import CommandLine

SECRET, ABSENT, OPEN = "corp/secret", "corp/absent", "library/open"
NOWHERE = "sha256:" + "0" * 64
HUB_PASSWORD = "hub-pw-5b1c9e"
PASSWORDS = {"alice": "alice-pw-77aa01", "bob": "bob-pw-9e2f3d"}
PLATFORM = "linux/amd64"
SHARED = layer("shared between both", 4096)


@dataclass(frozen=True, slots=True)
class World:
    """An upstream with a private and a public repository that share a layer, both synced."""

    cli: CommandLine
    upstream: Upstream
    secret: Image
    open: Image
    proof: Image

    @property
    def own_blobs(self) -> list[str]:
        """The digests that the private repository alone has."""
        public = set(self.open.all_blobs())
        found = [blob.digest for blob in self.secret.child(PLATFORM).blobs]
        return [digest for digest in found if digest not in public]

    def configure(self, **settings: Any) -> Path:
        login = {"username": "ci", "password_env": "HUB_PASSWORD"}
        registry = {"endpoint": self.upstream.url, **login}
        return configure(self.cli, {"docker.io": registry}, misses_per_second=10**6, **settings)

    @contextmanager
    def serving(self, config: Path | None = None, **options: Any) -> Iterator[Server]:
        """A server that has the credentials, or others."""
        env = {"HUB_PASSWORD": HUB_PASSWORD}
        with running(self.cli, config or self.configure(), env=env, **options) as server:
            yield server

    def sync(self, config: Path | None = None) -> None:
        names = [f"{SECRET}:1", f"{SECRET}:proof", f"{OPEN}:1"]
        sync(self.cli, config or self.configure(), *names, env={"HUB_PASSWORD": HUB_PASSWORD})

    def database(self, statement: str, *values: object) -> None:
        with sqlite3.connect(self.cli.data_dir / "prefetch.db") as connection:
            connection.execute(statement, values)
            connection.execute("UPDATE generation SET value = value + 1")
        connection.close()


@pytest.fixture
def world(cli: CommandLine) -> Iterator[World]:
    accounts = {"ci": Account(password=HUB_PASSWORD, limit=10_000)}
    with UpstreamThread(accounts=accounts, cdn=False, limit=10_000) as hub:
        secret = image("secret", shared=[SHARED])
        public = image("open", shared=[SHARED])
        proof = referrer(secret.child(PLATFORM), "application/x-proof", b"proof")
        hub.content.put(SECRET, secret, "1", readers=["ci"])
        hub.content.put(SECRET, proof, "proof", readers=["ci"])
        hub.content.put(OPEN, public, "1")
        yield World(cli, hub, secret, public, proof)


def with_users(world: World, **settings: Any) -> Path:
    """A configuration with users of whom alice alone sees what is private."""
    path = world.cli.home / "htpasswd"
    lines = [
        f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
        for name, password in PASSWORDS.items()
    ]
    path.write_text("".join(lines))
    access = [{"users": ["alice"], "repositories": ["docker.io/corp/*"]}]
    return world.configure(htpasswd_file=str(path), access=access, **settings)


def probes(world: World, repository: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """All that can be asked about the private repository's content, of `repository`."""
    child = world.secret.child(PLATFORM)
    rests = ["manifests/1", "manifests/none", "manifests/proof", "tags/list", "tags/list?n=1"]
    rests += [f"manifests/{each.digest}" for each in (world.secret, child, world.proof)]
    rests += [f"blobs/{blob.digest}" for blob in child.blobs]
    rests += [f"referrers/{child.digest}", f"manifests/{NOWHERE}", f"blobs/{NOWHERE}"]
    conditions: list[dict[str, str]] = [
        {},
        {"If-None-Match": f'"{world.secret.digest}", *'},
        {"Range": "bytes=0-0"},
        {"Range": "bytes=999999999-"},
        {"Cache-Control": "only-if-cached"},
    ]
    for rest in rests:
        bare, _, query = rest.partition("?")
        for path in shapes("docker.io", repository, bare, query):
            for headers in conditions:
                yield "GET", path, headers
                yield "HEAD", path, headers


def shown(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    """What tells one answer from another, but for the seconds that go by."""
    status, headers, body = answer.told()
    return status, [(k, "" if k == "retry-after" else v) for k, v in headers], body


def assert_invisible(
    world: World,
    server: Server,
    statuses: set[int],
    credentials: Mapping[str, str] | None = None,
) -> None:
    """Whatever is asked about the private repository is answered as for one that is not there."""
    found = set()
    ours, theirs = probes(world, SECRET), probes(world, ABSENT)
    for (method, path, headers), (_, other, _) in zip(ours, theirs, strict=True):
        sent = {**headers, **(credentials or {})}
        here = server.ask(path, sent, method=method)
        there = server.ask(other, sent, method=method)
        assert shown(here) == shown(there), (method, path, headers)
        found.add(here.status)
    assert found == statuses
    for path in ("/v2/_catalog", "/v2/_catalog?ns=docker.io", "/docker.io/v2/_catalog?n=100"):
        answer = server.ask(path, credentials or {})
        assert answer.status == 200
        assert b"secret" not in answer.body
        assert b"open" in answer.body
    for digest in [*world.own_blobs, *(each.digest for each in world.secret.walk())]:
        for kind in ("blobs", "manifests"):
            for repository in (OPEN, ABSENT, "library/other", "corp"):
                answer = server.ask(f"/v2/{repository}/{kind}/{digest}", credentials or {})
                assert answer.status in (401, 404, 503), (repository, kind, digest)
                assert answer["Docker-Content-Digest"] is None


def assert_public(world: World, server: Server) -> None:
    """Everybody gets the public image, by all three shapes of path."""
    child = world.open.child(PLATFORM)
    for path in shapes("docker.io", OPEN, "manifests/1"):
        assert server.ask(path).body == world.open.raw
    for path in shapes("docker.io", OPEN, f"manifests/{child.digest}"):
        assert server.ask(path).body == child.raw
    for blob in child.blobs:
        for path in shapes("docker.io", OPEN, f"blobs/{blob.digest}"):
            assert server.ask(path).body == blob.read()


def assert_all(
    world: World, server: Server, credentials: Mapping[str, str], repository: str = SECRET
) -> None:
    """Whoever asks gets all of the private repository, by all three shapes of path."""
    child = world.secret.child(PLATFORM)
    parts = [("manifests/1", world.secret.raw), (f"manifests/{child.digest}", child.raw)]
    parts += [(f"blobs/{blob.digest}", blob.read()) for blob in child.blobs]
    for rest, raw in parts:
        for path in shapes("docker.io", repository, rest):
            answer = server.ask(path, credentials)
            assert (answer.status, answer.body) == (200, raw), (path, answer)
            assert "public" not in (answer["Cache-Control"] or "")
    for path in shapes("docker.io", repository, "tags/list"):
        assert server.ask(path, credentials).json["tags"] == ["1", "proof"]
    for path in shapes("docker.io", repository, f"referrers/{child.digest}"):
        [found] = server.ask(path, credentials).json["manifests"]
        assert found["digest"] == world.proof.digest
    assert f"docker.io/{repository}".encode() in server.ask("/v2/_catalog", credentials).body


# ── Nobody can be told apart from anybody else ───────────────────────────────────────────────────


def test_without_users_nobody_sees_what_is_private(world: World) -> None:
    world.sync()
    with world.serving() as server:
        assert_public(world, server)
        assert_invisible(world, server, {404, 504})
        assert_public(world, server)


def test_with_the_upstream_down_and_the_cache_frozen(world: World) -> None:
    world.sync()
    config = world.configure()
    with ExitStack() as stack:
        server = stack.enter_context(world.serving(config))
        cli = world.cli
        freeze = cli.arguments("--config", config, "freeze")
        subprocess.run(freeze, env=cli.environment(), check=True, cwd=cli.home)
        until(lambda: server.ask(f"/v2/{ABSENT}/manifests/new").status == 503)
        assert_invisible(world, server, {404, 503, 504})
        thaw = cli.arguments("--config", config, "thaw")
        subprocess.run(thaw, env=cli.environment(), check=True, cwd=cli.home)
        until(lambda: server.ask(f"/v2/{ABSENT}/manifests/new").status == 404)
        world.upstream.faults.add("reset", count=None)
        assert_invisible(world, server, {404, 503, 504})
        assert_public(world, server)


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


def test_what_is_fetched_through_the_cache_is_as_private(world: World) -> None:
    """Nothing has been synced: all that is known is what clients have asked for."""
    config = with_users(world)
    with world.serving(config) as server:
        assert_invisible_cold(world, server)
        answer = server.ask(f"/v2/{SECRET}/manifests/proof", basic("alice", PASSWORDS["alice"]))
        assert answer.status == 200
        assert_all(world, server, basic("alice", PASSWORDS["alice"]))
        assert_public(world, server)
        assert_invisible(world, server, {401, 504})
        assert_invisible(world, server, {404, 504}, basic("bob", PASSWORDS["bob"]))


def assert_invisible_cold(world: World, server: Server) -> None:
    for credentials in ({}, basic("bob", PASSWORDS["bob"])):
        for repository in (SECRET, ABSENT):
            for rest in ("manifests/1", f"blobs/{world.own_blobs[0]}"):
                answer = server.ask(f"/v2/{repository}/{rest}", credentials)
                assert answer.status == (404 if credentials else 401)
    assert world.upstream.log.pulls == 0


def test_a_cache_that_has_lost_its_credentials_shows_nothing_more(world: World) -> None:
    world.sync()
    config = configure(world.cli, {"docker.io": {"endpoint": world.upstream.url}})
    with running(world.cli, config) as server:
        assert_public(world, server)
        assert_invisible(world, server, {404, 504})


def test_a_registry_that_is_no_longer_configured_shows_nothing_more(world: World) -> None:
    """Its public content is still served; nobody is asked."""
    registry = {"endpoint": world.upstream.url, "username": "ci", "password_env": "HUB_PASSWORD"}
    config = configure(world.cli, {"hub.example": registry})
    names = [f"hub.example/{SECRET}:1", f"hub.example/{OPEN}:1"]
    sync(world.cli, config, *names, env={"HUB_PASSWORD": HUB_PASSWORD})
    with_users(world)
    users: dict[str, Any] = {"htpasswd_file": str(world.cli.home / "htpasswd")}
    for settings, refused in (({}, 404), (users, 401)):
        config = configure(world.cli, {}, **settings)
        with running(world.cli, config) as server:
            for rest in ("manifests/1", f"blobs/{world.own_blobs[0]}", "tags/list"):
                for one, other in zip(
                    shapes("hub.example", SECRET, rest),
                    shapes("hub.example", ABSENT, rest),
                    strict=True,
                ):
                    here, there = server.ask(one), server.ask(other)
                    assert shown(here) == shown(there), one
                    assert here.status == refused
            path = f"/v2/hub.example/{OPEN}/manifests/1"
            assert server.ask(path).body == world.open.raw


def test_visibility_that_was_lost_counts_as_private(world: World) -> None:
    world.sync()
    world.database("DELETE FROM repository_visibility")
    world.upstream.faults.add("reset", count=None)
    with world.serving() as server:
        assert_invisible_or_down(world, server)


def assert_invisible_or_down(world: World, server: Server) -> None:
    for method, path, headers in probes(world, SECRET):
        answer = server.ask(path, headers, method=method)
        assert answer.status in (404, 503, 504), path
        assert answer["Docker-Content-Digest"] is None


# ── Visibility changes ───────────────────────────────────────────────────────────────────────────


def test_what_becomes_public_is_soon_seen_by_all(world: World) -> None:
    world.sync()
    config = world.configure(negative_ttl="200ms")
    with world.serving(config) as server:
        assert server.ask(f"/v2/{SECRET}/manifests/1").status == 404
        world.upstream.content.repositories[SECRET].readers = None
        until(lambda: server.ask(f"/v2/{SECRET}/manifests/1").status == 200)
        assert_all(world, server, {})


def test_what_becomes_private_is_seen_for_a_day_at_most(world: World) -> None:
    world.upstream.content.repositories[SECRET].readers = None
    world.sync()
    world.upstream.content.repositories[SECRET].readers = frozenset(["ci"])
    with world.serving() as server:
        assert_all(world, server, {})
    old = datetime.now(UTC) - timedelta(hours=25)
    world.database(
        "UPDATE repository_visibility SET checked_at = ? WHERE repository = ?",
        old.strftime("%Y-%m-%d %H:%M:%S.%f"),
        SECRET,
    )
    with world.serving() as server:
        until(lambda: server.ask(f"/v2/{SECRET}/manifests/1").status == 404)
        assert_invisible(world, server, {404, 504})
        assert_public(world, server)


def test_asking_for_what_does_not_exist_makes_nothing_private(world: World) -> None:
    """Nobody sees what does not exist; that says nothing of what does."""
    config = world.configure(negative_ttl="100ms")
    with world.serving(config) as server:
        for kind in ("manifests", "blobs"):
            for path in shapes("docker.io", OPEN, f"{kind}/{NOWHERE}"):
                assert server.ask(path).status == 404
            assert server.ask(f"/v2/{OPEN}/{kind}/{world.own_blobs[0]}").status == 404
        assert server.ask(f"/v2/{OPEN}/manifests/none").status == 404
        assert_public(world, server)


def test_who_asks_for_nonsense_takes_nothing_from_others(world: World) -> None:
    """Many ask at once for what is there, and for what is not, of a repository yet unknown."""
    world.upstream.faults.add("slow", kind="manifest", bytes_per_second=1e5, count=None)
    with world.serving() as server:
        answers: list[tuple[str, int]] = []

        def ask(tag: str) -> None:
            answers.append((tag, server.ask(f"/v2/{OPEN}/manifests/{tag}").status))

        tags = ["none", "1"] * 10 + [f"none{number}" for number in range(10)]
        threads = [threading.Thread(target=ask, args=(tag,)) for tag in tags]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers) == {(tag, 200 if tag == "1" else 404) for tag in tags}


def test_nobody_floods_the_upstream_by_asking_for_what_is_private(world: World) -> None:
    world.sync()
    with world.serving() as server:
        world.upstream.log.reset()
        for _ in range(50):
            for rest in ("manifests/1", f"blobs/{world.own_blobs[0]}", "tags/list"):
                assert server.ask(f"/v2/{SECRET}/{rest}").status == 404
        assert len(world.upstream.log) < 15, world.upstream.log.summary()
        assert world.upstream.log.pulls == 0


# ── Credentials ──────────────────────────────────────────────────────────────────────────────────


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

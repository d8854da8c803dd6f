"""An upstream with private and public content, and what nobody may tell of the former."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api_serving import Answer, Server, UpstreamThread, configure, running, shapes, sync

from prefetch.demo.images import Image, image, referrer
from prefetch.demo.layers import layer
from prefetch.demo.tokens import Account
from prefetch.demo.upstream import Upstream
from support.cache import write_users
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

    def visibility(self, repository: str) -> str | None:
        """What the database has of it."""
        statement = "SELECT visibility FROM repository_visibility WHERE repository = ?"
        connection = sqlite3.connect(self.cli.data_dir / "prefetch.db")
        try:
            found = connection.execute(statement, (repository,)).fetchone()
        finally:
            connection.close()
        return found[0] if found else None

    def database(self, statement: str, *values: object) -> None:
        with sqlite3.connect(self.cli.data_dir / "prefetch.db") as connection:
            connection.execute(statement, values)
            connection.execute("UPDATE generation SET value = value + 1")
        connection.close()


@contextmanager
def open_world(cli: CommandLine) -> Iterator[World]:
    """The upstream, and a command line with nothing synced yet."""
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
    path = write_users(world.cli.home / "htpasswd", PASSWORDS)
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
        for shape, path in enumerate(shapes("docker.io", repository, bare, query)):
            for headers in conditions if shape == 0 else conditions[:1]:
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

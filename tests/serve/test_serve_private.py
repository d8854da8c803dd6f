"""Private content leaves no trace for those who may not see it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from api_serving import Server, configure, running, shapes, sync, until
from private_serving import (
    ABSENT,
    HUB_PASSWORD,
    OPEN,
    PASSWORDS,
    PLATFORM,
    SECRET,
    World,
    assert_all,
    assert_invisible,
    assert_public,
    open_world,
    shown,
    with_users,
)

from prefetch.demo.images import OCI_INDEX, OCI_MANIFEST, document, index, manifest
from support.http import basic
from support.processes import CommandLine


@pytest.fixture
def world(cli: CommandLine) -> Iterator[World]:
    with open_world(cli) as opened:
        yield opened


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


def test_who_shows_a_login_only_when_asked_is_asked_with_the_upstream_gone(world: World) -> None:
    """As containerd does with a pull secret; for what is not there just the same."""
    world.sync()
    config = with_users(world)
    world.upstream.faults.add("reset", count=None)
    with world.serving(config) as server:
        assert_invisible(world, server, {401, 504})
        assert_public(world, server)
        assert_all(world, server, basic("alice", PASSWORDS["alice"]))
        # What is public and cannot be had now is no other for those with a login.
        assert server.ask(f"/v2/{OPEN}/manifests/none").status == 503


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
    for settings, refused, known in (({}, 404, True), (users, 401, True), (users, 401, False)):
        config = configure(world.cli, {}, **settings)
        if not known:
            world.database("DELETE FROM repository_visibility")
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
            assert server.ask(path).status == (200 if known else refused)


# ── A digest alone opens nothing ─────────────────────────────────────────────────────────────────


def pretender(world: World) -> None:
    """Public repositories whose documents name what they do not have: a layer, and an image."""
    child = world.secret.child(PLATFORM)
    body = json.loads(manifest("pretender", layers=[]).raw)
    layer = child.blobs[-1]
    named = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer.digest}
    body["layers"] = [{**named, "size": layer.size, "urls": ["https://public.example/layer"]}]
    config = manifest("pretender", layers=[]).blobs
    world.upstream.content.put("evil/app", document(body, OCI_MANIFEST, blobs=config), "1")
    listing = json.loads(index([child, world.proof]).raw)
    world.upstream.content.put("evil/list", document(listing, OCI_INDEX), "1")


def test_naming_content_is_not_having_it(world: World) -> None:
    """Whoever can push anywhere and knows a digest gets nothing that is private."""
    config = with_users(world)
    world.sync(config)
    pretender(world)
    child = world.secret.child(PLATFORM)
    with world.serving(config) as server:
        for credentials in ({}, basic("bob", PASSWORDS["bob"])):
            refused = 404 if credentials else 401
            for name in ("evil/app", "evil/list"):
                assert server.ask(f"/v2/{name}/manifests/1", credentials).status == 200
            for method in ("GET", "HEAD"):
                for digest in world.own_blobs:
                    for name in ("evil/app", "evil/list"):
                        path = f"/v2/{name}/blobs/{digest}"
                        assert server.ask(path, credentials, method=method).status == refused
                for digest in (child.digest, world.proof.digest):
                    path = f"/v2/evil/list/manifests/{digest}"
                    assert server.ask(path, credentials, method=method).status == refused
            answer = server.ask(f"/v2/evil/list/referrers/{child.digest}", credentials)
            assert answer.json["manifests"] == []
        assert_all(world, server, basic("alice", PASSWORDS["alice"]))


def test_naming_first_gains_nothing_either(world: World) -> None:
    """The public documents are pulled before anything of the private repository is here."""
    config = with_users(world)
    pretender(world)
    alice = basic("alice", PASSWORDS["alice"])
    with world.serving(config) as server:
        for name in ("evil/app", "evil/list"):
            assert server.ask(f"/v2/{name}/manifests/1").status == 200
        assert server.ask(f"/v2/{SECRET}/manifests/proof", alice).status == 200
        assert_all(world, server, alice)
        for digest in world.own_blobs:
            for name in ("evil/app", "evil/list"):
                assert server.ask(f"/v2/{name}/blobs/{digest}").status == 401
        child = world.secret.child(PLATFORM)
        assert server.ask(f"/v2/evil/list/manifests/{child.digest}").status == 401


def test_what_was_public_first_is_served_with_the_upstream_gone(world: World) -> None:
    """Clients have pulled it before anything private was built on it."""
    config = world.configure(tag_ttl="1h")
    with world.serving(config) as server:
        assert_public(world, server)
    sync(world.cli, config, f"{SECRET}:1", env={"HUB_PASSWORD": HUB_PASSWORD})
    world.upstream.faults.add("reset", count=None)
    with world.serving(config) as server:
        assert_public(world, server)
        assert server.ask(f"/v2/{SECRET}/manifests/1").status == 503


def test_what_is_public_as_well_is_served_with_the_upstream_gone(world: World) -> None:
    """A layer that private images are built on: pulled by clients once, it is there for all."""
    config = world.configure(tag_ttl="1h")
    sync(world.cli, config, f"{SECRET}:1", env={"HUB_PASSWORD": HUB_PASSWORD})
    with world.serving(config) as server:
        assert_public(world, server)
        assert world.upstream.log.counts(kind="blob", method="HEAD") == 1
    world.upstream.faults.add("reset", count=None)
    with world.serving(config) as server:
        assert_public(world, server)

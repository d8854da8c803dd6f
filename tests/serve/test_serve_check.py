"""`prefetch check --cache-url`: a running cache is asked, and never asks its upstream for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from api_serving import Server, UpstreamThread, command, command_line, configure, running
from private_serving import OPEN, PASSWORDS, PLATFORM, SECRET, open_world, with_users

from prefetch.demo.images import image
from prefetch.demo.upstream import Upstream
from support.evidence import assert_no_crash, assert_no_secret
from support.processes import CommandLine, Result

APP, COLD = "docker.io/library/app:1", "docker.io/library/cold:1"


def check(
    cli: CommandLine, server: Server | str, *words: str, env: Mapping[str, str] | None = None
) -> Result:
    url = server if isinstance(server, str) else f"{server.scheme}://{server.address}"
    elsewhere = cli.home / "elsewhere"
    result = command(cli, "check", "--cache-url", url, *words, env=env, data_dir=elsewhere)
    assert_no_crash(result)
    return result


def asked(cli: CommandLine, server: Server, *words: str, code: int, **options: Any) -> Any:
    result = check(cli, server, "-o", "json", *words, **options)
    assert result.code == code, result.stdout + result.stderr
    document = json.loads(result.stdout)
    assert document["warm"] is (code == 0)
    return document


class World:
    """`app:1` is whole for amd64 and arm64 (`all`), `cold:1` was never asked for."""

    def __init__(self, cli: CommandLine, hub: Upstream, config: Path, server: Server) -> None:
        self.cli, self.hub, self.config, self.server = cli, hub, config, server
        self.app = image("app")

    def blob(self, digest: str) -> Path:
        return self.cli.cache / "blobs" / digest.replace(":", "/")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    cli = command_line(tmp_path)
    with UpstreamThread() as hub:
        hub.content.put("library/app", image("app"), "1")
        hub.content.put("library/cold", image("cold"), "1")
        config = configure(cli, {"docker.io": {"endpoint": hub.url}}, tag_ttl="1ms")
        synced = command(cli, "--config", config, "sync", "--platform", "all", "--image", APP)
        assert synced.code == 0, synced.stderr
        with running(cli, config) as server:
            yield World(cli, hub, config, server)


def test_what_the_cache_has_whole_is_warm_and_costs_nothing(world: World) -> None:
    before = len(world.hub.log)
    document = asked(world.cli, world.server, "--image", APP, "--platform", "all", code=0)
    assert document["images"][0]["digest"] == world.app.digest
    assert document["images"][0]["missing"] == []
    for platform in ("linux/amd64", "linux/arm64"):
        asked(world.cli, world.server, "--image", APP, "--platform", platform, code=0)
    by_digest = f"docker.io/library/app@{world.app.digest}"
    asked(world.cli, world.server, "--image", by_digest, code=0)
    time.sleep(0.3)
    assert len(world.hub.log) == before
    assert not (world.cli.home / "elsewhere").exists(), "this machine's store is nobody's concern"


def test_what_is_not_there_is_named(world: World) -> None:
    before = len(world.hub.log)
    document = asked(world.cli, world.server, "--image", APP, "--image", COLD, code=1)
    assert [each["warm"] for each in document["images"]] == [True, False]
    assert document["images"][1]["missing"][0]["kind"] == "reference"
    assert document["pulls"] == 1
    assert len(world.hub.log) == before


def test_a_platform_that_is_not_whole(world: World) -> None:
    """The cache gives no manifest whose layers it lacks."""
    child = world.app.child("linux/arm64")
    world.blob(child.blobs[-1].digest).unlink()
    with running(world.cli, world.config) as server:
        document = asked(world.cli, server, "--image", APP, "--platform", "all", code=1)
        [missing] = document["images"][0]["missing"]
        assert (missing["kind"], missing["digest"]) == ("manifest", child.digest)
        assert missing["platform"] == "linux/arm64"
        asked(world.cli, server, "--image", APP, "--platform", "linux/amd64", code=0)


def test_an_image_without_the_platform(world: World) -> None:
    words = ("--image", APP, "--platform", "linux/s390x")
    document = asked(world.cli, world.server, *words, code=1)
    assert document["images"][0]["error"]["code"] == "PLATFORM_MISSING"


def test_private_images_are_there_for_those_who_may_see_them(tmp_path: Path) -> None:
    with open_world(command_line(tmp_path)) as private:
        private.sync()
        with private.serving(with_users(private)) as server:
            secret = ("--image", f"docker.io/{SECRET}:1", "--platform", PLATFORM)
            public = ("--image", f"docker.io/{OPEN}:1", "--platform", PLATFORM)
            asked(private.cli, server, *public, code=0)
            nobody = asked(private.cli, server, *secret, code=1)
            assert nobody["images"][0]["missing"] or nobody["images"][0]["error"]
            login = ("--username", "alice", "--password-env", "PASSWORD")
            env = {"PASSWORD": PASSWORDS["alice"]}
            asked(private.cli, server, *secret, *login, code=0, env=env)
            wrong = check(private.cli, server, *secret, *login, env={"PASSWORD": "wrong-5c1"})
            assert wrong.code == 1
            assert_no_secret(private.cli, ["wrong-5c1"], wrong)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--verify"], "are about this store, not a --cache-url"),
        (["--fresh"], "are about this store"),
        (["--max-age", "1h"], "are about this store"),
        (["--username", "a"], "--username needs either"),
    ],
)
def test_usage(tmp_path: Path, words: list[str], complaint: str) -> None:
    done = check(command_line(tmp_path), "http://127.0.0.1:1", "--image", APP, *words)
    assert (done.code, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_a_cache_that_is_down_and_a_server_that_is_none(tmp_path: Path) -> None:
    cli = command_line(tmp_path)
    down = check(cli, "http://127.0.0.1:1", "--image", APP)
    assert (down.code, down.stdout) == (1, "")
    assert "cannot reach 127.0.0.1:1" in down.stderr
    assert "prefetch probe says more" in down.stderr
    with UpstreamThread() as hub:
        hub.content.put("library/app", image("app"), "1")
        other = check(cli, hub.url, "--image", APP)
        assert (other.code, other.stdout) == (1, "")
        assert hub.log.pulls == 0


def test_patterns_over_tags_are_no_proof(world: World, tmp_path: Path) -> None:
    listed = tmp_path / "list.yaml"
    listed.write_text("images: [app:1, {repository: app, tags: {newest: 1}}]\n")
    document = asked(world.cli, world.server, str(listed), code=1)
    assert [error["line"] for error in document["errors"]] == [1]
    assert document["images"][0]["warm"] is True

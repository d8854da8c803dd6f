"""Clients' misses and alternates: no pull for what they have, and no way to them for clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tag_serving import PLATFORM, ask, ask_together, blob_path, manifest_path, put_image

from prefetch.demo.images import Image
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.tokens import Account
from prefetch.demo.upstream import Upstream
from support.cache import Cache, ServeFactory
from support.processes import CommandLine

NAME = "library/one"
SECRET = "corp/secret"
PASSWORD = "a-password-of-alice's"


@pytest.fixture
async def upstreams() -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Upstream:
            running = Upstream(UpstreamSettings(**settings))
            return await stack.enter_async_context(running)

        yield start


def configure(
    cli: CommandLine,
    limited: Upstream,
    alternates: Sequence[Any],
    hub: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    entry = {"endpoint": limited.url, "alternates": list(alternates), **(hub or {})}
    path = cli.home / "prefetch.yaml"
    registries = {"docker.io": entry, **more}
    path.write_text(json.dumps({"platforms": [PLATFORM], "registries": registries}))
    return path


async def pulled(cache: Cache, repository: str, made: Image) -> None:
    """Pull the image as containerd does, and see that it is whole."""
    child = made.child(PLATFORM)
    for digest in (made.digest, child.digest):
        for method in ("HEAD", "GET"):
            answer = await ask(cache, manifest_path(repository, digest), method=method)
            assert answer.status == 200, answer.body
    for digest, blob in child.all_blobs().items():
        answer = await ask(cache, blob_path(repository, digest))
        assert answer.status == 200
        assert answer.body == blob.read()


async def test_clients_get_from_alternates_what_the_registry_has_no_pulls_for(
    cli: CommandLine, serve: ServeFactory, upstreams: Any
) -> None:
    limited, alternate = await upstreams(limit=10), await upstreams(limit=None)
    made = put_image(limited, NAME, "1")
    alternate.content.put(f"hub/{NAME}", made)
    limited.limits.meter().spend(10)
    cache = await serve(config=configure(cli, limited, [f"{alternate.address}/hub"]))

    resolved = await ask(cache, manifest_path(NAME, "1"), method="HEAD")
    assert (resolved.status, resolved.digest) == (200, made.digest)
    paths = [manifest_path(NAME, made.digest)] * 20
    assert {each.status for each in await ask_together(cache, paths)} == {200}
    await pulled(cache, NAME, made)

    assert limited.log.pulls == 0
    assert not limited.log.select(status=429)
    # An index and a manifest, each once, however many ask.
    assert alternate.log.counts(kind="manifest", method="GET") == 2
    await cache.stop()
    listed = await cli("--config", cli.home / "prefetch.yaml", "images", "-o", "json")
    [entry] = listed.json
    assert (entry["warm"], entry["source"]) == (True, "docker.io")
    assert entry["fetched_from"] == [alternate.address]


async def test_what_an_alternate_does_not_give_right_is_pulled(
    cli: CommandLine, serve: ServeFactory, upstreams: Any
) -> None:
    limited = await upstreams(limit=10)
    made = put_image(limited, NAME, "1")
    liar, deaf = await upstreams(limit=None, cdn=False), await upstreams(limit=None)
    liar.content.put(f"hub/{NAME}", made)
    liar.faults.add("corrupt", kind="manifest", method="GET", count=None)
    deaf.faults.add("reset", count=None)
    names = [f"{each.address}/hub" for each in (deaf, liar)]
    cache = await serve(config=configure(cli, limited, names))

    await pulled(cache, NAME, made)

    assert limited.log.pulls == 2
    assert cache.log.count("alternate dropped") == 1
    assert cache.log.count("alternate rests") == 1


@pytest.mark.parametrize("everybody", [False, True])
async def test_an_alternate_is_no_registry_for_clients(
    cli: CommandLine, serve: ServeFactory, upstreams: Any, everybody: bool
) -> None:
    limited, alternate = await upstreams(limit=10), await upstreams(limit=None)
    put_image(alternate, f"hub/{NAME}", "1")
    config = configure(
        cli, limited, [f"{alternate.address}/hub"], **({"*": {}} if everybody else {})
    )
    cache = await serve(config=config)

    host = alternate.address
    for path in (
        f"/v2/hub/{NAME}/manifests/1?ns={host}",
        f"/v2/{host}/hub/{NAME}/manifests/1",
        f"/{host}/v2/hub/{NAME}/manifests/1",
        f"/v2/{host}/hub/{NAME}/tags/list",
    ):
        assert (await ask(cache, path)).status == 404, path
    assert not alternate.log.requests


async def test_clients_wishes_name_nothing_private_to_an_alternate(
    cli: CommandLine, serve: ServeFactory, upstreams: Any
) -> None:
    limited = await upstreams(limit=10, accounts={"alice": Account(password=PASSWORD)})
    alternate = await upstreams(limit=None)
    made = put_image(limited, SECRET, "1")
    limited.content.repositories[SECRET].readers = frozenset({"alice"})
    alternate.content.put(f"hub/{SECRET}", made)
    (cli.home / "password").write_text(PASSWORD)
    account = {"username": "alice", "password_file": str(cli.home / "password")}
    config = configure(cli, limited, [f"{alternate.address}/hub"], hub=account)
    document = json.loads(config.read_text())
    document["serve"] = {"access": [{"users": ["anonymous"], "repositories": ["docker.io/corp/*"]}]}
    config.write_text(json.dumps(document))
    cache = await serve(config=config)

    await ask(cache, manifest_path("library/missing", "1"))
    await pulled(cache, SECRET, made)

    assert limited.log.pulls == 2
    assert not alternate.log.requests

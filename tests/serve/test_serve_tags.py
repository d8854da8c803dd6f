"""Tags: when they are asked for again, by whom, and what is served while they move."""

from __future__ import annotations

from pathlib import Path

import pytest
from tag_aging import (
    FAILED,
    NAME,
    TAG,
    configured,
    expired,
    heads,
)
from tag_serving import (
    ask,
    ask_together,
    blob_path,
    child_of,
    configure,
    manifest_path,
    parts_of,
    pulls_whole,
    put_image,
    running,
    sync,
    until,
)

from support.factories import UpstreamFactory
from support.processes import CommandLine


async def test_digests_and_immutable_tags_are_never_asked_for(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    source = await upstream()
    app = put_image(source, NAME, "v1.2.3", "v1.2.3-rc")
    config = configured(tmp_path, source, registry={"immutable_tags": [r"v\d+\.\d+\.\d+"]})
    await sync(cli, config, "app:v1.2.3", "app:v1.2.3-rc")
    async with running(cli, config) as cache:
        await expired()
        source.log.reset()
        paths = [manifest_path(NAME, "v1.2.3"), *(path for path, _ in parts_of(NAME, app))]

        replies = [await ask(cache, path) for path in paths]

        assert {reply.status for reply in replies} == {200}
        assert len(source.log) == 0
        # The pattern stands for whole tags.
        await ask(cache, manifest_path(NAME, "v1.2.3-rc"))
        assert heads(source) == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_another_process_syncs_is_served_within_a_second(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path, workers: int
) -> None:
    source = await upstream()
    put_image(source, NAME, "1")
    config = configured(tmp_path, source, tag_ttl="600s", negative_ttl="600s")
    await sync(cli, config, "app:1")
    new = put_image(source, NAME, version="new")
    fresh = put_image(source, "library/fresh")
    async with running(cli, config, "--workers", str(workers)) as cache:
        missing = await ask(cache, manifest_path("library/fresh", "1"))
        assert missing.status == 404
        source.content.move(NAME, "1", new.digest)
        source.content.repositories["library/fresh"].tags["1"] = fresh.digest
        await sync(cli, config, "app:1", "fresh:1")

        async def served() -> bool:
            # Over connections of their own, so that every worker gets some.
            paths = [TAG, manifest_path("library/fresh", "1")] * 10
            replies = await ask_together(cache, paths)
            return {reply.digest for reply in replies} == {new.digest, fresh.digest}

        assert await until(served) < 1
        await pulls_whole(cache, NAME, "1", new)


async def test_a_cold_tag_where_no_head_tells_its_digest(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    """Then the tag itself costs a pull, and the index is not pulled again."""
    source = await upstream()
    app = put_image(source, NAME, "1")
    source.faults.add("no-digest", kind="manifest", reference="1", method="HEAD", count=None)
    config = configured(tmp_path, source)
    async with running(cli, config) as cache:
        await pulls_whole(cache, NAME, "1", app)
        await expired()
        reply = await ask(cache, TAG)
        assert (reply.digest, FAILED in reply.warning) == (app.digest, True)
    assert source.log.pulls == 2


async def test_heads_tell_what_gets_would(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    source = await upstream()
    app = put_image(source, NAME, "1")
    config = configured(tmp_path, source)
    await sync(cli, config, "app:1")
    async with running(cli, config) as cache:
        await source.close()
        await expired()
        await ask(cache, TAG)
        head, get = await ask(cache, TAG, method="HEAD"), await ask(cache, TAG)

        assert (head.status, head.digest, head.body) == (200, app.digest, b"")
        assert (head.warning != "", head.headers["content-length"]) == (True, str(len(get.body)))
        known = await ask(cache, TAG, If_None_Match=f'"{app.digest}"')
        assert (known.status, known.body) == (304, b"")


async def test_registries_do_not_mix(
    cli: CommandLine, upstream: UpstreamFactory, tmp_path: Path
) -> None:
    hub, quay = await upstream(), await upstream()
    put_image(hub, NAME, "1")
    other = put_image(quay, NAME, "1", version="other")
    config = configure(
        tmp_path / "prefetch.yaml",
        {"docker.io": hub.url, "quay.io": quay.url},
        tag_ttl="1s",
        tag_wait="2s",
    )
    await sync(cli, config, "app:1", f"quay.io/{NAME}:1")
    async with running(cli, config) as cache:
        await expired()
        await hub.close()
        ours, theirs = await ask(cache, TAG), await ask(cache, TAG + "?ns=quay.io")
        assert ours.digest != theirs.digest == other.digest
        assert (ours.warning != "", theirs.warning) == (True, "")
        assert (await ask(cache, blob_path(NAME, child_of(other).blobs[-1].digest))).status != 200

"""The distribution-spec's conformance suite, and what it leaves out, over every kind of content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefetch.demo.images import OCI_INDEX, descriptor
from prefetch.demo.upstream import Upstream
from support.cache import Cache, ServeFactory, write_config
from support.conformance import LIST, SIGNATURE, run_suite, variety
from support.factories import UpstreamFactory
from support.processes import CommandLine

REPOSITORY = "conformance/content"
# What stands before `/v2/`, the repository, and how many workers: every form of path.
FORMS = {
    "plain": ("{}", REPOSITORY, 1),
    "registry-in-path": ("{}", f"docker.io/{REPOSITORY}", 2),
    "registry-before": ("{}/docker.io", REPOSITORY, 1),
}
# Measured with this version of the suite and this content; all that it asks without pushing.
MEASURED = 178


async def fill(cli: CommandLine, source: Upstream) -> Path:
    """Sync the whole variety, of docker.io, from an upstream; returns the configuration."""
    for tag, made in variety().items():
        source.content.put(REPOSITORY, made, tag)
    config = write_config(cli.home / "prefetch.yaml", source)
    synced = await cli(
        *("--config", config, "sync", "-", "--platform", "all", "-o", "json"),
        stdin="\n".join(f"docker.io/{REPOSITORY}:{tag}" for tag in variety()),
    )
    assert synced.code == 0, synced.stdout + synced.stderr
    return config


@pytest.mark.real("conformance")
@pytest.mark.long
@pytest.mark.timeout(900)  # the first run may have to build the suite
@pytest.mark.parametrize("form", FORMS)
async def test_conformance_of_a_registry_that_takes_no_pushes(
    form: str,
    cli: CommandLine,
    upstream: UpstreamFactory,
    serve: ServeFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The upstream stays: without its word, what is not here is 503, not 404."""
    before, repository, workers = FORMS[form]
    config = await fill(cli, await upstream(limit=None))
    cache: Cache = await serve("--workers", str(workers), config=config)

    outcome = await run_suite(cli.home, before.format(cache.address), repository, variety())

    with capsys.disabled():
        print(f"\nconformance, {form}: {outcome}")
    assert outcome.failed == 0, "\n".join(outcome.failures)
    assert outcome.skipped == 0, outcome.report
    assert outcome.passed >= MEASURED, outcome.report


async def test_everything_is_served_as_it_was_named(
    cli: CommandLine, upstream: UpstreamFactory, serve: ServeFactory
) -> None:
    """The suite does not know content that it has not pushed: bytes, types, and who refers."""
    source = await upstream(limit=None)
    config = await fill(cli, source)
    await source.close()
    cache: Cache = await serve(config=config)
    base = f"/v2/docker.io/{REPOSITORY}"
    content = variety()

    for tag, made in content.items():
        for part in made.walk():
            names = [part.digest, tag] if part is made else [part.digest]
            for name in names:
                status, headers, body = cache.get(f"{base}/manifests/{name}")
                assert (status, body) == (200, part.raw), (tag, name)
                assert headers["content-type"] == part.media_type
                assert headers["docker-content-digest"] == part.digest
        for digest, blob in made.all_blobs().items():
            status, headers, body = cache.get(f"{base}/blobs/{digest}")
            assert (status, body) == (200, blob.read()), (tag, digest)
            assert headers["content-length"] == str(blob.size)

    everything = [part for made in content.values() for part in made.walk()]
    for subject in {part.digest for part in everything} | {content["dangling"].subject}:
        expected = {part.digest: descriptor(part) for part in everything if part.subject == subject}
        status, headers, body = cache.get(f"{base}/referrers/{subject}")
        assert (status, headers["content-type"]) == (200, OCI_INDEX)
        assert {each["digest"]: each for each in json.loads(body)["manifests"]} == expected
    signed = content["image"].digest
    for wanted, found in ((SIGNATURE, [content["signature"].digest]), (LIST, [])):
        _, headers, body = cache.get(f"{base}/referrers/{signed}?artifactType={wanted}")
        assert [each["digest"] for each in json.loads(body)["manifests"]] == found
        assert headers["oci-filters-applied"] == "artifactType"

"""Resolving and pulling manifests: what it costs, and every way in which it goes wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from remote_support import IMPATIENT, Connect, Serve, put_image

from prefetch.credentials.credential import Credential, Secret
from prefetch.errors import (
    BudgetExhausted,
    DigestMismatch,
    InvalidManifest,
    NetworkError,
    NotFound,
    PrefetchError,
    RegistryError,
    ServerFault,
    Unauthorized,
)
from prefetch.events import PullSpent
from prefetch.oci.model import OCI_INDEX, OCI_MANIFEST, Index
from prefetch.oci.reference import Digest, Reference, Repository
from prefetch.ratelimit.budget import Reserve
from support.factories import UpstreamFactory


async def test_resolving_is_free_and_tells_all(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    repository, image = put_image(registry, single=False)
    client = (await connect(registry.url)).client
    found = await client.resolve(repository, "latest")
    assert str(found.digest) == image.digest
    assert found.media_type == OCI_INDEX
    assert found.size == len(image.raw)
    assert registry.log.pulls == client.pulls == 0


async def test_a_manifest_costs_one_pull_and_is_announced(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(limit=50)
    repository, image = put_image(registry, single=False)
    connected = await connect(registry.url)
    pulls = []
    document = await connected.client.manifest(
        repository, image.digest, hold=None, on_pull=lambda: pulls.append(1)
    )
    assert isinstance(document, Index)
    assert document.raw == image.raw
    assert registry.log.pulls == connected.client.pulls == len(pulls) == 1
    assert connected.events == [
        PullSpent(registry.address, "anonymous", f"{repository}@{image.digest}", 49)
    ]
    budget = await connected.ledger.budget(connected.client.meter, connected.client.policy)
    assert (budget.limit, budget.remaining, budget.source) == (50, 49, "127.0.0.1")


async def test_the_requests_headers(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404)

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(NotFound):
        await client.resolve(Repository(client.settings.name, "team/app"), "1.0")
    sent = server.seen[-1]
    assert sent.path == "/v2/team/app/manifests/1.0"
    assert sent.headers["Accept-Encoding"] == "identity"
    assert sent.headers["User-Agent"].startswith("prefetch/")
    for kind in ("oci.image.index", "oci.image.manifest", "manifest.list.v2", "manifest.v2"):
        assert kind in sent.headers["Accept"]


async def test_by_digest_the_bytes_count_not_the_header(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry, algorithm="sha512")
    registry.faults.add("wrong-digest", count=None)
    client = (await connect(registry.url)).client
    document = await client.manifest(repository, image.digest, hold=None)
    assert str(document.digest) == image.digest
    resolved = await client.resolve(repository, image.digest)
    assert str(resolved.digest) == image.digest


async def test_by_tag_the_bytes_tell_the_digest(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("no-digest", count=None)
    client = (await connect(registry.url)).client
    assert (await client.resolve(repository, "latest")).digest is None
    assert str((await client.manifest(repository, "latest", hold=None)).digest) == image.digest


async def test_no_head(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("not-allowed", method="HEAD", count=None)
    client = (await connect(registry.url)).client
    assert (await client.resolve(repository, "latest")).digest is None
    assert str((await client.manifest(repository, "latest", hold=None)).digest) == image.digest
    assert registry.log.pulls == 1


async def test_no_length(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("no-length", count=None)
    client = (await connect(registry.url)).client
    resolved = await client.resolve(repository, "latest")
    assert (str(resolved.digest), resolved.size) == (image.digest, None)
    assert (await client.manifest(repository, image.digest, hold=None)).raw == image.raw


@pytest.mark.parametrize(
    "digest",
    ["sha256:../../../etc/passwd", "../../x", "sha256:ABC", "md5:" + "0" * 32, "x" * 9000],
)
async def test_a_malicious_digest_is_a_fault(
    upstream: UpstreamFactory, connect: Connect, digest: str
) -> None:
    registry = await upstream()
    repository, _ = put_image(registry)
    registry.faults.add("wrong-digest", text=digest, count=None)
    client = (await connect(registry.url)).client
    with pytest.raises((ServerFault, NetworkError)) as caught:
        await client.resolve(repository, "latest")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("size", ["told", "chunked"])
async def test_a_huge_manifest_is_cut_off(
    upstream: UpstreamFactory, connect: Connect, size: str
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("huge-manifest", method="GET", kind="manifest")
    if size == "chunked":
        registry.faults.add("no-length", method="GET", kind="manifest")
    client = (await connect(registry.url)).client
    with pytest.raises(InvalidManifest, match="larger than 4194304 bytes"):
        await client.manifest(repository, image.digest, hold=None)
    (sent,) = registry.log.select(kind="manifest", method="GET")
    assert sent.bytes_sent < 64 << 20
    assert client.pulls == 1


async def test_corrupt_bytes_are_pulled_once_more(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("corrupt", method="GET", kind="manifest")
    client = (await connect(registry.url)).client
    assert (await client.manifest(repository, image.digest, hold=None)).raw == image.raw
    assert client.pulls == registry.log.pulls == 2


async def test_corrupt_bytes_every_time_are_an_error(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("corrupt", method="GET", kind="manifest", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(DigestMismatch, match="sent other bytes"):
        await client.manifest(repository, image.digest, hold=None)
    assert client.pulls == 2


@pytest.mark.parametrize("fault", ["server-error", "reset", "cut", "stall"])
async def test_what_passes_is_tried_again_at_a_pull_each(
    upstream: UpstreamFactory, connect: Connect, fault: str
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add(fault, method="GET", kind="manifest", count=2, seconds=2.0)
    client = (await connect(registry.url)).client
    assert (await client.manifest(repository, image.digest, hold=None)).raw == image.raw
    assert client.pulls == registry.log.counts(kind="manifest", method="GET") == 3


@pytest.mark.parametrize(
    ("fault", "error"), [("server-error", ServerFault), ("reset", NetworkError)]
)
async def test_what_does_not_pass_is_given_up_after_five_attempts(
    upstream: UpstreamFactory, connect: Connect, fault: str, error: type[PrefetchError]
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add(fault, method="GET", kind="manifest", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(error):
        await client.manifest(repository, image.digest, hold=None)
    assert client.pulls == registry.log.counts(kind="manifest", method="GET") == 5


async def test_an_upstream_that_is_not_there(connect: Connect, free_port: int) -> None:
    client = (await connect(f"http://127.0.0.1:{free_port}")).client
    with pytest.raises(NetworkError, match=rf"cannot reach 127\.0\.0\.1:{free_port}"):
        await client.resolve(Repository(client.settings.name, "team/app"), "latest")
    assert client.requests == 5


async def test_a_web_page_is_no_registry(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("html", kind="manifest", count=None)
    client = (await connect(registry.url)).client
    for attempt in (
        client.resolve(repository, "latest"),
        client.manifest(repository, image.digest, hold=None),
    ):
        with pytest.raises(ServerFault, match="does not look like a registry"):
            await attempt


async def test_an_encoded_manifest_is_named_as_such(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("gzip", kind="manifest", method="GET", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(RegistryError, match="sent Content-Encoding gzip though identity"):
        await client.manifest(repository, image.digest, hold=None)


async def test_a_media_type_that_contradicts_is_refused(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry, single=False)
    registry.faults.add("wrong-type", text=OCI_MANIFEST, kind="manifest", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(InvalidManifest, match="team/app"):
        await client.manifest(repository, image.digest, hold=None)


async def test_the_registrys_own_words_are_kept_and_made_safe(
    connect: Connect, serve: Serve
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        message = "not here\r\n\x1b[31mFAKE LOG LINE\u202e" + "x" * 5000
        body = {"errors": [{"code": "MANIFEST_UNKNOWN\n", "message": message}]}
        return web.json_response(body, status=404)

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(NotFound) as caught:
        await client.tags(Repository(client.settings.name, "team/app"))
    text = str(caught.value)
    assert text.startswith(f"the tags of {client.settings.name}/team/app: 127.0.0.1 answered 404")
    assert "MANIFEST_UNKNOWN not here [31mFAKE LOG LINE" in text
    assert text.isprintable()
    assert len(text) < 600
    assert caught.value.code == "MANIFEST_UNKNOWN"
    assert caught.value.status == 404
    assert caught.value.url == f"{server.url}/v2/team/app/tags/list"


async def test_secrets_that_an_answer_repeats_are_struck_out(
    connect: Connect, serve: Serve
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "very-secret-token"})
        given = request.headers.get("Authorization", "")
        if not given:
            realm = f'Bearer realm="{server.url}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        errors = [{"code": "DENIED", "message": f"your {given} is no good"}]
        return web.json_response({"errors": errors}, status=404)

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(NotFound, match=r"your Bearer \*\*\* is no good") as caught:
        await client.tags(Repository(client.settings.name, "team/app"))
    assert "very-secret-token" not in repr(caught.value)


async def test_the_pull_limit_is_exhausted_budget(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(limit=30)
    repository, image = put_image(registry)
    registry.faults.add("pull-limit", method="GET", kind="manifest")
    connected = await connect(registry.url)
    with pytest.raises(BudgetExhausted, match="its pull limit is reached") as caught:
        await connected.client.manifest(repository, image.digest, hold=None)
    assert caught.value.retry_at is not None
    assert connected.client.pulls == 1


async def test_the_pull_limit_told_by_a_head(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        limits = {"ratelimit-limit": "100;w=60", "ratelimit-remaining": "0;w=60"}
        return web.Response(status=429, headers=limits)

    server = await serve(answer)
    connected = await connect(server.url)
    repository = Repository(connected.client.settings.name, "team/app")
    with pytest.raises(BudgetExhausted):
        await connected.client.resolve(repository, "latest")
    with pytest.raises(BudgetExhausted):
        await connected.client.manifest(repository, "latest", hold=None)
    assert "GET /v2/team/app/manifests/latest" not in server.paths()
    assert await connected.ledger.throttled_until(connected.client.settings.name) is None


async def test_below_the_reserve_no_get_is_sent(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(limit=30)
    repository, image = put_image(registry)
    meter = registry.limits.meter()
    assert meter is not None
    meter.spend(25)
    client = (await connect(registry.url, reserve=Reserve.parse("5"))).client
    with pytest.raises(BudgetExhausted, match=r"5 of them reserved; expected back at \d{4}-"):
        await client.manifest(repository, image.digest, hold=None)
    assert registry.log.counts(kind="manifest", method="GET") == client.pulls == 0


async def test_parallel_pulls_never_breach_the_reserve(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(limit=20)
    made = [put_image(registry, f"team/app{n}") for n in range(30)]
    client = (await connect(registry.url, reserve=Reserve.parse("5"))).client
    results = await asyncio.gather(
        *(client.manifest(repository, image.digest, hold=None) for repository, image in made),
        return_exceptions=True,
    )
    refused = [each for each in results if isinstance(each, BudgetExhausted)]
    assert len(refused) == 15
    assert registry.log.pulls == client.pulls == 15


async def test_observing_tells_the_ledger(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream(limit=70)
    repository, _ = put_image(registry)
    connected = await connect(registry.url)
    await connected.client.observe(Reference(repository, "latest", None))
    budget = await connected.ledger.budget(connected.client.meter, connected.client.policy)
    assert (budget.limit, budget.remaining) == (70, 70)


async def test_a_registry_without_a_probe_image_is_not_probed(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    client = (await connect(registry.url)).client
    assert await client.probe() is None
    assert len(registry.log) == 0


async def test_docker_hub_is_probed_where_it_says(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(limit=100)
    put_image(registry, "ratelimitpreview/test")
    connected = await connect(registry.url, name="docker.io")
    reading = await connected.client.probe()
    assert reading is not None
    assert (reading.limit, reading.remaining) == (100, 100)
    assert registry.log.pulls == 0


async def test_blob_size(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    client = (await connect(registry.url)).client
    assert await client.blob_size(repository, Digest.parse(next(iter(image.all_blobs()))))
    assert await client.blob_size(repository, Digest.of(b"absent")) is None


async def test_visibility_without_a_clear_answer(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    client = (await connect(registry.url)).client
    digest = Digest.parse(image.digest)
    assert await client.visible_anonymously(repository, digest) is True
    assert await client.visible_anonymously(repository, Digest.of(b"absent")) is False
    registry.faults.add("server-error", count=None)
    assert await client.visible_anonymously(repository, digest) is None


async def test_a_registry_without_head_has_shown_nothing_to_anybody(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    client = (await connect(registry.url)).client
    digest = Digest.parse(image.digest)
    for fault in ("not-allowed", "html"):
        registry.faults.clear()
        registry.faults.add(fault, method="HEAD", kind="manifest", count=None)
        assert await client.visible_anonymously(repository, digest) is None


async def test_a_manifest_that_drips_is_given_up(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("slow", method="GET", kind="manifest", bytes_per_second=50.0, count=None)
    patience = replace(IMPATIENT, document_timeout=0.3, attempts=2)
    client = (await connect(registry.url, transport=patience)).client
    with pytest.raises(NetworkError, match="did not answer in time"):
        await client.manifest(repository, image.digest, hold=None)
    assert client.pulls == 2


async def test_requests_leave_no_faster_than_told(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, _ = put_image(registry)
    client = (await connect(registry.url, requests_per_second=50.0)).client
    await asyncio.gather(*(client.resolve(repository, "latest") for _ in range(10)))
    started = [each.started for each in registry.log]
    assert len(started) == 12  # with ping and token
    # Five may leave at once.
    assert started[-1] - started[0] >= (11 - 4) / 50 * 0.95


@pytest.mark.real("docker-registry")
@pytest.mark.parametrize("users", [None, {"ci": "secret"}])
async def test_debians_registry(
    docker_registry: Any, connect: Connect, users: dict[str, str] | None
) -> None:
    registry = await docker_registry(users)
    login = Credential("ci", Secret("secret")) if users else None
    client = (await connect(registry.url, login)).client
    repository = Repository(registry.address, "team/app")
    with pytest.raises(NotFound, match="404 Not Found"):
        await client.manifest(repository, "latest", hold=None)
    with pytest.raises(NotFound, match="NAME_UNKNOWN repository name not known"):
        await client.tags(repository)
    if users:
        stranger = (await connect(registry.url)).client
        with pytest.raises(Unauthorized, match="none are configured"):
            await stranger.resolve(repository, "latest")

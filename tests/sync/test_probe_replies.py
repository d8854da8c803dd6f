"""Answers that no cache should give are found out, whatever kind of client meets them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from fake_cache import API, REFERENCE, Answer, FakeCache, failed, not_here, probe, running

from prefetch.demo.blobs import Blob
from prefetch.demo.images import (
    OCI_INDEX,
    OCI_MANIFEST,
    Image,
    attestation,
    document,
    image,
    index,
    manifest,
    schema1,
)
from prefetch.demo.layers import layer

APP = manifest("app")
CONFIG, LAYER = APP.blobs
NOWHERE = "sha256:" + "0" * 64
MIB = 1 << 20
ALL = ("containerd", "podman", "docker", "path")
WITH_HEAD = ("containerd", "docker", "path")

Change = Callable[[web.BaseRequest, web.Response], Awaitable[web.StreamResponse | None] | None]


def cache_of(top: Image, spoil: Answer | None = None) -> FakeCache:
    return FakeCache({REFERENCE: top}, spoil)


def asks_for(request: web.BaseRequest, what: str) -> bool:
    """`tag`, `digest`, `config` or `layer`, with or without a method before it."""
    method, _, thing = what.rpartition(" ")
    ends = {
        "tag": "/manifests/1",
        "digest": f"/manifests/{APP.digest}",
        "config": f"/blobs/{CONFIG.digest}",
        "layer": f"/blobs/{LAYER.digest}",
    }
    return method in ("", request.method) and request.path.endswith(ends[thing])


async def test_a_sound_cache_has_no_faults() -> None:
    async with running(cache_of(APP)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert report.ok
    assert [client.client for client in report.clients] == [
        "containerd",
        "podman",
        "docker",
        "path",
    ]
    assert {pulled.digest for client in report.clients for pulled in client.pulled} == {APP.digest}
    assert all(sent["Cache-Control"] == "only-if-cached" for sent in cache.headers)
    assert all(sent["Accept-Encoding"] == "identity" for sent in cache.headers)


def header(name: str, value: str | None) -> Change:
    def change(_: web.BaseRequest, answer: web.Response) -> None:
        answer.headers.popall(name, None)
        if value is not None:
            answer.headers[name] = value

    return change


def body(data: bytes) -> Change:
    """Another body, of which the headers say what they said."""

    def change(_: web.BaseRequest, answer: web.Response) -> None:
        answer.body = data

    return change


def status(code: int, said: str = "", **headers: str) -> Change:
    async def change(_: web.BaseRequest, answer: web.Response) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, text=said, headers=named)

    return change


def error(code: int, word: str, message: str) -> Change:
    async def change(_: web.BaseRequest, answer: web.Response) -> web.Response:
        found = {"errors": [{"code": word, "message": message}]}
        return web.json_response(found, status=code, headers=API)

    return change


async def whole(_: web.BaseRequest, answer: web.Response) -> web.Response:
    """All of it, whatever the range."""
    return web.Response(body=LAYER.read(), headers=API)


async def cut(request: web.BaseRequest, answer: web.Response) -> web.StreamResponse:
    """Half of what was promised."""
    assert isinstance(answer.body, bytes)
    half = web.StreamResponse(status=answer.status, headers=answer.headers)
    half.content_length = len(answer.body)
    await half.prepare(request)
    await half.write(answer.body[: len(answer.body) // 2])
    assert request.transport is not None
    request.transport.abort()
    return half


async def endless(request: web.BaseRequest, answer: web.Response) -> web.StreamResponse:
    """For as long as anybody reads."""
    answer.headers.popall("Content-Length", None)
    stream = web.StreamResponse(status=answer.status, headers=answer.headers)
    stream.enable_chunked_encoding()
    await stream.prepare(request)
    try:
        while True:
            await stream.write(b" " * 65536)
    except (ConnectionError, asyncio.CancelledError):
        return stream


FAULTS: list[tuple[str, Change, dict[str, str]]] = [
    # what is asked for, what is done to the answer, and the words by kind of client
    (
        "HEAD tag",
        header("Docker-Content-Digest", None),
        dict.fromkeys(WITH_HEAD, "no Docker-Content-Digest"),
    ),
    (
        "HEAD tag",
        header("Docker-Content-Digest", "sha256:0000"),
        dict.fromkeys(WITH_HEAD, "Docker-Content-Digest makes no sense"),
    ),
    (
        "HEAD tag",
        header("Docker-Content-Digest", NOWHERE),
        dict.fromkeys(WITH_HEAD, "not whole in the cache"),
    ),
    (
        "HEAD tag",
        header("Content-Type", "text/plain"),
        dict.fromkeys(WITH_HEAD, "'text/plain' is no manifest's"),
    ),
    (
        "HEAD tag",
        header("Content-Type", "application/vnd.oci.image.index.v1+json"),
        dict.fromkeys(WITH_HEAD, "the HEAD said"),
    ),
    (
        "GET tag",
        header("Docker-Content-Digest", NOWHERE),
        {"podman": f"not {NOWHERE}"},
    ),
    ("GET tag", header("Content-Type", None), {"podman": "Content-Type"}),
    ("GET tag", body(b"{}"), {"podman": "the bytes have the digest"}),
    (
        "digest",
        body(APP.raw + b" "),
        dict.fromkeys(WITH_HEAD, "the bytes have the digest"),
    ),
    (
        "digest",
        header("Content-Type", "application/vnd.docker.distribution.manifest.v2+json"),
        dict.fromkeys(WITH_HEAD, "the GET gives"),
    ),
    (
        "digest",
        header("Content-Encoding", "gzip"),
        dict.fromkeys(WITH_HEAD, "compresses what passes"),
    ),
    (
        "digest",
        cut,
        dict.fromkeys(WITH_HEAD, "broke"),
    ),
    (
        "digest",
        endless,
        dict.fromkeys(WITH_HEAD, "more than 4194304 bytes"),
    ),
    ("HEAD config", header("Docker-Content-Digest", NOWHERE), {"containerd": "answers for"}),
    ("HEAD config", body(b"x"), {"containerd": "it says 1 bytes"}),
    (
        "GET config",
        body(b"\0" * CONFIG.size),
        dict.fromkeys(ALL, "the bytes have the digest"),
    ),
    (
        "GET config",
        body(CONFIG.read() + b"!"),
        dict.fromkeys(ALL, "bytes came"),
    ),
    (
        "GET config",
        endless,
        dict.fromkeys(ALL, "more than"),
    ),
    ("layer", whole, {"containerd": "Range is ignored"}),
    (
        "layer",
        header("Content-Range", None),
        {"containerd": "its Content-Range is not there"},
    ),
    ("layer", header("Content-Range", "bytes 1-1/9"), {"containerd": "Content-Range is 'bytes"}),
    (
        "layer",
        header("Content-Range", "bytes 0-0/9"),
        {"containerd": "its Content-Range says 9 bytes"},
    ),
    (
        "layer",
        endless,
        {
            "containerd": "more than 1 came",
            **dict.fromkeys(("podman", "docker", "path"), "more than"),
        },
    ),
    (
        "layer",
        cut,
        dict.fromkeys(ALL, "broke"),
    ),
    (
        "config",
        status(302, Location="http://evil.example/x?token=secret"),
        dict.fromkeys(
            ALL,
            "302, a redirect to http://evil.example/x, which is not followed",
        ),
    ),
    (
        "config",
        status(307, Location="/elsewhere"),
        dict.fromkeys(ALL, "a redirect to another path"),
    ),
    (
        "digest",
        status(200, "<!DOCTYPE html><title>Log in</title>", Content_Type="text/html"),
        dict.fromkeys(WITH_HEAD, "with a web page"),
    ),
    (
        "config",
        status(504, "<html>gateway time-out</html>", Content_Type="text/html"),
        dict.fromkeys(ALL, "a proxy in front of the cache gets no"),
    ),
    (
        "tag",
        status(401, WWW_Authenticate='Basic realm="x"'),
        dict.fromkeys(ALL, "credentials are asked for: --username"),
    ),
    (
        "tag",
        status(418, "short and stout"),
        dict.fromkeys(ALL, "not to be expected"),
    ),
    (
        "GET config",
        error(429, "TOOMANYREQUESTS", "slow down"),
        dict.fromkeys(
            ALL,
            "too many requests: TOOMANYREQUESTS slow down",
        ),
    ),
    (
        "GET config",
        error(503, "UNAVAILABLE", "docker.io\x1b[31m throttles\r\n\x00and\u202emore"),
        dict.fromkeys(
            ALL,
            "UNAVAILABLE docker.io [31m throttles and more",
        ),
    ),
    (
        "tag",
        header("X-Long", "x" * 9000),
        dict.fromkeys(ALL, "no valid HTTP answer"),
    ),
]


@pytest.mark.parametrize(("what", "change", "words"), FAULTS)
async def test_faults_are_told(what: str, change: Change, words: dict[str, str]) -> None:
    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        if not asks_for(request, what):
            return None
        answer = cache.sound(request)
        changed = change(request, answer)
        return answer if changed is None else (await changed or answer)

    async with running(cache_of(APP, spoil)) as cache:
        report = await probe(cache.url, REFERENCE)

    found = {client: check.message for client, check in failed(report)}
    assert found.keys() == words.keys()
    for client, message in found.items():
        assert words[client] in message
        assert message.isprintable()
        assert "secret" not in message
    assert not report.ok
    # Whoever meets a fault goes no further.
    for client in report.clients:
        assert all(check.ok for pulled in client.pulled for check in pulled.checks[:-1])


async def test_too_many_headers_are_no_answer() -> None:
    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        if not asks_for(request, "tag"):
            return None
        return web.Response(headers={f"X-{number}": "x" for number in range(500)})

    async with running(cache_of(APP, spoil)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert {check.message for _, check in failed(report)} != set()
    assert all("no valid HTTP answer" in check.message for _, check in failed(report))


@pytest.mark.parametrize(
    ("top", "words"),
    [
        (schema1("app", "1"), "no manifest's"),
        (document({"schemaVersion": 2, "layers": [], "manifests": []}, OCI_MANIFEST), "ambiguous"),
        (document(b'{"schemaVersion": 2, "x": ' + b"[" * 99999, OCI_MANIFEST), "nested"),
        (document(b"{\xff}", OCI_MANIFEST), "not UTF-8"),
        (index([]), "the index has no image"),
        (document({"schemaVersion": 2, "manifests": None}, OCI_INDEX), "the index has no image"),
        (
            document({"schemaVersion": 2, "manifests": [{"digest": "../.."}]}, OCI_INDEX),
            "manifests[0]",
        ),
        (Image(Blob.of(b" " * (4 * MIB + 1)), OCI_MANIFEST), "4194305 bytes"),
    ],
)
async def test_documents_that_nobody_can_pull(top: Image, words: str) -> None:
    async with running(cache_of(top)) as cache:
        report = await probe(cache.url, REFERENCE)
    found = [check.message for client, check in failed(report) if client != "podman"]
    assert len(found) == 3
    assert all(words in message for message in found)
    # podman sees the size only as it comes.
    [podman] = [check.message for client, check in failed(report) if client == "podman"]
    assert words in podman or "more than 4194304 bytes" in podman


async def test_the_first_platform_that_is_whole_is_pulled() -> None:
    top = image("many", platforms=("linux/arm64", "linux/s390x", "linux/amd64"), attestations=True)
    whole_one = top.child("linux/amd64").digest

    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        lacking = [top.child("linux/arm64").digest, top.child("linux/s390x").digest]
        return not_here() if request.path.rpartition("/")[2] in lacking else None

    async with running(cache_of(top, spoil)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert report.ok
    for client in report.clients:
        [platform] = [c for p in client.pulled for c in p.checks if c.step == "platform"]
        assert whole_one in platform.path


async def test_an_attestation_is_no_platform() -> None:
    top = index([attestation(APP), APP])
    async with running(cache_of(top)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert report.ok
    assert not [line for line in cache.seen if top.children[0].digest in line]


async def test_no_platform_is_whole() -> None:
    top = image("many")

    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        return not_here() if request.path.endswith(tuple(c.digest for c in top.children)) else None

    async with running(cache_of(top, spoil)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert len(failed(report)) == 4
    for _, check in failed(report):
        assert (check.step, check.status) == ("platform", 504)
        assert f"`prefetch sync --image {REFERENCE}` would fetch it" in check.message


async def test_a_platform_that_is_broken_is_not_passed_over() -> None:
    top = image("many")

    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.path.endswith(top.children[0].digest):
            return web.Response(body=b"{}", headers={"Content-Type": OCI_MANIFEST})
        return None

    async with running(cache_of(top, spoil)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert all("the bytes have the digest" in check.message for _, check in failed(report))
    assert len(failed(report)) == 4


async def test_an_index_makes_nobody_ask_for_ever() -> None:
    """Of thousands of children that are not here, some dozens are asked for; nests have an end."""
    entry = {"mediaType": OCI_MANIFEST, "size": 1, "platform": None}
    children = [{**entry, "digest": f"sha256:{number:064x}"} for number in range(5000)]
    wide = document({"schemaVersion": 2, "manifests": children}, OCI_INDEX)
    async with running(cache_of(wide)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert len(failed(report)) == 4
    assert len(cache.seen) < 200

    deep = APP
    for _ in range(12):
        deep = index([deep])
    async with running(cache_of(deep)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert [check.message for _, check in failed(report)] == ["the index has no image"] * 4


@pytest.mark.parametrize("inline", [False, True])
async def test_odd_images_that_can_be_pulled(inline: bool) -> None:
    """Nested, sha512, without layers, with a layer that lies elsewhere, with a large one."""
    far = layer("far", urls=["https://far.example/layer"])
    odd = {
        "nested": index([index([manifest("nested", inline=inline)])]),
        "long": image("long", algorithm="sha512"),
        "bare": manifest("bare", layers=[]),
        "foreign": manifest("foreign", layers=[far]),
        "large": manifest("large", layers=[layer("large", 2 * MIB)]),
        "docker": image("docker", docker=True, attestations=True),
        "small": manifest("small", layers=[layer("a", 1)]),
    }
    images = {f"docker.io/library/{name}:1": made for name, made in odd.items()}
    async with running(FakeCache(images)) as cache:
        report = await probe(cache.url, *images)
    assert failed(report) == []
    assert report.ok
    asked = [entry for entry in cache.headers if "Range" in entry]
    assert {entry["Range"] for entry in asked} >= {"bytes=0-0", "bytes=-1024", "bytes=0-1048575"}
    far_digest = far.blob.digest
    assert not [path for path in cache.seen if far_digest in path]


async def test_no_more_of_a_large_layer_is_read_than_was_asked_for() -> None:
    """Nor of one whose server sends all of it."""
    large = manifest("large", layers=[layer("large", 64 * MIB)])
    digest, sent = large.blobs[1].digest, []

    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        if not request.path.endswith(digest):
            return None
        stream = web.StreamResponse(headers=API)
        stream.content_length = large.blobs[1].size
        await stream.prepare(request)
        try:
            for _ in range(stream.content_length // 65536):
                await stream.write(b"x" * 65536)
                sent.append(65536)
        except ConnectionError:
            pass
        return stream

    async with running(cache_of(large, spoil)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert {client for client, _ in failed(report)} == {"containerd"}
    assert sum(sent) < 4 * 10 * MIB


async def test_all_of_a_large_layer_will_do_if_it_is_as_large_as_it_should_be() -> None:
    """For clients that did not ask for a part of it."""
    large = manifest("large", layers=[layer("large", 2 * MIB)])
    data = large.blobs[1].read()

    def answering(body: bytes) -> Answer:
        async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
            return web.Response(body=body) if large.blobs[1].digest in request.path else None

        return spoil

    async with running(cache_of(large, answering(data))) as cache:
        report = await probe(cache.url, REFERENCE)
    assert [client for client, _ in failed(report)] == ["containerd"]
    async with running(cache_of(large, answering(data + b"!"))) as cache:
        report = await probe(cache.url, REFERENCE)
    assert [client for client, _ in failed(report)] == list(ALL)
    assert f"its Content-Length is {len(data) + 1}" in failed(report)[1][1].message


async def test_a_head_has_to_answer_for_the_digest_that_is_named() -> None:
    other = manifest("other")

    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.method != "HEAD" or other.digest not in request.path:
            return None
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": APP.digest, **API}
        return web.Response(body=APP.raw, headers=headers)

    async with running(cache_of(APP, spoil)) as cache:
        report = await probe(cache.url, f"app@{other.digest}")
    found = {client: check.message for client, check in failed(report)}
    assert {found[client] for client in WITH_HEAD} == {f"it answers for {APP.digest}"}


async def test_a_digest_that_is_named_is_what_must_come() -> None:
    other = manifest("other")
    async with running(FakeCache({"docker.io/library/app:1": APP})) as cache:
        good = await probe(cache.url, f"app:1@{APP.digest}", f"app@{APP.digest}")
        bad = await probe(cache.url, f"app:1@{other.digest}")
    assert good.ok
    assert not any("/manifests/1" in line for line in cache.seen)
    assert len(failed(bad)) == 4
    assert json.dumps(bad.document()).count('"digest": null') == 4

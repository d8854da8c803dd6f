"""The distribution API, read side, as a client that reads the specification would test it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_serving import PLATFORM, Answer, shapes
from api_world import APP, DEEP, NOWHERE, TOOL, World, digest_of, open_world

from prefetch.demo.images import OCI_INDEX


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("api")) as opened:
        yield opened


# ── Manifests and blobs ──────────────────────────────────────────────────────────────────────────


def check_content(answer: Answer, digest: str, raw: bytes, media_type: str, method: str) -> None:
    assert answer.status == 200, answer
    assert answer["Docker-Content-Digest"] == digest
    assert answer["ETag"] == f'"{digest}"'
    assert answer["Content-Type"] == media_type
    assert answer["Content-Length"] == str(len(raw))
    assert answer["Docker-Distribution-API-Version"] == "registry/2.0"
    assert answer["Content-Encoding"] is None
    assert answer["Transfer-Encoding"] is None
    assert answer.body == (b"" if method == "HEAD" else raw)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_ping(world: World, method: str) -> None:
    for path in ("/v2/", "/v2", "/docker.io/v2/", "/docker.io/v2", "/v2/?ns=docker.io"):
        answer = world.server.ask(path, method=method)
        assert answer.status == 200
        assert answer["Docker-Distribution-API-Version"] == "registry/2.0"
        assert answer["Content-Type"] == "application/json"
        assert answer["Content-Length"] == "2"
        assert answer.body == (b"" if method == "HEAD" else b"{}")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_manifests_in_all_shapes(world: World, method: str) -> None:
    cases = [
        ("docker.io", APP, "latest", world.app),
        ("docker.io", APP, world.app.digest, world.app),
        ("docker.io", APP, world.child.digest, world.child),
        ("docker.io", DEEP, "1", world.deep),
        ("docker.io", DEEP, world.deep.digest, world.deep),
        ("docker.io", DEEP, world.deep.child(PLATFORM).digest, world.deep.child(PLATFORM)),
        ("quay.io", TOOL, "2", world.tool),
        (world.far_registry, "some/where", "3", world.far),
    ]
    for registry, repository, reference, item in cases:
        for path in shapes(registry, repository, f"manifests/{reference}"):
            answer = world.server.ask(path, method=method)
            check_content(answer, item.digest, item.raw, item.media_type, method)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_blobs_in_all_shapes(world: World, method: str) -> None:
    places = [("docker.io", APP, world.app), ("docker.io", DEEP, world.deep)]
    places += [("quay.io", TOOL, world.tool), (world.far_registry, "some/where", world.far)]
    for registry, repository, item in places:
        for blob in item.child(PLATFORM).blobs:
            for path in shapes(registry, repository, f"blobs/{blob.digest}"):
                answer = world.server.ask(path, method=method)
                kind = "application/octet-stream"
                check_content(answer, blob.digest, blob.read(), kind, method)
                assert answer["Accept-Ranges"] == "bytes"


def test_neither_registry_nor_ns_means_docker_hub(world: World) -> None:
    paths = [
        "/v2/library/app/manifests/1",
        "/v2/app/manifests/1",
        "/v2/app/manifests/1?ns=docker.io",
    ]
    paths += ["/docker.io/v2/app/manifests/1", "/v2/docker.io/app/manifests/1"]
    paths += [f"/v2/library/app/manifests/1?ns={name}" for name in ("DOCKER.IO", "index.docker.io")]
    paths += [
        "/v2/registry-1.docker.io/library/app/manifests/1",
        "/index.docker.io/v2/app/manifests/1",
    ]
    paths += [
        "/v2/index.docker.io/library/app/manifests/1",
        "/v2/Docker.IO/library/app/manifests/1",
    ]
    for path in paths:
        answer = world.server.ask(path)
        assert (answer.status, answer["Docker-Content-Digest"]) == (200, world.app.digest), path


def test_ns_may_be_said_twice_in_other_words(world: World) -> None:
    path = f"/v2/quay.io/{TOOL}/manifests/2"
    for query in ("ns=quay.io", "ns=QUAY.IO&ns=quay.io"):
        assert world.server.ask(f"{path}?{query}").body == world.tool.raw
    assert world.server.ask(f"/quay.io/v2/{TOOL}/manifests/2?ns=quay.io").body == world.tool.raw


def test_the_namespace_is_told_to_those_who_named_it(world: World) -> None:
    """distribution-spec, "Registry Proxying": the value of the parameter itself."""
    rests = ["manifests/1", f"manifests/{NOWHERE}", "tags/list", f"referrers/{NOWHERE}"]
    rests += [f"blobs/{digest_of(world.blob)}", f"blobs/{NOWHERE}"]
    for rest in rests:
        by_ns, *others = [world.server.ask(path) for path in shapes("docker.io", APP, rest)]
        assert by_ns["OCI-Namespace"] == "docker.io", rest
        assert [other["OCI-Namespace"] for other in others] == [None, None], rest
    answer = world.server.ask(f"/v2/{APP}/manifests/1?ns=index.docker.io")
    assert answer["OCI-Namespace"] == "index.docker.io"


def test_percent_encoding_is_undone_once(world: World) -> None:
    encoded = world.app.digest.replace(":", "%3A")
    for reference in (encoded, encoded.lower(), "%6catest"):
        answer = world.server.ask(f"/v2/{APP}/manifests/{reference}")
        assert answer.body == world.app.raw, reference
    for path in (
        "/v2/library%2Fapp/manifests/1",
        "/v2/%61pp/m%61nifests/1",
        "/%76%32/app/manifests/1",
    ):
        assert world.server.ask(path).body == world.app.raw, path
    digest = digest_of(world.blob).replace(":", "%3a")
    assert world.server.ask(f"/v2/{APP}/blobs/{digest}").body == world.blob
    for twice in (world.app.digest.replace(":", "%253A"), "%256catest"):
        answer = world.server.ask(f"/v2/{APP}/manifests/{twice}")
        assert (answer.status, answer.code) == (400, "TAG_INVALID"), twice


def test_any_accept_header_will_do(world: World) -> None:
    for accept in ("*/*", "application/json", "text/html;q=0.1", "", OCI_INDEX, "nonsense"):
        answer = world.server.ask(f"/v2/{APP}/manifests/1", {"Accept": accept})
        assert (answer["Content-Type"], answer.body) == (OCI_INDEX, world.app.raw)
    for encoding in ("gzip", "br, zstd", "identity;q=0"):
        answer = world.server.ask(world.blob_path, {"Accept-Encoding": encoding})
        assert (answer["Content-Encoding"], answer.body) == (None, world.blob)


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/v2/{APP}/manifests/{NOWHERE}", 503, "UNAVAILABLE"),
        (f"/v2/{APP}/blobs/{NOWHERE}", 503, "UNAVAILABLE"),
        ("/v2/library/none/tags/list", 404, "NAME_UNKNOWN"),
        (f"/v2/library/none/referrers/{NOWHERE}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/library/app/manifests/1?ns=unlisted.example", 404, "NAME_UNKNOWN"),
        ("/unlisted.example/v2/library/app/manifests/1", 404, "NAME_UNKNOWN"),
        ("/v2/unlisted.example/library/app/manifests/1", 404, "NAME_UNKNOWN"),
        ("/v2/library/app/manifests/1?ns=docker.io&ns=quay.io", 400, "NAME_INVALID"),
        ("/quay.io/v2/library/app/manifests/1?ns=docker.io", 400, "NAME_INVALID"),
        ("/v2/library/APP/manifests/1", 400, "NAME_INVALID"),
        ("/v2/library/../app/manifests/1", 400, "NAME_INVALID"),
        ("/v2/library//app/manifests/1", 400, "NAME_INVALID"),
        ("/v2/./app/manifests/1", 404, "NAME_UNKNOWN"),
        ("/v2/" + "a/" * 128 + "b/manifests/1", 400, "NAME_INVALID"),
        ("/v2/library/app/manifests/.hidden", 400, "TAG_INVALID"),
        ("/v2/library/app/manifests/" + "t" * 129, 400, "TAG_INVALID"),
        ("/v2/library/app/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        ("/v2/library/app/manifests/sha256:" + "A" * 64, 400, "DIGEST_INVALID"),
        ("/v2/library/app/manifests/md5:" + "0" * 32, 400, "DIGEST_INVALID"),
        ("/v2/library/app/manifests/sha512:" + "0" * 64, 400, "DIGEST_INVALID"),
        ("/v2/library/app/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/library/app/blobs/sha256:" + "0" * 65, 400, "DIGEST_INVALID"),
        ("/v2/library/app/blobs/sha256:../../../etc/passwd", 404, "UNSUPPORTED"),
        ("/v2/library/app/blobs/sha256:..%2f..%2fetc%2fpasswd", 404, "UNSUPPORTED"),
        ("/v2/library/app/referrers/latest", 400, "DIGEST_INVALID"),
        ("/v2/library/app/tags/list?n=-1", 400, "UNSUPPORTED"),
        ("/v2/library/app/tags/list?n=many", 400, "UNSUPPORTED"),
        ("/v2/library/app/tags/list?n=", 400, "UNSUPPORTED"),
        ("/v2/library/app/tags/list?n=%D9%A3", 400, "UNSUPPORTED"),
        ("/v2/_catalog?n=1e3", 400, "UNSUPPORTED"),
        ("/v2/library/app/tags/list?" + "&".join(["a=b"] * 17), 400, "UNSUPPORTED"),
        ("/v2/library/app/blobs/uploads/", 404, "UNSUPPORTED"),
        ("/v2/library/app/nothing/1", 404, "UNSUPPORTED"),
        ("/", 404, "UNSUPPORTED"),
        ("/v1/", 404, "UNSUPPORTED"),
        ("/v3/library/app/manifests/1", 404, "UNSUPPORTED"),
        ("/favicon.ico", 404, "UNSUPPORTED"),
        ("/%00/v2/", 404, "NAME_UNKNOWN"),
    ],
)
def test_errors_have_their_codes(world: World, path: str, status: int, code: str) -> None:
    answer = world.server.ask(path)
    assert (answer.status, answer.code) == (status, code), answer
    assert answer["Docker-Distribution-API-Version"] == "registry/2.0"
    head = world.server.ask(path, method="HEAD")
    assert (head.status, head.body) == (status, b"")
    assert head["Content-Length"] == str(len(answer.body))
    assert (status == 503) == (answer["Retry-After"] is not None)
    assert str(world.server.port) not in answer.body.decode()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_writes_are_refused_by_what_they_are(world: World, method: str) -> None:
    paths = [f"/v2/{APP}/manifests/1", f"/v2/{APP}/blobs/uploads/", "/v2/", "/nothing", "/healthz"]
    for path in [*paths, f"/v2/{APP}/blobs/{NOWHERE}?ns=unlisted.example"]:
        answer = world.server.ask(path, method=method, body=b"{}")
        assert answer.status == 405, path
        assert answer["Allow"] == "GET, HEAD"
        assert answer.code == "UNSUPPORTED"
    for unknown in ("BREW", "get", "X" * 100):
        answer = world.server.ask("/v2/", method=unknown)
        assert (answer.status, answer.code) == (400, "UNSUPPORTED")

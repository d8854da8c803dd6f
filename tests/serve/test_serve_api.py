"""The distribution API, read side, as a client that reads the specification would test it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from api_serving import (
    PLATFORM,
    Answer,
    Server,
    UpstreamThread,
    command_line,
    configure,
    read_answer,
    request,
    running,
    shapes,
    sync,
)
from prefetch.demo.images import OCI_INDEX, OCI_MANIFEST, Image, document, image, referrer

APP, DEEP, TOOL = "library/app", "library/deep", "org/tool"
TAGS = ["1", "1.0", "Zebra", "alpha", "beta", "latest"]
SBOM, SIGNATURE, PLAIN = "application/x-sbom", "application/x-signature", "application/x-config"
NOWHERE = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class World:
    """A server over a warm cache whose upstreams are gone."""

    server: Server
    app: Image
    deep: Image
    tool: Image
    far: Image
    far_registry: str
    referrers: tuple[Image, ...]

    @property
    def child(self) -> Image:
        return self.app.child(PLATFORM)

    @property
    def blob(self) -> bytes:
        return max((blob.read() for blob in self.child.blobs), key=len)

    @property
    def blob_path(self) -> str:
        return f"/v2/{APP}/blobs/{digest_of(self.blob)}"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def plain_artifact(subject: Image) -> Image:
    """One that names no artifact type: its config's media type stands for it."""
    body = json.loads(referrer(subject, SBOM, b"plain").raw)
    del body["artifactType"]
    body["config"]["mediaType"] = PLAIN
    body["annotations"] = {"org.example.format": "plain"}
    made = referrer(subject, SBOM, b"plain")
    return document(body, OCI_MANIFEST, blobs=made.blobs)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    cli = command_line(tmp_path_factory.mktemp("api"))
    with UpstreamThread() as hub, UpstreamThread() as quay, UpstreamThread() as far:
        app, deep = image("app"), image("deep", algorithm="sha512")
        tool, other = image("tool"), image("other", layers=1)
        hub.content.put(APP, app, *TAGS)
        hub.content.put(DEEP, deep, "1")
        quay.content.put(TOOL, tool, "2")
        far.content.put("some/where", other, "3")
        child = app.child(PLATFORM)
        referrers = (
            referrer(child, SBOM, b"sbom"),
            referrer(child, SIGNATURE, b"signature"),
            plain_artifact(child),
        )
        names = [f"ref{number}" for number in range(len(referrers))]
        for name, each in zip(names, referrers, strict=True):
            hub.content.put(APP, each, name)
        registries = {"docker.io": {"endpoint": hub.url}, "quay.io": {"endpoint": quay.url}}
        config = configure(cli, registries, tag_ttl="1h")
        wanted = [f"docker.io/{APP}:{tag}" for tag in (*TAGS, *names)]
        wanted += [f"docker.io/{DEEP}:1", f"quay.io/{TOOL}:2", f"{far.address}/some/where:3"]
        sync(cli, config, *wanted)
        far_registry = far.address
    with running(cli, config) as server:
        yield World(server, app, deep, tool, other, far_registry, referrers)


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
        f"/v2/library%2Fapp/manifests/1",
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


# ── Range and conditions ─────────────────────────────────────────────────────────────────────────


def test_single_ranges(world: World) -> None:
    blob = world.blob
    size = len(blob)
    assert size > 1000
    for text, start, end in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-199", 100, 200),
        ("bytes=1-", 1, size),
        ("bytes=0-", 0, size),
        (f"bytes={size - 1}-", size - 1, size),
        (f"bytes={size - 1}-{size - 1}", size - 1, size),
        (f"bytes=5-{size + 1000}", 5, size),
        ("bytes=5-9999999999999999999", 5, size),
        ("bytes=-1", size - 1, size),
        ("bytes=-100", size - 100, size),
        (f"bytes=-{size}", 0, size),
        (f"bytes=-{size + 5}", 0, size),
        ("Bytes=0-9", 0, 10),
        ("bytes = 0 - 9", 0, 10),
    ]:
        for path in shapes("docker.io", APP, f"blobs/{digest_of(blob)}"):
            answer = world.server.ask(path, {"Range": text})
            assert (answer.status, answer.body) == (206, blob[start:end]), text
            assert answer["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
            assert answer["Content-Length"] == str(end - start)
            assert answer["Docker-Content-Digest"] == digest_of(blob)
            assert answer["ETag"] == f'"{digest_of(blob)}"'
            assert answer["Accept-Ranges"] == "bytes"


def test_ranges_beyond_the_end(world: World) -> None:
    size = len(world.blob)
    for text in (
        f"bytes={size}-",
        f"bytes={size}-{size + 9}",
        "bytes=9999999999999999999-",
        "bytes=-0",
    ):
        answer = world.server.ask(world.blob_path, {"Range": text})
        assert (answer.status, answer.code) == (416, "RANGE_INVALID"), text
        assert answer["Content-Range"] == f"bytes */{size}"
        assert answer["Docker-Distribution-API-Version"] == "registry/2.0"


def test_what_is_no_single_range_is_answered_by_the_whole(world: World) -> None:
    """RFC 9110, section 14.2: a Range that is malformed, or in a unit unknown, is ignored."""
    for text in (
        *("bytes=0-9,20-29", "bytes=0-0,-1", "bytes=9-0", "bytes=-", "bytes=", "bytes", ""),
        *("bytes=a-b", "items=0-9", "bytes=0-9;x", "bytes=0x0-9", "bytes=--9", "bytes=1.5-2"),
        *("bytes=0-" + "9" * 40, "bytes=" + "0-1," * 1000, "bytes=\u0663-9", "bytes=0-9-19"),
    ):
        answer = world.server.ask(world.blob_path, {"Range": text})
        assert (answer.status, answer.body) == (200, world.blob), text
        assert answer["Content-Range"] is None


def test_ranges_are_for_get_alone(world: World) -> None:
    answer = world.server.ask(world.blob_path, {"Range": "bytes=0-9"}, method="HEAD")
    assert (answer.status, answer["Content-Length"]) == (200, str(len(world.blob)))
    for path in ("/v2/", f"/v2/{APP}/manifests/1", f"/v2/{APP}/tags/list"):
        answer = world.server.ask(path, {"Range": "bytes=0-0"})
        assert answer.status == 200
        assert len(answer.body) > 1


def test_if_range(world: World) -> None:
    """RFC 9110, section 13.1.5: the part for whoever has the same, else the whole."""
    tag = f'"{digest_of(world.blob)}"'
    asked = {"Range": "bytes=0-9"}
    answer = world.server.ask(world.blob_path, {**asked, "If-Range": tag})
    assert (answer.status, answer.body) == (206, world.blob[:10])
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    for other in (f'"{NOWHERE}"', f"W/{tag}", date, "*", "nonsense", ""):
        answer = world.server.ask(world.blob_path, {**asked, "If-Range": other})
        assert (answer.status, answer.body) == (200, world.blob), other
    beyond = {"Range": "bytes=99999999-", "If-Range": f'"{NOWHERE}"'}
    assert world.server.ask(world.blob_path, beyond).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match(world: World, method: str) -> None:
    places = [
        (f"/v2/{APP}/manifests/latest", world.app.digest),
        (f"/v2/{APP}/manifests/{world.app.digest}", world.app.digest),
        (world.blob_path, digest_of(world.blob)),
    ]
    for path, digest in places:
        for condition in (f'"{digest}"', f'W/"{digest}"', f'"x", "{digest}"', "*", digest):
            answer = world.server.ask(path, {"If-None-Match": condition}, method=method)
            assert (answer.status, answer.body) == (304, b""), (path, condition)
            assert answer["ETag"] == f'"{digest}"'
            assert answer["Docker-Content-Digest"] == digest
        for condition in (f'"{NOWHERE}"', '""', "nonsense", ","):
            answer = world.server.ask(path, {"If-None-Match": condition}, method=method)
            assert answer.status == 200, (path, condition)
    both = {"If-None-Match": f'"{digest_of(world.blob)}"', "Range": "bytes=0-9"}
    assert world.server.ask(world.blob_path, both).status == 304


def test_conditions_do_not_show_what_does_not_exist(world: World) -> None:
    for path in (f"/v2/{APP}/blobs/{NOWHERE}", f"/v2/{APP}/manifests/{NOWHERE}"):
        answer = world.server.ask(path, {"If-None-Match": f'"{NOWHERE}", *'})
        assert answer.status == 503


# ── Lists ────────────────────────────────────────────────────────────────────────────────────────


def next_of(answer: Answer) -> str | None:
    link = answer["Link"]
    if link is None:
        return None
    found = re.fullmatch(r'<(/[^<>]*)>; rel="next"', link)
    assert found, link
    return found[1]


def all_pages(server: Server, path: str, key: str) -> tuple[list[str], int]:
    """Everything that the pages list, following the links; and how many pages there were."""
    names: list[str] = []
    pages = 0
    target: str | None = path
    while target is not None:
        answer = server.ask(target)
        assert answer.status == 200, (target, answer)
        assert answer["Content-Type"] == "application/json"
        names += answer.json[key]
        target = next_of(answer)
        pages += 1
        assert pages < 50
    return names, pages


def test_tags(world: World) -> None:
    tags = sorted([*TAGS, "ref0", "ref1", "ref2"])
    for path in shapes("docker.io", APP, "tags/list"):
        answer = world.server.ask(path)
        assert answer.json["tags"] == tags
        assert answer.json["name"] == re.split(r"/tags/|/?v2/", path.partition("?")[0])[1]
        head = world.server.ask(path, method="HEAD")
        assert head["Content-Length"] == str(len(answer.body))
    for n in (1, 2, 3, 4, 9, 10, 1000):
        for path in shapes("docker.io", APP, "tags/list", f"n={n}"):
            names, pages = all_pages(world.server, path, "tags")
            assert (names, pages) == (tags, -(-len(tags) // n)), path


def test_pages_of_tags_begin_where_they_are_told(world: World) -> None:
    tags = sorted([*TAGS, "ref0", "ref1", "ref2"])
    for last in ("", "1", "1.0", "a", "alpha", "zzz", "%00", "%F0%9F%98%80", "a%26n%3D1"):
        answer = world.server.ask(f"/v2/{APP}/tags/list?last={last}")
        expected = [tag for tag in tags if tag > ("a&n=1" if "%26" in last else last)]
        if last.isalnum() or last in ("", "1.0"):
            assert answer.json["tags"] == expected, last
        assert answer["Link"] is None
    assert world.server.ask(f"/v2/{APP}/tags/list?n=0").json["tags"] == []
    assert world.server.ask(f"/v2/{APP}/tags/list?n=0")["Link"] is None
    answer = world.server.ask(f"/v2/{APP}/tags/list?n=1&last=1&n=5&last=beta")
    assert answer.json["tags"] == ["1.0"]


def test_the_catalog(world: World) -> None:
    everything = [f"docker.io/{APP}", f"docker.io/{DEEP}", f"quay.io/{TOOL}"]
    everything = sorted([*everything, f"{world.far_registry}/some/where"])
    assert world.server.ask("/v2/_catalog").json == {"repositories": everything}
    for n in (1, 2, 3, 4, 100):
        names, pages = all_pages(world.server, f"/v2/_catalog?n={n}", "repositories")
        assert (names, pages) == (everything, -(-len(everything) // n))
    for path in ("/v2/_catalog?ns=docker.io", "/docker.io/v2/_catalog"):
        assert world.server.ask(path).json == {"repositories": [APP, DEEP]}
        more = "&" if "?" in path else "?"
        assert all_pages(world.server, f"{path}{more}n=1", "repositories") == ([APP, DEEP], 2)
    assert world.server.ask("/v2/_catalog?ns=gcr.io").json == {"repositories": []}


def test_what_the_catalog_lists_can_be_asked_for(world: World) -> None:
    for name in world.server.ask("/v2/_catalog").json["repositories"]:
        for tag in world.server.ask(f"/v2/{name}/tags/list").json["tags"]:
            assert world.server.ask(f"/v2/{name}/manifests/{tag}").status == 200


def descriptors(answer: Answer) -> dict[str, dict[str, object]]:
    assert answer.status == 200, answer
    assert answer["Content-Type"] == OCI_INDEX
    body = answer.json
    assert (body["schemaVersion"], body["mediaType"]) == (2, OCI_INDEX)
    return {each["digest"]: each for each in body["manifests"]}


def test_referrers(world: World) -> None:
    """distribution-spec, "Listing Referrers"."""
    sbom, signature, plain = world.referrers
    for path in shapes("docker.io", APP, f"referrers/{world.child.digest}"):
        answer = world.server.ask(path)
        found = descriptors(answer)
        assert set(found) == {each.digest for each in world.referrers}
        assert answer["OCI-Filters-Applied"] is None
        assert found[sbom.digest] == {
            "mediaType": OCI_MANIFEST,
            "digest": sbom.digest,
            "size": len(sbom.raw),
            "artifactType": SBOM,
        }
        assert found[signature.digest]["artifactType"] == SIGNATURE
        assert found[plain.digest]["artifactType"] == PLAIN
        assert found[plain.digest]["annotations"] == {"org.example.format": "plain"}
        head = world.server.ask(path, method="HEAD")
        assert (head.status, head["Content-Length"]) == (200, str(len(answer.body)))


def test_referrers_by_type(world: World) -> None:
    sbom, signature, plain = world.referrers
    for kind, expected in [
        (SBOM, [sbom]),
        (SIGNATURE, [signature]),
        (PLAIN, [plain]),
        ("application/x-none", []),
    ]:
        quoted = kind.replace("/", "%2F")
        rest = f"referrers/{world.child.digest}"
        for path in shapes("docker.io", APP, rest, f"artifactType={quoted}"):
            answer = world.server.ask(path)
            assert list(descriptors(answer)) == [each.digest for each in expected]
            assert answer["OCI-Filters-Applied"] == "artifactType"


def test_no_referrers_are_an_empty_list(world: World) -> None:
    for digest in (NOWHERE, world.app.digest, digest_of(world.blob), "sha512:" + "0" * 128):
        for path in shapes("docker.io", APP, f"referrers/{digest}"):
            assert descriptors(world.server.ask(path)) == {}
    elsewhere = world.server.ask(f"/v2/{DEEP}/referrers/{world.child.digest}")
    assert descriptors(elsewhere) == {}


# ── HTTP itself ──────────────────────────────────────────────────────────────────────────────────


def test_http_1_0(world: World) -> None:
    for path, body in [(f"/v2/{APP}/manifests/1", world.app.raw), (world.blob_path, world.blob)]:
        with world.server.connect() as line:
            line.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = read_answer(line)
            assert (answer.status, answer.body) == (200, body)
            assert answer["Content-Length"] == str(len(body))
            assert answer["Transfer-Encoding"] is None
            assert line.recv(1) == b""
        with world.server.connect() as line:
            for _ in range(2):
                line.sendall(f"GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
                assert read_answer(line).body == body


def test_a_connection_is_kept(world: World) -> None:
    paths = [f"/v2/{APP}/manifests/1", world.blob_path, "/v2/none/tags/list", "/healthz"]
    paths += [f"/v2/{APP}/manifests/{NOWHERE}", "/v2/app/manifests/.x", "/v2/_catalog"]
    with world.server.connect() as line:
        for path in paths * 3:
            for method in ("GET", "HEAD", "DELETE"):
                line.sendall(request(path, method=method))
                answer = read_answer(line, method)
                assert answer["Connection"] in (None, "keep-alive"), path
                assert (answer.status == 405) == (method == "DELETE")


def test_requests_may_be_sent_ahead(world: World) -> None:
    paths = [f"/v2/{APP}/manifests/1", world.blob_path, "/v2/", f"/v2/{DEEP}/manifests/1"]
    bodies = [world.app.raw, world.blob, b"{}", world.deep.raw]
    with world.server.connect() as line:
        line.sendall(b"".join(request(path) for path in paths * 20))
        for _ in range(20):
            assert [read_answer(line).body for _ in paths] == bodies


def test_ranges_over_one_connection(world: World) -> None:
    size = len(world.blob)
    with world.server.connect() as line:
        found = b""
        while len(found) < size:
            line.sendall(
                request(world.blob_path, {"Range": f"bytes={len(found)}-{len(found) + 499}"})
            )
            found += read_answer(line).body
    assert found == world.blob


def test_whoever_expects_to_be_let_in_is_answered_at_once(world: World) -> None:
    """RFC 9110, section 10.1.1: the final answer may take the place of 100 (Continue)."""
    for method, status in (("GET", 200), ("PUT", 405)):
        with world.server.connect(5) as line:
            headers = {"Expect": "100-continue", "Content-Length": "1000000"}
            line.sendall(request(f"/v2/{APP}/manifests/1", headers, method=method))
            assert read_answer(line).status in (status, 417)


def test_bodies_of_requests_are_ignored(world: World) -> None:
    with world.server.connect() as line:
        for body in (b"x", b"x" * 100_000, b"GET /v2/ HTTP/1.1\r\n\r\n"):
            line.sendall(request(f"/v2/{APP}/manifests/1", body=body))
            assert read_answer(line).body == world.app.raw
        headers = {"Transfer-Encoding": "chunked"}
        line.sendall(request("/v2/", headers, body=b"5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"))
        assert read_answer(line).body == b"{}"
        line.sendall(request(world.blob_path))
        assert read_answer(line).body == world.blob


def test_targets_in_absolute_form(world: World) -> None:
    """RFC 9112, section 3.2.2: a server must accept it; no request is sent on."""
    for authority in ("cache.test", "169.254.169.254", "user:secret@127.0.0.1:1", "[::1]:80"):
        for scheme in ("http", "https"):
            answer = world.server.ask(f"{scheme}://{authority}/v2/{APP}/manifests/1")
            assert (answer.status, answer.body) == (200, world.app.raw)
            answer = world.server.ask(f"{scheme}://{authority}/v2/{APP}/tags/list?n=1")
            assert next_of(answer) == f"/v2/{APP}/tags/list?n=1&last=1"
    assert "secret" not in world.server.log
    assert world.server.ask("http://cache.test/healthz").status == 200
    assert world.server.ask("http://cache.test").status == 404


def test_no_tunnels(world: World) -> None:
    for target in ("127.0.0.1:22", "169.254.169.254:80", "registry-1.docker.io:443", "/v2/"):
        with world.server.connect() as line:
            line.sendall(request(target, method="CONNECT"))
            assert read_answer(line).status in (400, 405)


def test_no_upgrades(world: World) -> None:
    """What follows on the connection is answered, or it is closed; it does not hang."""
    for protocol in ("websocket", "h2c", "TLS/1.0"):
        with world.server.connect(5) as line:
            headers = {"Connection": "Upgrade", "Upgrade": protocol, "HTTP2-Settings": "AAMAAABk"}
            line.sendall(request(f"/v2/{APP}/manifests/1", headers) + request("/v2/"))
            assert read_answer(line).body == world.app.raw
            rest = line.recv(1 << 16)
            assert rest == b"" or rest.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked, identity\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\x00: y\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + b"X" * 9000 + b": y\r\n\r\n",
        b"GET /v2/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n",
        b"GET /v2/ HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /v2/ HTTX/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/\r\n\r\n",
        b"GET  /v2/  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/ \xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\x00T /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a:99999999/v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
        b"\r\n" * 100,
        b"\x00" * 100,
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
def test_what_is_no_http_is_answered_400_or_closed(world: World, data: bytes) -> None:
    with world.server.connect(5) as line:
        line.sendall(data)
        line.shutdown(1)
        found = b""
        while piece := line.recv(1 << 16):
            found += piece
    assert found == b"" or found.split(b"\r\n")[0].split()[1] in (b"400", b"200"), found
    assert b"Traceback" not in found
    assert world.server.ask("/v2/").status == 200


def test_refused_requests_answer_with_an_error_of_the_api(world: World) -> None:
    """Headers that are too long are no reason to leave the format of errors."""
    answer = world.server.ask("/v2/", {"X": "y" * 9000})
    assert (answer.status, answer.code) == (400, "UNSUPPORTED")
    assert "yyy" not in answer.body.decode()


def test_odd_targets(world: World) -> None:
    for target in (
        "*",
        "v2/",
        "?",
        "//",
        "///v2/",
        "/v2//",
        "/v2/?",
        "/v2/#x",
        "/v2/;x",
        "/.",
        "/..",
    ):
        answer = world.server.ask(target)
        assert answer.status in (200, 400, 404), target
        if answer.status != 200:
            assert answer.code in ("UNSUPPORTED", "NAME_INVALID", "NAME_UNKNOWN"), target


def test_nothing_of_the_host_is_told(world: World) -> None:
    for path in ("/v2/", "/nothing", f"/v2/{APP}/manifests/1"):
        answer = world.server.ask(path)
        assert "python" not in (answer["Server"] or "").lower()

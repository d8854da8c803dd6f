"""Parts of blobs, and conditions (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_serving import shapes
from api_world import APP, NOWHERE, World, digest_of, open_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("api")) as opened:
        yield opened


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

"""The distribution API's grammar."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.oci.distribution import (
    ContentRange,
    ErrorCode,
    WireError,
    blob_path,
    format_errors,
    manifest_path,
    next_link,
    parse_content_range,
    parse_errors,
    range_from,
    referrers_path,
    referrers_tag,
    tags_path,
)
from prefetch.oci.reference import Digest

DIGEST = Digest.of(b"content")


def test_paths() -> None:
    assert manifest_path("library/nginx", "1.27") == "/v2/library/nginx/manifests/1.27"
    assert manifest_path("library/nginx", DIGEST) == f"/v2/library/nginx/manifests/{DIGEST}"
    assert blob_path("a/b/c", DIGEST) == f"/v2/a/b/c/blobs/{DIGEST}"
    assert referrers_path("a", DIGEST) == f"/v2/a/referrers/{DIGEST}"
    assert referrers_tag(DIGEST) == f"sha256-{DIGEST.hex}"
    assert tags_path("a/b") == "/v2/a/b/tags/list"
    assert tags_path("a", page_size=100) == "/v2/a/tags/list?n=100"
    assert tags_path("a", page_size=2, last="x&n=9") == "/v2/a/tags/list?n=2&last=x%26n%3D9"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 10-99/100", ContentRange(10, 100, 100)),
        ("Bytes 0-0/1", ContentRange(0, 1, 1)),
        (" bytes 5-9/* ", ContentRange(5, 10, None)),
        (None, None),
        ("", None),
        ("bytes */100", None),
        ("bytes 10-9/100", None),
        ("bytes 10-100/100", None),
        ("bytes -1-9/100", None),
        ("bytes 0-9", None),
        ("10-99/100", None),
        ("items 0-9/10", None),
        ("bytes 0-9/10, bytes 10-19/20", None),
        ("bytes \u0660-9/10", None),
        ("bytes 0-" + "9" * 5000 + "/*", None),
    ],
)
def test_content_range(value: str | None, expected: ContentRange | None) -> None:
    assert parse_content_range(value) == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**62), st.integers(1, 2**40), st.none() | st.integers(0, 2**40))
def test_content_range_round_trips(start: int, length: int, more: int | None) -> None:
    end = start + length
    content_range = ContentRange(start, end, None if more is None else end + more)
    assert parse_content_range(str(content_range)) == content_range


def test_range_header() -> None:
    assert range_from(1048576) == "bytes=1048576-"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('</v2/a/tags/list?n=2&last=b>; rel="next"', "/v2/a/tags/list?n=2&last=b"),
        ("<https://r.example/v2/a/tags/list?last=b>;rel=next", "https://r.example/v2/a/tags/list?last=b"),
        ('<a>; rel=prev, <b>; title="x, <c>; rel=next"; rel="foo NEXT"', "b"),
        ("<x;y,z>; rel=next", "x;y,z"),
        ("<a>; foo; rel=next", "a"),
        ('<>; rel="next"', ""),
        ('<a>; rel="nextish"', None),
        ("<a>; title=next", None),
        ("<a>", None),
        ("a; rel=next", None),
        ('<a>; rel="next', None),
        ("", None),
        (None, None),
        ("," * 100_000, None),
        ("<a>;" + " " * 100_000 + "rel=next", None),
    ],
)  # fmt: skip
def test_next_link(value: str | None, expected: str | None) -> None:
    assert next_link(value) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='<>;,="rel nxt/?*', max_size=60))
def test_next_link_takes_anything(value: str) -> None:
    target = next_link(value)
    assert target is None or f"<{target}>" in value


def test_errors_round_trip() -> None:
    errors = [WireError(ErrorCode.MANIFEST_UNKNOWN, "unknown", {"tag": "x"}), WireError("A", "b")]
    assert parse_errors(format_errors(*errors)) == errors
    assert json.loads(format_errors(WireError(ErrorCode.DENIED, "no"))) == {
        "errors": [{"code": "DENIED", "message": "no"}]
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}',
            [WireError("TOOMANYREQUESTS", "You have reached your limit")],
        ),
        (b'{"code":"X","message":"y"}', [WireError("X", "y")]),
        (b'{"details":"incorrect password"}', [WireError("", "incorrect password")]),
        (b'{"error":"invalid_grant"}', [WireError("", "invalid_grant")]),
        (b'{"errors":["plain words"]}', [WireError("", "plain words")]),
        (b'{"errors":[{"code":7,"message":["x"]}]}', []),
        (b'{"errors":[]}', []),
        (b'{"errors":null}', []),
        (b'{"errors":[null,1,[]]}', []),
        (b'{"token":"x"}', []),
        (b"[]", []),
        (b"", []),
        (b"toomanyrequests: retry-after: 1s", []),
        (b"<html></html>", []),
        (b"\xff\xfe\x00", []),
        (b"[" * 100_000, []),
        (b'{"errors":' + b"9" * 10_000 + b"}", []),
    ],
    ids=range(17),
)  # fmt: skip
def test_error_bodies(body: bytes, expected: list[WireError]) -> None:
    assert parse_errors(body) == expected


def test_a_flood_of_errors_is_cut() -> None:
    assert len(parse_errors(b'{"errors":[' + b",".join([b'{"code":"X"}'] * 10_000) + b"]}")) == 16

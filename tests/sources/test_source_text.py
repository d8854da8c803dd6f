"""Text lists, as people write them and as k3s, RKE2 and Rancher publish them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.errors import SourceError
from prefetch.oci.platform import ALL, Platform
from prefetch.sources import text
from prefetch.sources.selector import Parsed


def references(parsed: Parsed) -> list[str]:
    return [str(selector.reference) for selector in parsed.selectors]


def parse_one(line: str) -> Parsed:
    return text.parse(line.encode(), "images.txt")


def test_comments_blank_lines_crlf_and_bom() -> None:
    data = (
        b"\xef\xbb\xbfnginx:1.27\r\n"
        b"# a comment\r\n"
        b"\r\n"
        b"   \t\r\n"
        b"  quay.io/corp/app:2\t# with a reason\r\n"
        b"\t# indented\n"
        b"ghcr.io/a/b"
    )
    parsed = text.parse(data, "images.txt")
    assert references(parsed) == [
        "docker.io/library/nginx:1.27",
        "quay.io/corp/app:2",
        "ghcr.io/a/b:latest",
    ]
    assert [selector.origin.line for selector in parsed.selectors] == [1, 5, 7]
    assert parsed.errors == []


def test_platforms_and_priority_follow_the_reference() -> None:
    (selector,) = parse_one(
        "nginx platform=linux/amd64,linux/arm64 priority=10 platform=linux/arm/v7 # why"
    ).selectors
    assert selector.platforms == (
        Platform("linux", "amd64"),
        Platform("linux", "arm64"),
        Platform("linux", "arm", "v7"),
    )
    assert selector.priority == 10
    assert parse_one("nginx priority=-3").selectors[0].priority == -3
    assert parse_one("nginx platform=linux/amd64,all").selectors[0].platforms is ALL
    assert parse_one("nginx").selectors[0].platforms is None


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nginx linux/arm64", "unexpected 'linux/arm64'"),
        ("nginx priority=high", "unexpected 'priority=high'"),
        ("nginx platform=", "platform"),
        ("nginx platform=linux/amd64,,all,", None),
        ("nginx platform=one/two/three/four", "'one/two/three/four'"),
        ("NGINX", "NGINX"),
        ("nginx:1:2", "nginx:1:2"),
        ("nginx\x1b[31m", "control characters"),
        ("nginx\u2028redis", "control characters"),
        ("a" * 5000, "longer than 4096 bytes"),
    ],
)
def test_a_bad_line_is_told_and_the_rest_goes_on(line: str, what: str | None) -> None:
    parsed = text.parse(f"redis:7\n{line}\nbusybox\n".encode(), "images.txt")
    if what is None:
        assert parsed.errors == []
        return
    assert references(parsed) == ["docker.io/library/redis:7", "docker.io/library/busybox:latest"]
    (error,) = parsed.errors
    assert (error.source, error.line) == ("images.txt", 2)
    assert str(error).startswith("images.txt:2: ")
    assert what in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 400


def test_a_line_that_is_not_utf8_does_not_spoil_the_others() -> None:
    parsed = text.parse(b"nginx\nb\xfcsybox\nredis\n", "l")
    assert references(parsed) == [
        "docker.io/library/nginx:latest",
        "docker.io/library/redis:latest",
    ]
    assert [str(error) for error in parsed.errors] == ["l:2: the line is not UTF-8"]


def test_the_published_lists() -> None:
    k3s = b"docker.io/rancher/klipper-helm:v0.9.3-build20241008\ndocker.io/rancher/pause:3.6\n"
    assert references(text.parse(k3s, "k3s-images.txt")) == [
        "docker.io/rancher/klipper-helm:v0.9.3-build20241008",
        "docker.io/rancher/pause:3.6",
    ]
    rancher = b"rancher/aks-operator:v1.9.0\nrancher/charts/rancher-monitoring:104.1.0\n"
    parsed = text.parse(rancher, "rancher-images.txt")
    assert references(parsed) == ["docker.io/rancher/aks-operator:v1.9.0"]
    assert parsed.errors == []
    assert [str(note) for note in parsed.notes] == [
        "rancher-images.txt:2: docker.io/rancher/charts/rancher-monitoring:104.1.0"
        " is a Helm chart, skipped"
    ]


def test_the_second_column_of_a_sources_list_is_not_ours() -> None:
    line = b"rancher/aks-operator:v1.9.0 aks-operator,system-charts\n"
    parsed = text.parse(line, "rancher-images-sources.txt")
    assert references(parsed) == ["docker.io/rancher/aks-operator:v1.9.0"]
    assert text.parse(line, "rancher-images.txt").errors


def test_a_hundred_thousand_lines() -> None:
    data = "".join(f"quay.io/org/app-{n % 2000}:{n}\n" for n in range(100_000)).encode()
    parsed = text.parse(data, "long.txt")
    assert len(parsed.selectors) == 100_000
    assert str(parsed.selectors[-1].reference) == "quay.io/org/app-1999:99999"
    assert parsed.selectors[-1].origin.line == 100_000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8", "replace")))
def test_nothing_but_source_errors_comes_of_any_bytes(data: bytes) -> None:
    parsed = text.parse(data, "any")
    lines = data.splitlines()
    assert len(parsed.selectors) + len(parsed.errors) + len(parsed.notes) <= len(lines)
    for error in parsed.errors:
        assert isinstance(error, SourceError)
        assert str(error).isprintable()


def test_a_line_that_says_the_same_again_is_read_once() -> None:
    parsed = text.parse(b"nginx:1\n  # x\nnginx:1\nnginx:1 # again\n?\n?\n" * 2, "list")
    assert [each.origin.line for each in parsed.selectors] == [1, 4]
    assert [error.line for error in parsed.errors] == [5, 6, 11, 12]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_are_counted_over_blocks(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_BLOCK", 7)
    parsed = text.parse(b"".join(b"app:%d" % n + end * 2 for n in range(50)), "list")
    assert [each.origin.line for each in parsed.selectors] == list(range(1, 101, 2))


def test_a_comment_may_be_in_any_encoding() -> None:
    parsed = text.parse(b"nginx\n# f\xfcr alle\n" + b"#" * 9000, "list")
    assert (len(parsed.selectors), parsed.errors) == (1, [])

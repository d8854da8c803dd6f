"""Platforms: specifiers, normalisation and matching, with the tables of containerd's own tests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.errors import InvalidReference
from prefetch.oci.platform import Platform, select


def platforms(*texts: str) -> list[Platform | None]:
    return [Platform.parse(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("Linux/AMD64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/i386", "linux/386"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.1", "linux/arm64/v8.1"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("macos/arm64", "darwin/arm64"),
        ("arm64", "linux/arm64"),
        ("x86_64", "linux/amd64"),
        ("wasi/wasm", "wasi/wasm"),
        ("unknown/unknown", "unknown/unknown"),
        ("windows(10.0.17763.1)/amd64", "windows(10.0.17763.1)/amd64"),
        ("windows(10.0.17763+win32k+b)/amd64", "windows(10.0.17763+b+win32k)/amd64"),
        ("linux(+a%2Bb)/amd64", "linux(+a%2Bb)/amd64"),
    ],
)
def test_parses_and_normalises(text: str, canonical: str) -> None:
    platform = Platform.parse(text)
    assert str(platform) == canonical
    assert Platform.parse(canonical) == platform


@pytest.mark.parametrize(
    "text",
    ["", "/", "foo", "linux/", "/amd64", "linux/amd64/", "linux/a/b/c", "linux/amd64\n", "*",
     "linux/*", "linux amd64", "linux(x/amd64", "linux/\u00e4", "li nux/amd64", "x" * 100_000],
)  # fmt: skip
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Platform.parse(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_the_host_is_linux_on_its_own_architecture() -> None:
    host = Platform.host()
    assert host.os == "linux"
    assert Platform.parse("linux") == host
    assert Platform.parse(str(host)) == host


ARM = ["linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]

ORDERED = {
    "linux/amd64": ["linux/amd64", "linux/386"],
    "linux/amd64/v2": ["linux/amd64/v2", "linux/amd64", "linux/386"],
    "linux/amd64/v4": ["linux/amd64/v4", "linux/amd64/v3", "linux/amd64/v2", "linux/amd64"],
    "linux/386": ["linux/386"],
    "windows/amd64": ["windows/amd64", "windows/386"],
    "linux/arm/v8": ARM,
    "linux/arm/v7": ARM[1:],
    "linux/arm": ARM[1:],
    "linux/arm/v6": ARM[2:],
    "linux/arm/v5": ["linux/arm/v5"],
    "linux/arm/v4": ["linux/arm/v4"],
    "linux/arm64": ["linux/arm64", *ARM],
    "linux/arm64/v8.1": ["linux/arm64/v8.1", "linux/arm64", *ARM],
    "linux/arm64/v9": ["linux/arm64/v9", "linux/arm64/v8.5", "linux/arm64/v8.1", "linux/arm64"],
    "linux/arm64/v9.1": ["linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.6", *ARM],
    "linux/s390x": ["linux/s390x"],
}


@pytest.mark.parametrize(("wanted", "best_first"), ORDERED.items())
def test_prefers_as_containerd_does(wanted: str, best_first: list[str]) -> None:
    platform = Platform.parse(wanted)
    while best_first:
        worst_first = platforms(*reversed(best_first))
        assert select([platform], worst_first) == {platform: len(best_first) - 1}
        best_first = best_first[1:]


@pytest.mark.parametrize(
    ("wanted", "have"),
    [
        ("linux/amd64", ["linux/amd64/v2", "linux/arm/v7", "linux/arm64", "windows/amd64"]),
        ("linux/amd64/v2", ["linux/amd64/v3", "linux/amd64/v4", "linux/arm64"]),
        ("linux/386", ["linux/amd64", "linux/arm/v7"]),
        ("linux/arm/v8", ["linux/arm/v4", "linux/arm64", "windows/arm"]),
        ("linux/arm/v6", ["linux/arm", "linux/arm/v7", "linux/arm/v8"]),
        ("linux/arm/v4", ["linux/arm/v5", "linux/arm"]),
        ("linux/arm64/v9", ["linux/arm64/v8.6", "linux/arm/v4", "linux/arm64/v9.1"]),
        ("linux/arm64/v8.1", ["linux/arm64/v9", "linux/arm64/v8.2"]),
        ("linux/arm64", ["linux/arm64/v9", "linux/arm64/v8.1", "linux/arm/v4", "linux/amd64"]),
        ("linux/amd64", ["unknown/unknown"]),
    ],
)
def test_matches_nothing_else(wanted: str, have: list[str]) -> None:
    assert select([Platform.parse(wanted)], platforms(*have)) == {}


def test_the_first_of_equals_wins_and_missing_platforms_have_no_key() -> None:
    wanted = [Platform.parse("linux/amd64"), Platform.parse("linux/s390x")]
    assert select(wanted, platforms("linux/arm64", "linux/amd64", "linux/amd64")) == {wanted[0]: 1}


def test_several_wanted_may_share_an_entry() -> None:
    v6, v7 = Platform.parse("linux/arm/v6"), Platform.parse("linux/arm/v7")
    assert select([v6, v7], platforms("linux/arm/v6")) == {v6: 0, v7: 0}


def test_an_entry_without_platform_serves_only_when_it_is_alone() -> None:
    amd64 = Platform.parse("linux/amd64")
    assert select([amd64], [None]) == {amd64: 0}
    assert select([amd64], [None, None]) == {}
    assert select([amd64], [None, amd64]) == {amd64: 1}
    assert select([amd64], []) == {}


def test_os_version_counts_when_wanted() -> None:
    have = platforms("windows(10.0.20348.1)/amd64", "windows(10.0.17763.2114)/amd64")
    wanted = Platform.parse("windows/amd64")
    assert select([wanted], have) == {wanted: 0}
    wanted = Platform.parse("windows(10.0.17763.1)/amd64")
    assert select([wanted], have) == {wanted: 1}
    wanted = Platform.parse("windows(10.0.14393)/amd64")
    assert select([wanted], have) == {}


def test_os_features_must_all_be_wanted() -> None:
    have = platforms("linux(+gpu)/amd64")
    plain, gpu = Platform.parse("linux/amd64"), Platform.parse("linux(+gpu+more)/amd64")
    assert select([plain, gpu], have) == {gpu: 0}


WORDS = st.text(alphabet="abcxv0123456789_.-AB", min_size=1, max_size=8)
OPTIONS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS, st.none() | WORDS, st.none() | OPTIONS, st.lists(OPTIONS, max_size=2))
def test_every_platform_round_trips(
    system: str, architecture: str, variant: str | None, version: str | None, features: list[str]
) -> None:
    platform = Platform(system, architecture, variant, version, tuple(features))
    assert Platform.parse(str(platform)) == platform
    assert select([platform], [platform, platform]) == {platform: 0}

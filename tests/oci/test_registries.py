"""The table of known registries."""

from __future__ import annotations

import pytest

from prefetch.errors import InvalidReference
from prefetch.oci.registries import (
    DEFAULT_REGISTRIES,
    credential_keys,
    endpoint_for,
    is_loopback,
    known_registry,
)


def test_docker_hub_has_an_endpoint_a_key_and_a_probe_of_its_own() -> None:
    hub = known_registry("docker.io")
    assert hub.endpoint == "https://registry-1.docker.io"
    assert hub.credential_keys[0] == "https://index.docker.io/v1/"
    assert (hub.probe_repository, hub.probe_tag) == ("ratelimitpreview/test", "latest")


def test_others_are_where_their_name_says() -> None:
    for name in (*DEFAULT_REGISTRIES[1:], "registry.example:5000", "[fd00::1]:5000"):
        assert endpoint_for(name) == f"https://{name}"
        assert credential_keys(name) == (name,)
        assert known_registry(name).probe_repository is None


@pytest.mark.parametrize(
    "name",
    ["localhost", "localhost:5000", "LOCALHOST:1", "127.0.0.1", "127.8.9.10:65535", "[::1]",
     "[::1]:5000", "[0:0:0:0:0:0:0:1]:1"],
)  # fmt: skip
def test_loopback_names_are_plain_http(name: str) -> None:
    assert is_loopback(name)
    assert endpoint_for(name) == f"http://{name}"


@pytest.mark.parametrize(
    "name", ["localhost.example", "128.0.0.1", "10.0.0.1:5000", "[fd00::1]", "127.example", "127.1"]
)
def test_other_names_are_not(name: str) -> None:
    assert not is_loopback(name)


@pytest.mark.parametrize(
    "name",
    ["", ":5000", "a:0", "a:65536", "a:99999", "a:", "a:b", "[::::]", "[1.2.3.4]", "[]", "::1",
     "a..b", "x" * 64 + ".example", "a." * 127 + "example", "a/b", "a b", "user@a", "\u00e4.de"],
)  # fmt: skip
def test_names_that_no_host_can_have(name: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        endpoint_for(name)
    assert str(caught.value).isprintable()

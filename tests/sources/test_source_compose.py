"""Images of compose files."""

from __future__ import annotations

import pytest

from prefetch.oci.platform import Platform
from prefetch.sources.detect import parse
from prefetch.sources.selector import Parsed

COMPOSE = b"""\
name: shop
x-common: &common {image: "registry.example/base:1"}
services:
  web:
    image: nginx:1.27
    platform: linux/arm64
  worker: *common
  built:
    build: .
volumes: {data: {}}
"""


def references(parsed: Parsed) -> list[str]:
    return [str(selector.reference) for selector in parsed.selectors]


def test_services_with_images() -> None:
    parsed = parse(COMPOSE, "compose.yaml")
    assert parsed.errors == []
    assert references(parsed) == ["docker.io/library/nginx:1.27", "registry.example/base:1"]
    assert parsed.selectors[0].platforms == (Platform.parse("linux/arm64"),)
    assert parsed.selectors[1].platforms is None
    assert parsed.selectors[0].demand.askers == ("service web",)
    assert [str(note) for note in parsed.notes] == ["compose.yaml:8: service built names no image"]


@pytest.mark.parametrize("services", ["", " {}", " null"])
def test_no_services(services: str) -> None:
    parsed = parse(f"services:{services}\n".encode(), "compose.yaml")
    assert (parsed.selectors, parsed.errors) == ([], [])


@pytest.mark.parametrize(
    ("service", "complaint"),
    [
        ("{image: 'app:${TAG}'}", "service web: 'app:${TAG}' has variables (docker compose config"),
        ("{image: $IMAGE}", "has variables"),
        ("{image: $$$IMAGE}", "has variables"),
        ("{image: 'app:${TAG:-1}'}", "has variables"),
        ("{image: [a]}", "service web: image is not text"),
        ("{image: }", "service web: image is not text"),
        ("{image: 'A b'}", "service web: "),
        ("{image: app, platform: 'x y'}", "service web: "),
        ("{image: app, platform: [a]}", "service web: platform is not text"),
        ("[a]", "service web is not a mapping"),
        ("null", "service web is not a mapping"),
    ],
)
def test_what_is_wrong_with_a_service_does_not_touch_the_others(
    service: str, complaint: str
) -> None:
    text = f"services:\n  web: {service}\n  other: {{image: other}}\n"
    parsed = parse(text.encode(), "compose.yaml")
    assert references(parsed) == ["docker.io/library/other:latest"]
    [error] = parsed.errors
    assert complaint in str(error)
    assert str(error).startswith("compose.yaml:2: ")


def test_services_that_are_no_mapping() -> None:
    parsed = parse(b"services: [web]\n", "compose.yaml")
    assert "services is not a mapping" in str(parsed.errors[0])

"""Images of compose files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prefetch.oci.platform import Platform
from prefetch.sources import composefiles
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
        ("{}", "service web has neither an image nor a build"),
        ("{extends: web}", "service web extends services in a circle"),
        ("{extends: {}}", "service web: extends names no service"),
        ("{extends: {service: [a]}}", "service web: extends names no service"),
        ("{extends: none}", "extends 'none', which is not there (docker compose config"),
        ("{extends: {service: a, file: b.yaml}}", "'b.yaml': there is no directory to find it"),
        ("{extends: {service: a, file: '${B}'}}", "'${B}' has variables (docker compose config"),
        ("{extends: {service: a, file: [b]}}", "extends names no file"),
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


Parse = Callable[..., Parsed]


@pytest.fixture
def compose(tmp_path: Path) -> Parse:
    """`compose(text, name=text, …)`: a file with others beside it."""

    def read(text: str, **others: str) -> Parsed:
        for name, content in others.items():
            (tmp_path / f"{name}.yaml").write_text(content)
        path = tmp_path / "compose.yaml"
        path.write_text(text)
        return parse(path.read_bytes(), str(path))

    return read


def test_services_extend_one_another() -> None:
    parsed = parse(
        b"""\
services:
  base: {image: "base:1", platform: linux/arm64}
  own: {extends: base, image: "own:1"}
  theirs: {extends: {service: middle}}
  middle: {extends: {service: base}, platform: linux/amd64}
""",
        "compose.yaml",
    )
    assert parsed.errors == []
    found = {each.demand.askers[0]: each for each in parsed.selectors}
    assert str(found["service own"].reference) == "docker.io/library/own:1"
    assert str(found["service theirs"].reference) == "docker.io/library/base:1"
    assert found["service own"].platforms == (Platform.parse("linux/arm64"),)
    assert found["service theirs"].platforms == (Platform.parse("linux/amd64"),)


def test_other_files_are_read_as_docker_reads_them(compose: Parse, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/deep.yaml").write_text("services: {deep: {image: 'deep:1'}}\n")
    parsed = compose(
        """\
include:
  - one.yaml
  - {path: [two.yaml, over.yaml]}
services:
  web: {extends: {file: common.yaml, service: web}}
""",
        one="include: [sub/deep.yaml]\nservices: {one: {image: 'one:1'}}\n",
        two="services: {two: {image: 'two:1', platform: linux/arm64}, same: {image: 'same:1'}}\n",
        over="services: {two: {image: 'two:2'}}\n",
        common="services:\n  web: {extends: {service: base}}\n  base: {image: 'A b'}\n",
    )
    assert [reference.rpartition("/")[2] for reference in references(parsed)] == [
        *("deep:1", "one:1", "two:2", "same:1")
    ]
    assert parsed.selectors[2].platforms == (Platform.parse("linux/arm64"),)
    [error] = parsed.errors
    assert str(error).startswith(f"{tmp_path}/common.yaml:3: service web: ")


@pytest.mark.parametrize(
    ("include", "complaint"),
    [
        ("none.yaml", "'none.yaml': No such file or directory (docker compose config"),
        ("'https://example.com/x.git'", "is not a file here"),
        ("'oci://example.com/x'", "is not a file here"),
        ("pipe.yaml", "'pipe.yaml': not a regular file"),
        (".", "'.': not a regular file"),
        ("circle.yaml", "included in a circle"),
        ("compose.yaml", "included in a circle"),
        ("broken.yaml", "broken.yaml:2: not valid YAML"),
        ("empty.yaml", "'empty.yaml' is empty"),
        ("scalar.yaml", "not a compose file"),
        ("large.yaml", "'large.yaml' is larger than 1 MiB"),
        ("latin.yaml", "'latin.yaml' cannot be read"),
        ('"a\\0b"', "cannot be read"),
        ("{path: [], env_file: x}", None),
        ("{env_file: x}", "include names no file"),
        ("[x]", "include names no file"),
    ],
)
def test_what_cannot_be_included_does_not_touch_the_rest(
    compose: Parse, tmp_path: Path, include: str, complaint: str | None
) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"services: {a: {image: '\xff'}}\n")
    parsed = compose(
        f"include:\n  - {include}\nservices: {{web: {{image: web}}}}\n",
        circle="include: [circle.yaml]\n",
        broken="services: [\n",
        empty="",
        scalar="text\n",
        large="#" * (1 << 20) + "\n",
    )
    assert {str(each.reference) for each in parsed.selectors} == {"docker.io/library/web:latest"}
    if complaint is None:
        assert parsed.errors == []
    else:
        assert complaint in str(parsed.errors[0])
        assert str(parsed.errors[0]).isprintable()


def test_a_file_leads_to_so_many_others_only(
    compose: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composefiles, "MAX_FILES", 1)
    parsed = compose(
        "include: [a.yaml, b.yaml, a.yaml]\nservices: {}\n",
        a="services: {a: {image: a}}\n",
        b="services: {b: {image: b}}\n",
    )
    assert references(parsed) == ["docker.io/library/a:latest"]
    assert "more than 1 other files" in str(parsed.errors[0])


def test_a_long_chain_is_cut() -> None:
    services = "".join(f"  s{n}: {{extends: s{n + 1}}}\n" for n in range(100))
    parsed = parse(f"services:\n{services}  s100: {{image: a}}\n".encode(), "compose.yaml")
    assert len(parsed.selectors) == 1 + composefiles.MAX_CHAIN
    assert "extends services in a circle, or too many" in str(parsed.errors[0])


def test_an_override_need_not_name_images() -> None:
    text = b"services:\n  web: {ports: ['80:80']}\n  gpu: {provider: {type: x}}\n"
    assert "neither an image nor a build" in str(parse(text, "compose.yaml").errors[0])
    parsed = parse(text, "deploy/compose.override.yaml")
    assert parsed.errors == []
    assert "an override that names no image" in str(parsed.notes[0])


def test_merge_keys_bring_images() -> None:
    parsed = parse(
        b"x-base: &base {image: 'base:1'}\nservices:\n  a: {<<: *base, command: x}\n",
        "compose.yaml",
    )
    assert references(parsed) == ["docker.io/library/base:1"]

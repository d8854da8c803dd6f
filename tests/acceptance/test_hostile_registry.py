"""A registry that wants to harm: false digests, and ways that must not be gone."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefetch.demo.images import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, Image, document, manifest
from prefetch.demo.tokens import Account
from support.evidence import assert_blobs_sound, assert_no_crash, assert_no_secret
from support.factories import UpstreamFactory
from support.processes import CommandLine
from support.scenarios import (
    ALICE,
    PASSWORD,
    PLATFORM,
    TAG,
    Order,
    Scenario,
    Ward,
    configure,
    fails,
    order,
    refuses,
    run_ward,
)

METADATA = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"
TRAVERSAL = "sha256:../../../../../../../../tmp/owned"


def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[str], Image]:
    """A manifest that was right before `change`."""

    def make(seed: str) -> Image:
        made = manifest(seed)
        body = json.loads(made.raw)
        change(body)
        return document(body, OCI_MANIFEST, blobs=made.blobs, platform=PLATFORM)

    return make


def raw(text: str, media_type: str = OCI_MANIFEST) -> Callable[[str], Image]:
    return lambda _: document(text.encode(), media_type)


def escaping_layer(body: dict[str, Any]) -> None:
    body["layers"][0]["digest"] = TRAVERSAL


def escaping_config(body: dict[str, Any]) -> None:
    body["config"]["digest"] = "sha256:" + "a" * 63 + "/"


def negative_size(body: dict[str, Any]) -> None:
    body["layers"][0]["size"] = -1


def lying_data(body: dict[str, Any]) -> None:
    body["config"]["data"] = "AAAA"


def both_kinds(body: dict[str, Any]) -> None:
    body["manifests"] = []


def private_url(body: dict[str, Any]) -> None:
    body["layers"][0] |= {"digest": "sha256:" + "b" * 64, "urls": [METADATA]}


def file_url(body: dict[str, Any]) -> None:
    body["layers"][0] |= {"digest": "sha256:" + "c" * 64, "urls": ["file:///etc/passwd"]}


def escaping_child(_: str) -> Image:
    child = {"mediaType": OCI_MANIFEST, "digest": TRAVERSAL, "size": 2}
    return document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}, OCI_INDEX)


def endless(_: str) -> Image:
    """Each index names the next, deeper than anyone needs."""
    made = manifest("bottom")
    for _level in range(40):
        child = {"mediaType": made.media_type, "digest": made.digest, "size": made.content.size}
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}
        made = document(body, OCI_INDEX, children=[made], platform=None)
    return made


def head(name: str, **details: Any) -> Order:
    return order(name, "tag", kind="manifest", method="HEAD", **details)


def leads(kind: str, part: str, location: str) -> Order:
    return order("redirect", part, kind=kind, method="GET", text=location)


INVALID = "MANIFEST_INVALID"
FORBIDDEN = "ADDRESS_FORBIDDEN"
SCENARIOS = [
    fails(
        "header-digest-escapes",
        "SERVER_FAULT",
        "invalid digest",
        head("wrong-digest", text=TRAVERSAL),
    ),
    fails(
        "header-digest-of-no-kind",
        "SERVER_FAULT",
        "invalid digest",
        head("wrong-digest", text="md5:00"),
    ),
    fails(
        "header-digest-endless",
        "SERVER_FAULT",
        "invalid digest",
        head("wrong-digest", text="sha256:" + "a" * 6000),
    ),
    refuses("layer-escapes", INVALID, r"layers\[0\]", changed(escaping_layer)),
    refuses("config-escapes", INVALID, "config: ", changed(escaping_config)),
    refuses("child-escapes", INVALID, r"manifests\[0\]", escaping_child),
    refuses("size-negative", INVALID, "size is not a number of bytes", changed(negative_size)),
    refuses("data-lies", INVALID, "data is not the content", changed(lying_data)),
    refuses("manifest-and-index", INVALID, "ambiguous", changed(both_kinds)),
    refuses(
        "key-twice",
        INVALID,
        "twice|duplicate",
        raw('{"schemaVersion":2,"layers":[],"layers":[],"config":{}}'),
    ),
    refuses(
        "nested-json",
        INVALID,
        "nest|deep",
        raw('{"schemaVersion":2,"x":' + "[" * 5000 + "]" * 5000 + "}"),
    ),
    refuses("no-json", INVALID, "JSON", raw("\x00\x01 not JSON")),
    refuses(
        "list-as-manifest",
        INVALID,
        "formed as|says it is",
        raw('{"schemaVersion":2,"layers":[],"config":{}}', DOCKER_LIST),
    ),
    replace(
        refuses("indexes-without-end", INVALID, "more than 8 levels", endless), unforeseen=True
    ),
    refuses("foreign-metadata", FORBIDDEN, "169.254.169.254.*refused", changed(private_url)),
    refuses("foreign-file", FORBIDDEN, "only http and https", changed(file_url)),
    fails(
        "blob-to-metadata",
        FORBIDDEN,
        "169.254.169.254.*link-local",
        leads("blob", "layer", METADATA),
    ),
    fails(
        "blob-to-mapped-metadata",
        FORBIDDEN,
        "link-local",
        leads("blob", "layer", "http://[::ffff:169.254.169.254]/"),
    ),
    fails(
        "blob-to-file",
        FORBIDDEN,
        "only http and https",
        leads("blob", "layer", "file:///etc/passwd"),
    ),
    fails(
        "blob-to-login",
        FORBIDDEN,
        "user information",
        leads("blob", "layer", "http://a:b@127.0.0.1/"),
    ),
    fails(
        "manifest-to-metadata", FORBIDDEN, "169.254.169.254", leads("manifest", "index", METADATA)
    ),
    fails(
        "manifest-to-file",
        FORBIDDEN,
        "only http and https",
        leads("manifest", "child", "file:///etc/shadow"),
    ),
]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return asyncio.run(run_ward(tmp_path_factory.mktemp("hostile"), SCENARIOS))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_refused(ward: Ward, scenario: Scenario) -> None:
    ward.check(scenario)


def test_what_stays_behind(ward: Ward) -> None:
    assert ward.first.json["totals"]["synced"] == 0
    ward.check_all(SCENARIOS)
    assert not Path("/tmp/owned").exists()
    assert "passwd" not in {path.name for path in ward.cli.data_dir.rglob("*")}


def test_an_endless_index_costs_no_more_than_its_bound(ward: Ward) -> None:
    assert ward.result("indexes-without-end")["pulls"] <= 33


REALMS = {
    METADATA: "169.254.169.254.*refused",
    "file:///etc/passwd": "no usable token service",
    "//nowhere": "only http and https",
    "http://192.0.2.1/token": "without TLS",
    "http://user:secret@127.0.0.1/token": "user information",
}


async def test_credentials_go_to_no_foreign_realm(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    registries = []
    for realm in REALMS:
        registry = await upstream(accounts={"alice": Account(password=PASSWORD)})
        registry.content.put("app", manifest("app"), TAG)
        registry.faults.add("bad-realm", text=realm, count=None)
        registries.append(registry)
    config = configure(cli, *registries, **ALICE)
    result = await cli(
        *("--config", config, "--log-level", "debug", "sync", "-", "-o", "json"),
        stdin="\n".join(f"{registry.address}/app:{TAG}" for registry in registries),
        env={"ALICE_PASSWORD": PASSWORD},
    )
    assert result.code == 1
    for registry, found, says in zip(
        registries, result.json["images"], REALMS.values(), strict=True
    ):
        assert (found["outcome"], found["pulls"]) == ("failed", 0)
        assert found["error"]["code"] in {FORBIDDEN, "REGISTRY_ERROR"}, found["error"]
        assert re.search(says, found["error"]["message"]), found["error"]
        assert not any(each.has_authorization for each in registry.log)
    assert_no_crash(result)
    assert_no_secret(cli, [PASSWORD], result)
    assert assert_blobs_sound(cli.cache) == 0

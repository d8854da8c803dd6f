"""A server over a warm cache, for what asks about the API itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api_serving import (
    PLATFORM,
    Answer,
    Server,
    UpstreamThread,
    command_line,
    configure,
    running,
    sync,
)

from prefetch.demo.images import OCI_MANIFEST, Image, document, image, referrer

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


def plain_artifact(subject: Image, said: str | None) -> Image:
    """One without an artifact type, or an empty one: its config's media type stands for it."""
    body = json.loads(referrer(subject, SBOM, b"plain").raw)
    del body["artifactType"]
    if said is not None:
        body["artifactType"] = said
    body["config"]["mediaType"] = PLAIN
    body["annotations"] = {"org.example.format": "plain"}
    made = referrer(subject, SBOM, b"plain")
    return document(body, OCI_MANIFEST, blobs=made.blobs)


@contextmanager
def open_world(directory: Path) -> Iterator[World]:
    """Sync, stop the upstreams, and serve."""
    cli = command_line(directory)
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
            plain_artifact(child, None),
            plain_artifact(child, ""),
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


def next_of(answer: Answer) -> str | None:
    """The target of the link to the next page, if there is one."""
    link = answer["Link"]
    if link is None:
        return None
    found = re.fullmatch(r'<(/[^<>]*)>; rel="next"', link)
    assert found, link
    return found[1]

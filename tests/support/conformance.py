"""The distribution-spec's own conformance suite, asking a registry that takes no pushes.

A read-only registry must have content beforehand: `variety` is one image or artifact of every
kind that the suite pushes where it may, and Docker's kinds besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefetch.demo.blobs import Blob
from prefetch.demo.images import (
    OCI_INDEX,
    OCI_MANIFEST,
    Image,
    descriptor,
    document,
    image,
    index,
    manifest,
    referrer,
)
from prefetch.demo.layers import layer
from support.gotools import path_of
from support.processes import run

SIGNATURE = "application/vnd.example.signature"
LIST = "application/vnd.example.list"
_EMPTY = "application/vnd.oci.empty.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_IMAGE = '{"os": "linux", "architecture": "amd64"}'
# The suite's own "large manifest": as near to 4 MiB as pushes must be taken.
_LARGE = {f"large-annotation-{number}": "A" * 10_000 for number in range(390)}
_COUNT = re.compile(r"^  (Pass|FAIL|Error|Skip|Disabled)\.+: +(\d+)$", re.MULTILINE)
_FAILURE = re.compile(r"^ *OCI .*: (?:FAIL|Error)(?:\n +- .*)+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found: how many tests ended how, `failures` with their reasons, the `report`.

    `skipped` is what the registry said that it does not support, `disabled` what was not asked.
    """

    passed: int
    failed: int
    skipped: int
    disabled: int
    failures: tuple[str, ...]
    report: str

    def __str__(self) -> str:
        return (
            f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped, "
            f"{self.disabled} disabled"
        )


def variety() -> dict[str, Image]:
    """Images and artifacts by tag; some refer to others, one to what nobody has."""
    single, several = manifest("conformance image"), image("conformance index")
    data = [(Blob.of(b"an artifact's content"), "application/vnd.example.data")]
    empty = [(Blob.of(b""), "application/vnd.example.data")]
    artifact = _manifest("{}", data, artifactType=LIST)
    arms = [manifest(f"nested {n}", platform=f"linux/arm64/v{n}") for n in (8, 9)]
    return {
        "image": single,
        "index": several,
        "nested-index": index([index([manifest("nested")]), index(arms)]),
        "empty-index": index([]),
        "artifact": artifact,
        "artifact-index": _index([artifact], artifactType=LIST),
        "signature": referrer(single, SIGNATURE, b"a signature"),
        "note": _manifest(_IMAGE, subject=single, annotations={"org.example.by": "somebody"}),
        "list": _index([artifact], subject=several, artifactType=LIST),
        "dangling": referrer(manifest("never pushed"), SIGNATURE, b"a signature of nothing"),
        "data-field": manifest("inline", inline=True),
        "custom-fields": _manifest('{"os": "linux", "new": {"y": [1]}}', unheard={"x": 1}),
        "no-layers": _manifest(_IMAGE),
        "empty-blob": _manifest("{}", empty),
        "large": _manifest("{}", [(layer("large").blob, _LAYER)], annotations=_LARGE),
        "sha512": image("conformance sha512", algorithm="sha512"),
        "docker-list": image("conformance docker", docker=True),
        "docker-manifest": manifest("conformance docker alone", docker=True),
    }


async def run_suite(
    directory: Path, registry: str, repository: str, content: Mapping[str, Image]
) -> Outcome:
    """Ask for everything in `content` (by tag), and for what no registry has.

    `registry` is `host:port`, or with a path what stands before `/v2/`; the suite's own files go
    to `directory`. It does not know the content: it checks statuses, headers and lists.
    """
    documents = {part.digest: part for each in content.values() for part in each.walk()}
    blobs = {digest for each in content.values() for digest in each.all_blobs()}
    subjects = {part.subject for part in documents.values() if part.subject}
    environment = {
        "OCI_REGISTRY": registry,
        "OCI_TLS": "disabled",
        "OCI_REPO1": repository,
        "OCI_VERSION": "1.1",
        "OCI_RESULTS_DIR": str(directory),
        "OCI_API_PUSH": "false",
        "OCI_API_BLOBS_DELETE": "false",
        "OCI_API_MANIFESTS_DELETE": "false",
        "OCI_API_TAGS_DELETE": "false",
        "OCI_API_BLOBS_DIGEST_HEADER": "true",
        "OCI_RO_DATA_TAGS": _words(content),
        "OCI_RO_DATA_MANIFESTS": _words(documents),
        "OCI_RO_DATA_BLOBS": _words(blobs),
        # One without referrers, too: its list is empty, never a 404.
        "OCI_RO_DATA_REFERRERS": _words(subjects | {content["artifact"].digest}),
    }
    done = await run(path_of("conformance"), env=environment)
    return _outcome(done.stdout, done.stderr)


def _outcome(report: str, log: str) -> Outcome:
    """Read what the suite printed: at this version it crashes over its files if it may not push.

    Its exit status says no more, for the same reason.
    """
    counts = {word: int(number) for word, number in _COUNT.findall(report)}
    assert set(counts) == {"Pass", "FAIL", "Error", "Skip", "Disabled"}, report + log
    return Outcome(
        counts["Pass"],
        # Where the suite itself stumbles it says Error.
        counts["FAIL"] + counts["Error"],
        counts["Skip"],
        counts["Disabled"],
        tuple(match[0].strip() for match in _FAILURE.finditer(report)),
        report,
    )


def _words(words: Iterable[str]) -> str:
    return " ".join(sorted(words))


def _manifest(
    config: str,
    layers: Iterable[tuple[Blob, str]] = (),
    *,
    subject: Image | None = None,
    **fields: Any,
) -> Image:
    """A manifest of a config's text and any layers, with more fields of its own."""
    held = Blob.of(config.encode())
    media_type = _EMPTY if config == "{}" else _CONFIG
    named = list(layers)
    body = {
        "config": _descriptor(held, media_type),
        "layers": [_descriptor(*each) for each in named],
        **fields,
    }
    blobs = (held, *(blob for blob, _ in named))
    # What refers without a type of its own is listed by its config's.
    return _document(OCI_MANIFEST, body, subject, media_type, blobs=blobs)


def _index(children: Iterable[Image], *, subject: Image | None = None, **fields: Any) -> Image:
    """An index with more fields of its own."""
    held = tuple(children)
    body = {"manifests": [descriptor(each) for each in held], **fields}
    return _document(OCI_INDEX, body, subject, None, children=held)


def _document(
    media_type: str,
    fields: Mapping[str, Any],
    subject: Image | None,
    artifact_type: str | None,
    **parts: Any,
) -> Image:
    """What is listed of it as a referrer follows from the fields (distribution-spec, "Listing
    Referrers")."""
    body: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type, **fields}
    if subject is not None:
        body["subject"] = _descriptor(subject.content, subject.media_type)
    return Image(
        document(body, media_type).content,
        media_type,
        subject=None if subject is None else subject.digest,
        artifact_type=fields.get("artifactType") or artifact_type,
        annotations=tuple(fields.get("annotations", {}).items()),
        **parts,
    )


def _descriptor(blob: Blob, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}

"""Bodies that are cut, stalled, truncated, overlong or corrupt: of blobs and of manifests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.scenarios import Order, Scenario, Ward, fails, heals, order, part_of, run_ward


def blob(name: str, **details: Any) -> Order:
    return order(name, "layer", kind="cdn", method="GET", **details)


def pull(name: str, **details: Any) -> Order:
    return order(name, "child", kind="manifest", method="GET", **details)


PAGE = "answered with a web page.*does not look like a registry"
SCENARIOS = [
    # Blobs: what has come is kept, and the rest is asked for.
    heals("blob-cut", blob("cut", at=9_000, count=1)),
    heals("blob-cut-again-and-again", blob("cut", at=6_000, count=6)),
    heals("blob-stalled", blob("stall", at=9_000, seconds=5, count=1)),
    heals("blob-silent", blob("stall", at=0, seconds=5, count=1)),
    heals("blob-reset", blob("reset", count=1)),
    heals("blob-truncated", blob("truncated", at=9_000, count=1)),
    heals("blob-truncated-untold", blob("no-length"), blob("truncated", at=9_000, count=1)),
    heals("blob-overlong", blob("overlong", count=1)),
    heals("blob-overlong-untold", blob("no-length"), blob("overlong", count=1)),
    heals("blob-corrupt", blob("corrupt", at=9_000, count=1)),
    heals("blob-corrupt-then-cut", blob("corrupt", at=9, count=1), blob("cut", at=99, count=1)),
    heals("blob-no-length", blob("no-length")),
    heals("range-ignored", blob("cut", at=9_000, count=1), blob("ignored-range")),
    heals("range-wrong", blob("cut", at=9_000, count=1), blob("wrong-range")),
    heals("link-expired", blob("link-expired", count=1)),
    fails("blob-always-cut", "UNREACHABLE", "stopped|broke", blob("cut", at=0)),
    fails(
        "blob-always-silent",
        "UNREACHABLE",
        "did not answer in time",
        blob("stall", at=0, seconds=5),
    ),
    fails(
        "blob-always-truncated", "SIZE_MISMATCH", "sends 9000 bytes", blob("truncated", at=9_000)
    ),
    fails("blob-always-overlong", "SIZE_MISMATCH", "the manifest says", blob("overlong")),
    fails(
        "blob-always-corrupt", "DIGEST_MISMATCH", "another digest.*proxy", blob("corrupt", at=9_000)
    ),
    fails("blob-always-page", "SERVER_FAULT", PAGE, blob("html")),
    fails("blob-page-once", "SERVER_FAULT", PAGE, blob("html", count=1)),
    fails("blob-always-gzip", "REGISTRY_ERROR", "Content-Encoding gzip.*proxy", blob("gzip")),
    fails(
        "link-always-expired",
        "UNAUTHORIZED",
        "link that the registry gave",
        blob("link-expired"),
        status=403,
    ),
    # Manifests: each attempt is a pull.
    heals("manifest-cut", pull("cut", count=1)),
    heals("manifest-stalled", pull("stall", seconds=5, count=1)),
    heals("manifest-reset", pull("reset", count=1)),
    heals("manifest-truncated", pull("truncated", count=1)),
    heals("manifest-overlong", pull("overlong", count=1)),
    heals("manifest-corrupt", pull("corrupt", count=1)),
    heals("manifest-no-length", pull("no-length")),
    fails("manifest-always-cut", "UNREACHABLE", "broke", pull("cut", at=3)),
    fails(
        "manifest-always-silent",
        "UNREACHABLE",
        "did not answer in time",
        pull("stall", at=0, seconds=5),
    ),
    fails("manifest-always-truncated", "DIGEST_MISMATCH", "other bytes", pull("truncated")),
    fails("manifest-always-overlong", "DIGEST_MISMATCH", "other bytes", pull("overlong")),
    fails("manifest-always-corrupt", "DIGEST_MISMATCH", "other bytes", pull("corrupt")),
    fails("manifest-always-page", "SERVER_FAULT", PAGE, pull("html")),
    fails("manifest-page-once", "SERVER_FAULT", PAGE, pull("html", count=1)),
    fails("manifest-always-gzip", "REGISTRY_ERROR", "Content-Encoding gzip.*proxy", pull("gzip")),
    fails("manifest-huge", "MANIFEST_INVALID", "larger than 4194304 bytes", pull("huge-manifest")),
]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return asyncio.run(run_ward(tmp_path_factory.mktemp("bodies"), SCENARIOS))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_fault(ward: Ward, scenario: Scenario) -> None:
    ward.check(scenario)


def test_what_stays_behind(ward: Ward) -> None:
    ward.check_all(SCENARIOS)


def test_a_web_page_is_asked_for_once(ward: Ward) -> None:
    """It is a misconfiguration, which no second pull mends: the index's, and one that failed."""
    for name in ("manifest-always-page", "manifest-page-once"):
        assert ward.result(name)["pulls"] == 2
        assert len(ward.asked(name, kind="manifest", method="GET")) == 2
    for name in ("blob-always-page", "blob-page-once"):
        layer = part_of(ward.images[name], "layer")
        assert len(ward.asked(name, kind="cdn", reference=layer)) == 1

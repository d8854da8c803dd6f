"""Answers that lack, misstate or refuse something: headers, statuses, methods, redirects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.scenarios import TAG, Order, Scenario, Ward, fails, heals, order, run_ward


def head(name: str, **details: Any) -> Order:
    return order(name, "tag", kind="manifest", method="HEAD", **details)


def pull(name: str, **details: Any) -> Order:
    return order(name, kind="manifest", method="GET", **details)


def blob(name: str, **details: Any) -> Order:
    return order(name, "layer", kind="blob", method="GET", **details)


PAGE = "answered with a web page.*does not look like a registry"
SCENARIOS = [
    heals("head-without-digest", head("no-digest")),
    heals("head-without-length", head("no-length")),
    heals("head-without-type", head("headers", headers={"Content-Type": None})),
    heals("head-not-allowed", head("not-allowed")),
    heals("head-fails-in-a-burst", head("server-error", count=3)),
    heals("head-resets", head("reset", count=1)),
    heals("get-without-digest", pull("no-digest")),
    heals("get-with-another-digest", pull("wrong-digest")),
    heals("get-without-length", pull("no-length")),
    heals("get-without-type", pull("headers", headers={"Content-Type": None})),
    heals("get-fails-in-a-burst", pull("server-error", count=2, status=502)),
    heals("blob-fails-in-a-burst", blob("server-error", count=3, status=500)),
    heals("get-is-text", pull("wrong-type", text="text/plain")),
    fails(
        "no-such-tag",
        "NOT_FOUND",
        "404 Not Found.*check the repository and the tag",
        head("not-found"),
        status=404,
    ),
    fails("head-is-a-page", "SERVER_FAULT", PAGE, head("html")),
    fails(
        "head-names-another-digest", "MANIFEST_UNKNOWN", "0000", head("wrong-digest"), status=404
    ),
    fails("head-always-fails", "SERVER_FAULT", "answered 503", head("server-error"), status=503),
    fails("get-always-fails", "SERVER_FAULT", "answered 500", pull("server-error", status=500)),
    fails("get-is-not-found", "MANIFEST_UNKNOWN", "answered 404", pull("not-found"), status=404),
    fails(
        "get-of-another-type",
        "MANIFEST_INVALID",
        "served as",
        pull("wrong-type", text="application/vnd.oci.image.manifest.v1+json"),
    ),
    fails(
        "get-is-an-archive",
        "MANIFEST_INVALID",
        "'application/zip', not a manifest",
        pull("wrong-type", text="application/zip"),
    ),
    fails(
        "get-goes-in-circles", "SERVER_FAULT", "redirects more than 10 times", pull("redirect-loop")
    ),
    fails(
        "head-goes-in-circles",
        "SERVER_FAULT",
        "redirects more than 10 times",
        head("redirect-loop"),
    ),
    fails(
        "blob-goes-in-circles",
        "SERVER_FAULT",
        "redirects more than 10 times",
        blob("redirect-loop"),
    ),
    fails(
        "blob-goes-nowhere",
        "SERVER_FAULT",
        "redirects to nowhere",
        blob("headers", headers={"Location": None}),
    ),
    fails("blob-always-fails", "SERVER_FAULT", "answered 503", blob("server-error"), status=503),
    fails("blob-is-missing", "BLOB_UNKNOWN", "answered 404", blob("not-found"), status=404),
]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return asyncio.run(run_ward(tmp_path_factory.mktemp("answers"), SCENARIOS))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_fault(ward: Ward, scenario: Scenario) -> None:
    ward.check(scenario)


def test_what_stays_behind(ward: Ward) -> None:
    ward.check_all(SCENARIOS)


def test_no_pull_where_a_head_has_told(ward: Ward) -> None:
    """What a free request finds out costs nothing."""
    for name in ("no-such-tag", "head-is-a-page", "head-always-fails", "head-goes-in-circles"):
        assert not ward.asked(name, method="GET", kind="manifest")
        assert ward.result(name)["pulls"] == 0


def test_a_tag_is_pulled_where_no_head_names_its_digest(ward: Ward) -> None:
    for name in ("head-without-digest", "head-not-allowed"):
        assert len(ward.asked(name, method="GET", reference=TAG)) == 1
        assert ward.result(name)["pulls"] == 2


def test_a_circle_is_gone_round_once(ward: Ward) -> None:
    """Eleven requests that lead nowhere are one pull."""
    assert ward.result("get-goes-in-circles")["pulls"] == 1
    for name in ("get-goes-in-circles", "head-goes-in-circles", "blob-goes-in-circles"):
        asked = [each for each in ward.asked(name) if "redirect-loop" in each.faults]
        assert len(asked) == 11, name

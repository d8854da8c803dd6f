"""What token services answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.errors import ServerFault
from prefetch.remote.tokens import Token, parse_token

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATHS = frozenset({"library/nginx"})


def parse(document: object) -> Token:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_token(body, PATHS, service="auth.example", now=NOW, monotonic=1000.0)


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_either_field_carries_it(field: str) -> None:
    assert parse({field: "abc"}).header == "Bearer abc"


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (300, 270),
        (None, 48),
        (5, 48),
        (-1, 48),
        (0, 48),
        ("300", 48),
        (True, 48),
        (1e308, 86370),
        (10**400, 86370),
    ],
)
def test_it_is_renewed_before_it_expires(expires_in: object, seconds: float) -> None:
    assert parse({"token": "t", "expires_in": expires_in}).renew_at == 1000.0 + seconds


def test_nan_and_infinity_are_no_lifetimes() -> None:
    for number in (b"NaN", b"Infinity", b"-Infinity"):
        body = b'{"token": "t", "expires_in": ' + number + b"}"
        assert parse(body).renew_at == 1048.0


@pytest.mark.parametrize(
    ("issued", "seconds"),
    [
        (NOW - timedelta(seconds=100), 170.0),
        (NOW + timedelta(hours=1), 270.0),  # its clock is ahead
        (NOW - timedelta(days=2), 270.0),  # or behind, or ours is
    ],
)
def test_a_token_from_a_cache_is_older(issued: datetime, seconds: float) -> None:
    token = parse({"token": "t", "expires_in": 300, "issued_at": issued.isoformat()})
    assert token.renew_at == pytest.approx(1000.0 + seconds)


@pytest.mark.parametrize("issued", ["", "yesterday", 5, None, "9" * 100])
def test_nonsense_ages_are_ignored(issued: object) -> None:
    assert parse({"token": "t", "expires_in": 300, "issued_at": issued}).renew_at == 1270.0


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        [],
        {},
        {"token": ""},
        {"token": 5},
        {"token": "a b"},
        {"token": "a\r\nHost: evil"},
        {"token": "é"},
        {"token": "x" * 40_000},
    ],
)
def test_what_is_no_token_is_a_fault(document: object) -> None:
    with pytest.raises(ServerFault, match=r"auth\.example"):
        parse(document)


def test_repr_shows_no_token() -> None:
    assert "hush" not in repr(parse({"token": "hush"}))


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_json_value_is_a_token_or_a_fault(value: object) -> None:
    document = {"token": "t", "expires_in": value, "issued_at": value}
    assert 1000 < parse(document).renew_at < 1000 + 86400

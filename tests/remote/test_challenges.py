"""WWW-Authenticate, as registries write it and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.remote.challenges import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        ([""], []),
        (["Basic realm=demo"], [("basic", {"realm": "demo"})]),
        (['Basic realm="a b, c"'], [("basic", {"realm": "a b, c"})]),
        (
            ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'],
            [
                (
                    "bearer",
                    {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"},
                )
            ],
        ),
        (
            ["Bearer realm=https://ghcr.io/token , service=ghcr.io"],
            [("bearer", {"realm": "https://ghcr.io/token", "service": "ghcr.io"})],
        ),
        (
            ['Bearer scope="repository:a/b:pull,push", error="invalid_token"'],
            [("bearer", {"scope": "repository:a/b:pull,push", "error": "invalid_token"})],
        ),
        (
            ['Negotiate, Basic realm="x", Bearer realm="y", service="z"'],
            [
                ("negotiate", {}),
                ("basic", {"realm": "x"}),
                ("bearer", {"realm": "y", "service": "z"}),
            ],
        ),
        (
            ['Basic realm="x"', 'Bearer realm="y"'],
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})],
        ),
        (['BEARER Realm="r"'], [("bearer", {"realm": "r"})]),
        (['Bearer realm="a", realm="b"'], [("bearer", {"realm": "a"})]),
        ([r'Bearer realm="a\"b"'], [("bearer", {"realm": 'a"b'})]),
        (['Bearer realm="unterminated'], [("bearer", {"realm": ""})]),
        (['realm="no scheme"'], []),
        ([",,, ,"], []),
    ],
)
def test_challenges(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    found = parse_challenges(headers)
    assert found == [Challenge(scheme, parameters) for scheme, parameters in expected]


def test_what_exceeds_the_bounds_is_left_out() -> None:
    assert len(parse_challenges(["Basic realm=a"] * 100)) == 16
    assert parse_challenges([f'Bearer realm="{"a" * 10_000}"']) != [
        Challenge("bearer", {"realm": "a" * 10_000})
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet=st.sampled_from('Bearer realm="\\,=; \t\x00é'), max_size=200)))
def test_nothing_raises(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
        assert challenge.scheme


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["realm", "service", "scope", "error"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
        min_size=1,
    )
)
def test_quoted_parameters_survive(parameters: dict[str, str]) -> None:
    quoted = {k: v.replace("\\", "\\\\").replace('"', '\\"') for k, v in parameters.items()}
    header = "Bearer " + ",".join(f'{name}="{value}"' for name, value in quoted.items())
    assert parse_challenges([header]) == [Challenge("bearer", parameters)]

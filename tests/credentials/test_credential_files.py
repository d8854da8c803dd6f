"""Secrets that do not show, and auth files as docker, skopeo and RKE write them."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.credentials.authfile import AuthFile, auth_key
from prefetch.credentials.credential import Credential, IdentityToken, Secret
from prefetch.errors import CredentialError


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def parse(document: Any) -> AuthFile:
    return AuthFile.parse(json.dumps(document).encode(), "config.json")


def test_a_secret_shows_nowhere() -> None:
    secret = Secret("hunter2")
    login = Credential("alice", secret)
    for shown in (str(secret), repr(secret), f"{secret}", repr(login), repr(IdentityToken(secret))):
        assert "hunter2" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(login)
    assert secret.reveal() == "hunter2"


def test_secrets_compare_by_content() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("ä")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert not Secret("")
    assert copy.copy([Secret("a")]) == [Secret("a")]


@pytest.mark.parametrize(
    ("key", "normalised"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("docker.io/corp/app", "docker.io/corp/app"),
        ("https://quay.io", "quay.io"),
        ("https://quay.io/v2/", "quay.io"),
        ("http://localhost:5000/", "localhost:5000"),
        ("QUAY.io/corp", "quay.io/corp"),
        ("quay.io/corp/app/", "quay.io/corp/app"),
        ("quay.io/v2ray/app", "quay.io/v2ray/app"),
    ],
)
def test_keys_are_normalised(key: str, normalised: str) -> None:
    assert auth_key(key) == normalised
    assert auth_key(normalised) == normalised


def test_every_kind_of_entry() -> None:
    file = parse(
        {
            "auths": {
                "https://index.docker.io/v1/": {"auth": basic("alice", "p:w")},
                "quay.io": {"username": "bob", "password": "pw"},
                "ghcr.io": {"auth": basic("carol", ""), "identitytoken": "refresh"},
                "gcr.io": {"auth": basic("<token>", ""), "identitytoken": "refresh"},
                "empty.io": {},
                "blank.io": {"auth": ""},
                "rke.io": {"auth": "Og=="},
                "nul.io": {"auth": basic("dave", "pw\0\0")},
            },
            "HttpHeaders": {"User-Agent": "x"},
        }
    )
    assert file.login("docker.io", "library/nginx") == Credential("alice", Secret("p:w"))
    assert file.login("quay.io", None) == Credential("bob", Secret("pw"))
    assert file.login("ghcr.io", None) == IdentityToken(Secret("refresh"), "carol")
    assert file.login("gcr.io", None) == IdentityToken(Secret("refresh"))
    assert file.login("nul.io", None) == Credential("dave", Secret("pw"))
    for registry in ("empty.io", "blank.io", "rke.io", "unknown.io"):
        assert file.login(registry, "a/b") is None


def test_the_longest_path_wins() -> None:
    file = parse(
        {
            "auths": {
                "quay.io": {"auth": basic("host", "1")},
                "quay.io/corp": {"auth": basic("path", "2")},
                "quay.io/corp/app": {"auth": basic("repository", "3")},
            }
        }
    )

    def user(repository: str | None) -> str:
        login = file.login("quay.io", repository)
        assert login is not None
        return login.username

    assert user("corp/app") == "repository"
    assert user("corp/app/sub") == "repository"
    assert user("corp/apple") == "path"
    assert user("corporate/app") == "host"
    assert user(None) == "host"


def test_helpers_by_registry_and_for_all() -> None:
    file = parse({"credHelpers": {"https://public.ecr.aws": "ecr-login"}, "credsStore": "pass"})
    assert file.helper("public.ecr.aws") == "ecr-login"
    assert file.helper("docker.io") == "pass"
    assert parse({"credsStore": ""}).helper("docker.io") is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "config.json: not valid JSON"),
        (b"\xff", "config.json: not valid JSON"),
        (b"[" * 100_000, "config.json: not valid JSON"),
        (b"[]", "config.json: the file is not a JSON object"),
        (b'{"auths": []}', "config.json: auths is not a JSON object"),
        (b'{"auths": {"a": "b"}}', "config.json: auths['a'] is not a JSON object"),
        (b'{"auths": {"https://u:hunter2@a/v1/": 1}}', "config.json: auths['\\u2026@a/v1/'] is"),
        (b'{"auths": {"a": {"auth": 1}}}', "config.json: auths['a'].auth is not a string"),
        (b'{"auths": {"a": {"auth": "hunter2!"}}}', "auths['a'].auth is not valid base64"),
        (b'{"auths": {"a": {"auth": "aHVudGVyMg=="}}}', "auths['a'].auth is not of the form"),
        (b'{"auths": {"a": {"registrytoken": "hunter2"}}}', "registrytoken, which is not"),
        (b'{"credsStore": "../../bin/sh"}', "'../../bin/sh' is not the name of a credential"),
        (b'{"credHelpers": {"a": 1}}', "1 is not the name of a credential helper"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(data: bytes, message: str) -> None:
    with pytest.raises(CredentialError) as caught:
        AuthFile.parse(data, "config.json")
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).isprintable()


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.booleans() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["auths", "auth", "identitytoken", "credHelpers", "credsStore", "a"]
                ),
                inner,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_nothing_but_credential_errors_comes_of_any_file(data: bytes) -> None:
    try:
        file = AuthFile.parse(data, "f")
    except CredentialError:
        return
    assert file.login("nowhere.example", "a/b") is None

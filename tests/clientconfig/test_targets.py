"""What is written for each target, whole: a change in it is to be seen in review."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from wishes import CACHE, CERTIFICATE, KEY, LOGIN, plan

from prefetch.clientconfig.plan import Plan
from prefetch.clientconfig.targets import TARGETS, target_named
from prefetch.credentials.credential import IdentityToken, Secret
from prefetch.errors import UsageError

NAMES = [target.name for target in TARGETS]
CASES: dict[str, Callable[[], Plan]] = {
    "one cache": plan,
    "no fallback": lambda: plan(fallback=False),
    "two caches over TLS": lambda: plan(
        cache_urls=(CACHE, "https://10.0.0.7"),
        ca_files=("ca.pem",),
        cert_files=("cache.example:5000=node.pem",),
        key_files=("cache.example:5000=node.key",),
        login=LOGIN,
    ),
    "no verification": lambda: plan(skip_verify=True),
    "plain HTTP": lambda: plan(cache_urls=("http://10.0.0.7:5000",), fallback=False),
    "identity token": lambda: plan(login=IdentityToken(Secret("token"))),
    "mirrors of others": lambda: plan(
        mirrors=(
            "docker.io=https://mirror.example/v2/hub",
            "quay.io=https://quay-mirror.example",
            "quay.io=https://quay.io",
            "registry.example:8443=https://mirror.example/v2/own",
        )
    ),
    "a prefix before /v2": lambda: plan(mirrors=("docker.io=https://mirror.example/api/hub",)),
    "rewrites": lambda: plan(rewrites=("^library/(.*)=hub/$1",)),
    "other registries alone": lambda: plan(registries=("ghcr.io",)),
}


@pytest.fixture(autouse=True)
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"ca.pem": CERTIFICATE, "node.pem": CERTIFICATE, "node.key": KEY}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written(name: str, case: str, snapshot: SnapshotAssertion) -> None:
    assert written(name, CASES[case]) == snapshot


def written(name: str, made: Callable[[], Plan]) -> str:
    """The files and notes, or why there are none."""
    try:
        output = target_named(name).output(made())
    except UsageError as error:
        return str(error)
    shown = [f"### {file.path} {file.mode:o}\n{file.text()}" for file in output.files]
    return "\n".join([*shown, *(f"note: {note}" for note in output.notes)])


@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_in_files_that_only_root_may_read(name: str) -> None:
    try:
        output = target_named(name).output(plan(login=LOGIN))
    except UsageError:
        return
    holding = [
        file
        for file in output.files
        if any(text in file.text() for text in ("wonder:land", "YWxpY2U6d29uZGVyOmxhbmQ="))
    ]
    assert holding, "the credentials are not written"
    assert all(file.mode == 0o600 for file in holding)
    assert all(file.mode == 0o644 for file in output.files if file not in holding)
    assert not any("wonder" in note for note in output.notes)


@pytest.mark.parametrize("name", NAMES)
def test_the_registries_that_are_not_mirrored_are_named(name: str) -> None:
    output = target_named(name).output(plan(registries=("docker.io", "ghcr.io")))
    mentioned = "\n".join(file.text() + file.path for file in output.files)
    assert "docker.io" in mentioned or "registry-mirrors" in mentioned
    assert "ghcr.io" in mentioned or any("ghcr.io" in note for note in output.notes)

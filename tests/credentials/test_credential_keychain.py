"""The keychain's order, helpers that are real programs, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prefetch.credentials import keychain as module
from prefetch.credentials.credential import Credential, IdentityToken, Secret
from prefetch.credentials.keychain import Account, AuthPath, Keychain, discover
from prefetch.errors import CredentialError

Helper = Callable[[str, str], Path]


def auths(path: Path, **users: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {
        key: {"auth": base64.b64encode(f"{user}:pw".encode()).decode()}
        for key, user in users.items()
    }
    path.write_text(json.dumps({"auths": entries}))
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home of its own, and a PATH that starts with a directory for helpers."""
    (tmp_path / "bin").mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }


@pytest.fixture
def helper(tmp_path: Path, environ: dict[str, str]) -> Helper:
    """Installs a shell script as a credential helper, and a Docker config that names it."""

    def install(name: str, script: str) -> Path:
        program = tmp_path / "bin" / f"docker-credential-{name}"
        log = tmp_path / "asked"
        program.write_text(f'#!/bin/sh\nread -r key\necho "$1 $key" >> {log}\n{script}\n')
        program.chmod(0o755)
        config = tmp_path / "home/.docker/config.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"credsStore": name}))
        return log

    return install


async def user_of(keychain: Keychain, registry: str, repository: str | None = None) -> str | None:
    login = await keychain.resolve(registry, repository)
    return None if login is None else login.username


async def test_the_order_of_the_files(tmp_path: Path, environ: dict[str, str]) -> None:
    named = auths(tmp_path / "named.json", a="named")
    environ["REGISTRY_AUTH_FILE"] = str(named)
    auths(tmp_path / "run/containers/auth.json", a="runtime", b="runtime")
    auths(tmp_path / "home/.config/containers/auth.json", a="config", b="config", c="config")
    auths(tmp_path / "home/.docker/config.json", a="docker", c="docker", d="docker")
    keychain = Keychain({"e.io": Account("x", "E")}, environ=environ | {"E": "pw"})
    assert [await user_of(keychain, name) for name in "abcdf"] == [
        *("named", "runtime", "config", "docker"),
        None,
    ]


async def test_directories_from_the_environment(tmp_path: Path, environ: dict[str, str]) -> None:
    environ |= {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "DOCKER_CONFIG": str(tmp_path / "dock")}
    auths(tmp_path / "xdg/containers/auth.json", a="xdg")
    auths(tmp_path / "dock/config.json", a="docker", b="docker")
    keychain = Keychain(environ=environ)
    assert await user_of(keychain, "a") == "xdg"
    assert await user_of(keychain, "b") == "docker"


def test_without_a_runtime_directory() -> None:
    paths = [str(place.path) for place in discover({"HOME": "/home/a"})]
    assert paths == [
        f"/run/containers/{os.getuid()}/auth.json",
        "/home/a/.config/containers/auth.json",
        "/home/a/.docker/config.json",
    ]


async def test_a_repository_of_its_own(tmp_path: Path, environ: dict[str, str]) -> None:
    path = auths(tmp_path / "auth.json", **{"quay.io/corp/app": "app", "quay.io": "all"})
    keychain = Keychain(environ=environ, files=[AuthPath(path)])
    assert await user_of(keychain, "quay.io", "corp/app") == "app"
    assert await user_of(keychain, "quay.io", "corp/other") == "all"


async def test_the_configuration_comes_first(tmp_path: Path, environ: dict[str, str]) -> None:
    auths(tmp_path / "home/.docker/config.json", **{"docker.io": "docker"})
    password = tmp_path / "password"
    password.write_bytes(b" pass word \r\n")
    accounts = {
        "docker.io": Account("alice", password_env="HUB_TOKEN"),
        "quay.io": Account("bob", password_file=password),
    }
    keychain = Keychain(accounts, environ=environ | {"HUB_TOKEN": "from-env\n"})
    assert await keychain.resolve("docker.io") == Credential("alice", Secret("from-env"))
    assert await keychain.resolve("quay.io") == Credential("bob", Secret(" pass word "))
    password.unlink()
    assert await user_of(keychain, "quay.io") == "bob"


@pytest.mark.parametrize(
    ("account", "message"),
    [
        (Account("a", password_env="UNSET"), "the environment variable UNSET is empty"),
        (Account("a", password_file=Path("/nonexistent/pw")), "/nonexistent/pw: no such file"),
        (Account("a", password_file=Path("/dev/null")), "/dev/null is empty"),
        (Account("a", password_file=Path("/")), "/: cannot be read: Is a directory"),
        (Account("a"), "no credentials found for the user a of docker.io"),
    ],
)
async def test_a_configured_account_is_never_replaced_by_anonymous(
    account: Account, message: str, environ: dict[str, str]
) -> None:
    with pytest.raises(CredentialError, match=message):
        await Keychain({"docker.io": account}, environ=environ).resolve("docker.io", "a/b")


async def test_a_user_without_a_password_is_looked_up(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    auths(tmp_path / "home/.docker/config.json", **{"docker.io": "alice", "quay.io": "mallory"})
    accounts = {"docker.io": Account("alice"), "quay.io": Account("bob")}
    keychain = Keychain(accounts, environ=environ)
    assert await user_of(keychain, "docker.io") == "alice"
    with pytest.raises(CredentialError, match=r"for the user bob of quay.io"):
        await keychain.resolve("quay.io")


async def test_a_helper_is_asked_with_dockers_key_and_once(
    environ: dict[str, str], helper: Helper
) -> None:
    log = helper("test", """echo '{"ServerURL": "s", "Username": "alice", "Secret": "pw"}'""")
    keychain = Keychain(environ=environ)
    logins = await asyncio.gather(*(keychain.resolve("docker.io", f"a/{n}") for n in range(5)))
    assert set(logins) == {Credential("alice", Secret("pw"))}
    assert log.read_text() == "get https://index.docker.io/v1/\n"


async def test_a_helper_comes_before_the_files_own_entry(
    tmp_path: Path, environ: dict[str, str], helper: Helper
) -> None:
    helper("test", """echo '{"Username": "<token>", "Secret": "refresh"}'""")
    auth = base64.b64encode(b"stale:pw").decode()
    (tmp_path / "home/.docker/config.json").write_text(
        json.dumps({"credHelpers": {"ghcr.io": "test"}, "auths": {"ghcr.io": {"auth": auth}}})
    )
    assert await Keychain(environ=environ).resolve("ghcr.io") == IdentityToken(Secret("refresh"))


@pytest.mark.parametrize("stream", ["", " >&2"])
async def test_a_helper_that_has_nothing(
    environ: dict[str, str], helper: Helper, stream: str
) -> None:
    log = helper("test", f"echo 'credentials not found in native keychain'{stream}\nexit 1")
    keychain = Keychain(environ=environ)
    assert await keychain.resolve("quay.io") is None
    assert await keychain.resolve("quay.io", "a/b") is None
    assert log.read_text() == "get quay.io\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'the vault is locked' >&2; echo more >&2; exit 1",
            "for quay.io: the vault is locked",
        ),
        ("echo 'on stdout'; exit 3", "failed for quay.io: on stdout"),
        ("exit 3", "failed for quay.io: exit 3"),
        ("kill -9 $$", "failed for quay.io: exit -9"),
        ("""echo '{"Secret": "hunter2"}'; exit 1""", "failed for quay.io: exit 1"),
        ("echo 'token=hunter2hunter2 refused' >&2; exit 1", "token=[redacted] refused"),
        ("echo hunter2", "its answer is not credentials in JSON"),
        ("""echo '{"Username": 1, "Secret": "hunter2"}'""", "its answer is not credentials"),
        ("echo []", "its answer is not credentials in JSON"),
        ("printf 'a\\033[31m\\n' >&2; exit 1", "failed for quay.io: a [31m"),
        ("sleep 60", "no answer within 0.5 s"),
    ],
)
async def test_a_helper_that_fails(
    environ: dict[str, str], helper: Helper, script: str, message: str
) -> None:
    helper("test", script)
    started = time.monotonic()
    with pytest.raises(CredentialError) as caught:
        await Keychain(environ=environ, helper_timeout=0.5).resolve("quay.io")
    assert message in str(caught.value)
    assert "credential helper docker-credential-test failed for quay.io" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert time.monotonic() - started < 10


async def test_a_helper_that_is_not_installed(
    tmp_path: Path, environ: dict[str, str], helper: Helper
) -> None:
    helper("test", "")
    (tmp_path / "bin/docker-credential-test").unlink()
    with pytest.raises(CredentialError, match=r"docker-credential-test cannot be run for quay.io"):
        await Keychain(environ=environ).resolve("quay.io")


async def test_files_that_cannot_be_read(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = environ | {"REGISTRY_AUTH_FILE": str(tmp_path / "missing.json")}
    with pytest.raises(CredentialError, match=r"missing.json: no such file"):
        await Keychain(environ=missing).resolve("quay.io")
    config = auths(tmp_path / "home/.docker/config.json", a="b")
    config.write_text("{")
    with pytest.raises(CredentialError, match=r"config.json: not valid JSON"):
        await Keychain(environ=environ).resolve("quay.io")
    monkeypatch.setattr(module, "MAX_FILE_SIZE", 10)
    config.write_text("{}" + " " * 20)
    with pytest.raises(CredentialError, match="larger than 10 bytes"):
        await Keychain(environ=environ).resolve("quay.io")


async def test_forgetting_reads_everything_anew(
    tmp_path: Path, environ: dict[str, str], helper: Helper
) -> None:
    asked = helper("turning", 'echo \'{"Username": "bob", "Secret": "pw"}\'')
    password = tmp_path / "password"
    password.write_text("first")
    accounts = {"corp.example": Account("alice", password_file=password)}
    keychain = Keychain(accounts, environ=environ)
    await keychain.resolve("quay.io")
    password.write_text("second")
    assert await keychain.resolve("corp.example") == Credential("alice", Secret("second"))
    password.write_text("third")
    assert await keychain.resolve("corp.example") == Credential("alice", Secret("second"))
    keychain.forget()
    assert await keychain.resolve("corp.example") == Credential("alice", Secret("third"))
    await keychain.resolve("quay.io")
    assert len(asked.read_text().splitlines()) == 2

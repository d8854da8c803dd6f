"""Debian's docker-registry as upstream, and skopeo as the reader of what was synced."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest
from acceptance_support import inventory, outcomes

from support.factories import DockerRegistryFactory, UpstreamProcessFactory
from support.processes import CommandLine, DockerRegistry, UpstreamProcess, run

pytestmark = pytest.mark.real("docker-registry", "skopeo", "htpasswd")

USER, PASSWORD = "ci", "s3cret"
ORDERS = [
    {"repository": "library/index", "tags": ["1.0"]},
    {"repository": "library/docker", "tags": ["1.0"], "docker": True},
    {"repository": "corp/single", "tags": ["2"], "single": True, "layer_size": 500_000},
]


async def fill(source: UpstreamProcess, registry: DockerRegistry, login: str | None) -> list[str]:
    """Copy everything into the registry; returns its references."""
    references = []
    for reference in source.references():
        target = reference.replace(source.address, registry.address)
        copied = await run(
            "skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
            *(("--dest-creds", login) if login else ()),
            f"docker://{reference}", f"docker://{target}",
        )  # fmt: skip
        assert copied.code == 0, copied.stderr
        references.append(target)
    return references


async def raw_manifest(reference: str, login: str | None) -> bytes:
    words = ("skopeo", "inspect", "--raw", "--tls-verify=false")
    creds = ("--creds", login) if login else ()
    return (await succeed(*words, *creds, f"docker://{reference}")).encode()


async def succeed(*command: str | Path) -> str:
    done = await run(*command)
    assert done.code == 0, done.stderr
    return done.stdout


def in_docker_config(cli: CommandLine, registry: str) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    write_docker_config(cli, {"auths": {registry: {"auth": auth}}})


def in_credential_helper(cli: CommandLine, registry: str) -> None:
    """A helper program, which speaks the protocol of docker-credential-helpers."""
    programs = cli.home / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-test"
    answer = json.dumps({"ServerURL": registry, "Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\n[ \"$1\" = get ] && cat >/dev/null && echo '{answer}'\n")
    helper.chmod(0o755)
    write_docker_config(cli, {"credHelpers": {registry: "test"}})


def write_docker_config(cli: CommandLine, config: object) -> None:
    directory = cli.home / ".docker"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))


def in_prefetch_yaml(cli: CommandLine, registry: str) -> None:
    directory = cli.home / ".config/prefetch"
    directory.mkdir(parents=True)
    account = {"username": USER, "password_env": "REGISTRY_PASSWORD"}
    (directory / "prefetch.yaml").write_text(json.dumps({"registries": {registry: account}}))


PLACES = {
    "docker-config": in_docker_config,
    "credential-helper": in_credential_helper,
    "prefetch-yaml": in_prefetch_yaml,
    "open": None,
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_registry_is_mirrored_and_read_by_skopeo(
    cli: CommandLine,
    upstream_process: UpstreamProcessFactory,
    docker_registry: DockerRegistryFactory,
    tmp_path: Path,
    place: str,
) -> None:
    put = PLACES[place]
    login = None if put is None else f"{USER}:{PASSWORD}"
    source = await upstream_process(settings={"limit": None}, images=ORDERS)
    registry = await docker_registry(None if put is None else {USER: PASSWORD})
    references = await fill(source, registry, login)
    env: Mapping[str, str] = {}
    if put is not None:
        put(cli, registry.address)
        path = f"{cli.home / 'bin'}:{cli.environment()['PATH']}"
        env = {"REGISTRY_PASSWORD": PASSWORD, "PATH": path}
    images = [word for reference in references for word in ("--image", reference)]

    synced = await cli("sync", *images, "--platform", "all", "-o", "json", env=env)
    again = await cli("sync", *images, "--platform", "all", "-o", "json", env=env)

    assert synced.code == again.code == 0, synced.stderr + again.stderr
    assert outcomes(synced.json) == {"synced"}
    assert outcomes(again.json) == {"unchanged"}
    assert synced.json["totals"]["pulls"] == 3 + 3 + 1
    assert PASSWORD not in synced.stdout + synced.stderr
    [budget] = synced.json["budgets"]
    assert (budget["limit"], budget["identity"]) == (None, USER if put else "anonymous")
    visibility = "private" if put else "public"
    assert {image["visibility"] for image in synced.json["images"]} == {visibility}

    for number, (reference, digest, *_) in enumerate(sorted(await inventory(cli))):
        cached = f"oci:{cli.cache}:{reference}"
        raw = await raw_manifest(reference, login)
        assert (await succeed("skopeo", "inspect", "--raw", cached)).encode() == raw
        algorithm, _, name = digest.partition(":")
        assert (cli.cache / "blobs" / algorithm / name).read_bytes() == raw
        out = tmp_path / f"out-{number}"
        # skopeo 1.9 knows Docker's types in a layout by an alias; --all would rewrite such a list.
        every = () if "/docker:" in reference else ("--all",)
        await succeed("skopeo", "copy", "--override-arch", "amd64", *every, cached, f"dir:{out}")
        copied = (out / "manifest.json").read_bytes()
        assert copied == raw or (cli.cache / "blobs/sha256" / sha256(copied).hexdigest()).exists()
        inspected = json.loads(
            await succeed("skopeo", "inspect", "--override-arch", "amd64", cached)
        )
        assert inspected["Architecture"] == "amd64"
        assert inspected["Layers"]


async def test_credentials_that_fail_are_an_error_and_never_dropped(
    cli: CommandLine,
    upstream_process: UpstreamProcessFactory,
    docker_registry: DockerRegistryFactory,
) -> None:
    source = await upstream_process(settings={"limit": None}, images=ORDERS[:1])
    registry = await docker_registry({USER: PASSWORD})
    [reference] = await fill(source, registry, f"{USER}:{PASSWORD}")

    nobody = await cli("sync", "--image", reference, "-o", "json")
    in_prefetch_yaml(cli, registry.address)
    wrong = await cli("sync", "--image", reference, "-o", "json", env={"REGISTRY_PASSWORD": "no"})
    unset = await cli("sync", "--image", reference, "-o", "json")

    for refused in (nobody, wrong):
        assert refused.code == 1, refused.stderr
        [image] = refused.json["images"]
        assert (image["outcome"], image["error"]["http_status"]) == ("failed", 401)
        assert registry.address in image["error"]["message"]
    assert unset.code == 1
    assert "REGISTRY_PASSWORD" in unset.json["images"][0]["error"]["message"]

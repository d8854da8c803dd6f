"""skopeo reads the upstream as it reads Docker Hub."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from prefetch.demo.images import image, manifest
from prefetch.demo.layers import layer
from prefetch.demo.tokens import Account
from support.factories import DockerRegistryFactory, UpstreamFactory
from support.processes import run

ALICE = {"alice": Account(password="s3cret")}


@pytest.mark.real("skopeo")
@pytest.mark.parametrize(
    "settings",
    [{"auth": "none"}, {"auth": "token"}, {"auth": "token", "token_port": True, "cdn": False}],
    ids=["open", "tokens", "own-token-port"],
)
@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
async def test_skopeo_copies_a_whole_image(
    upstream: UpstreamFactory, tmp_path: Path, settings: dict[str, Any], docker: bool
) -> None:
    running = await upstream(**settings)
    made = running.content.put("library/app", image("app", docker=docker), "1.0")
    source = f"docker://{running.address}/library/app:1.0"

    copied = await run(
        "skopeo", "copy", "--all", "--src-tls-verify=false", source, f"dir:{tmp_path}/out"
    )

    assert copied.code == 0, copied.stderr
    assert (tmp_path / "out/manifest.json").read_bytes() == made.raw
    for digest in made.all_blobs():
        assert (tmp_path / "out" / digest.partition(":")[2]).is_file()
    assert running.log.pulls == 3


@pytest.mark.real("skopeo")
@pytest.mark.parametrize("auth", ["basic", "token"])
async def test_skopeo_logs_in(upstream: UpstreamFactory, tmp_path: Path, auth: str) -> None:
    running = await upstream(auth=auth, accounts=ALICE, anonymous=False)
    running.content.put("corp/app", manifest("app"), "1", readers=["alice"])
    source = f"docker://{running.address}/corp/app:1"
    base = ["skopeo", "inspect", "--raw", "--tls-verify=false"]

    refused = await run(*base, "--no-creds", source)
    wrong = await run(*base, "--creds", "alice:guess", source)
    read = await run(*base, "--creds", "alice:s3cret", source)

    assert refused.code != 0
    assert wrong.code != 0
    assert read.code == 0, read.stderr
    assert [request.identity for request in running.log.select(kind="manifest", status=200)] == [
        "alice"
    ]


@pytest.mark.real("docker-registry", "skopeo", "htpasswd")
@pytest.mark.parametrize("users", [None, {"ci": "s3cret"}], ids=["open", "htpasswd"])
async def test_images_are_good_enough_for_a_real_registry(
    upstream: UpstreamFactory,
    docker_registry: DockerRegistryFactory,
    users: dict[str, str] | None,
) -> None:
    running = await upstream()
    made = running.content.put("library/app", image("app", attestations=True), "1.0")
    registry = await docker_registry(users)
    target = f"docker://{registry.address}/app:1.0"

    copied = await run(
        "skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
        "--dest-creds", "ci:s3cret", f"docker://{running.address}/library/app:1.0", target,
    )  # fmt: skip
    read = await run(
        "skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", "ci:s3cret", target
    )

    assert copied.code == 0, copied.stderr
    assert read.stdout.encode() == made.raw


@pytest.mark.parametrize("size", [10_000, 9 << 20], ids=["small", "made-while-read"])
def test_layers_unpack_to_what_the_config_says(size: int) -> None:
    made = layer("app", size)

    tar = gzip.decompress(made.blob.read())
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}

    assert sum(len(each.read()) for each in files.values() if each) >= size
    assert abs(made.blob.size - size) < size // 5 + 4096
    config = json.loads(manifest("app", layers=[made]).blobs[0].read())
    assert config["rootfs"]["diff_ids"] == [made.diff_id]


def test_an_image_follows_from_its_seed() -> None:
    assert image("one").digest == image("one").digest
    assert image("one").digest != image("two").digest

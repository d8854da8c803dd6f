"""The image that the Dockerfile makes, built by buildah on a base of this machine's own."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tree import ROOT

from support.baseimage import make_rootfs

_BASE = "localhost/base"
_OPTION = re.compile(r"(?:[a-z]+|:env:)\.(?P<name>[a-z-]+)='(?P<value>.*)'")
_PIP_CONF = "/etc/pip.conf"
_BUILDING_SECONDS = 500


def build_image(directory: Path, name: str) -> Path:
    """Build it into an archive that `ctr images import` takes, under `name`; returns its path.

    Needs `real("root", "buildah", "dpkg-query")`, and what pip needs to find the wheels.
    """
    directory.mkdir()
    rootfs = directory / "rootfs"
    make_rootfs(rootfs)
    container = _buildah(directory, "from", "scratch").strip()
    _buildah(directory, "copy", "--quiet", container, rootfs, "/")
    _buildah(directory, "commit", "--quiet", "--rm", container, _BASE)
    _buildah(
        directory,
        *("build", "--isolation", "chroot", "--pull-never", "--build-arg", f"BASE={_BASE}"),
        *_as_this_machine_installs(directory / "pip.conf"),
        *("--tag", name, ROOT),
    )
    archive = directory / "image.tar"
    _buildah(directory, "push", "--quiet", name, f"docker-archive:{archive}:{name}")
    return archive


def _buildah(directory: Path, *words: str | Path) -> str:
    places = ("--root", directory / "storage", "--runroot", directory / "run")
    done = subprocess.run(
        ("buildah", *places, "--storage-driver", "vfs", *words),
        check=False,
        capture_output=True,
        text=True,
        timeout=_BUILDING_SECONDS,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def _as_this_machine_installs(path: Path) -> list[str]:
    """Options that show pip, for the build alone, how this machine's pip is configured.

    What the configuration names and lies on this machine is shown at the same place.
    """
    config = configparser.RawConfigParser()
    config["global"] = _pip_configuration()
    with path.open("w") as file:
        config.write(file)
    mounted = [f"{path}:{_PIP_CONF}:ro"]
    for value in config["global"].values():
        mounted += [f"{each}:{each}:ro" for each in value.split() if Path(each).is_absolute()]
    return [word for each in mounted for word in ("--volume", each)]


def _pip_configuration() -> Mapping[str, str]:
    shown = subprocess.run(
        (sys.executable, "-m", "pip", "config", "list"), check=True, capture_output=True, text=True
    ).stdout
    # The environment comes first in the list, and counts most.
    found = [match for line in shown.splitlines() if (match := _OPTION.fullmatch(line))]
    return {match["name"]: match["value"] for match in reversed(found)}

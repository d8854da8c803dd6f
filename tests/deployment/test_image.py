"""The image that the Dockerfile makes, as containerd runs it: without rights, and read-only."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import prefetch
from support.containerd import Containerd
from support.kubelet import config_of
from support.kustomize import IMAGE

pytestmark = [
    pytest.mark.real("root", "buildah", "dpkg-query", "containerd", "ctr", "runc"),
    pytest.mark.long,
    pytest.mark.timeout(600),
]

# What the kernel says of the process, and what it may write to.
WHO = """
import json, os, pathlib
status = dict(
    line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines()
    if ":\\t" in line
)
written = []
for place in ("/", "/opt/prefetch", "/etc", "/var/lib/prefetch"):
    try:
        pathlib.Path(place, "written").touch()
        written.append(place)
    except OSError:
        pass
found = [place for place in ("/build", "/dist", "/root/.cache", "/src") if os.path.exists(place)]
print(json.dumps({"ids": [os.getuid(), os.getgid()], "home": os.environ.get("HOME"),
    "cwd": os.getcwd(), "written": written, "found": found, "NoNewPrivs": status["NoNewPrivs"]}))
"""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """As Docker makes a named volume from what the image has there."""
    made = tmp_path / "volume"
    made.mkdir()
    os.chown(made, 65532, 65532)
    return made


def test_its_entry_point_is_the_program(archive: Path) -> None:
    assert config_of(archive)["Entrypoint"] == ["prefetch"]


async def test_it_says_its_version_and_shows_help(containerd: Containerd) -> None:
    assert list(await containerd.digests()) == [IMAGE]
    shown = await containerd.run(IMAGE)
    assert shown.code == 0, shown.stderr
    assert shown.stdout.startswith("Usage: prefetch")
    version = await containerd.run(IMAGE, "prefetch", "--version")
    assert version.stdout.strip() == f"prefetch {prefetch.__version__}"


async def test_it_runs_as_nobody_with_a_root_that_is_read_only(
    containerd: Containerd, volume: Path
) -> None:
    mount = f"type=bind,src={volume},dst=/var/lib/prefetch,options=rbind:rw"
    words = ("run", "--rm", "--snapshotter", "native", "--read-only", "--mount", mount)
    shown = await containerd.ctr(*words, IMAGE, "who", "python", "-c", WHO)
    assert shown.code == 0, shown.stderr
    assert json.loads(shown.stdout) == {
        "ids": [65532, 65532],
        "home": "/var/lib/prefetch",
        "cwd": "/var/lib/prefetch",
        "written": ["/var/lib/prefetch"],
        "found": [],
        "NoNewPrivs": "1",
    }
    made = await containerd.ctr(*words, IMAGE, "images", "prefetch", "images", "-o", "json")
    assert (made.code, json.loads(made.stdout)) == (0, []), made.stderr
    assert (volume / "prefetch.db").stat().st_uid == 65532


async def test_it_can_read_clusters(containerd: Containerd) -> None:
    """The extra is in it: without a cluster it is the cluster that is missing."""
    refused = await containerd.run(IMAGE, "prefetch", "cluster", "images")
    assert refused.code != 0
    assert "oci-prefetch[cluster]" not in refused.stderr

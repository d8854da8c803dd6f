"""The four configurations that the project set out from: one command each makes them."""

from __future__ import annotations

import json

import pytest
import yaml
from examples import ENTRIES, REGISTRIES, example

from support.processes import CommandLine


@pytest.mark.parametrize("target", ["k3s", "rke2"])
async def test_the_example_of_k3s_and_rke2(cli: CommandLine, target: str) -> None:
    assert yaml.safe_load((await example(cli, target)).stdout) == REGISTRIES


async def test_the_example_of_rke(cli: CommandLine) -> None:
    document = json.loads((await example(cli, "rke", "-o", "json")).stdout)
    files = {file["path"]: file["content"] for file in document["files"]}
    assert yaml.safe_load(files["/cluster.yml"]) == {"private_registries": ENTRIES}
    assert json.loads(files["/etc/docker/daemon.json"]) == {
        "registry-mirrors": ["https://mydockermirror.local"],
        "insecure-registries": ["myquaymirror.local"],
    }


async def test_the_example_of_the_terraform_provider(cli: CommandLine) -> None:
    document = json.loads((await example(cli, "rke-terraform", "-o", "json")).stdout)
    main = document["files"][0]["content"]
    assert main.endswith(
        """\
private_registries {
  url        = "mydockermirror.local"
  user       = "username"
  password   = "password"
  is_default = true
}
private_registries {
  url      = "myquaymirror.local"
  user     = "myusername"
  password = "mypassword"
}
"""
    )

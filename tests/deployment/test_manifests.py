"""The manifests agree with the program, with the documentation, and with each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from tree import ROOT

import prefetch
from prefetch.app.requests import Place
from prefetch.app.runtime import settings_at
from prefetch.cli import main as program
from prefetch.cli.options import Option
from support.kustomize import MANIFESTS
from support.manifests import Object
from support.processes import CommandLine

IMAGE = "localhost/prefetch"


def documents() -> list[tuple[Path, Any]]:
    """Every YAML document below `manifests/`, with where it stands."""
    return [
        (path, each)
        for path in sorted(MANIFESTS.rglob("*.yaml"))
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def one(kind: str) -> Object:
    (found,) = (each for _, each in documents() if each.get("kind") == kind)
    return dict(found)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping within a document; patches are documents in a text."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from nodes(each)
    if isinstance(value, str) and "\n" in value:
        yield from nodes(yaml.safe_load(value))


def template(kind: str) -> Object:
    spec = one(kind)["spec"]
    return dict((spec["jobTemplate"]["spec"] if kind == "CronJob" else spec)["template"])


def test_the_documented_rights_are_those_that_are_given() -> None:
    text = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    shown = [
        yaml.safe_load(block)
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        if "kind: ClusterRole\n" in block
    ]
    role = one("ClusterRole")
    assert [each["rules"] for each in shown] == [role["rules"]]
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"list"}


def test_each_right_is_explained() -> None:
    text = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`([a-z]+)`", text))
    wanted = {name for rule in one("ClusterRole")["rules"] for name in rule["resources"]}
    assert wanted - explained == set()


def test_the_image_is_this_version() -> None:
    named = {
        each["image"] for _, document in documents() for each in nodes(document) if "image" in each
    }
    assert named == {f"{IMAGE}:{prefetch.__version__}"}
    chosen = [each for _, document in documents() for each in document.get("images", ())]
    assert len(chosen) == 3
    assert {(each["name"], each["newTag"]) for each in chosen} == {(IMAGE, prefetch.__version__)}


@pytest.mark.parametrize("kind", ["StatefulSet", "CronJob"])
def test_the_command_line_takes_the_arguments(kind: str) -> None:
    spec = template(kind)["spec"]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        found: click.Command = program
        words = list(container["args"])
        context = click.Context(program, info_name="prefetch")
        while isinstance(found, click.Group):
            name = words.pop(0)
            found = found.get_command(context, name) or pytest.fail(f"no command {name}")
        found.make_context(name, words, parent=context)


def test_every_variable_is_one_of_the_program() -> None:
    given = {
        each["name"]
        for _, document in documents()
        for each in nodes(document)
        if str(each.get("name", "")).startswith("PREFETCH_")
    }
    root = click.Context(program, info_name="prefetch")
    serve = program.get_command(root, "serve")
    assert serve is not None
    known = set()
    for command, context in (
        (program, root),
        (serve, click.Context(serve, info_name="serve", parent=root)),
    ):
        for each in command.params:
            if isinstance(each, Option):
                known |= set(each.variables(context))
    assert given - known == set()
    assert "PREFETCH_SERVE_NO_SCHEDULE" in given


def test_the_configuration_is_valid_and_syncs_the_cluster_by_schedule() -> None:
    settings = settings_at(Place(config=MANIFESTS / "base/prefetch.yaml"))
    assert len(settings.schedule) == 1
    assert len(settings.sources) == 1


def test_the_jobs_find_the_caches_volume_and_node() -> None:
    cache, job = one("StatefulSet"), template("CronJob")
    (claim,) = cache["spec"]["volumeClaimTemplates"]
    name = f"{claim['metadata']['name']}-{cache['metadata']['name']}-0"
    assert name in [
        each["persistentVolumeClaim"]["claimName"]
        for each in job["spec"]["volumes"]
        if "persistentVolumeClaim" in each
    ]
    (term,) = job["spec"]["affinity"]["podAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    labels = template("StatefulSet")["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"] == labels
    assert job["metadata"]["labels"] != labels  # or each would be a backend of the Service
    assert one("Service")["spec"]["selector"] == labels


def test_no_disruption_budget_holds_up_a_drain() -> None:
    assert [path for path, each in documents() if each.get("kind") == "PodDisruptionBudget"] == []


@pytest.mark.parametrize("system", ["k3s", "rke2"])
async def test_registries_yaml_is_what_the_program_writes(cli: CommandLine, system: str) -> None:
    (port,) = (
        each["nodePort"]
        for _, document in documents()
        for each in nodes(document)
        if "nodePort" in each
    )
    written = await cli("client-config", system, "--cache-url", f"http://127.0.0.1:{port}")
    assert written.code == 0, written.stderr
    assert (MANIFESTS / "overlays" / system / "registries.yaml").read_text() == written.stdout


def test_comments_to_adapt_are_in_every_overlay() -> None:
    for path in sorted(MANIFESTS.glob("overlays/*/kustomization.yaml")):
        commented = path.read_text(encoding="utf-8")
        for name in ("cronjob", "tls", "prometheus"):
            assert f"# - ../../components/{name}" in commented, path

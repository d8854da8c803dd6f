"""Kubernetes objects as a source: priced, fetched in order of demand, and told so."""

from __future__ import annotations

import json
from typing import Any

from acceptance_support import pulls_by_repository

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine


def workload(image: str, replicas: int, **container: str) -> dict[str, Any]:
    spec = {"containers": [{"image": image, **container}]}
    name = image.rpartition("/")[2].partition(":")[0]
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"replicas": replicas, "template": {"spec": spec}},
    }


async def test_what_is_most_in_demand_is_fetched_first(
    cli: CommandLine, upstream_process: UpstreamProcessFactory
) -> None:
    """Each image costs two pulls for one platform; the limit allows two of the four."""
    running = await upstream_process(
        settings={"limit": 4, "window": 3600.0},
        images=[{"repository": "app{n}", "count": 4, "layers": 1, "layer_size": 64}],
    )
    few, many, always, none = (f"{running.address}/app{number}:latest" for number in range(4))
    objects = [
        workload(few, 1, imagePullPolicy="IfNotPresent"),
        workload(many, 30, imagePullPolicy="IfNotPresent"),
        workload(always, 2, imagePullPolicy="Always"),
        workload(none, 0, imagePullPolicy="IfNotPresent"),
    ]
    text = json.dumps({"kind": "List", "items": objects})

    planned = await cli("plan", "-", "--reserve", "0", "-o", "json", stdin=text)
    assert planned.code == 0, planned.stderr
    demand = {image["reference"]: image["demand"] for image in planned.json["images"]}
    assert demand[many] == {
        "pods": 30,
        "always": False,
        "priority": 0,
        "askers": ["Deployment shop/app1"],
    }
    actions = {image["reference"]: image["action"] for image in planned.json["images"]}
    assert actions == {few: "defer", many: "sync", always: "sync", none: "defer"}
    shown = await cli("plan", "-", "--reserve", "0", stdin=text, env={"COLUMNS": "80"})
    assert "2 pods, Always" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80

    synced = await cli("sync", "-", "--reserve", "0", "-o", "json", stdin=text)
    assert synced.code == 75, synced.stderr
    outcomes = {image["reference"]: image["outcome"] for image in synced.json["images"]}
    assert outcomes == {few: "deferred", many: "synced", always: "synced", none: "deferred"}
    assert pulls_by_repository(running) == {"app1": 2, "app2": 2}

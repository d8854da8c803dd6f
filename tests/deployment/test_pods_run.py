"""What is shipped does its work: the CronJob's pod syncs, and the cache's pod serves that.

Pods are what an API server made of the rendered manifests, and run by containerd with the shipped
rights, token, volumes and security context. The registry is the scripted one, as docker.io.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tree import ROOT

from prefetch.demo.images import image
from prefetch.demo.upstream import Upstream
from prefetch.state.schema import upgrade
from support.apiserver import ApiServer
from support.authority import Authority
from support.containerd import Containerd
from support.factories import UpstreamFactory
from support.kubelet import Kubelet
from support.kustomize import MANIFESTS, pod_of, put_together, rendered
from support.manifests import Object, manifest, node, pod
from support.processes import CommandLine, Result

pytestmark = [
    pytest.mark.real("root", "buildah", "dpkg-query", "containerd", "ctr", "runc"),
    pytest.mark.real("kube-apiserver", "kubectl", "etcd"),
    pytest.mark.long,
    pytest.mark.timeout(600),
]

CLAIM = "data-prefetch-0"
# As the manifest's security context has it, in the kernel's words; the filter is seccomp's.
CONFINED = {"CapBnd": "0" * 16, "CapEff": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
IMAGES = ("shop", "cart", "mail")
PRICE = 2 * len(IMAGES)  # an index, and the manifest for the one platform of the nodes


@dataclass
class World:
    """A cluster that runs three images, and the overlay of K3s applied to it."""

    server: ApiServer
    kubelet: Kubelet
    upstream: Upstream
    cli: CommandLine
    directory: Path

    async def apply(
        self, components: Sequence[str], config: Mapping[str, Any] = {}
    ) -> list[Object]:
        """The overlay, with the scripted registry as docker.io and no reserve."""
        registries = {"docker.io": {"endpoint": self.upstream.url, "reserve": 0}}
        files = {"prefetch.yaml": json.dumps({**config, "registries": registries})}
        chosen = put_together(self.directory / "chosen", "overlays/k3s", components, files)
        applied = await self.server.kubectl("apply", "--server-side", "-k", chosen)
        assert applied.code == 0, applied.stderr
        return rendered(chosen)

    async def admitted(self, wanted: Object) -> Object:
        """The pod as the API server makes it, each time a new one."""
        await self.server.ask("DELETE", f"/api/v1/namespaces/prefetch/pods/{name_of(wanted)}")
        (made,) = await self.server.create([wanted])
        return made

    async def sync(self, objects: Sequence[Object]) -> Result:
        """The CronJob's time has come."""
        return await self.kubelet.run(await self.admitted(pod_of(objects, "CronJob")))

    async def last_run(self) -> Any:
        """What the state in the volume says of the last run."""
        return await self.runs("latest")

    async def runs(self, *which: str) -> Any:
        """The runs by the state in the volume; None where there is none."""
        data = self.kubelet.claim(CLAIM)
        told = await self.cli("runs", *which, "-o", "json", data_dir=data)
        return told.json if told.code == 0 else None


Start = Callable[..., Awaitable[World]]


def name_of(each: Object) -> str:
    return str(each["metadata"]["name"])


@pytest.fixture
def kubelet(
    api_server: ApiServer, containerd: Containerd, archive: Path, tmp_path: Path
) -> Kubelet:
    return Kubelet(containerd, api_server, archive, tmp_path / "kubelet")


@pytest.fixture
async def start(
    kubelet: Kubelet, upstream: UpstreamFactory, cli: CommandLine, tmp_path: Path
) -> Start:
    api_server = kubelet.server

    async def made(**settings: Any) -> World:
        running = await upstream(**settings)
        for name in IMAGES:
            running.content.put(f"library/{name}", image(name), "1.0")
        if (await api_server.ask("GET", "/api/v1/nodes/one")).status == 404:
            await api_server.create([node("one")])
            await api_server.create(pod(name, f"{name}:1.0") for name in IMAGES)
        return World(api_server, kubelet, running, cli, tmp_path)

    return made


async def test_a_job_syncs_what_the_cluster_runs_and_the_next_costs_nothing(start: Start) -> None:
    world = await start(limit=100)
    objects = await world.apply(["cronjob"])

    first = await world.sync(objects)

    assert (first.code, first.stderr.count("error")) == (0, 0), first
    run = await world.last_run()
    assert run["outcome"] == "complete"
    # The cache's own image is not among them.
    assert {each["reference"] for each in run["references"]} == {
        f"docker.io/library/{name}:1.0" for name in IMAGES
    }
    assert {tuple(each["platforms"]) for each in run["references"]} == {("linux/amd64",)}
    assert world.upstream.log.pulls == PRICE
    volume = world.kubelet.claim(CLAIM)
    assert {path.stat().st_uid for path in volume.iterdir()} == {65532}

    second = await world.sync(objects)

    assert second.code == 0, second
    again = await world.last_run()
    assert again["run_id"] != run["run_id"]
    assert [each["outcome"] for each in again["references"]] == ["unchanged"] * len(IMAGES)
    assert world.upstream.log.pulls == PRICE


async def test_a_job_that_puts_something_off_has_not_failed(start: Start) -> None:
    world = await start(limit=PRICE - 1)
    done = await world.sync(await world.apply(["cronjob"]))
    assert done.code == 0, done
    run = await world.last_run()
    assert run["outcome"] == "deferred"
    assert sorted(each["outcome"] for each in run["references"]) == ["deferred", "synced", "synced"]
    assert world.upstream.log.pulls <= PRICE - 1


async def test_a_job_without_its_rights_fails_and_says_which(start: Start) -> None:
    world = await start(limit=100)
    objects = await world.apply(["cronjob"])
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/prefetch"
    role = (await world.server.ask("GET", path)).body
    rules = [each for each in role["rules"] if each["apiGroups"] != ["batch"]]
    await world.server.ask("PATCH", path, {"rules": rules})
    try:
        while await world.server.may(
            "system:serviceaccount:prefetch:prefetch", "list", "jobs", api_group="batch"
        ):
            pass
        done = await world.sync(objects)
    finally:
        await world.server.ask("PATCH", path, {"rules": role["rules"]})
    assert done.code == 1
    assert "cronjobs" in done.stdout + done.stderr
    assert (await world.last_run())["outcome"] == "failed"


@pytest.mark.parametrize("components", [("cronjob",), ("cronjob", "tls", "prometheus")])
async def test_the_cache_serves_what_a_job_has_synced(
    start: Start, tmp_path: Path, components: Sequence[str]
) -> None:
    world = await start(limit=100)
    objects = await world.apply(components, shipped_config())
    await put_certificate(world.server, Authority(tmp_path / "authority"))
    wanted = await world.admitted(pod_of(objects, "StatefulSet"))
    async with world.kubelet.running(wanted) as cache:
        await cache.ready()
        assert await cache.probe("liveness") == "200"
        assert (await cache.rights()).items() >= CONFINED.items()
        scheme = "https" if "tls" in components else "http"
        asked = f"{scheme}://127.0.0.1:5000/v2/library/shop/manifests/1.0?ns=docker.io"
        assert await cache.get(asked) == "503"  # it reaches no registry from where it is

        # Beside it, on the same volume.
        synced = await world.sync(objects)
        assert synced.code == 0, synced

        assert await until(lambda: cache.get(asked), "200") == "200"
        assert await cache.get(f"{scheme}://127.0.0.1:5000/metrics") == "200"
        ended = await cache.stop()
    assert (ended.code, "draining" in ended.stderr) == (0, True), ended
    assert world.upstream.log.pulls == PRICE
    # The schedule that stands in the file has been left to the job.
    assert [each["command"] for each in await world.runs()] == ["sync"]


async def test_the_cache_syncs_by_its_schedule(start: Start, free_port: int) -> None:
    world = await start(limit=100)
    objects = await world.apply([], shipped_config())
    wanted = pod_of(objects, "StatefulSet")
    on_loopback(wanted, free_port)
    async with world.kubelet.running(await world.admitted(wanted), on_the_node=True) as cache:
        await cache.ready()
        # What was never synced is synced at once.
        asked = f"http://127.0.0.1:{free_port}/v2/library/{{}}/manifests/1.0?ns=docker.io"
        while (run := await world.last_run()) is None or run["finished_at"] is None:
            await asyncio.sleep(0.5)
        assert run["outcome"] == "complete"
        assert [await cache.get(asked.format(name)) for name in IMAGES] == ["200"] * len(IMAGES)
        ended = await cache.stop()
    assert ended.code == 0, ended
    assert world.upstream.log.pulls == PRICE


def shipped_config() -> dict[str, Any]:
    """What `prefetch.yaml` says as it is shipped: all of the cluster, by a schedule."""
    text = (MANIFESTS / "base/prefetch.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def on_loopback(pod: Object, port: int) -> None:
    """The port is the node's there, so it is a free one, and nobody else's business."""
    (container,) = pod["spec"]["containers"]
    (listen,) = (each for each in container["env"] if each["name"] == "PREFETCH_SERVE_LISTEN")
    listen["value"] = f"127.0.0.1:{port}"
    container["ports"][0]["containerPort"] = port


@pytest.mark.parametrize("components", [(), ("cronjob",)])
async def test_a_maintenance_window_is_prepared_in_the_caches_pod(
    start: Start, free_port: int, components: Sequence[str]
) -> None:
    world = await start(limit=100)
    objects = await world.apply(components, {"sources": shipped_config()["sources"]})
    wanted = pod_of(objects, "StatefulSet")
    on_loopback(wanted, free_port)
    async with world.kubelet.running(await world.admitted(wanted), on_the_node=True) as cache:
        await cache.ready()
        assert (await cache.exec("prefetch", "check")).code == 1
        page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
        commands = re.findall(r"exec prefetch-0 -- (prefetch (?!plan)[^#\n]*)", page)
        assert [each.split()[1] for each in commands] == ["sync", "freeze", "check", "thaw"]
        for each in commands:
            done = await cache.exec(*each.split())
            assert done.code == 0, (each, done)
    assert world.upstream.log.pulls == PRICE


async def test_an_upgraded_cache_brings_its_database_up(start: Start) -> None:
    world = await start()
    wanted = await world.admitted(pod_of(await world.apply([]), "StatefulSet"))
    database = world.kubelet.claim(CLAIM) / "prefetch.db"
    database.parent.mkdir(parents=True)
    upgrade(database, "0001")
    os.chown(database, 65532, 65532)
    async with world.kubelet.running(wanted) as cache:
        await cache.ready()
        # Whatever the newest is, this version runs on it and on no other.
        assert (await world.cli("images", data_dir=database.parent)).code == 0


async def put_certificate(server: ApiServer, authority: Authority) -> None:
    """The Secret that the component `tls` mounts, as cert-manager would make it."""
    issued = authority.issue("127.0.0.1")
    data = {
        "tls.crt": base64.b64encode(issued.cert_file.read_bytes()).decode(),
        "tls.key": base64.b64encode(issued.key_file.read_bytes()).decode(),
    }
    secret = manifest("v1", "Secret", "prefetch-tls", "prefetch", type="kubernetes.io/tls")
    await server.ask("DELETE", "/api/v1/namespaces/prefetch/secrets/prefetch-tls")
    await server.create([{**secret, "data": data}])


async def until(ask: Callable[[], Awaitable[str]], wanted: str, attempts: int = 60) -> str:
    """The answer that is wanted, or the last one."""
    for _ in range(attempts):
        if (answer := await ask()) == wanted:
            break
    return answer

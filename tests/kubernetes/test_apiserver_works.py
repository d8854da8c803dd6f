"""The API server that other tests ask is one: what it keeps, refuses, pages, and leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from support.apiserver import ApiServer, start_api_server
from support.manifests import manifest, node, pod, service_account

pytestmark = [
    pytest.mark.real("kube-apiserver", "kubectl", "etcd"),
    pytest.mark.long,
    pytest.mark.timeout(1200),
]

PODS = "/api/v1/namespaces/default/pods"
READER = "system:serviceaccount:default:reader"
MANY = 500
MANY_SECONDS = 60


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    running = await start_api_server(tmp_path / "server", users={"jane": ["developers"]})
    yield running
    await running.stop()


async def got(server: ApiServer, path: str) -> Any:
    answer = await server.ask("GET", path)
    assert answer.status == 200, answer.body
    return answer.body


async def pages(server: ApiServer, path: str, limit: int) -> list[list[str]]:
    """The names of a list, by page."""
    found, more = [], ""
    while True:
        page = await got(server, f"{path}?limit={limit}&continue={more}")
        found.append([each["metadata"]["name"] for each in page["items"]])
        more = page["metadata"].get("continue", "")
        if not more:
            return found


async def test_a_pod_is_listed_with_what_admission_gives_it(server: ApiServer) -> None:
    urgent = manifest("scheduling.k8s.io/v1", "PriorityClass", "urgent", value=1000)
    await server.create([urgent])
    await server.create(
        [
            pod("web", "docker.io/library/nginx:1", priorityClassName="urgent"),
            pod("proxy", "registry.k8s.io/pause:3.10", priorityClassName="system-node-critical"),
        ]
    )
    listed = {each["metadata"]["name"]: each["spec"] for each in (await got(server, PODS))["items"]}
    assert {name: spec["priority"] for name, spec in listed.items()} == {
        "web": 1000,
        "proxy": 2000001000,
    }
    assert listed["web"]["containers"][0]["image"] == "docker.io/library/nginx:1"
    assert listed["web"]["serviceAccountName"] == "default"


async def test_status_is_kept_of_nodes_and_of_pods(server: ApiServer) -> None:
    name = "docker.io/library/nginx:1"
    running = pod("web", name, nodeName="arm")
    ran = {"name": "c0", "image": name, "imageID": "sha256:0", "ready": True, "restartCount": 0}
    running["status"] = {"phase": "Running", "containerStatuses": [ran]}
    await server.create([node("arm", architecture="arm64", images=[[name]]), running])
    kept = await got(server, "/api/v1/nodes/arm")
    assert kept["spec"] == {}  # no taints
    assert kept["status"]["nodeInfo"]["architecture"] == "arm64"
    assert [each["names"] for each in kept["status"]["images"]] == [[name]]
    shown = (await got(server, f"{PODS}/web"))["status"]
    assert shown["phase"] == "Running"
    assert shown["containerStatuses"][0]["imageID"] == "sha256:0"


async def test_a_service_account_may_what_it_is_allowed_and_no_more(
    server: ApiServer, tmp_path: Path
) -> None:
    await server.namespaces("other")
    await server.create([service_account("default", "reader")])
    token = await server.token("default", "reader", 600)
    assert (await server.ask("GET", PODS, token=token)).status == 403
    await server.allow(READER, ["get", "list"], ["pods"], namespace="default")
    assert (await server.ask("GET", PODS, token=token)).status == 200
    assert (await server.ask("POST", PODS, pod("web", "nginx"), token=token)).status == 403
    assert (await server.ask("GET", "/api/v1/namespaces/other/pods", token=token)).status == 403
    assert (await server.ask("GET", "/api/v1/pods", token=token)).status == 403
    assert (await server.ask("GET", PODS, token="nobody's")).status == 401
    shown = await server.kubeconfig(tmp_path / "reader", READER)
    assert (await server.kubectl("get", "pods", kubeconfig=shown)).code == 0
    refused = await server.kubectl("get", "secrets", kubeconfig=shown)
    assert refused.code == 1
    assert f'User "{READER}" cannot list resource "secrets"' in refused.stderr


@pytest.mark.parametrize("certificate", [False, True], ids=["token", "certificate"])
@pytest.mark.parametrize("user", ["admin", "jane"])
async def test_a_kubeconfig_is_its_users(
    server: ApiServer, tmp_path: Path, user: str, certificate: bool
) -> None:
    shown = await server.kubeconfig(tmp_path / "config", user, certificate=certificate)
    told = await server.kubectl("auth", "whoami", kubeconfig=shown)
    assert told.code == 0, told.stderr
    assert user in told.stdout
    assert ("developers" in told.stdout) == (user == "jane" and not certificate)
    asked = await server.kubectl("auth", "can-i", "list", "pods", kubeconfig=shown)
    assert asked.stdout.strip() == ("yes" if user == "admin" else "no")


async def test_kubectl_applies_what_it_is_given(server: ApiServer) -> None:
    text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: told}, data: {key: value}}"
    applied = await server.kubectl("apply", "-f", "-", stdin=text)
    assert applied.stdout == "configmap/told created\n", applied.stderr
    version = await server.kubectl("version", "-o", "json")
    assert (
        version.json["clientVersion"]["gitVersion"] == version.json["serverVersion"]["gitVersion"]
    )


async def test_many_pods_are_created_in_time_and_listed_in_pages(server: ApiServer) -> None:
    started = monotonic()
    made = await server.create(pod(f"p{number:03}", "nginx:1") for number in range(MANY))
    assert monotonic() - started < MANY_SECONDS
    names = [each["metadata"]["name"] for each in made]
    assert names == [f"p{number:03}" for number in range(MANY)]
    found = await pages(server, PODS, 150)
    assert [len(page) for page in found] == [150, 150, 150, 50]
    assert sorted(name for page in found for name in page) == names


async def test_what_it_refuses_to_create_is_told(server: ApiServer) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await server.create([pod("Not A Name", "nginx:1")])
    assert "Invalid value" in str(caught.value.exceptions[0])


async def test_it_leaves_no_process_and_no_directory(tmp_path: Path) -> None:
    directory = tmp_path / "server"
    server = await start_api_server(directory)
    assert [Path(f"/proc/{pid}").exists() for pid in server.pids] == [True, True]
    await server.stop()
    assert [Path(f"/proc/{pid}").exists() for pid in server.pids] == [False, False]
    assert list(tmp_path.iterdir()) == []


async def test_it_leaves_nothing_when_it_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="unknown flag: --no-such-flag"):
        await start_api_server(tmp_path / "server", flags=["--no-such-flag"])
    assert list(tmp_path.iterdir()) == []

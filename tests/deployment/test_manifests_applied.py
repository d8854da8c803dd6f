"""A real API server takes every combination, and lets the pods into a restricted namespace."""

from __future__ import annotations

import asyncio
import copy
import re
from itertools import chain, combinations
from pathlib import Path

import pytest
from tree import ROOT

from support.apiserver import ApiServer
from support.kustomize import (
    COMPONENTS,
    IMAGE,
    MANIFESTS,
    OVERLAYS,
    only,
    pod_of,
    put_together,
    rendered,
)
from support.manifests import Object

pytestmark = [
    pytest.mark.real("kube-apiserver", "kubectl", "etcd"),
    pytest.mark.long,
    pytest.mark.timeout(600),
]

STARTS = ("base", *(f"overlays/{name}" for name in OVERLAYS))
CHOICES = tuple(
    chain.from_iterable(combinations(COMPONENTS, count) for count in range(len(COMPONENTS) + 1))
)
PODS = "/api/v1/namespaces/prefetch/pods"


@pytest.fixture(scope="module")
def cluster(api_server: ApiServer) -> ApiServer:
    """With the namespace alone: nothing that is tried here in earnest needs more."""

    async def prepare() -> None:
        namespace = MANIFESTS / "base/namespace.yaml"
        for name in ("namespace.yaml", "rbac.yaml"):
            path = namespace.with_name(name)
            applied = await api_server.kubectl("apply", "--server-side", "-f", path)
            assert applied.code == 0, applied.stderr

    asyncio.run(prepare())
    return api_server


@pytest.mark.parametrize("components", CHOICES, ids=lambda names: "+".join(names) or "alone")
@pytest.mark.parametrize("start", STARTS)
async def test_the_server_takes_it(
    cluster: ApiServer, tmp_path: Path, start: str, components: tuple[str, ...]
) -> None:
    chosen = put_together(tmp_path / "chosen", start, components)
    tried = await cluster.kubectl("apply", "--server-side", "--dry-run=server", "-k", chosen)
    assert tried.code == 0, tried.stderr
    # Such as: would violate PodSecurity "restricted:latest".
    assert tried.stderr == ""
    assert tried.stdout.count("serverside-applied (server dry run)") == len(rendered(chosen))
    assert ("cronjob.batch/prefetch-sync" in tried.stdout) == ("cronjob" in components)


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_the_server_takes_what_is_shipped(cluster: ApiServer, overlay: str) -> None:
    shipped = MANIFESTS / "overlays" / overlay
    tried = await cluster.kubectl("apply", "--server-side", "--dry-run=server", "-k", shipped)
    assert (tried.code, tried.stderr) == (0, "")
    assert only(rendered(shipped), "Service")["spec"]["type"] == "NodePort"


async def test_the_server_takes_the_documented_kustomization(
    cluster: ApiServer, tmp_path: Path
) -> None:
    page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n# kustomization.yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "prefetch").symlink_to(ROOT)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(shown)
    (mine / "prefetch.yaml").write_text("platforms: [linux/arm64]\n")
    tried = await cluster.kubectl("apply", "--server-side", "--dry-run=server", "-k", mine)
    assert (tried.code, tried.stderr) == (0, "")
    objects = rendered(mine)
    assert only(objects, "ConfigMap")["data"] == {"prefetch.yaml": "platforms: [linux/arm64]\n"}
    (container,) = pod_of(objects, "StatefulSet")["spec"]["containers"]
    assert container["image"] == f"registry.corp.example/{IMAGE.partition('/')[2]}"
    names = [each["name"] for each in container["env"]]
    assert {"HUB_TOKEN", "PREFETCH_SERVE_TLS_CERT_FILE", "PREFETCH_CONFIG"} <= set(names)
    (rule,) = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert len(rule["from"]) == 2


@pytest.mark.parametrize("kind", ["StatefulSet", "CronJob"])
async def test_its_pods_are_let_in(cluster: ApiServer, tmp_path: Path, kind: str) -> None:
    pod = pod_of(rendered(put_together(tmp_path / "all", "overlays/k3s", COMPONENTS)), kind)
    (made,) = await cluster.create([pod])
    assert made["metadata"]["name"] == pod["metadata"]["name"]
    assert made["spec"]["serviceAccountName"] == "prefetch"
    # The token, which the account's other pods do not get.
    assert any("projected" in each for each in made["spec"]["volumes"])
    account = only(rendered(MANIFESTS / "base"), "ServiceAccount")
    assert account["automountServiceAccountToken"] is False


def as_root(pod: Object) -> None:
    pod["spec"]["securityContext"] = {}


def with_capabilities(pod: Object) -> None:
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]


def with_the_nodes_network(pod: Object) -> None:
    pod["spec"]["hostNetwork"] = True


@pytest.mark.parametrize("loosen", [as_root, with_capabilities, with_the_nodes_network])
async def test_the_namespace_lets_in_nothing_looser(
    cluster: ApiServer, tmp_path: Path, loosen: object
) -> None:
    pod = copy.deepcopy(pod_of(rendered(put_together(tmp_path / "all", "base")), "StatefulSet"))
    pod["metadata"]["name"] = "loose"
    assert callable(loosen)
    loosen(pod)
    refused = await cluster.ask("POST", PODS, pod)
    assert refused.status == 403
    assert 'violates PodSecurity "restricted:latest"' in refused.body["message"]


async def test_the_rights_are_to_list_and_no_more(cluster: ApiServer) -> None:
    user = "system:serviceaccount:prefetch:prefetch"
    for group, resource in (("", "pods"), ("", "nodes"), ("apps", "deployments")):
        assert await cluster.may(user, "list", resource, api_group=group)
        for verb in ("get", "watch", "create", "delete"):
            assert not await cluster.may(user, verb, resource, api_group=group)
    assert not await cluster.may(user, "list", "secrets")


async def test_components_do_not_undo_each_other(tmp_path: Path) -> None:
    objects = rendered(put_together(tmp_path / "all", "overlays/k3s", COMPONENTS))
    template = only(objects, "StatefulSet")["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert {name.partition("/")[2]: value for name, value in annotations.items()} == {
        "path": "/metrics",
        "port": "5000",
        "scheme": "https",
        "scrape": "true",
    }
    (container,) = template["spec"]["containers"]
    assert {each["name"] for each in container["env"]} == {
        "PREFETCH_CONFIG",
        "PREFETCH_DATA_DIR",
        "PREFETCH_SERVE_LISTEN",
        "PREFETCH_SERVE_NO_SCHEDULE",
        "PREFETCH_SERVE_TLS_CERT_FILE",
        "PREFETCH_SERVE_TLS_KEY_FILE",
    }
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert [(each["scheme"], each["path"]) for each in probes] == [
        ("HTTPS", "/healthz"),
        ("HTTPS", "/readyz"),
        ("HTTPS", "/healthz"),
    ]


async def test_a_changed_configuration_makes_a_new_pod(tmp_path: Path) -> None:
    shipped = rendered(put_together(tmp_path / "shipped", "base", ["cronjob"]))
    changed = rendered(
        put_together(tmp_path / "changed", "base", ["cronjob"], {"prefetch.yaml": "sources: []\n"})
    )
    for kind in ("StatefulSet", "CronJob"):
        names = [config_of(pod_of(objects, kind)) for objects in (shipped, changed)]
        assert names == [only(each, "ConfigMap")["metadata"]["name"] for each in (shipped, changed)]
        assert names[0] != names[1]


def config_of(pod: Object) -> str:
    (found,) = (each["configMap"]["name"] for each in pod["spec"]["volumes"] if "configMap" in each)
    return str(found)

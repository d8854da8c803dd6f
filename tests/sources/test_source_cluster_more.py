"""What of a cluster is read when it is asked for: running digests, nodes' images, pull secrets."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from prefetch.credentials.credential import Credential, Secret
from prefetch.errors import UsageError
from prefetch.oci.reference import Repository
from prefetch.sources.cluster import ClusterQuery, read_cluster
from prefetch.sources.kinds import CustomKind
from prefetch.sources.kubeapi import Connection
from prefetch.sources.selector import Parsed, merge
from support.cluster import AMD, ARM, Api, api, connection, node, pod, workload

__all__ = ["api", "connection"]

ONE, TWO = (f"sha256:{letter * 64}" for letter in "12")


async def read(connection: Connection, **query: Any) -> Parsed:
    return await read_cluster(ClusterQuery(connection, **query))


def optional(parsed: Parsed) -> list[str]:
    return [str(each.reference) for each in parsed.selectors if each.optional]


def running(name: str, image: str, *ids: Any, **statuses: Any) -> dict[str, Any]:
    made = pod(name, image)
    made["status"] = {"containerStatuses": [{"imageID": each} for each in ids], **statuses}
    return made


async def test_what_pods_run_by_digest(api: Api, connection: Connection) -> None:
    mounts = [{"volumeStatus": {"image": {"imageRef": f"ghcr.io/a/data@{TWO}"}}}]
    api.lists["/api/v1/pods"] = [
        running("a", "web:1", f"docker.io/library/web@{ONE}"),
        running("b", "web:1", f"docker-pullable://web@{ONE}", ONE, f"docker://{ONE}", "", None, 3),
        running("c", "web:1", "web:1", "no reference", initContainerStatuses=None),
        running("d", "web:1", ephemeralContainerStatuses=[{"volumeMounts": mounts}, None, "x"]),
        running("e", f"pinned@{TWO}", f"docker.io/library/pinned@{TWO}"),
    ]
    assert optional(await read(connection)) == []
    parsed = await read(connection, running_digests=True)
    assert optional(parsed) == [f"docker.io/library/web@{ONE}", f"ghcr.io/a/data@{TWO}"]
    by_digest = parsed.selectors[1]
    assert (by_digest.demand.pods, by_digest.demand.askers[0]) == (2, "Pod shop/a")
    assert by_digest.platforms == (AMD,)
    assert parsed.errors == []


async def test_what_nodes_hold_and_no_pod_names(api: Api, connection: Connection) -> None:
    pause = {"names": [f"registry.k8s.io/pause@{ONE}", "registry.k8s.io/pause:3.9"]}
    web = {"names": [f"docker.io/library/web@{TWO}", "docker.io/library/web:1"]}
    bare = {"names": [f"quay.io/a/b@{TWO}"]}
    odd = [{"names": ["<none>@<none>", "<none>:<none>"]}, {"names": None}, {}, None, {"names": [3]}]
    one, two = node("amd64"), node("arm64")
    one["status"]["images"] = [pause, web, bare, *odd]
    two["status"]["images"] = [pause]
    api.lists["/api/v1/nodes"] = [one, two]
    api.lists["/api/v1/pods"] = [pod("web", "web:1")]
    assert (await read(connection, node_images=True, platforms=None)).selectors[1].platforms is None
    parsed = await read(connection, node_images=True)
    assert optional(parsed) == ["registry.k8s.io/pause:3.9", f"quay.io/a/b@{TWO}"]
    held = parsed.selectors[1]
    assert (held.platforms, held.demand.pods) == ((AMD, ARM), 0)
    assert held.demand.askers == ("Node amd64",)
    assert parsed.errors == []


ENGINE = CustomKind("example.com/v1", "Engine", "engines", ("spec.image", "spec.workers[].image"))


async def test_kinds_of_ones_own(api: Api, connection: Connection) -> None:
    parsed = await read(connection, kinds=(ENGINE,))
    # Whoever names it is told: nothing of it would be proven warm.
    assert "engines: the server could not find" in str(parsed.errors[0])
    spec = {"image": "engine:1", "workers": [{"image": "worker:1"}]}
    engine = {"metadata": {"name": "e", "namespace": "shop"}, "spec": spec}
    api.lists["/apis/example.com/v1/engines"] = [engine]
    parsed = await read(connection, kinds=(ENGINE,))
    assert (parsed.notes, parsed.errors) == ([], [])
    assert [str(s.reference) for s in parsed.selectors] == [
        "docker.io/library/engine:1",
        "docker.io/library/worker:1",
    ]
    assert parsed.selectors[0].demand.askers == ("Engine shop/e",)
    assert parsed.selectors[0].platforms == (AMD,)


async def test_kinds_of_ones_own_are_looked_at_as_in_files(
    api: Api, connection: Connection
) -> None:
    """Also outside of `spec`; and each image for where its own pods may run."""
    paths = ("config.image", "metadata.annotations.image", "spec.workers[].pod", "spec.lone")
    api.lists["/api/v1/nodes"].append(node("arm64"))
    amd = {"kubernetes.io/hostname": "amd64"}
    for each in api.lists["/api/v1/nodes"]:
        each["metadata"]["labels"] = {"kubernetes.io/hostname": each["metadata"]["name"]}
    engine = {
        "metadata": {"name": "e", "namespace": "shop", "annotations": {"image": "noted:1"}},
        "config": {"image": "config:1"},
        "spec": {
            "lone": "lone:1",
            "template": {"spec": {"containers": [{"image": "main:1"}], "nodeSelector": amd}},
            "workers": [
                {"pod": {"containers": [{"image": "worker:1"}]}},
                {"pod": {"containers": [{"image": "tied:1"}], "nodeSelector": amd}},
            ],
        },
    }
    api.lists["/apis/example.com/v1/engines"] = [engine]
    kind = CustomKind("example.com/v1", "Engine", "engines", paths)
    parsed = await read(connection, kinds=(kind,))
    assert parsed.errors == []
    wanted = {str(s.reference).rpartition("/")[2]: s.platforms for s in parsed.selectors}
    both = (AMD, ARM)
    assert wanted == {
        "main:1": (AMD,),
        "tied:1": (AMD,),
        "config:1": both,
        "noted:1": both,
        "worker:1": both,
        "lone:1": both,
    }


@pytest.mark.parametrize(
    ("owner", "named"),
    [
        ({"kind": "CronJob", "controller": True}, False),
        ({"kind": "CronJob"}, True),
        ({"kind": "JobSet", "controller": True}, True),
        ({"kind": "ConfigMap"}, True),
        ("nonsense", True),
    ],
)
async def test_what_something_else_owns_counts_unless_that_is_read(
    api: Api, connection: Connection, owner: Any, named: bool
) -> None:
    made = workload("once", "once:1")
    made["metadata"]["ownerReferences"] = [owner]
    api.lists["/apis/batch/v1/jobs"] = [made]
    assert bool((await read(connection)).selectors) == named


async def test_what_has_ended_is_not_started_again(api: Api, connection: Connection) -> None:
    pods = [pod(phase, f"{phase.lower()}:1") for phase in ("Running", "Succeeded", "Failed")]
    for each in pods:
        each["status"] = {"phase": each["metadata"]["name"]}
    api.lists["/api/v1/pods"] = pods
    jobs = [workload(name, f"{name.lower()}:1") for name in ("Complete", "Failed", "Suspended")]
    for each in jobs:
        each["status"] = {"conditions": [{"type": each["metadata"]["name"], "status": "True"}]}
    api.lists["/apis/batch/v1/jobs"] = jobs
    found = [str(s.reference).rpartition("/")[2] for s in (await read(connection)).selectors]
    assert found == ["running:1", "suspended:1"]


async def test_what_nodes_never_pull_is_not_wanted(api: Api, connection: Connection) -> None:
    local = pod("local", "built-here:1", "web:1")
    local["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    gateway = pod("gateway", "auto")
    gateway["spec"]["containers"][0]["name"] = "istio-proxy"
    api.lists["/api/v1/pods"] = [local, gateway]
    parsed = await read(connection)
    assert [str(s.reference) for s in parsed.selectors] == ["docker.io/library/web:1"]
    assert parsed.errors == []


async def test_a_node_that_says_nothing_of_itself_is_told(api: Api, connection: Connection) -> None:
    api.lists["/api/v1/nodes"].append({"metadata": {"name": "odd\x1b"}})
    parsed = await read(connection)
    assert "Node 'odd\\x1b' does not say what platform it is" in str(parsed.errors[0])


async def test_an_image_for_some_nodes_and_for_the_runs_platforms(
    api: Api, connection: Connection
) -> None:
    api.refused["/api/v1/nodes"] = 403
    arm = {"kubernetes.io/arch": "arm64"}
    api.lists["/api/v1/pods"] = [pod("a", "web:1", nodeSelector=arm), pod("b", "web:1")]
    parsed = await read(connection)
    [merged] = merge(parsed.selectors, (AMD,))
    assert merged.platforms == (ARM, AMD)
    assert merged.demand.pods == 2


@pytest.mark.parametrize("name", ["..", "%2e%2e", "../namespaces/shop", "shop#", "Shop", ""])
async def test_a_namespace_is_a_name(api: Api, connection: Connection, name: str) -> None:
    with pytest.raises(UsageError, match="is not a namespace's name"):
        await read(connection, namespaces=("shop", name))
    assert api.asked == []


async def test_an_object_too_deep_is_an_error_and_the_rest_is_used(
    api: Api, connection: Connection
) -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    odd = pod("odd", "odd:1")
    odd["spec"]["deep"] = deep
    api.lists["/api/v1/pods"] = [odd, pod("web", "web:1")]
    parsed = await read(connection)
    assert "docker.io/library/web:1" in {str(s.reference) for s in parsed.selectors}
    assert [str(error) for error in parsed.errors] == ["cluster: Pod 'odd': nested too deeply"]


def secret(auths: Any, key: str = ".dockerconfigjson") -> dict[str, Any]:
    held = {"auths": auths} if key == ".dockerconfigjson" else auths
    return {"data": {key: base64.b64encode(json.dumps(held).encode()).decode()}}


def entry(user: str, password: str = "hunter2") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def users(parsed: Parsed) -> dict[str, str]:
    return {
        str(repository): login.username
        for repository, logins in parsed.logins.items()
        for login in logins[:1]
        if isinstance(login, Credential)
    }


def put(api: Api, name: str, made: dict[str, Any], namespace: str = "shop") -> None:
    api.objects[f"/api/v1/namespaces/{namespace}/secrets/{name}"] = made


def secretive(name: str, image: str, *secrets: str, **spec: Any) -> dict[str, Any]:
    return pod(name, image, imagePullSecrets=[{"name": each} for each in secrets], **spec)


async def test_secrets_are_for_the_repositories_of_their_pods_alone(
    api: Api, connection: Connection
) -> None:
    both = {"ghcr.io": entry("alice"), "quay.io": entry("alice")}
    put(api, "reg", secret(both))
    api.lists["/api/v1/pods"] = [
        secretive("a", "ghcr.io/corp/app:1", "reg"),
        pod("b", "quay.io/corp/other:1"),
        secretive("c", "docker.io/corp/third:1", "reg"),
    ]
    assert (await read(connection)).logins == {}
    assert not any("secrets" in path or "serviceaccounts" in path for path in api.asked)
    parsed = await read(connection, use_pull_secrets=True)
    assert parsed.logins == {
        Repository("ghcr.io", "corp/app"): (Credential("alice", Secret("hunter2")),)
    }
    assert "hunter2" not in repr(parsed)


async def test_an_accounts_secrets_are_for_pods_that_name_none(
    api: Api, connection: Connection
) -> None:
    put(api, "of-default", secret({"ghcr.io": entry("default")}))
    put(api, "of-robot", secret({"ghcr.io": entry("robot")}))
    put(api, "own", secret({"ghcr.io": entry("own")}))
    api.lists["/api/v1/serviceaccounts"] = [
        {"metadata": {"name": name, "namespace": "shop"}, "imagePullSecrets": [{"name": held}]}
        for name, held in (("default", "of-default"), ("robot", "of-robot"))
    ]
    template = workload("idle", "ghcr.io/a/idle:1")
    template["spec"]["template"]["spec"]["serviceAccountName"] = "robot"
    api.lists["/apis/apps/v1/deployments"] = [template]
    api.lists["/api/v1/pods"] = [
        pod("a", "ghcr.io/a/plain:1"),
        secretive("b", "ghcr.io/a/own:1", "own", serviceAccountName="robot"),
    ]
    parsed = await read(connection, use_pull_secrets=True)
    assert users(parsed) == {
        "ghcr.io/a/plain": "default",
        "ghcr.io/a/own": "own",
        "ghcr.io/a/idle": "robot",
    }


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("https://index.docker.io/v1/", "corp/app", True),
        ("docker.io", "corp/app", True),
        ("reg.example.com/corp", "reg.example.com/corp/app", True),
        ("reg.example.com/cor", "reg.example.com/corp/app", False),
        ("*.example.com", "reg.example.com/corp/app", True),
        ("r*g.example.com/corp", "reg.example.com/corp/app", True),
        ("*.example.com/other", "reg.example.com/corp/app", False),
        ("*.com", "reg.example.com/corp/app", False),
        ("*", "reg.example.com/corp/app", False),
        ("*.example.com", "example.com/corp/app", False),
    ],
)
async def test_entries_are_found_as_kubelets_find_them(
    api: Api, connection: Connection, key: str, image: str, fits: bool
) -> None:
    put(api, "reg", secret({key: entry("alice")}))
    api.lists["/api/v1/pods"] = [secretive("a", f"{image}:1", "reg")]
    parsed = await read(connection, use_pull_secrets=True)
    assert bool(parsed.logins) == fits


async def test_of_several_the_most_used_one_comes_first(api: Api, connection: Connection) -> None:
    put(api, "few", secret({"ghcr.io": entry("few")}, ".dockercfg"))
    put(api, "many", secret({"ghcr.io": entry("many")}, ".dockercfg"))
    put(api, "useless", secret({"quay.io": entry("useless")}))
    image = "ghcr.io/a/b:1"
    api.lists["/api/v1/pods"] = [
        secretive("a", image, "few"),
        *(secretive(f"m{n}", image, "useless", "many") for n in range(3)),
    ]
    parsed = await read(connection, use_pull_secrets=True)
    assert users(parsed) == {"ghcr.io/a/b": "many"}
    assert [each.username for each in parsed.logins[Repository("ghcr.io", "a/b")]] == [
        "many",
        "few",
    ]


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        ({}, "it is no pull secret"),
        ({"data": {".dockerconfigjson": "%%%"}}, ".dockerconfigjson is not what it should be"),
        ({"data": {".dockercfg": base64.b64encode(b"{").decode()}}, ".dockercfg is not what"),
        ({"data": {".dockerconfigjson": base64.b64encode(b"hunter2").decode()}}, "not valid JSON"),
        (secret({"ghcr.io": {"auth": "hunter2"}}), "not valid base64"),
        (secret({"ghcr.io": 3}), "is not a JSON object"),
    ],
)
async def test_a_secret_that_is_none_is_an_error_without_its_content(
    api: Api, connection: Connection, made: dict[str, Any], complaint: str
) -> None:
    put(api, "reg", made)
    api.lists["/api/v1/pods"] = [secretive("a", "ghcr.io/a/b:1", "reg")]
    parsed = await read(connection, use_pull_secrets=True)
    told = "\n".join(map(str, parsed.errors))
    assert "secret shop/reg: " in told
    assert complaint in told
    assert "hunter2" not in told
    assert len(parsed.selectors) == 1


async def test_secrets_that_are_not_there_or_not_for_us(api: Api, connection: Connection) -> None:
    api.lists["/api/v1/pods"] = [secretive("a", "ghcr.io/a/b:1", "gone", "hidden", "../evil")]
    api.refused["/api/v1/namespaces/shop/secrets/hidden"] = 403
    parsed = await read(connection, use_pull_secrets=True)
    assert [str(note) for note in parsed.notes] == ["cluster: secret shop/gone: there is none"]
    assert len(parsed.errors) == 1
    assert "secret shop/hidden: " in str(parsed.errors[0])
    assert "cluster.use_pull_secrets" in str(parsed.errors[0])
    assert not any("evil" in path for path in api.asked)


async def test_helpers_that_a_secret_names_are_not_run(api: Api, connection: Connection) -> None:
    held = {"credHelpers": {"ghcr.io": "evil"}, "credsStore": "evil", "auths": {}}
    data = base64.b64encode(json.dumps(held).encode()).decode()
    put(api, "reg", {"data": {".dockerconfigjson": data}})
    api.lists["/api/v1/pods"] = [secretive("a", "ghcr.io/a/b:1", "reg")]
    parsed = await read(connection, use_pull_secrets=True)
    assert (parsed.logins, parsed.errors) == ({}, [])

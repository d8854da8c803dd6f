"""A live cluster whose answers are made to order; a real one is in tests/kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefetch.errors import UsageError
from prefetch.sources.cluster import ClusterQuery, read_cluster
from prefetch.sources.kubeapi import Connection
from prefetch.sources.selector import Parsed
from support.cluster import AMD, ARM, Api, api, connection, kubeconfig, node, pod, workload

__all__ = ["api", "connection"]


async def read(connection: Connection, **query: Any) -> Parsed:
    return await read_cluster(ClusterQuery(connection, **query))


def demands(parsed: Parsed) -> dict[str, str]:
    return {str(s.reference).rpartition("/")[2]: str(s.demand) for s in parsed.selectors}


async def test_pods_are_counted_and_workloads_add_what_does_not_run(
    api: Api, connection: Connection
) -> None:
    api.lists["/api/v1/pods"] = [pod(f"web-{n}", "web:1", "side:1") for n in range(5)]
    api.lists["/api/v1/pods"].append(pod("vip", "vip:1", priority=1000))
    api.lists["/apis/apps/v1/deployments"] = [workload("web", "web:1"), workload("idle", "idle:1")]
    api.lists["/apis/apps/v1/replicasets"] = [workload("old", "old:1", owned=True)]
    api.lists["/apis/apps/v1/replicasets"].append(workload("lone", "lone:1"))
    cron = workload("nightly", "nightly:1")
    cron["spec"] = {"jobTemplate": {"spec": cron["spec"]}}
    api.lists["/apis/batch/v1/cronjobs"] = [cron]
    parsed = await read(connection)
    assert parsed.errors == []
    assert demands(parsed) == {
        "web:1": "5 pods",
        "side:1": "5 pods",
        "vip:1": "1 pod, priority 1000",
        "idle:1": "",
        "lone:1": "",
        "nightly:1": "",
    }
    assert parsed.selectors[0].demand.askers[0] == "Pod shop/web-0"


async def test_the_nodes_say_for_which_platforms(api: Api, connection: Connection) -> None:
    api.lists["/api/v1/pods"] = [pod("web", "web:1")]
    api.lists["/api/v1/nodes"] = [node("amd64"), node("arm64"), node("amd64"), {"status": {}}]
    assert (await read(connection)).selectors[0].platforms == (AMD, ARM)
    assert (await read(connection, platforms=(ARM,))).selectors[0].platforms == (ARM,)
    assert (await read(connection, platforms=None)).selectors[0].platforms is None


async def test_a_list_that_expires_is_begun_anew_and_nothing_counted_twice(
    api: Api, connection: Connection
) -> None:
    api.lists["/api/v1/pods"] = [pod(f"web-{n}", "web:1") for n in range(7)]
    api.expired = 2
    parsed = await read(connection)
    assert (demands(parsed), parsed.errors) == ({"web:1": "7 pods"}, [])
    api.expired = 99
    parsed = await read(connection)
    assert "pods: The provided continue parameter is too old" in str(parsed.errors[0])


async def test_namespaces_and_labels(api: Api, connection: Connection) -> None:
    api.lists["/api/v1/namespaces/shop/pods"] = [pod("web", "web:1")]
    parsed = await read(connection, namespaces=("shop", "typo"), selector="app=web")
    assert [str(note) for note in parsed.notes] == [
        "cluster: namespace typo: there is nothing in it"
    ]
    asked = [path for path in api.asked if "/pods" in path]
    assert asked == [
        f"/api/v1/namespaces/{name}/pods?limit=500&labelSelector=app%3Dweb"
        for name in ("shop", "typo")
    ]
    assert not any("labelSelector" in path for path in api.asked if "/nodes" in path)


async def test_missing_rights_are_named_one_by_one_and_the_rest_is_used(
    api: Api, connection: Connection
) -> None:
    api.lists["/api/v1/pods"] = [pod("web", "web:1")]
    api.refused = {"/api/v1/nodes": 403, "/apis/batch/v1/jobs": 403}
    parsed = await read(connection)
    assert list(demands(parsed)) == ["web:1"]
    assert parsed.selectors[0].platforms is None
    errors = [str(error) for error in parsed.errors]
    assert [error.split()[1] for error in errors] == ["nodes:", "jobs:"]
    assert all(error.isprintable() for error in errors)


@pytest.mark.parametrize("kind", ["rollouts", "services"])
async def test_kinds_that_a_cluster_may_not_have_are_used_if_it_has(
    api: Api, connection: Connection, kind: str
) -> None:
    group = {"rollouts": "argoproj.io/v1alpha1", "services": "serving.knative.dev/v1"}[kind]
    assert (await read(connection)).errors == []
    api.lists[f"/apis/{group}/{kind}"] = [workload("new", "new:1")]
    assert list(demands(await read(connection))) == ["new:1"]


@pytest.mark.parametrize("raw", [b"", b"no json", b"[]", b'{"items": 3}', b"<html>"])
async def test_answers_that_make_no_sense_are_errors_and_no_empty_lists(
    api: Api, connection: Connection, raw: bytes
) -> None:
    api.raw = raw
    parsed = await read(connection)
    assert parsed.selectors == []
    assert "pods: the answer is no list" in "\n".join(map(str, parsed.errors))


async def test_a_cluster_that_does_not_answer_is_asked_twice_and_no_more(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:1")
    parsed = await read(Connection(path))
    assert [str(error).split(":")[1] for error in parsed.errors] == [" nodes", " pods"]
    assert "127.0.0.1:1" in str(parsed.errors[0])
    assert str(parsed.errors[1]).endswith("no more is asked for")


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", "{", "current-context: none\ncontexts: []\n", "a: [" * 5000]
)
async def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        await read(Connection(path))
    assert "\n" not in str(caught.value)


async def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:1")
    with pytest.raises(UsageError, match="none"):
        await read(Connection(path, "none"))

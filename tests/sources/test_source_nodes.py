"""Which nodes a pod may run on, and so for which platforms its images are wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.oci.platform import Platform, PlatformSet
from prefetch.sources.nodes import Nodes
from prefetch.sources.yamltree import MapNode, tree_of

AMD, ARM, WIN = (Platform.parse(p) for p in ("linux/amd64", "linux/arm64", "windows/amd64"))
GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


def node(
    name: str, platform: Platform, *, taints: list[Any] | None = None, **labels: str
) -> dict[str, Any]:
    own = {"kubernetes.io/arch": platform.architecture, "kubernetes.io/os": platform.os}
    return {
        "metadata": {"name": name, "labels": own | labels},
        "spec": {"taints": taints or []},
        "status": {
            "nodeInfo": {"operatingSystem": platform.os, "architecture": platform.architecture}
        },
    }


def platforms(spec: dict[str, Any], *nodes: dict[str, Any]) -> PlatformSet | None:
    known = Nodes()
    for each in nodes:
        known.add(each)
    tree = tree_of({"containers": [], **spec})
    assert isinstance(tree, MapNode)
    return known.platforms_for(tree)


def affinity(*terms: Any) -> dict[str, Any]:
    required = {"nodeSelectorTerms": list(terms)}
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    }


def labels(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


FLEET = (
    node("a", AMD, disk="ssd", cores="8"),
    node("b", ARM, cores="64"),
    node("w", WIN),
)
FREE = tuple(Platform.parse(f"freebsd/{each}") for each in ("amd64", "arm64"))
NAMED = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, (AMD, ARM, WIN)),
        ({"nodeSelector": {"disk": "ssd"}}, (AMD,)),
        ({"nodeSelector": {"kubernetes.io/os": "linux"}}, (AMD, ARM)),
        ({"nodeSelector": {"disk": "ssd", "kubernetes.io/os": "linux"}}, (AMD,)),
        ({"os": {"name": "windows"}}, (WIN,)),
        ({"nodeName": "a"}, (AMD, ARM, WIN)),
        # Where it runs, it runs, whatever its specification says today.
        ({"nodeName": "b", "nodeSelector": {"disk": "ssd"}}, (AMD, ARM)),
        ({"nodeSelector": {"kubernetes.io/os": "freebsd"}}, FREE),
        ({"os": {"name": "freebsd"}}, FREE),
        (affinity(labels("kubernetes.io/arch", "In", "arm64", "riscv64")), (ARM,)),
        (affinity(labels("disk", "NotIn", "ssd")), (ARM, WIN)),
        (affinity(labels("disk", "Exists")), (AMD,)),
        (affinity(labels("disk", "DoesNotExist")), (ARM, WIN)),
        (affinity(labels("cores", "Gt", "8")), (ARM,)),
        (affinity(labels("cores", "Lt", "9")), (AMD,)),
        (affinity(labels("cores", "Gt", "1_0")), (AMD, ARM, WIN)),
        (affinity(labels("disk", "Exists"), NAMED), (AMD, ARM)),
        (affinity(NAMED), (ARM,)),
        (affinity(labels("disk", "Exists") | NAMED), (AMD, ARM, WIN)),  # none: one is to come
        (affinity({}, labels("disk", "Exists")), (AMD,)),
        ({"nodeSelector": {"kubernetes.io/arch": "riscv64"}}, (Platform.parse("linux/riscv64"),)),
        (
            {"nodeSelector": {"kubernetes.io/arch": "arm64", "kubernetes.io/os": "windows"}},
            (Platform.parse("windows/arm64"),),
        ),
        ({"nodeSelector": {"pool": "new"}}, (AMD, ARM, WIN)),
        ({"nodeSelector": None, "affinity": None, "tolerations": None}, (AMD, ARM, WIN)),
    ],
)
def test_a_pod_goes_where_its_specification_lets_it(
    spec: dict[str, Any], wanted: PlatformSet
) -> None:
    assert platforms(spec, *FLEET) == wanted


@pytest.mark.parametrize(
    ("tolerations", "wanted"),
    [
        ([], (AMD,)),
        ([{"operator": "Exists"}], (AMD, ARM)),
        ([{"key": "gpu", "operator": "Exists"}], (AMD, ARM)),
        ([{"key": "gpu", "value": "yes"}], (AMD, ARM)),
        ([{"key": "gpu", "operator": "Equal", "value": "no"}], (AMD,)),
        ([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}], (AMD,)),
        ([{"key": "other", "operator": "Exists"}], (AMD,)),
        ([{"value": "yes"}], (AMD,)),
        ([None, 3, {"key": "gpu", "value": "yes", "effect": "NoSchedule"}], (AMD, ARM)),
    ],
)
def test_taints_keep_out_who_does_not_tolerate_them(
    tolerations: list[Any], wanted: PlatformSet
) -> None:
    nodes = node("a", AMD), node("gpu", ARM, taints=[GPU])
    assert platforms({"tolerations": tolerations}, *nodes) == wanted


@pytest.mark.parametrize(
    "taint",
    [
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
        {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"},
        {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"},
        {"key": "ebs.csi.aws.com/agent-not-ready", "effect": "NoExecute"},
        {"key": "gpu", "effect": "PreferNoSchedule"},
        None,
    ],
)
def test_a_nodes_condition_passes(taint: Any) -> None:
    assert platforms({}, node("a", AMD), node("b", ARM, taints=[taint])) == (AMD, ARM)


def test_without_nodes_nothing_is_known() -> None:
    spec = {"nodeSelector": {"kubernetes.io/arch": "arm64"}}
    odd = {"metadata": {"name": "x"}}, {"status": {"nodeInfo": []}}
    assert platforms({}) is None
    assert platforms({}, *odd) is None
    assert [Nodes().add(each) for each in odd] == [False, False]
    # A pod that says so itself needs no node for it.
    assert platforms(spec) == platforms(spec, *odd) == (ARM,)
    assert platforms({"nodeSelector": {"kubernetes.io/os": "windows"}}) == (WIN,)


def test_a_node_that_only_its_labels_tell_of() -> None:
    bare = node("arm", ARM)
    del bare["status"]
    assert platforms({}, bare) == (ARM,)


@pytest.mark.parametrize(
    ("kernel", "label", "version"),
    [
        ("10.0.17763.5696", None, "10.0.17763.5696"),
        (None, "10.0.20348", "10.0.20348"),
        ("5.15.0-generic", None, None),
        (None, None, None),
    ],
)
def test_windows_runs_images_of_its_build(
    kernel: str | None, label: str | None, version: str | None
) -> None:
    made = node("w", WIN)
    made["status"]["nodeInfo"]["kernelVersion"] = kernel
    if label is not None:
        made["metadata"]["labels"]["node.kubernetes.io/windows-build"] = label
    assert platforms({}, made) == (replace(WIN, os_version=version),)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["nodeSelector", "affinity", "tolerations", "os"])
PARTS = st.sampled_from(["metadata", "spec", "status"])


@given(st.dictionaries(KEYS, JSON), st.dictionaries(PARTS, JSON))
def test_whatever_stands_there_does_no_harm(spec: dict[str, Any], odd: dict[str, Any]) -> None:
    tainted = node("t", ARM, taints=[odd, {"key": odd, "effect": "NoSchedule"}])
    assert platforms(spec, node("a", AMD), odd, tainted) is not None

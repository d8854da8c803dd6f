"""Images of Kubernetes objects: every field that has one, who asks, and what is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.sources import kubernetes
from prefetch.sources.detect import parse
from prefetch.sources.kinds import CustomKind
from prefetch.sources.selector import Demand, Parsed
from prefetch.sources.yamltree import read

POD = {
    "initContainers": [{"image": "init:1"}],
    "containers": [{"image": "web:1"}, {"image": "side:1"}],
    "ephemeralContainers": [{"image": "debug:1"}],
    "volumes": [{"name": "x", "emptyDir": {}}, {"image": {"reference": "model:1"}}],
}
ALL = ["web", "side", "init", "debug", "model"]


def objects(*documents: Any) -> Parsed:
    return parse("\n---\n".join(map(json.dumps, documents)).encode(), "x.yaml")


def images(parsed: Parsed) -> list[str]:
    assert parsed.errors == []
    return [
        s.reference.repository.path.removeprefix("library/")
        for s in parsed.selectors
        if s.reference
    ]


def nested(path: str, value: object) -> dict[str, Any]:
    found: Any = value
    for key in reversed(path.split(".")):
        found = {key: found}
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Pod", "spec"),
        ("PodTemplate", "template.spec"),
        *(
            (kind, "spec.template.spec")
            for kind in (
                *("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController"),
                *("Job", "Rollout", "Service", "Configuration", "CloneSet", "BroadcastJob"),
                "SomethingOfOurs",
            )
        ),
        ("CronJob", "spec.jobTemplate.spec.template.spec"),
        ("AdvancedCronJob", "spec.template.jobTemplate.spec.template.spec"),
        ("Revision", "spec"),
        ("SidecarSet", "spec"),
    ],
)
def test_every_workload_has_the_images_of_its_pods(kind: str, path: str) -> None:
    assert images(objects({"kind": kind, **nested(path, POD)})) == ALL


def test_lists_and_lists_in_lists() -> None:
    pod = {"kind": "Pod", "spec": {"containers": [{"image": "a"}]}}
    deployment = {
        "kind": "Deployment",
        **nested("spec.template.spec", {"containers": [{"image": "b"}]}),
    }
    inner = {"kind": "PodList", "items": [pod, deployment]}
    assert images(objects({"kind": "List", "items": [deployment, inner]})) == ["b", "a", "b"]
    assert images(objects({"kind": "List", "items": None}, {"kind": "PodList"})) == []


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "ConfigMap", "data": {"image": "x"}},
        {"kind": "Service", "spec": {"ports": []}},
        {"kind": "Rollout", "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}}},
        {"kind": "Role", "rules": [{"resources": ["pods"]}]},
        {"kind": "Deployment", **nested("spec.template.spec", {"containers": [{"name": "mesh"}]})},
    ],
)
def test_what_has_no_images_is_not_wrong(document: Any) -> None:
    assert images(objects(document)) == []


def demand(parsed: Parsed) -> Demand:
    assert parsed.errors == []
    total = Demand()
    for selector in parsed.selectors:
        total += selector.demand
    return total


def test_who_asks_for_an_image_and_how_urgently() -> None:
    pod = {
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "web-1"},
        "spec": {
            "priority": 1000,
            "containers": [{"image": "web:1", "imagePullPolicy": "Always"}],
        },
    }
    deployment = {
        "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "web"},
        **nested("spec.template.spec", {"containers": [{"image": "web:1"}]}),
    }
    deployment["spec"]["replicas"] = 3
    found = demand(objects(pod, deployment))
    assert found == Demand(4, True, 1000, ("Pod shop/web-1", "Deployment shop/web"))
    assert str(found) == "4 pods, Always, priority 1000"
    assert found.rank > Demand(5000, True, 999).rank > Demand(5000).rank > Demand(4).rank


@pytest.mark.parametrize(
    ("image", "policy", "always"),
    [
        ("web", None, True),
        ("web:latest", None, True),
        ("localhost:5000/web", None, True),
        ("web:latest", "IfNotPresent", False),
        ("web:1", None, False),
        ("web:1", "Always", True),
        (f"web@sha256:{'0' * 64}", None, False),
        (f"web:latest@sha256:{'0' * 64}", None, False),
    ],
)
def test_when_an_image_is_pulled_always(image: str, policy: str | None, always: bool) -> None:
    container = {"image": image} | ({"imagePullPolicy": policy} if policy else {})
    found = objects({"kind": "Pod", "spec": {"containers": [container]}})
    assert demand(found).always is always
    volume = {"reference": image} | ({"pullPolicy": policy} if policy else {})
    found = objects({"kind": "Pod", "spec": {"containers": [], "volumes": [{"image": volume}]}})
    assert demand(found).always is always


@pytest.mark.parametrize(
    ("kind", "replicas", "pods"),
    [("Deployment", 0, 0), ("Deployment", None, 1), ("Deployment", "x", 1), ("Deployment", -1, 0),
     ("Deployment", 10**12, 1_000_000), ("Deployment", True, 1)],
)  # fmt: skip
def test_how_many_pods_a_workload_starts(kind: str, replicas: object, pods: int) -> None:
    workload = {"kind": kind, **nested("spec.template.spec", {"containers": [{"image": "a:1"}]})}
    workload["spec"]["replicas"] = replicas
    assert demand(objects(workload)).pods == pods


def test_merge_keys_bring_images() -> None:
    text = b"""\
kind: Pod
spec:
  initContainers: [&base {image: "base:1"}]
  containers: [{<<: *base, name: web}]
"""
    assert images(parse(text, "x.yaml")) == ["base", "base"]


def test_places_of_ones_own() -> None:
    document = {
        "apiVersion": "example.com/v1beta1",
        "kind": "Engine",
        "metadata": {"name": "e"},
        "spec": {
            "image": "a:1",
            "workers": [{"image": "b:1"}, {"name": "none"}, {"image": "c:1"}],
            "odd": {"image": {"x": 1}},
            "template": {"spec": {"containers": [{"image": "d:1"}], "initContainers": None}},
            "pod": {"containers": [{"image": "e:1"}]},
        },
    }
    node = read(json.dumps(document), "x")
    assert node is not None

    def parsed(*paths: str, version: str = "example.com/v1", kind: str = "Engine") -> Parsed:
        return kubernetes.parse(node, "x", [CustomKind(version, kind, "engines", paths)])

    paths = ("spec.image", "spec.workers[].image", "spec.none.image", "spec.image[].x", "spec.pod")
    # What is where pods usually are is found anyway.
    assert images(parsed(*paths)) == ["d", "a", "b", "c", "e"]
    assert images(parsed("spec.other", "spec.pod.containers[].image")) == ["d", "e"]
    assert images(parsed("spec.image", kind="Motor")) == ["d"]
    assert images(parsed("spec.image", version="other.com/v1")) == ["d"]
    assert "Engine e: spec.odd.image is no image" in str(parsed("spec.odd.image").errors[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_version", ""),
        ("api_version", "../v1"),
        ("kind", "engine"),
        ("kind", "En/gine"),
        ("resource", "../pods"),
        ("resource", "Engines"),
        ("path", ""),
        ("path", "spec..image"),
        ("path", ".spec"),
        ("path", "spec[0]"),
    ],
)
def test_a_kind_of_ones_own_that_can_be_none(field: str, value: str) -> None:
    fields = {"api_version": "a.com/v1", "kind": "E", "resource": "es", "path": "spec.image"}
    fields[field] = value
    with pytest.raises(ValueError, match=re.escape(repr(value))):
        CustomKind(fields["api_version"], fields["kind"], fields["resource"], (fields["path"],))


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"kind": "Pod"}, "Pod ?: there is no pod specification in it"),
        ({"kind": "Pod", "spec": None}, "there is no pod specification"),
        ({"kind": "Deployment", "spec": {"template": None}}, "there is no pod specification"),
        ({"kind": "Pod", "spec": {"containers": None}}, "containers is not a list"),
        ({"kind": "Pod", "spec": {"containers": {"image": "a"}}}, "containers is not a list"),
        ({"kind": "Pod", "spec": {"containers": [None]}}, "containers[0]: not a container"),
        ({"kind": "Pod", "spec": {"containers": ["a"]}}, "containers[0]: not a container"),
        ({"kind": "Pod", "spec": {"containers": [{}]}}, "containers[0] has no image"),
        ({"kind": "Pod", "spec": {"containers": [{"image": None}]}}, "image is no image"),
        ({"kind": "Pod", "spec": {"containers": [{"image": ""}]}}, "image is no image"),
        ({"kind": "Pod", "spec": {"containers": [{"image": ["a"]}]}}, "image is no image"),
        ({"kind": "Pod", "spec": {"containers": [{"image": "A b"}]}}, "containers[0].image: "),
        (
            {"kind": "Pod", "spec": {"containers": [{"image": "{{ .Values.image }}"}]}},
            "is a template (render it first: helm template",
        ),
        ({"kind": "Pod", "spec": {"containers": [{"image": "${IMAGE}"}]}}, "is a template"),
        ({"kind": "List", "items": ["a"]}, "not a Kubernetes object"),
        ({"kind": "Pod", "spec": {"containers": [], "volumes": {}}}, "volumes is not a list"),
    ],
)
def test_what_is_wrong_is_a_line_and_the_rest_is_used(document: Any, complaint: str) -> None:
    good = {"kind": "Pod", "spec": {"containers": [{"image": "good:1"}]}}
    parsed = objects(good, document, good)
    assert len(parsed.selectors) == 2
    [error] = parsed.errors
    assert complaint in str(error)
    assert str(error).startswith("x.yaml:3: ")
    assert str(error).isprintable()


def test_a_kustomization_is_noted() -> None:
    parsed = objects({"kind": "Kustomization", "images": [{"name": "a", "newTag": "1"}]})
    assert parsed.errors == []
    assert "kustomize build" in str(parsed.notes[0])


def test_a_name_cannot_write_to_the_terminal() -> None:
    parsed = objects({"kind": "Pod", "metadata": {"name": "\x1b[31mx\n"}, "spec": None})
    assert str(parsed.errors[0]).isprintable()


def test_aliases_cannot_grow_without_bound() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    parsed = parse(f"kind: Pod\n{bomb}".encode(), "x.yaml")
    assert "entries, aliases counted" in str(parsed.errors[0])
    parsed = parse(b"kind: Pod\nspec: &a\n  containers: [*a]\n", "x.yaml")
    assert "unknown alias" in str(parsed.errors[0])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a:1", "", "Always", "x y"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "kind",
                        "spec",
                        "template",
                        "containers",
                        "image",
                        "volumes",
                        "items",
                        "metadata",
                    ),
                    *("name", "replicas", "reference", "jobTemplate", "priority", "services"),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(spec=JSON, kind=st.sampled_from(["Pod", "Deployment", "CronJob", "List", "PodList", "X"]))
def test_any_object_gives_images_or_errors(spec: Any, kind: str) -> None:
    for document in ({"kind": kind, "spec": spec}, {"kind": kind, "items": spec}, spec):
        parsed = objects(document)
        assert all(str(error).startswith("x.yaml") for error in parsed.errors)
        assert all(selector.reference or selector.tags for selector in parsed.selectors)

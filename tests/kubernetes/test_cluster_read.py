"""A real API server read with the rights that the manifests give, and with no others."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from prefetch.sources.kubeapi import Connection, open_api
from support.apiserver import ApiServer, start_api_server
from support.kustomize import MANIFESTS
from support.manifests import Object, manifest, node, pod, service_account
from support.measuring import measured
from support.processes import CommandLine

pytestmark = [
    pytest.mark.real("kube-apiserver", "kubectl", "etcd"),
    pytest.mark.long,
    pytest.mark.timeout(900),
]

READER = "system:serviceaccount:prefetch:prefetch"
ONE, TWO = (f"sha256:{letter * 64}" for letter in "12")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    # Without snapshots lists are read from etcd, where they can expire.
    gate = "--feature-gates=ListFromCacheSnapshot=false"
    running = await start_api_server(tmp_path / "server", flags=[gate])
    await running.namespaces("prefetch", "shop")
    kinds = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
    await running.create(shipped(kind) for kind in kinds)
    yield running
    await running.stop()


def shipped(kind: str) -> Object:
    """An object of the RBAC that is shipped."""
    text = (MANIFESTS / "base/rbac.yaml").read_text()
    [found] = [each for each in yaml.safe_load_all(text) if each["kind"] == kind]
    return dict(found)


def shipped_role(*without: str) -> Object:
    """The ClusterRole that is shipped, less some resources."""
    role = shipped("ClusterRole")
    for rule in role["rules"]:
        rule["resources"] = [each for each in rule["resources"] if each not in without]
    role["rules"] = [rule for rule in role["rules"] if rule["resources"]]
    return role


async def images(
    server: ApiServer, cli: CommandLine, *words: str | Path, user: str = READER, code: int = 0
) -> dict[str, dict[str, Any]]:
    """`cluster images -o json`, by reference."""
    config = await server.kubeconfig(cli.home / "kubeconfig", user)
    done = await cli("cluster", "images", "--kubeconfig", config, *words, "-o", "json")
    assert done.code == code, done.stderr
    return {each["reference"]: each for each in done.json["images"]}


def running(name: str, image: str, digest: str, **spec: Any) -> Object:
    made = pod(name, image, namespace="shop", **spec)
    ran = {"name": "c0", "image": image, "imageID": digest, "ready": True, "restartCount": 0}
    made["status"] = {"phase": "Running", "containerStatuses": [ran]}
    return made


def workload(kind: str, name: str, image: str, version: str = "apps/v1", **spec: Any) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod("x", image)["spec"]}
    matching = {} if kind in ("Job", "CronJob") else {"selector": {"matchLabels": labels}}
    if kind in ("Job", "CronJob"):
        template["spec"]["restartPolicy"] = "Never"
    made = {**matching, "template": template, **spec}
    if kind == "CronJob":
        made = {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": template}}}
    return manifest(version, kind, name, "shop", spec=made)


async def test_all_that_runs_or_will_with_the_rights_that_are_shipped(
    server: ApiServer, cli: CommandLine
) -> None:
    urgent = manifest("scheduling.k8s.io/v1", "PriorityClass", "urgent", value=1000)
    await server.create([urgent, node("amd"), node("arm", architecture="arm64")])
    data = {"name": "data", "image": {"reference": "ghcr.io/a/data:1"}}
    await server.create(
        [
            running("web", "web:1", f"docker.io/library/web@{ONE}", priorityClassName="urgent"),
            pod("arm", "arm:1", namespace="shop", nodeSelector={"kubernetes.io/arch": "arm64"}),
            pod("volume", "user:1", namespace="shop", volumes=[data]),
            workload("Deployment", "idle", "idle:1", replicas=0),
            workload("StatefulSet", "set", "set:1", serviceName="set"),
            workload("DaemonSet", "daemon", "daemon:1"),
            workload("ReplicaSet", "lone", "lone:1"),
            workload("Job", "once", "once:1", "batch/v1"),
            workload("CronJob", "nightly", "nightly:1", "batch/v1"),
        ]
    )
    found = await images(server, cli)
    assert {name.removeprefix("docker.io/library/") for name in found} == {
        *("web:1", "arm:1", "user:1", "ghcr.io/a/data:1", "idle:1", "set:1", "daemon:1"),
        *("lone:1", "once:1", "nightly:1"),
    }
    web = found["docker.io/library/web:1"]
    assert (web["demand"]["pods"], web["demand"]["priority"]) == (1, 1000)
    assert next(iter(found)) == "docker.io/library/web:1"
    assert web["platforms"] == ["linux/amd64", "linux/arm64"]
    assert found["docker.io/library/arm:1"]["platforms"] == ["linux/arm64"]
    told = await images(server, cli, "--namespace", "prefetch")
    assert told == {}
    assert list(await images(server, cli, "--selector", "app=none")) == []


@pytest.mark.parametrize("resource", ["pods", "nodes", "deployments", "cronjobs"])
async def test_a_right_that_is_missing_is_named(
    server: ApiServer, cli: CommandLine, resource: str
) -> None:
    await server.create([pod("web", "web:1", namespace="shop")])
    await server.create([workload("Deployment", "idle", "idle:1", replicas=0)])
    applied = await server.kubectl("apply", "-f", "-", stdin=json.dumps(shipped_role(resource)))
    assert applied.code == 0, applied.stderr
    while await server.may(READER, "list", resource, api_group=_group(resource)):
        time.sleep(0.1)
    config = await server.kubeconfig(cli.home / "kubeconfig", READER)
    done = await cli("cluster", "images", "--kubeconfig", config, "-o", "json")
    assert done.code == 1
    [error] = done.json["errors"]
    assert error["message"].startswith(f"{resource}: {resource}")
    assert "is forbidden" in error["message"]
    missing = {"pods": "web", "deployments": "idle"}.get(resource)
    named = {each["reference"].rpartition("/")[2] for each in done.json["images"]}
    assert named == {"web:1", "idle:1"} - {f"{missing}:1"}


def _group(resource: str) -> str:
    return {"deployments": "apps", "cronjobs": "batch"}.get(resource, "")


async def test_what_is_read_if_asked_for(server: ApiServer, cli: CommandLine) -> None:
    pause = ["registry.k8s.io/pause:3.10", f"registry.k8s.io/pause@{TWO}"]
    await server.create([node("amd", images=[pause, ["docker.io/library/web:1"]])])
    await server.create([running("web", "web:1", f"docker.io/library/web@{ONE}")])
    found = await images(server, cli, "--running-digests", "--node-images")
    assert {name: each["optional"] for name, each in found.items()} == {
        "docker.io/library/web:1": False,
        f"docker.io/library/web@{ONE}": True,
        "registry.k8s.io/pause:3.10": True,
    }


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: engines.example.com}
spec:
  group: example.com
  names: {kind: Engine, plural: engines}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
ENGINE = """
apiVersion: example.com/v1
kind: Engine
metadata: {name: e, namespace: shop}
spec: {image: "engine:1", workers: [{image: "worker:1"}]}
"""
CONFIG = """
custom_resources:
  - {api_version: example.com/v1, kind: Engine, images: [spec.image, "spec.workers[].image"]}
"""


async def test_a_kind_of_ones_own(server: ApiServer, cli: CommandLine) -> None:
    for text in (CRD, ENGINE):
        while (applied := await server.kubectl("apply", "-f", "-", stdin=text)).code:
            assert "no matches for kind" in applied.stderr
            time.sleep(0.2)
    config = cli.home / "prefetch.yaml"
    config.write_text(CONFIG)
    await server.allow(READER, ["list"], ["engines"], api_group="example.com")
    found = await images(server, cli, "--config", config)
    assert set(found) == {"docker.io/library/engine:1", "docker.io/library/worker:1"}


async def test_pull_secrets_need_rights_of_their_own(server: ApiServer, cli: CommandLine) -> None:
    auth = base64.b64encode(b"alice:hunter2").decode()
    held = json.dumps({"auths": {"ghcr.io": {"auth": auth}}})
    secret = manifest(
        *("v1", "Secret", "reg", "shop"),
        type="kubernetes.io/dockerconfigjson",
        stringData={".dockerconfigjson": held},
    )
    account = service_account("shop", "robot") | {"imagePullSecrets": [{"name": "reg"}]}
    await server.create([secret, account])
    await server.create([pod("web", "ghcr.io/a/b:1", namespace="shop", serviceAccountName="robot")])
    config = await server.kubeconfig(cli.home / "kubeconfig", READER)
    registry = cli.home / "prefetch.yaml"
    registry.write_text("registries: {ghcr.io: {endpoint: 'http://127.0.0.1:1'}}")
    cluster = ("--cluster", "--kubeconfig", config, "--use-pull-secrets")
    words = ("--config", registry, "check", "--fresh", *cluster, "-o", "json")
    assert (await cli("check", *cluster, "-o", "json")).json["errors"] == []  # reads none
    denied = await cli(*words)
    messages = [each["message"] for each in denied.json["errors"]]
    assert [message.partition(":")[0] for message in messages] == [
        "serviceaccounts",
        "secret shop/reg",
    ]
    await server.allow(READER, ["list"], ["serviceaccounts"])
    await server.allow(READER, ["get"], ["secrets"], namespace="shop")
    allowed = await cli(*words)
    assert allowed.json["errors"] == []
    assert "hunter2" not in allowed.stdout + allowed.stderr


def _part(value: bytes | dict[str, Any]) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def token(server: ApiServer, directory: Path, expires_in: int) -> str:
    """A token of the reader's, signed as the server signs them, that ends as it is told to."""
    answer = await server.ask("GET", "/api/v1/namespaces/prefetch/serviceaccounts/prefetch")
    metadata = answer.body["metadata"]
    now = int(time.time())
    claims = {
        "iss": "https://kubernetes.default.svc",
        "aud": ["https://kubernetes.default.svc"],
        "sub": READER,
        "iat": now - 7200,
        "nbf": now - 7200,
        "exp": now + expires_in,
        "kubernetes.io": {
            "namespace": "prefetch",
            "serviceaccount": {"name": "prefetch", "uid": metadata["uid"]},
        },
    }
    pem = (directory / "signing.key").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signed = f"{_part({'alg': 'ES256', 'typ': 'JWT'})}.{_part(claims)}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


async def test_a_token_that_has_expired_is_told(
    server: ApiServer, cli: CommandLine, tmp_path: Path
) -> None:
    await server.create([pod("web", "web:1", namespace="shop")])
    path = await server.kubeconfig(cli.home / "kubeconfig", READER)
    config = yaml.safe_load(path.read_text())
    codes = {}
    for seconds in (3600, -60):
        shown = await token(server, tmp_path / "server", seconds)
        config["users"][0]["user"] = {"token": shown}
        path.write_text(yaml.safe_dump(config))
        done = await cli("cluster", "images", "--kubeconfig", path)
        codes[seconds] = done.code
        assert shown not in done.stderr
    assert codes == {3600: 0, -60: 1}
    assert "cluster: pods: Unauthorized" in done.stderr


async def test_exec_plugins_and_certificates_work(
    server: ApiServer, cli: CommandLine, tmp_path: Path
) -> None:
    await server.create([pod("web", "web:1", namespace="shop")])
    path = await server.kubeconfig(cli.home / "kubeconfig", certificate=True)
    assert (await cli("cluster", "images", "--kubeconfig", path)).code == 0
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": await server.token("prefetch", "prefetch")},
    }
    config = yaml.safe_load(path.read_text())
    config["users"][0]["user"] = {
        "exec": {
            "apiVersion": credential["apiVersion"],
            "command": sys.executable,
            "args": ["-c", f"print({json.dumps(credential)!r})"],
            "interactiveMode": "Never",
        }
    }
    path.write_text(yaml.safe_dump(config))
    done = await cli("cluster", "images", "--kubeconfig", path)
    assert done.code == 0, done.stderr
    assert "docker.io/library/web:1" in done.stdout


PODS, NAMESPACES, DISTINCT = 5_000, 200, 800
MOST_MEMORY, MOST_SECONDS = 150 << 20, 20.0


async def test_five_thousand_pods(server: ApiServer, cli: CommandLine) -> None:
    """Listed within the memory and the time, each image once, with its weight and platforms."""
    names = [f"team-{number}" for number in range(NAMESPACES)]
    await server.namespaces(*names)
    await server.create([node("amd"), node("arm", architecture="arm64")])
    await server.create(
        pod(
            f"p{number}",
            f"docker.io/corp/app{number % DISTINCT}:1",
            namespace=names[number % NAMESPACES],
            nodeSelector={"kubernetes.io/arch": "arm64"} if number % DISTINCT < 100 else {},
        )
        for number in range(PODS)
    )
    config = await server.kubeconfig(cli.home / "kubeconfig", READER)
    words = ("cluster", "images", "--kubeconfig", config, "-o", "json")
    started = monotonic()
    done = await measured(cli, *words, timeout=120)
    seconds = monotonic() - started
    print(f"{PODS} pods: {seconds:.1f} s, {done.peak >> 20} MiB, {done.cpu:.1f} s of processor")
    assert done.result.code == 0, done.result.stderr
    found = {each["reference"]: each for each in done.result.json["images"]}
    assert len(found) == len(done.result.json["images"]) == DISTINCT
    assert sum(each["demand"]["pods"] for each in found.values()) == PODS
    assert found["docker.io/corp/app7:1"]["platforms"] == ["linux/arm64"]
    assert found["docker.io/corp/app700:1"]["platforms"] == ["linux/amd64", "linux/arm64"]
    assert done.peak < MOST_MEMORY
    assert seconds < MOST_SECONDS
    await _check_expiry(server, config)


async def _check_expiry(server: ApiServer, config: Path) -> None:
    """A list that expires between its pages is begun anew."""
    api = await open_api(Connection(config))
    seen: dict[str, int] = {}
    try:
        async for item in api.objects("/api/v1/pods"):
            uid = item["metadata"]["uid"]
            seen[uid] = seen.get(uid, 0) + 1
            if sum(seen.values()) == 1:
                await server.forget()
    finally:
        await api.close()
    assert len(seen) == PODS
    assert set(seen.values()) == {1, 2}

"""The parsers of tests/parsers read what is right, and refuse what is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support.factories import UpstreamProcessFactory
from support.parsers import parse

# The first run may have to build them.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

K3S = """\
mirrors:
  docker.io:
    endpoint: ["https://cache.example:5000/v2/docker.io", "https://docker.io"]
    rewrite: {"^team/(.*)": "ours/$1"}
  "*":
    endpoint: ["https://cache.example:5000"]
configs:
  cache.example:5000:
    auth: {username: ci, password: secret}
    tls: {insecure_skip_verify: true}
"""
RKE = """\
private_registries:
  - {url: cache.example:5000/docker.io, user: ci, password: secret, is_default: true}
"""
HCL = """\
resource "rke_cluster" "test" {
  private_registries {
    url        = "cache.example:5000"
    password   = "$${not} a variable"
    is_default = true
  }
}
"""
TALOS = """\
machine:
  registries:
    mirrors:
      docker.io:
        endpoints: ["https://cache.example:5000/v2/docker.io"]
        overridePath: true
        skipFallback: true
    config:
      cache.example:5000:
        auth: {username: ci, password: secret}
        tls: {insecureSkipVerify: true}
"""
TALOS_DOCUMENTS = """\
apiVersion: v1alpha1
kind: RegistryMirrorConfig
name: docker.io
endpoints:
  - {url: "https://cache.example:5000/v2/docker.io", overridePath: true}
skipFallback: true
---
apiVersion: v1alpha1
kind: RegistryAuthConfig
name: cache.example:5000
username: ci
password: secret
---
apiVersion: v1alpha1
kind: RegistryTLSConfig
name: cache.example:5000
insecureSkipVerify: true
"""
BUILDKIT = """\
[registry."docker.io"]
mirrors = ["cache.example:5000/docker.io"]
[registry."cache.example:5000"]
http = true
"""
KIND = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    extraMounts: [{hostPath: ./certs.d, containerPath: /etc/containerd/certs.d, readOnly: true}]
containerdConfigPatches:
  - '[plugins."io.containerd.cri.v1.images".registry]

    config_path = "/etc/containerd/certs.d"'
"""
DOCKER = """\
{"registry-mirrors": ["https://cache.example"], "insecure-registries": ["cache.example:5000"]}
"""
CONTAINERS = """\
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "cache.example:5000/docker.io"
insecure = true
"""
HOSTS = """\
server = "https://ghcr.io"
[host."https://cache.example:5000/v2/ghcr.io"]
capabilities = ["pull", "resolve"]
override_path = true
skip_verify = true
[host."https://cache.example:5000/v2/ghcr.io".header]
x-one = "1"
"""

LOGIN = {"username": "ci", "password": "secret"}
TALOS_READS = {
    "mirrors": {
        "docker.io": {
            "endpoints": [
                {"url": "https://cache.example:5000/v2/docker.io", "overridePath": True},
            ],
            "skipFallback": True,
        }
    },
    "auth": {"cache.example:5000": {**LOGIN, "auth": "", "identityToken": ""}},
    "tls": {
        "cache.example:5000": {"ca": "", "clientIdentity": False, "insecureSkipVerify": True},
    },
    "warnings": [],
    "unknown": [],
}


def real(name: str, *values: Any) -> Any:
    return pytest.param(name, *values, marks=pytest.mark.real(name), id=name)


def write(directory: Path, text: str, name: str = "file") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.real("parse-k3s")
def test_wharfie_reads_what_the_file_says(tmp_path: Path) -> None:
    read = parse("parse-k3s", write(tmp_path, K3S))

    assert read["mirrors"]["docker.io"] == {
        "endpoint": ["https://cache.example:5000/v2/docker.io", "https://docker.io"],
        "rewrite": {"^team/(.*)": "ours/$1"},
    }
    config = read["configs"]["cache.example:5000"]
    assert config["auth"] == {**LOGIN, "auth": "", "identitytoken": ""}
    assert config["tls"]["insecure_skip_verify"] is True
    assert read["unknown"] == []


@pytest.mark.real("parse-k3s", "parse-hosts")
def test_k3s_gives_containerd_the_mirrors_then_the_registry(tmp_path: Path) -> None:
    read = parse("parse-k3s", "--hosts", tmp_path / "certs.d", write(tmp_path, K3S))
    docker, other, cache = (
        parse("parse-hosts", tmp_path / "certs.d", name)
        for name in ("docker.io", "quay.io", "cache.example:5000")
    )

    assert [tell(each) for each in docker["hosts"]] == [
        "https://cache.example:5000/v2/docker.io pull,resolve",
        "https://registry-1.docker.io/v2 pull,resolve,push",
    ]
    assert [each["skip_verify"] for each in docker["hosts"]] == [True, False]
    # Only K3s's own containerd knows it.
    assert docker["unknown"] == ["host.https://cache.example:5000/v2/docker.io.rewrite"]
    assert other["directory"] == "_default"
    assert [tell(each) for each in other["hosts"]] == [
        "https://cache.example:5000/v2 pull,resolve",
        "https://quay.io/v2 pull,resolve,push",
    ]
    assert cache["hosts"][0]["skip_verify"] is True
    assert read["auth"]["cache.example:5000"] == {**LOGIN, "auth": "", "identitytoken": ""}
    assert read["ignored"] == []


LAYOUTS = {
    "nothing but the default": ("mirrors: {docker.io: }", {}),
    "the default as an endpoint": ("mirrors: {docker.io: {endpoint: [docker.io]}}", {}),
    "a login alone": (
        "configs: {docker.io: {auth: {username: ci}}}",
        {"docker.io": ("https://registry-1.docker.io/v2", [])},
    ),
    "a path": (
        "mirrors: {ghcr.io: {endpoint: [cache.example/hub/v2]}}",
        {"ghcr.io": ("https://ghcr.io/v2", ["https://cache.example/hub/v2"])},
    ),
    "twice the same": (
        'mirrors: {ghcr.io: {endpoint: [cache.example, "https://cache.example/v2"]}}',
        {"ghcr.io": ("https://ghcr.io/v2", ["https://cache.example/v2"])},
    ),
    "the default first": (
        "mirrors: {ghcr.io: {endpoint: [ghcr.io, cache.example]}}",
        {"ghcr.io": ("https://ghcr.io/v2", ["https://ghcr.io/v2", "https://cache.example/v2"])},
    ),
    "loopback": (
        'mirrors: {"localhost:5000": {endpoint: ["https://localhost:5000", "[::1]:5000"]}}',
        {
            "localhost:5000": (
                "http://localhost:5000/v2",
                ["https://localhost:5000/v2", "http://[::1]:5000/v2"],
            )
        },
    ),
    "settings for all": (
        'configs: {"*": {tls: {insecure_skip_verify: true}}}',
        {"_default": (None, [])},
    ),
    "a mirror for all": (
        'mirrors: {"*": {endpoint: [cache.example]}}',
        {"_default": ("", ["https://cache.example/v2"])},
    ),
}


@pytest.mark.real("parse-k3s")
@pytest.mark.parametrize(("text", "layout"), LAYOUTS.values(), ids=LAYOUTS)
def test_hosts_are_laid_out_as_k3s_does(
    tmp_path: Path, text: str, layout: dict[str, tuple[str | None, list[str]]]
) -> None:
    read = parse("parse-k3s", "--hosts", tmp_path / "certs.d", write(tmp_path, text))

    hosts = {name: (host["server"], host["endpoints"]) for name, host in read["hosts"].items()}
    assert hosts == layout


@pytest.mark.real("parse-k3s")
def test_without_default_endpoints_k3s_names_no_server(tmp_path: Path) -> None:
    where = ("--hosts", tmp_path / "certs.d", "--no-default-endpoint")
    hosts = parse("parse-k3s", *where, write(tmp_path, K3S))["hosts"]

    assert {name: host["server"] for name, host in hosts.items()} == {
        "_default": None,
        "cache.example:5000": "https://cache.example:5000/v2",
        "docker.io": None,
    }
    assert hosts["docker.io"]["endpoints"] == [
        "https://cache.example:5000/v2/docker.io",
        "https://registry-1.docker.io/v2",
    ]


@pytest.mark.real("parse-k3s")
async def test_wharfie_pulls_through_a_mirror(
    upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    running = await upstream_process(
        settings={"auth": "none"}, images=[{"repository": "library/app", "tags": ["1.0"]}]
    )
    file = write(tmp_path, f'mirrors: {{docker.io: {{endpoint: ["{running.url}"]}}}}\n')

    pull = ("parse-k3s", "--pull")
    pulled = await asyncio.to_thread(parse, *pull, "docker.io/library/app:1.0", file)
    with pytest.raises(AssertionError, match="all endpoints failed"):
        await asyncio.to_thread(parse, *pull, f"{running.address}/none:1", file)

    assert running.counts()["GET blob"] == 1 + len(pulled["layers"]) == 3
    assert pulled["digest"].startswith("sha256:")


@pytest.mark.real("parse-rke")
def test_rke_pulls_system_images_from_the_default_registry(tmp_path: Path) -> None:
    read = parse("parse-rke", write(tmp_path, RKE + "typo: 1\n"))

    url = "cache.example:5000/docker.io"
    assert read["private_registries"] == [
        {"url": url, "user": "ci", "password": "secret", "is_default": True, "ecr": None}
    ]
    assert read["system_images"]["alpine"]["image"].startswith(f"{url}/rancher/rke-tools:")
    assert read["system_images"]["alpine"]["registry"] == url
    assert read["system_images"]["alpine"]["login"] == LOGIN
    assert list(read["kubelet"]["auths"]) == [url]
    assert len(read["unknown"]) == 1
    assert "typo" in read["unknown"][0]


@pytest.mark.real("parse-hcl")
def test_terraform_reads_the_blocks(tmp_path: Path) -> None:
    assert parse("parse-hcl", write(tmp_path, HCL)) == {
        "private_registries": [
            {
                "url": "cache.example:5000",
                "user": None,
                "password": "${not} a variable",
                "is_default": True,
                "ecr": None,
                "in": "resource.rke_cluster.test",
            }
        ],
        "unknown": [],
    }


@pytest.mark.real("parse-talos")
@pytest.mark.parametrize("text", [TALOS, TALOS_DOCUMENTS], ids=["one document", "several"])
def test_talos_reads_both_forms_alike(tmp_path: Path, text: str) -> None:
    assert parse("parse-talos", write(tmp_path, text)) == TALOS_READS


@pytest.mark.real("parse-buildkit")
def test_buildkit_asks_the_mirror_then_the_registry(tmp_path: Path) -> None:
    read = parse("parse-buildkit", write(tmp_path, BUILDKIT + "typo = 1\n"), "docker.io")

    assert read["registries"]["docker.io"]["mirrors"] == ["cache.example:5000/docker.io"]
    assert read["registries"]["cache.example:5000"]["http"] is True
    assert [tell(each) for each in read["hosts"]["docker.io"]] == [
        "http://cache.example:5000/v2/docker.io pull,resolve",
        "https://registry-1.docker.io/v2 pull,resolve,push",
    ]
    assert read["unknown"] == ["registry.cache.example:5000.typo"]


@pytest.mark.real("parse-kind")
def test_kind_reads_mounts_and_patches(tmp_path: Path) -> None:
    read = parse("parse-kind", write(tmp_path, KIND))

    assert [each["role"] for each in read["nodes"]] == ["control-plane"]
    assert read["nodes"][0]["extraMounts"] == [
        {"hostPath": "./certs.d", "containerPath": "/etc/containerd/certs.d", "readOnly": True}
    ]
    registry = {"config_path": "/etc/containerd/certs.d"}
    assert read["containerdConfigPatches"] == [
        {"plugins": {"io.containerd.cri.v1.images": {"registry": registry}}}
    ]


@pytest.mark.real("parse-docker")
def test_docker_reads_mirrors_and_insecure_registries(tmp_path: Path) -> None:
    read = parse("parse-docker", write(tmp_path, DOCKER))

    assert read["registry-mirrors"] == ["https://cache.example"]
    assert read["effective"]["mirrors"] == ["https://cache.example/"]
    assert read["effective"]["insecure"] == ["cache.example:5000"]


@pytest.mark.real("parse-containers")
def test_podman_asks_the_mirror_then_the_registry(tmp_path: Path) -> None:
    file = write(tmp_path, CONTAINERS + 'bloked = true\n[aliases]\n"a" = "docker.io/a/a"\n')
    read = parse("parse-containers", file, "alpine")

    assert read["registries"] == [
        {
            "prefix": "docker.io",
            "location": "docker.io",
            "insecure": False,
            "blocked": False,
            "mirror_by_digest_only": False,
            "mirrors": [
                {
                    "location": "cache.example:5000/docker.io",
                    "insecure": True,
                    "pull_from_mirror": "",
                }
            ],
        }
    ]
    assert read["sources"] == [
        {"reference": "cache.example:5000/docker.io/library/alpine:latest", "insecure": True},
        {"reference": "docker.io/library/alpine:latest", "insecure": False},
    ]
    assert read["unknown"] == ["registry.mirror.bloked"]


@pytest.mark.real("parse-hosts")
def test_containerd_asks_the_host_then_the_server(tmp_path: Path) -> None:
    write(tmp_path, f"typo = 1\n{HOSTS}", "ghcr.io/hosts.toml")
    read = parse("parse-hosts", tmp_path, "ghcr.io")

    assert [tell(each) for each in read["hosts"]] == [
        "https://cache.example:5000/v2/ghcr.io pull,resolve",
        "https://ghcr.io/v2 pull,resolve,push",
    ]
    assert read["hosts"][0]["header"] == ["x-one"]
    assert read["hosts"][0]["ca"] is False
    assert read["unknown"] == ["typo"]


def tell(host: dict[str, Any]) -> str:
    address = f"{host['scheme']}://{host['host']}{host['path']}"
    return f"{address} {','.join(host['capabilities'])}"


WRONG = [
    real("parse-k3s", "mirrors: [", "did not find expected node content"),
    real("parse-rke", "private_registries: {url: x}", "cannot unmarshal"),
    real("parse-hcl", 'private_registries {\n  url = "x"\n  usr = "ci"\n}\n', "usr"),
    real("parse-talos", TALOS.replace("skipFallback", "skipFallBack"), "skipFallBack"),
    real("parse-buildkit", "[registry", "failed to parse config"),
    real("parse-kind", KIND.replace("nodes:", "node:"), "field node not found"),
    real("parse-docker", '{"registry-mirror": []}', "registry-mirror"),
    real("parse-containers", '[[registry]]\nprefix = "x"\n', "location is unset"),
]


@pytest.mark.parametrize(("name", "text", "words"), WRONG)
def test_what_is_wrong_is_refused_in_a_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(AssertionError, match=words) as raised:
        parse(name, write(tmp_path, text))

    assert "\n" not in str(raised.value).strip()


@pytest.mark.real("parse-hosts")
def test_a_hosts_file_that_containerd_would_pass_over_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "server = 5\n", "ghcr.io/hosts.toml")
    with pytest.raises(AssertionError, match="failed to decode"):
        parse("parse-hosts", tmp_path, "ghcr.io")

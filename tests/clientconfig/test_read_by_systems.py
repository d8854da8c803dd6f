"""Each system's own parser reads what is written for it, and finds in it what was meant."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from examples import ENTRIES, REGISTRIES, example
from wishes import LOGIN, plan

from prefetch.clientconfig.plan import Plan
from prefetch.clientconfig.targets import target_named
from prefetch.clientconfig.writing import write_tree
from support.authority import Authority
from support.parsers import parse
from support.processes import CommandLine

# The first run may have to build the parsers.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

HOST = "cache.example:5000"
OTHER = "10.0.0.7"


Full = Callable[..., Plan]


@pytest.fixture
def full(tmp_path: Path) -> Full:
    """`full(fallback=…)`: two caches over TLS, to the first of which nodes show a certificate."""
    authority = Authority(tmp_path / "pki")
    node = authority.issue("node.example")
    key = load_pem_private_key(node.key_file.read_bytes(), None)
    # As openssl writes keys nowadays; Talos takes no other form of an elliptic curve's.
    node.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def make(**wishes: Any) -> Plan:
        return plan(
            cache_urls=(f"https://{HOST}", f"https://{OTHER}"),
            ca_files=(str(authority.ca_file),),
            cert_files=(f"{HOST}={node.cert_file}",),
            key_files=(f"{HOST}={node.key_file}",),
            **wishes,
        )

    return make


def written(target: str, made: Plan, root: Path) -> list[Path]:
    return write_tree(target_named(target).output(made).files, root, force=False)


@pytest.mark.real("parse-k3s")
@pytest.mark.parametrize("target", ["k3s", "rke2"])
async def test_wharfie_reads_the_example(cli: CommandLine, target: str) -> None:
    """All that the parser does not find is empty in what it prints."""
    path = cli.home / "registries.yaml"
    path.write_text((await example(cli, target)).stdout)
    found = parse("parse-k3s", path)
    assert found["unknown"] == []
    assert trimmed({key: found[key] for key in ("mirrors", "configs")}) == REGISTRIES


def trimmed(tree: Any) -> Any:
    """Without what is empty."""
    if isinstance(tree, dict):
        kept = {key: trimmed(value) for key, value in tree.items()}
        return {key: value for key, value in kept.items() if value not in (None, "", False, {}, [])}
    return [trimmed(each) for each in tree] if isinstance(tree, list) else tree


@pytest.mark.real("parse-k3s", "parse-hosts")
async def test_k3s_asks_the_mirrors_of_the_example_and_then_the_registries(
    cli: CommandLine, tmp_path: Path
) -> None:
    text = (await example(cli, "k3s")).stdout
    authority = Authority(tmp_path / "pki")
    node = authority.issue("node.example")
    for name, path in {
        "mirror.crt": node.cert_file,
        "mirror.key": node.key_file,
        "ca.crt": authority.ca_file,
    }.items():
        text = text.replace(f"/etc/ssl/{name}", str(path))
    (tmp_path / "registries.yaml").write_text(text)
    found = parse("parse-k3s", "--hosts", tmp_path / "certs.d", tmp_path / "registries.yaml")
    assert set(found["auth"]) == set(REGISTRIES["configs"])
    asked = {
        registry: [
            host["host"] for host in parse("parse-hosts", tmp_path / "certs.d", registry)["hosts"]
        ]
        for registry in ("docker.io", "quay.io")
    }
    assert asked == {
        "docker.io": ["mydockermirror.local", "registry-1.docker.io"],
        "quay.io": ["myquaymirror.local", "quay.io"],
    }


@pytest.mark.real("parse-k3s")
@pytest.mark.parametrize("fallback", [True, False])
def test_k3s_has_a_server_of_its_own_only_with_a_fallback(
    full: Full, tmp_path: Path, fallback: bool
) -> None:
    made = full(fallback=fallback, login=LOGIN)
    path = written("k3s", made, tmp_path / "tree")[0]
    off = [] if fallback else ["--no-default-endpoint"]
    found = parse("parse-k3s", "--hosts", tmp_path / "certs.d", *off, path)
    assert found["unknown"] == []
    hub = found["hosts"]["docker.io"]
    assert hub["endpoints"] == [f"https://{HOST}/v2", f"https://{OTHER}/v2"]
    assert hub["server"] == ("https://registry-1.docker.io/v2" if fallback else None)
    assert found["auth"][HOST]["password"] == "wonder:land"


@pytest.mark.real("parse-rke")
async def test_rke_reads_the_example(cli: CommandLine) -> None:
    path = cli.home / "cluster.yml"
    path.write_text((await example(cli, "rke", "-o", "json")).json["files"][0]["content"])
    found = parse("parse-rke", path)
    assert found["unknown"] == []
    assert trimmed(found["private_registries"]) == ENTRIES


@pytest.mark.real("parse-rke")
def test_rke_takes_its_system_images_from_the_cache_with_its_login(tmp_path: Path) -> None:
    path = written("rke", plan(login=LOGIN), tmp_path)[0]
    found = parse("parse-rke", path)
    for image in found["system_images"].values():
        assert image["image"].startswith(f"{HOST}/docker.io/")
        assert image["registry"] == f"{HOST}/docker.io"
        assert image["login"], "the entry is not found by the image's name"


@pytest.mark.real("parse-hcl")
async def test_hcl_reads_the_example_of_the_terraform_provider(cli: CommandLine) -> None:
    path = cli.home / "main.tf"
    content = (await example(cli, "rke-terraform", "-o", "json")).json["files"][0]["content"]
    path.write_text(f'resource "rke_cluster" "c" {{\n{content}}}\n')
    found = parse("parse-hcl", path)
    assert found["unknown"] == []
    entries = [{k: v for k, v in each.items() if k != "in"} for each in found["private_registries"]]
    assert trimmed(entries) == ENTRIES


@pytest.mark.real("parse-hcl")
@pytest.mark.parametrize("password", ["${var.x}", "%{if}", '"\\', "$${", "ü ☃", "$", "%"])
def test_hcl_reads_a_password_as_it_is(tmp_path: Path, password: str) -> None:
    login = type(LOGIN)("alice", type(LOGIN.password)(password))
    path = written("rke-terraform", plan(login=login), tmp_path)[0]
    [first, *_] = parse("parse-hcl", path)["private_registries"]
    assert first["password"] == password


@pytest.mark.real("parse-talos")
@pytest.mark.parametrize("name", ["talos-registries.yaml", "talos-registries.patch.yaml"])
@pytest.mark.parametrize("fallback", [True, False])
def test_talos_reads_both_forms(full: Full, tmp_path: Path, name: str, fallback: bool) -> None:
    written("talos", full(fallback=fallback, login=LOGIN), tmp_path / "tree")
    found = parse("parse-talos", tmp_path / "tree" / name)
    assert found["unknown"] == []
    assert found["warnings"] == []
    hub = found["mirrors"]["docker.io"]
    assert [each["url"] for each in hub["endpoints"]] == [f"https://{HOST}", f"https://{OTHER}"]
    assert bool(hub["skipFallback"]) is not fallback
    assert found["auth"][HOST]["password"] == "wonder:land"
    tls = found["tls"][HOST]
    ca = (tmp_path / "pki/ca.pem").read_text()
    assert tls["ca"] in (ca, base64.b64encode(ca.encode()).decode())
    assert tls["clientIdentity"]
    assert set(found["tls"]) == {HOST, OTHER}


@pytest.mark.real("parse-buildkit")
def test_buildkit_asks_the_caches_and_then_the_registry(full: Full, tmp_path: Path) -> None:
    [path] = written("buildkit", full(), tmp_path / "tree")
    found = parse("parse-buildkit", path, "docker.io", "quay.io")
    assert found["unknown"] == []
    asked = [(host["scheme"], host["host"], host["path"]) for host in found["hosts"]["quay.io"]]
    assert asked == [
        ("https", HOST, "/v2/quay.io"),
        ("https", OTHER, "/v2/quay.io"),
        ("https", "quay.io", "/v2"),
    ]
    assert found["registries"][HOST]["keypair"]


@pytest.mark.real("parse-kind", "parse-hosts")
def test_kind_mounts_the_tree_and_its_nodes_trust_the_cache(full: Full, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    written("kind", full(login=LOGIN), root)
    found = parse("parse-kind", root / "kind.yaml")
    assert found["unknown"] == []
    [mount] = found["nodes"][0]["extraMounts"]
    assert mount["containerPath"] == "/etc/containerd/certs.d"
    [patch] = found["containerdConfigPatches"]
    registry = patch["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    assert registry == {"config_path": "/etc/containerd/certs.d"}
    # Certificates lie beside hosts.toml, wherever the tree is mounted.
    hosts = parse("parse-hosts", root / "etc/containerd/certs.d", "docker.io")["hosts"]
    assert hosts[0]["ca"]
    assert hosts[0]["client_certificates"]


@pytest.mark.real("parse-docker")
def test_docker_reads_its_mirrors(tmp_path: Path) -> None:
    made = plan(
        cache_urls=(f"https://{HOST}", "http://10.0.0.7:5000"), registries=("docker.io",),
        skip_verify=True,
    )  # fmt: skip
    path = written("docker", made, tmp_path)[0]
    effective = parse("parse-docker", path)["effective"]
    assert effective["mirrors"] == [f"https://{HOST}/", "http://10.0.0.7:5000/"]
    assert HOST in effective["insecure"]


@pytest.mark.real("parse-containers")
@pytest.mark.parametrize("target", ["podman", "crio"])
@pytest.mark.parametrize("fallback", [True, False])
def test_podman_and_crio_ask_the_caches_in_order(
    tmp_path: Path, target: str, fallback: bool
) -> None:
    made = plan(cache_urls=(f"https://{HOST}", "http://10.0.0.7:5000"), fallback=fallback)
    path = written(target, made, tmp_path)[0]
    found = parse("parse-containers", path, "quay.io/corp/app:1")
    assert found["unknown"] == []
    own = [("quay.io/corp/app:1", False)] if fallback else []
    assert [(each["reference"], each["insecure"]) for each in found["sources"]] == [
        (f"{HOST}/quay.io/corp/app:1", False),
        ("10.0.0.7:5000/quay.io/corp/app:1", True),
        *own,
    ]


@pytest.mark.real("parse-hosts")
@pytest.mark.parametrize("target", ["containerd", "nerdctl", "minikube"])
@pytest.mark.parametrize("fallback", [True, False])
def test_containerd_asks_the_caches_in_order(
    full: Full, tmp_path: Path, target: str, fallback: bool
) -> None:
    root = tmp_path / "tree"
    written(target, full(fallback=fallback, login=LOGIN), root)
    found = parse("parse-hosts", root / "etc/containerd/certs.d", "docker.io")
    assert found["unknown"] == []
    hosts = found["hosts"]
    last = "registry-1.docker.io" if fallback else OTHER
    assert [host["host"] for host in hosts] == [HOST, OTHER, last]
    assert [host["path"] for host in hosts] == ["/v2"] * 3
    assert hosts[0]["header"] == ["Authorization"]
    assert [host["ca"] for host in hosts] == [True, True, not fallback]
    assert hosts[0]["client_certificates"]


@pytest.mark.real("parse-hosts")
def test_a_mirror_with_a_path_is_asked_where_its_api_is(tmp_path: Path) -> None:
    made = plan(mirrors=("docker.io=https://m.example/v2/hub", "quay.io=https://m.example/a/b"))
    written("containerd", made, tmp_path)
    for registry, path in {"docker.io": "/v2/hub", "quay.io": "/a/b/v2"}.items():
        found = parse("parse-hosts", tmp_path / "etc/containerd/certs.d", registry)
        assert found["hosts"][0]["path"] == path

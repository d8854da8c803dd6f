"""What is configured on a node, read back: what goes through the cache, and what past it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from wishes import CACHE, plan

from prefetch.clientconfig.reading import READERS, read_routes
from prefetch.clientconfig.routes import Route
from prefetch.clientconfig.targets import TARGETS, target_named
from prefetch.clientconfig.writing import write_tree
from prefetch.errors import UsageError

CACHES = {"cache.example:5000"}
WHERE = {
    "k3s": "etc/rancher/k3s/registries.yaml",
    "rke2": "etc/rancher/rke2/registries.yaml",
    "rke": "cluster.yml",
    "docker": "etc/docker/daemon.json",
    "podman": "etc/containers/registries.conf.d",
    "crio": "etc/containers/registries.conf.d/50-prefetch.conf",
    "talos": "talos-registries.yaml",
    "buildkit": "etc/buildkit/buildkitd.toml",
}


def verdicts(target: str, path: Path, *registries: str) -> dict[str, str]:
    routes = read_routes(target, path, registries or ("docker.io", "quay.io", "ghcr.io"))
    return {route.registry: route.verdict(CACHES) for route in routes}


def test_every_target_is_read_but_the_one_that_is_a_language() -> None:
    assert {target.name for target in TARGETS} - set(READERS) == {"rke-terraform"}
    with pytest.raises(UsageError, match="rke-terraform: its configuration is not read"):
        read_routes("rke-terraform", Path("x"), ["docker.io"])


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("target", READERS)
def test_what_is_written_is_read_back(target: str, fallback: bool, tmp_path: Path) -> None:
    try:
        files = target_named(target).output(plan(fallback=fallback)).files
    except UsageError:
        return
    write_tree(files, tmp_path, force=False)
    found = verdicts(target, tmp_path / WHERE.get(target, "etc/containerd/certs.d"))
    through = "fallback" if fallback else "cache"
    if target == "rke":
        assert found == {"docker.io": "cache", "quay.io": "bypass", "ghcr.io": "bypass"}
    elif target == "docker":
        assert found == {"docker.io": "fallback", "quay.io": "bypass", "ghcr.io": "bypass"}
    else:
        assert found == {"docker.io": through, "quay.io": through, "ghcr.io": "bypass"}


def test_talos_older_form_is_read_as_well(tmp_path: Path) -> None:
    write_tree(target_named("talos").output(plan(fallback=False)).files, tmp_path, force=False)
    found = verdicts("talos", tmp_path / "talos-registries.patch.yaml")
    assert found == {"docker.io": "cache", "quay.io": "cache", "ghcr.io": "bypass"}


def route(target: str, path: Path, registry: str = "docker.io") -> Route:
    [found] = read_routes(target, path, [registry])
    return found


def test_an_entry_under_configs_keeps_k3s_own_endpoint(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("disable-default-registry-endpoint: true\n")
    file = tmp_path / "registries.yaml"
    file.write_text(f"mirrors: {{'*': {{endpoint: ['{CACHE}']}}}}\nconfigs: {{quay.io: {{}}}}\n")
    assert verdicts("k3s", file) == {
        "docker.io": "cache",
        "quay.io": "fallback",
        "ghcr.io": "cache",
    }
    assert route("k3s", file, "quay.io").note == "its entry under configs keeps its own endpoint"


def test_a_mirror_before_the_cache_or_the_registry_before_it(tmp_path: Path) -> None:
    file = tmp_path / "registries.yaml"
    file.write_text(
        "mirrors:\n"
        f"  docker.io: {{endpoint: ['https://other', '{CACHE}']}}\n"
        f"  quay.io: {{endpoint: ['https://quay.io', '{CACHE}']}}\n"
        f"  ghcr.io: {{endpoint: ['{CACHE}', 'https://other']}}\n"
    )
    assert verdicts("k3s", file) == {
        "docker.io": "bypass",
        "quay.io": "bypass",
        "ghcr.io": "fallback",
    }


def test_a_prefix_without_the_registry_asks_a_cache_for_docker_hub(tmp_path: Path) -> None:
    file = tmp_path / "registries.conf"
    file.write_text(
        "".join(
            f'[[registry]]\nlocation = "{name}"\n[[registry.mirror]]\nlocation = "{mirror}"\n'
            for name, mirror in {
                "docker.io": "cache.example:5000",
                "quay.io": "cache.example:5000",
                "ghcr.io": "cache.example:5000/quay.io",
            }.items()
        )
    )
    assert verdicts("podman", file) == {
        "docker.io": "fallback",
        "quay.io": "bypass",
        "ghcr.io": "bypass",
    }
    assert route("podman", file, "quay.io").misled(CACHES)


def test_drop_ins_are_read_beside_registries_conf(tmp_path: Path) -> None:
    (tmp_path / "registries.conf").write_text('unqualified-search-registries = ["docker.io"]\n')
    (tmp_path / "registries.conf.d").mkdir()
    (tmp_path / "registries.conf.d/1.conf").write_text(
        '[[registry]]\nprefix = "docker.io"\nlocation = "cache.example:5000/docker.io"\n'
        '[[registry]]\nprefix = "docker.io/library"\nlocation = "docker.io/library"\n'
    )
    found = route("crio", tmp_path / "registries.conf")
    assert found.verdict(CACHES) == "cache"
    assert found.note == "docker.io/library have tables of their own"


def test_hosts_toml_without_server_falls_back_and_default_is_for_all_others(tmp_path: Path) -> None:
    for name in ("_default", "localhost_5000_"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hosts.toml").write_text(f'[host."{CACHE}"]\ncapabilities = ["pull"]\n')
    (tmp_path / "_default/hosts.toml").write_text(f'server = "{CACHE}"\n[host."{CACHE}"]\n')
    assert verdicts("containerd", tmp_path, "quay.io", "localhost:5000") == {
        "quay.io": "cache",
        "localhost:5000": "fallback",
    }
    assert "capabilities" in route("containerd", tmp_path, "localhost:5000").note


def test_docker_says_what_its_containerd_store_would_do(tmp_path: Path) -> None:
    write_tree(target_named("docker").output(plan()).files, tmp_path, force=False)
    found = route("docker", tmp_path / "etc/docker/daemon.json", "quay.io")
    assert found.verdict(CACHES) == "bypass"
    assert found.note == (
        "with the containerd image store: cache.example:5000, then quay.io itself"
    )


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("k3s", "- a"),
        ("k3s", "a: ["),
        ("k3s", "a: 1\n---\nb: 1"),
        ("k3s", "mirrors: [a]"),
        ("k3s", "mirrors: {docker.io: [a]}"),
        ("k3s", "mirrors: {docker.io: {endpoint: [1]}}"),
        ("docker", "["),
        ("docker", "[]"),
        ("docker", '{"registry-mirrors": [{}]}'),
        ("podman", "x"),
        ("podman", '[[registry]]\nprefix = ""\n'),
        ("podman", "registry = 1\n"),
        ("buildkit", "registry = 1\n"),
        ("talos", "machine: [a]"),
        ("talos", "kind: RegistryMirrorConfig"),
        ("rke", "private_registries: x"),
        ("rke", "private_registries: [{is_default: true}]"),
        ("k3s", "a: " + "[" * 5000),
        ("docker", "[" * 100_000),
        ("k3s", "\ud800"),
        ("k3s", "mirrors: {docker.io: {endpoint: https://c}}"),
        ("k3s", "mirrors: !!int ''"),
        ("k3s", "a: !!timestamp x"),
        ("k3s", "a: !!python/object:os.system x"),
        ("talos", "a: !!binary x"),
        ("docker", '{"registry-mirrors": "https://c"}'),
        ("buildkit", "[registry.'docker.io']\nmirrors = 'c'\n"),
        ("talos", "machine: {registries: {mirrors: {docker.io: {endpoints: c}}}}"),
        ("k3s", "x" * (1 << 20)),
    ],
)
def test_what_is_no_such_file_is_one_line(target: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(text, errors="surrogatepass")
    with pytest.raises(UsageError) as caught:
        read_routes(target, file, ["docker.io"])
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("steps", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_cannot_grow_without_bound(steps: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    text = "a0: &a0 {k: 1}\n"
    for number in range(1, 30):
        step = steps.format(", ".join([f"*a{number - 1}"] * 10))
        text += f"a{number}: &a{number} {step}\n"
    file.write_text(text)
    with pytest.raises(UsageError, match="more than 200,000 entries, aliases counted"):
        read_routes("k3s", file, ["docker.io"])


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe: not a regular file"):
        read_routes("k3s", tmp_path / "pipe", ["docker.io"])


def test_a_password_in_a_nodes_url_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "registries.yaml"
    url = "https://user:hunter2@cache.example:5000/x?token=hunter2#hunter2"
    file.write_text(f"mirrors: {{docker.io: {{endpoint: ['{url}']}}}}\n")
    found = route("k3s", file)
    assert found.described() == "cache.example:5000/x, then docker.io itself"
    hosts = tmp_path / "docker.io/hosts.toml"
    hosts.parent.mkdir()
    hosts.write_text(f"server = '{url}'\n[host.'{url}']\ncapabilities = ['pull']\n")
    found = route("containerd", tmp_path)
    assert found.note == "cache.example:5000/x: not for all pulls (capabilities)"
    assert "hunter2" not in found.described()


@pytest.mark.parametrize("target", READERS)
def test_what_is_not_there_is_one_line(target: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_routes(target, tmp_path / "none", ["docker.io"])
    assert str(caught.value).startswith(str(tmp_path / "none"))

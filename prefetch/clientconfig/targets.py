"""The systems that `prefetch client-config` knows."""

from __future__ import annotations

from typing import Final

from prefetch.clientconfig import buildkit, containerd, containers, docker, rancher, rke, talos
from prefetch.clientconfig.plan import Abilities
from prefetch.clientconfig.target import Target
from prefetch.errors import UsageError

_RANCHER = Abilities(rewrites=True)
_HOSTS = Abilities(
    identity_token=False,
    why={"identity_token": "hosts.toml takes headers alone: use --username"},
)
_DOCKER_LOGIN = (
    "Docker passes by a mirror that asks for a login: give it a cache without users for docker.io"
)
_DOCKER_WHY = {
    "no_fallback": "Docker asks docker.io whenever its mirrors fail",
    "paths": "Docker allows a scheme, a host and a port",
}
_DOCKER = Abilities(
    no_fallback=False,
    login=False,
    paths=False,
    why={**_DOCKER_WHY, "login": _DOCKER_LOGIN},
)
_RKE = Abilities(
    no_fallback=False,
    identity_token=False,
    why={**_DOCKER_WHY, "identity_token": "private_registries have a user and a password"},
)
_BUILDKIT = Abilities(
    no_fallback=False,
    login=False,
    why={
        "no_fallback": "BuildKit always asks the registry itself last",
        "login": "BuildKit is given credentials by its clients: docker login there",
    },
)
_KEYS_RKE = {"private_registries": "url"}
_KEYS_CONTAINERS = {"registry": "prefix", "mirror": "location"}

TARGETS: Final = (
    Target(
        "k3s", "K3s", ("/etc/rancher/k3s/registries.yaml",),
        "systemctl restart k3s (k3s-agent on agents)", rancher.k3s, _RANCHER, {},
    ),
    Target(
        "rke2", "RKE2 (RKE Government)", ("/etc/rancher/rke2/registries.yaml",),
        "systemctl restart rke2-server (rke2-agent on agents)", rancher.rke2, _RANCHER, {},
    ),
    Target(
        "rke", "RKE", ("cluster.yml", "/etc/docker/daemon.json"),
        "rke up; systemctl restart docker on each node", rke.rke, _RKE, _KEYS_RKE, rke.merged_rke,
    ),
    Target(
        "rke-terraform", "Terraform RKE provider",
        ("rke_cluster resource", "/etc/docker/daemon.json"),
        "terraform apply; systemctl restart docker on nodes", rke.rke_terraform, _RKE,
    ),
    Target(
        "containerd", "containerd", ("/etc/containerd/certs.d/<registry>/hosts.toml",),
        "none, once config_path is set", containerd.containerd, _HOSTS,
    ),
    Target(
        "docker", "Docker", ("/etc/docker/daemon.json",),
        "systemctl restart docker", docker.docker, _DOCKER, {},
    ),
    Target(
        "podman", "Podman, Buildah, skopeo", ("/etc/containers/registries.conf.d/",),
        "none", containers.podman, Abilities(), _KEYS_CONTAINERS,
    ),
    Target(
        "crio", "CRI-O", ("/etc/containers/registries.conf.d/",),
        "systemctl reload crio (restart for credentials)", containers.crio, Abilities(),
        _KEYS_CONTAINERS,
    ),
    Target(
        "talos", "Talos", ("machine configuration",),
        "none (a reboot for credentials)", talos.talos, Abilities(),
    ),
    Target(
        "kind", "kind", ("kind.yaml", "/etc/containerd/certs.d/<registry>/hosts.toml"),
        "none: a new cluster", containerd.kind, _HOSTS,
    ),
    Target(
        "minikube", "minikube", ("~/.minikube/files/etc/containerd/certs.d/",),
        "minikube start", containerd.minikube, _HOSTS,
    ),
    Target(
        "buildkit", "BuildKit", ("/etc/buildkit/buildkitd.toml",),
        "restart buildkitd", buildkit.buildkit, _BUILDKIT, {},
    ),
    Target(
        "nerdctl", "nerdctl", ("/etc/containerd/certs.d/<registry>/hosts.toml",),
        "none", containerd.nerdctl, _HOSTS,
    ),
)  # fmt: skip
"""In the order in which they are listed."""


def target_named(name: str) -> Target:
    """The target of that name. Raises UsageError."""
    for target in TARGETS:
        if target.name == name:
            return target
    known = ", ".join(target.name for target in TARGETS)
    raise UsageError(f"{name[:80]!a} is no target", hint=f"known are {known}")

"""containerd, nerdctl, kind and minikube: a tree of `hosts.toml`, and what makes them read it."""

from __future__ import annotations

from prefetch.clientconfig.files import ConfigFile
from prefetch.clientconfig.hosts import CERTS_D, hosts_files
from prefetch.clientconfig.plan import Plan
from prefetch.clientconfig.target import Output
from prefetch.clientconfig.words import fallback_note, header

# containerd's configuration of version 2 (1.3 and later) and of version 3 (2.0 and later).
PLUGIN_V2 = "io.containerd.grpc.v1.cri"
PLUGIN_V3 = "io.containerd.cri.v1.images"
_NEVER_LOOPBACK = "inside the node {} is the node itself: give an address that it can reach"


def containerd(plan: Plan) -> Output:
    """For containerd; files below `certs.d` are read anew at each pull."""
    notes = [
        fallback_note(plan),
        f'in /etc/containerd/config.toml: [plugins."{PLUGIN_V3}".registry] (version = 3) or '
        f'[plugins."{PLUGIN_V2}".registry] (version = 2) needs config_path = "{CERTS_D}"; '
        "restart containerd once if that was new",
        *_upstream_credentials(plan),
    ]
    return Output(tuple(hosts_files(plan, header("containerd", plan))), tuple(notes))


def nerdctl(plan: Plan) -> Output:
    """For nerdctl, which looks in containerd's directory unless told otherwise."""
    comments = header("nerdctl", plan)
    settings = ConfigFile(
        "/etc/nerdctl/nerdctl.toml",
        "toml",
        {"hosts_dir": [CERTS_D, "/etc/docker/certs.d"]},
        comments,
    )
    notes = (fallback_note(plan), *_upstream_credentials(plan))
    return Output((settings, *hosts_files(plan, comments)), notes)


def kind(plan: Plan) -> Output:
    """For kind: the tree is mounted into each node; the patch is for kind before 0.27."""
    comments = header("kind", plan)
    mount = {"hostPath": f"{plan.tree or ''}{CERTS_D}", "containerPath": CERTS_D, "readOnly": True}
    patch = f'[plugins."{PLUGIN_V2}".registry]\n  config_path = "{CERTS_D}"\n'
    cluster = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "containerdConfigPatches": [patch],
        "nodes": [{"role": "control-plane", "extraMounts": [mount]}],
    }
    notes = [fallback_note(plan), "kind create cluster --config kind.yaml"]
    if plan.tree is None:
        notes.append("with --out DIR, kind.yaml mounts the tree from there")
    files = (
        ConfigFile("/kind.yaml", "yaml", cluster, comments),
        *hosts_files(plan, comments, inline=True),
    )
    return Output(files, (*notes, *_loopback(plan), *_upstream_credentials(plan)))


def minikube(plan: Plan) -> Output:
    """For minikube, which copies `~/.minikube/files` into its node when it starts."""
    notes = [
        fallback_note(plan),
        "write the tree with --out ~/.minikube/files, then minikube start "
        "--container-runtime=containerd",
    ]
    hub = plan.mirror("docker.io")
    if hub is not None and plan.fallback and not plan.logins:
        flags = " ".join(f"--registry-mirror={each.root}" for each in hub.endpoints if each.plain)
        notes.append(f"with the Docker runtime, docker.io alone: minikube start {flags}")
    files = hosts_files(plan, header("minikube", plan), inline=True)
    return Output(tuple(files), (*notes, *_loopback(plan), *_upstream_credentials(plan)))


def _loopback(plan: Plan) -> list[str]:
    return [_NEVER_LOOPBACK.format(each.host) for each in plan.hosts() if each.loopback]


def _upstream_credentials(plan: Plan) -> list[str]:
    if not plan.registry_logins or not plan.fallback:
        return []
    names = ", ".join(plan.registry_logins)
    return [
        f"credentials for {names} are left out: hosts.toml has no place for them "
        "(use imagePullSecrets)"
    ]

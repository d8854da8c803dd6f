"""What a kubelet does for a pod, as far as `prefetch` can tell: volumes, variables, who it runs as.

The pod is one that an API server has let in, with the volume that admission gives it for the token.
It runs by `ctr`, with runc. The command, its environment, mounts and security context are the pod's
own; a field that is not understood here is an error, and so is one that would be ignored.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.apicalls import accepted
from support.apiserver import ApiServer
from support.containerd import Containerd
from support.manifests import Object
from support.processes import Result

# containerd's own, which `drop: [ALL]` takes away (oci/spec.go, defaultUnixCaps).
_CAPABILITIES = (
    *(
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
    ),
    *("NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
_PROBE = """\
import ssl, sys, urllib.error, urllib.request
trust = ssl._create_unverified_context()
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5, context=trust).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
_STARTING_SECONDS = 60.0
# Not on the pod's own network: the API server and the registry of a test listen on loopback.
_ON_THE_NODE = ("--net-host",)


@dataclass
class Kubelet:
    """Runs pods of one namespace; claims are directories below `directory`, and stay."""

    containerd: Containerd
    server: ApiServer
    archive: Path
    directory: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def claim(self, name: str) -> Path:
        """The volume of a claim."""
        return self.directory / "claims" / name

    async def run(self, pod: Object) -> Result:
        """Run the pod's one container to its end, on the node's network."""
        (container,) = pod["spec"]["containers"]
        return await self._run(pod, container, f"run-{next(self._numbers)}", *_ON_THE_NODE)

    @contextlib.asynccontextmanager
    async def running(self, pod: Object, *, on_the_node: bool = False) -> AsyncIterator[Running]:
        """Start it; end it as a node does.

        It is on the node's network, or on one of its own, which leads nowhere.
        """
        (container,) = pod["spec"]["containers"]
        number = next(self._numbers)
        for each in pod["spec"].get("initContainers", ()):
            done = await self._run(pod, each, f"{each['name']}-{number}")
            assert done.code == 0, done
        name = f"run-{number}"
        network = _ON_THE_NODE if on_the_node else ()
        task = asyncio.create_task(self._run(pod, container, name, *network))
        started = Running(self.containerd, pod, name, task)
        try:
            yield started
        finally:
            await started.stop()

    async def _run(self, pod: Object, container: Object, name: str, *options: str) -> Result:
        words: list[str | Path] = [*options, "--snapshotter", "native"]
        context = {**pod["spec"]["securityContext"], **container["securityContext"]}
        image = config_of(self.archive)
        words += _as_it_may(context, image["User"])
        port = self.server.url.rpartition(":")[2]
        for each in (
            *container["env"],
            {"name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1"},
            {"name": "KUBERNETES_SERVICE_PORT", "value": port},
        ):
            words += ["--env", f"{each['name']}={each['value']}"]
        volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
        for mount in container["volumeMounts"]:
            place = self.directory / name / mount["name"]
            source = await self._volume(pod, volumes[mount["name"]], place)
            _own(source, pod["spec"]["securityContext"]["fsGroup"])
            mode = "ro" if mount.get("readOnly") else "rw"
            bound = f"type=bind,src={source},dst={mount['mountPath']},options=rbind:{mode}"
            words += ["--mount", bound]
        # As with a CRI, `args` go to the image's entry point.
        assert "command" not in container
        command = (*image["Entrypoint"], *container["args"])
        return await self.containerd.ctr("run", "--rm", *words, container["image"], name, *command)

    async def _volume(self, pod: Object, volume: Object, place: Path) -> Path:
        (kind,) = volume.keys() - {"name"}
        wanted = volume[kind]
        if kind == "persistentVolumeClaim":
            place = self.claim(wanted["claimName"])
        place.mkdir(parents=True, exist_ok=True)
        if kind == "configMap":
            await self._write("configmaps", wanted["name"], place, wanted["defaultMode"])
        elif kind == "secret":
            await self._write("secrets", wanted["secretName"], place, wanted["defaultMode"])
        elif kind == "projected":
            await self._project(pod, wanted["sources"], place)
        else:
            assert kind in {"emptyDir", "persistentVolumeClaim"}, kind
        return place

    async def _write(self, plural: str, name: str, place: Path, mode: int) -> None:
        path = f"/api/v1/namespaces/prefetch/{plural}/{name}"
        found = accepted(await self.server.ask("GET", path))
        for key, value in found["data"].items():
            content = base64.b64decode(value) if plural == "secrets" else value.encode()
            (place / key).write_bytes(content)
            (place / key).chmod(mode)

    async def _project(self, pod: Object, sources: Sequence[Any], place: Path) -> None:
        """The token and whom to trust; no controller publishes kube-root-ca.crt here."""
        for source in sources:
            if "serviceAccountToken" in source:
                # Under the name of the pod's own account, with its rights and no others.
                account = pod["spec"]["serviceAccountName"]
                token = await self.server.token("prefetch", account)
                (place / source["serviceAccountToken"]["path"]).write_text(token)
            elif "configMap" in source:
                assert source["configMap"]["name"] == "kube-root-ca.crt"
                (place / "ca.crt").write_bytes(self.server.ca_file.read_bytes())
            else:
                (place / "namespace").write_text(pod["metadata"]["namespace"])


@dataclass
class Running:
    """A pod that was started."""

    containerd: Containerd
    pod: Object
    name: str
    task: asyncio.Task[Result]

    async def probe(self, kind: str) -> str:
        """The status that a probe of the manifest gets, or what went wrong."""
        (container,) = self.pod["spec"]["containers"]
        wanted = container[f"{kind}Probe"]["httpGet"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        address = f"127.0.0.1:{ports[wanted['port']]}"
        return await self.get(f"{wanted['scheme'].lower()}://{address}{wanted['path']}")

    async def get(self, url: str) -> str:
        """The status of a GET within the container."""
        return await self._python(_PROBE, url)

    async def exec(self, *command: str) -> Result:
        """Run a command in the container, as `kubectl exec` does."""
        base = ("tasks", "exec", "--exec-id", f"e{os.urandom(4).hex()}", self.name)
        return await self.containerd.ctr(*base, *command)

    async def _python(self, script: str, *words: str) -> str:
        done = await self.exec("python", "-c", script, *words)
        return (done.stdout or done.stderr).strip()

    async def rights(self) -> dict[str, str]:
        """What the kernel lets it do: lines of proc(5)'s `status`."""
        shown = await self._python("print(open('/proc/1/status').read())")
        lines = (line.split(":\t", 1) for line in shown.splitlines() if ":\t" in line)
        return {name: value.strip() for name, value in lines}

    async def ready(self) -> None:
        """Wait for the startup probe, then for the readiness probe; RuntimeError if it ends."""
        async with asyncio.timeout(_STARTING_SECONDS):
            for kind in ("startup", "readiness"):
                while await self.probe(kind) != "200":
                    if self.task.done():
                        raise RuntimeError(f"it ended: {self.task.result()}")
                    await asyncio.sleep(0.2)

    async def stop(self) -> Result:
        """SIGTERM, as before a pod is deleted; what it left."""
        if not self.task.done():
            await self.containerd.ctr("tasks", "kill", "--signal", "SIGTERM", self.name)
        return await self.task


def config_of(archive: Path) -> Object:
    """What an image says about itself: `Entrypoint`, `User` and so on."""
    with tarfile.open(archive) as opened:
        (manifest,) = _json_in(opened, "manifest.json")
        return dict(_json_in(opened, manifest["Config"])["config"])


def _json_in(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    assert member is not None
    return json.load(member)


def _as_it_may(context: Object, image: str) -> list[str]:
    """The security context, which is to be exactly this; `image` is who its image wants to be."""
    assert context.pop("runAsNonRoot") is True
    assert context.pop("allowPrivilegeEscalation") is False  # ctr's default, too
    assert context.pop("readOnlyRootFilesystem") is True
    assert context.pop("seccompProfile") == {"type": "RuntimeDefault"}
    assert context.pop("capabilities") == {"drop": ["ALL"]}
    # ctr knows no other user than the image's.
    assert f"{context.pop('runAsUser')}:{context.pop('runAsGroup')}" == image
    assert context.keys() <= {"fsGroup", "fsGroupChangePolicy"}
    dropped = [word for each in _CAPABILITIES for word in ("--cap-drop", f"CAP_{each}")]
    return ["--read-only", "--seccomp", *dropped]


def _own(volume: Path, group: int) -> None:
    """What fsGroup means: the group is the volume's, new files are its own (kubernetes.io,
    "Configure volume permission and ownership change policy for Pods").
    """
    os.chown(volume, 0, group)
    volume.chmod(0o2775)
    for path in volume.iterdir():
        if path.is_file() and path.stat().st_uid == 0:
            os.chown(path, 0, group)

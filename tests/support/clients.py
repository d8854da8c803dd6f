"""skopeo, podman, buildah and crane, each with a configuration and a storage of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from support.gotools import path_of
from support.parts import static_busybox
from support.processes import Result, run


class Clients:
    """Programs that read nothing of the machine's configuration; all is below `home`.

    skopeo, podman and buildah share `registries.conf` and, but for skopeo, one storage; `close`
    removes what they keep elsewhere. With `node`, which are variables for them, they read
    `/etc/containers` and what is in `home`, as on a node.
    """

    def __init__(self, home: Path, *, node: Mapping[str, str] | None = None) -> None:
        self.home = home
        # Of podman's runroot at most 50 characters are taken, which pytest's directories exceed.
        self._run = Path(tempfile.mkdtemp(prefix="run-"))
        settings = home / ".config/containers"
        settings.mkdir(parents=True, exist_ok=True)
        policy = {"default": [{"type": "insecureAcceptAnything"}]}
        (settings / "policy.json").write_text(json.dumps(policy))
        self._registries = settings / "registries.conf"
        self._variables = dict(node or {})
        if node is None:
            self._registries.write_text("")
            (home / "auth.json").write_text("{}")
            self._variables["CONTAINERS_REGISTRIES_CONF"] = str(self._registries)
            self._variables["REGISTRY_AUTH_FILE"] = str(home / "auth.json")

    def close(self) -> None:
        shutil.rmtree(self._run, ignore_errors=True)

    def mirror(self, prefix: str, mirror: str, *, location: str, **settings: str) -> None:
        """For names under `prefix` ask `mirror` first, then `location`, both over plain HTTP.

        `settings` are further lines of the mirror's table, as TOML values
        (containers-registries.conf(5)).
        """
        lines = ["[[registry]]", f'prefix = "{prefix}"', f'location = "{location}"']
        lines += ["insecure = true", "[[registry.mirror]]", f'location = "{mirror}"']
        lines += ["insecure = true", *(f"{key} = {value}" for key, value in settings.items())]
        with self._registries.open("a") as file:
            file.write("\n".join(lines) + "\n")

    async def skopeo(self, *words: str | Path) -> Result:
        return await run("skopeo", *words, env=self._environment)

    async def podman(self, *words: str | Path) -> Result:
        quiet = ("--cgroup-manager", "cgroupfs", "--events-backend", "none")
        return await run("podman", *self._storage, *quiet, *words, env=self._environment)

    async def buildah(self, *words: str | Path) -> Result:
        return await run("buildah", *self._storage, *words, env=self._environment)

    async def crane(self, *words: str | Path) -> Result:
        return await run(path_of("crane"), *words, env=self._environment)

    async def build(self, line: str, target: str) -> str:
        """Build an image whose command prints `line`, push it to `target`; returns its digest.

        It has a static busybox and nothing else, for this machine's platform.
        """
        busybox = static_busybox()
        assert busybox is not None
        container = await self._built("from", "scratch")
        await self._built("copy", container, str(busybox), "/bin/busybox")
        # Built where it is to run: a command in the image made the image.
        inside = ("run", "--isolation", "chroot", container, "/bin/busybox")
        await self._built(*inside, "sh", "-c", f"/bin/busybox echo '{line}' >/message")
        command = json.dumps(["/bin/busybox", "cat", "/message"])
        await self._built("config", "--cmd", command, container)
        await self._built("commit", "--rm", container, "localhost/built")
        digest = self.home / "digest"
        await self._built(
            *("push", "--tls-verify=false", "--digestfile", str(digest)),
            *("localhost/built", f"docker://{target}"),
        )
        return digest.read_text().strip()

    async def _built(self, *words: str) -> str:
        done = await self.buildah(*words)
        assert done.code == 0, done.stderr
        return done.stdout.strip()

    @property
    def _storage(self) -> tuple[str | Path, ...]:
        places = ("--root", self.home / "storage", "--runroot", self._run / "storage")
        return (*places, "--storage-driver", "vfs")

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "TMPDIR": str(self._run),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_RUNTIME_DIR": str(self._run),
            **self._variables,
        }

"""dockerd of a test's own: its data, its socket, no network for containers, and no systemd."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.containerd import Containerd
from support.processes import Result, run, until_answers

_STARTING_SECONDS = 60.0


class Dockerd:
    """The daemon, which reads `/etc/docker`, asked by `docker`."""

    def __init__(
        self,
        directory: Path,
        socket: str,
        process: subprocess.Popen[bytes],
        node: Mapping[str, str],
    ) -> None:
        self._directory = directory
        self._socket = socket
        self._process = process
        self._node = node

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()

    async def docker(self, *words: str | Path) -> Result:
        """Any command of `docker`, to its end."""
        return await run("docker", "--host", self._socket, *words, env=self._node)

    async def ready(self) -> None:
        """Wait until it answers; RuntimeError with its log if it ends before."""
        await until_answers(
            lambda: self.docker("version"),
            self._process,
            self._directory / "log",
            seconds=_STARTING_SECONDS,
        )

    async def stop(self) -> None:
        self._process.terminate()
        await asyncio.to_thread(self._process.wait, 20)


async def start_dockerd(
    directory: Path, containerd: Containerd, *, node: Mapping[str, str]
) -> Dockerd:
    """Start the daemon over a containerd, wait until it answers; `node` are variables for it."""
    directory.mkdir(parents=True)
    # The paths of sockets must be short (unix(7)): it lies where containerd's does.
    state = containerd.socket.parent / "docker"
    socket = f"unix://{state}/d.sock"
    command: list[str | Path] = [
        *("dockerd", "--host", socket, "--containerd", str(containerd.socket)),
        *("--data-root", directory / "root", "--exec-root", state),
        *("--pidfile", state / "pid", "--storage-driver", "vfs"),
        *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
    ]
    state.mkdir()
    environment = {"PATH": os.environ["PATH"], **node}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    daemon = Dockerd(directory, socket, process, node)
    try:
        await daemon.ready()
    except BaseException:
        await daemon.stop()
        raise
    return daemon

"""Where the benchmarks run: a directory that goes away, upstreams, and both programs."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import Run, measure

from support.processes import (
    CommandLine,
    DockerRegistry,
    UpstreamProcess,
    free_port,
    start_docker_registry,
    start_upstream,
)

MIB = 1 << 20
GIB = 1 << 30
# More than any benchmark spends: it is the headers that are wanted, not the limit.
_NO_HINDRANCE = 1_000_000_000
_STARTING_STEPS = 300
_STEP_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Server:
    """`prefetch serve` while it runs."""

    process: subprocess.Popen[bytes]
    url: str

    def wait(self) -> None:
        """Until it is ready."""
        for _ in range(_STARTING_STEPS):
            with suppress(OSError):
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5).close()
                return
            time.sleep(_STEP_SECONDS)
        raise RuntimeError("prefetch serve does not get ready")

    def stop(self) -> None:
        """End it; nothing happens the second time."""
        self.process.terminate()
        self.process.wait(timeout=60)


@dataclass(slots=True)
class Lab:
    """One run of the benchmarks; `say` tells people how far it is."""

    directory: Path
    say: Callable[[str], None]
    _stack: ExitStack = field(default_factory=ExitStack)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def close(self) -> None:
        """Stop what was started."""
        self._stack.close()

    def fresh(self, name: str) -> Path:
        """A new, empty directory."""
        path = self.directory / f"{name}-{next(self._numbers)}"
        path.mkdir()
        return path

    def upstream(self, *images: Mapping[str, Any]) -> UpstreamProcess:
        """A Docker-Hub-like upstream with these images, in a process of its own."""
        self.say("making images")
        specification = {"settings": {"limit": _NO_HINDRANCE}, "images": images}
        started = asyncio.run(start_upstream(self.fresh("upstream"), specification))
        self._stack.callback(started.stop)
        return started

    def registry(self) -> DockerRegistry:
        """Debian's registry, empty."""
        started = asyncio.run(start_docker_registry(self.fresh("registry")))
        self._stack.callback(started.stop)
        return started

    def prefetch(self, data_dir: Path, *words: str | Path) -> tuple[Run, dict[str, Any]]:
        """`prefetch sync -o json …` on a data directory; its measure and its totals."""
        command = CommandLine(self.directory, data_dir)
        output = self.directory / "prefetch.json"
        arguments = command.arguments("sync", "-o", "json", "--platform", "all", *words)
        run = measure(arguments, command.environment(), output)
        totals: dict[str, Any] = json.loads(output.read_text())["totals"]
        return run, totals

    def serve(self, data_dir: Path) -> Server:
        """`prefetch serve`, one worker, no access log; as Debian's registry logs none here."""
        port = free_port()
        command = CommandLine(self.directory, data_dir)
        words = ("serve", "--listen", f"127.0.0.1:{port}", "-q")
        process = subprocess.Popen(
            command.arguments(*words), env=command.environment(), stdin=subprocess.DEVNULL
        )
        server = Server(process, f"http://127.0.0.1:{port}")
        self._stack.callback(server.stop)
        server.wait()
        return server

    def skopeo(self, *words: str | Path) -> Run:
        """`skopeo …`; what it says goes to a file."""
        command = CommandLine(self.directory, self.directory)
        (self.directory / ".run").mkdir(exist_ok=True)
        return measure(["skopeo", *words], command.environment(), self.directory / "skopeo.stdout")

    def list_of(self, references: Sequence[str]) -> Path:
        """An image list."""
        path = self.fresh("list") / "images.txt"
        path.write_text("".join(f"{reference}\n" for reference in references))
        return path


def require(directory: Path, needed: int, programs: Sequence[str]) -> None:
    """Exit in one line unless the disk has `needed` bytes and the programs are here."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"the benchmarks need {' and '.join(missing)} (Debian's packages will do)")
    free = shutil.disk_usage(directory).free
    if free < needed:
        sys.exit(
            f"the benchmarks need {needed / GIB:.0f} GiB in {directory}, which has "
            f"{free / GIB:.1f} GiB free: name another place with --directory"
        )

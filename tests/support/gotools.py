"""Programs that are built from Go modules, once a version, into a cache that runs share.

Run as a program, it builds them all and prints where they are; `.ci/run` does that before the
tests, with the system's Python, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# For a Go that is older than what the modules ask for. Go's toolchains are modules, too, checked
# like any other (go.dev/doc/toolchain); Go before 1.21 cannot switch to them by itself.
_TOOLCHAIN = "go1.26.8"
_BUILD_SECONDS = 900


@dataclass(frozen=True, slots=True)
class GoTool:
    """The main package of a module; `go` is the version that its go.mod asks for."""

    package: str
    version: str
    go: tuple[int, int]


TOOLS: Mapping[str, GoTool] = {
    "crane": GoTool("github.com/google/go-containerregistry/cmd/crane", "v0.22.1", (1, 25)),
    "conformance": GoTool(
        "github.com/opencontainers/distribution-spec/conformance",
        "v0.0.0-20260831232431-97274622c111",
        (1, 24),
    ),
}


class BuildFailed(Exception):
    """Go is missing, or could not build it."""


def path_of(name: str) -> Path:
    """Where a tool is once it has been built."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "prefetch-tests" / f"{name}-{TOOLS[name].version}" / name


def build(name: str) -> Path:
    """Build a tool unless it is there; whoever asks meanwhile waits. Raises BuildFailed."""
    target = path_of(name)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent / ".lock"):
        if not target.exists():
            _install(TOOLS[name], target)
    return target


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(tool: GoTool, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        go = _suitable_go(tool.go, Path(directory))
        _go(go, Path(directory), "install", f"{tool.package}@{tool.version}")
        (Path(directory) / target.name).replace(target)


def _suitable_go(needed: tuple[int, int], directory: Path) -> str:
    """The Go on PATH, or one that it fetches if it is too old."""
    go = shutil.which("go")
    if go is None:
        raise BuildFailed("there is no go on PATH")
    version = re.match(r"go(\d+)\.(\d+)", _go(go, directory, "env", "GOVERSION"))
    # A Go without such a version was built from its sources, and is taken to be new.
    if version is None or (int(version[1]), int(version[2])) >= needed:
        return go
    system, machine = _go(go, directory, "env", "GOHOSTOS", "GOHOSTARCH").split()
    module = f"golang.org/toolchain@v0.0.1-{_TOOLCHAIN}.{system}-{machine}"
    found = Path(json.loads(_go(go, directory, "mod", "download", "-json", module))["Dir"])
    # Modules are unpacked without execute bits.
    for program in (*found.glob("bin/*"), *found.glob("pkg/tool/*/*")):
        program.chmod(0o755)
    return str(found / "bin/go")


def _go(go: str, directory: Path, *words: str) -> str:
    """Run Go outside any module; it installs into `directory`."""
    environment = {name: value for name, value in os.environ.items() if name != "GOROOT"}
    environment |= {"GOBIN": str(directory), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(
            [go, *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=directory,
            env=environment,
            timeout=_BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"go {words[0]} took more than {_BUILD_SECONDS} s") from None
    if done.returncode:
        raise BuildFailed(f"go {' '.join(words)}: {(done.stdout + done.stderr).strip()[-1000:]}")
    return done.stdout.strip()


if __name__ == "__main__":
    try:
        for each in TOOLS:
            print(build(each), flush=True)
    except BuildFailed as error:
        sys.exit(str(error))

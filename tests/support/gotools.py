"""Programs that are built from Go modules, once a version, into a cache that runs share.

Some are published modules; others are below `tests/parsers`, each a module that reads a file with
the code of the system that the file is for (see `support.parsers`). Kubernetes' own programs are
built with `tests/kubernetes/apiserver`, a module that has nothing but its requirements.

Run as a program, it builds them all and prints where they are; `.ci/run` does that before the
tests, with the system's Python, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import fcntl
import hashlib
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
_BUILD_SECONDS = 1500
_TESTS = Path(__file__).parent.parent
_PARSERS = _TESTS / "parsers"
_KUBERNETES = _TESTS / "kubernetes/apiserver"


@dataclass(frozen=True, slots=True)
class GoTool:
    """The main package of a module; `go` is the version that its go.mod asks for."""

    package: str
    version: str
    go: tuple[int, ...]


TOOLS: Mapping[str, GoTool] = {
    "crane": GoTool("github.com/google/go-containerregistry/cmd/crane", "v0.22.1", (1, 25)),
    "crictl": GoTool("sigs.k8s.io/cri-tools/cmd/crictl", "v1.37.0", (1, 26, 6)),
    "conformance": GoTool(
        "github.com/opencontainers/distribution-spec/conformance",
        "v0.0.0-20260831232431-97274622c111",
        (1, 24),
    ),
}

PARSERS = (
    "parse-buildkit",
    "parse-containers",
    "parse-docker",
    "parse-hcl",
    "parse-hosts",
    "parse-k3s",
    "parse-kind",
    "parse-rke",
    "parse-talos",
)

# The module replaces others by directories that its published form lacks, so `go install` refuses
# it. `tests/kubernetes/apiserver/go.mod` says which version it is, and replaces them by published
# ones: version v1.N.M goes with their v0.N.M.
KUBERNETES: Mapping[str, str] = {
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}

PROGRAMS = (*TOOLS, *PARSERS, *KUBERNETES)


class BuildFailed(Exception):
    """Go is missing, or could not build it."""


def path_of(name: str) -> Path:
    """Where one of `PROGRAMS` is once it has been built."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    version = TOOLS[name].version if name in TOOLS else _digest(_module_of(name))
    return Path(base) / "prefetch-tests" / f"{name}-{version}" / name


def build(name: str) -> Path:
    """Build one of `PROGRAMS` unless it is there; whoever asks meanwhile waits.

    Raises BuildFailed.
    """
    target = path_of(name)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent / ".lock"):
        if not target.exists():
            _make(name, target)
    return target


def _module_of(name: str) -> Path:
    """Of what is not a tool."""
    return _KUBERNETES if name in KUBERNETES else _PARSERS / name


def _digest(module: Path) -> str:
    """It changes with any of the module's files."""
    digest = hashlib.sha256()
    for path in sorted((*module.glob("*.go"), *module.glob("go.*"))):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(name: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        made = Path(directory)
        if name in TOOLS:
            tool = TOOLS[name]
            go = _suitable_go(tool.go, made)
            _go(go, made, "install", f"{tool.package}@{tool.version}", GOBIN=str(made))
        else:
            module = _module_of(name)
            go = _suitable_go(_asked_for(module), made)
            flags = "-mod=readonly -trimpath -buildvcs=false"
            words = ("build", *_linking(name), "-o", str(made / name), KUBERNETES.get(name, "."))
            _go(go, module, *words, GOFLAGS=flags, GOWORK="off")
        (made / name).replace(target)


def _linking(name: str) -> tuple[str, ...]:
    """Kubernetes is told its version when it is linked; without symbols it is less large."""
    if name not in KUBERNETES:
        return ()
    required = re.search(r"k8s\.io/kubernetes (v\S+)", (_KUBERNETES / "go.mod").read_text())
    assert required is not None
    version = f"k8s.io/component-base/version.gitVersion={required[1]}"
    return ("-ldflags", f"-s -w -X {version}")


def _asked_for(module: Path) -> tuple[int, ...]:
    """The version in its go.mod."""
    line = re.search(r"^go ([\d.]+)$", (module / "go.mod").read_text(), re.MULTILINE)
    assert line is not None
    return tuple(int(part) for part in line[1].split("."))


def _suitable_go(needed: tuple[int, ...], directory: Path) -> str:
    """The Go on PATH, or one that it fetches if it is too old."""
    go = shutil.which("go")
    if go is None:
        raise BuildFailed("there is no go on PATH")
    version = re.match(r"go(\d+(?:\.\d+)+)", _go(go, directory, "env", "GOVERSION"))
    # A Go without such a version was built from its sources, and is taken to be new.
    if version is None or tuple(int(part) for part in version[1].split(".")) >= needed:
        return go
    system, machine = _go(go, directory, "env", "GOHOSTOS", "GOHOSTARCH").split()
    module = f"golang.org/toolchain@v0.0.1-{_TOOLCHAIN}.{system}-{machine}"
    found = Path(json.loads(_go(go, directory, "mod", "download", "-json", module))["Dir"])
    # Modules are unpacked without execute bits.
    for program in (*found.glob("bin/*"), *found.glob("pkg/tool/*/*")):
        program.chmod(0o755)
    return str(found / "bin/go")


def _go(go: str, directory: Path, *words: str, **settings: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "GOROOT"}
    environment |= {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", **settings}
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
        for each in PROGRAMS:
            print(build(each), flush=True)
    except BuildFailed as error:
        sys.exit(str(error))

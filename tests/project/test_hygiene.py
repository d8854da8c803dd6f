"""What every file of the project has to keep to."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tree import ROOT, project_files

import prefetch

# Written so that this file does not match itself.
INDEX_ADDRESS = re.compile(
    r"pypi\.org|pythonhosted\.org|-index[-]url|find[-]links|\"resolved[\"]:", re.IGNORECASE
)
LOCKED = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; [^\\]+?)?(?: --hash=sha256:[0-9a-f]{64})+"
)
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
MAX_LINES = 400


def texts() -> list[tuple[Path, str]]:
    """Every text file of the project with what it holds."""
    found = []
    for path in project_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path.relative_to(ROOT), content.decode("utf-8")))
    return found


def locked(path: Path) -> dict[str, str]:
    """The versions that a lock names, by package."""
    lines = re.sub(r"\s*\\\n\s*", " ", path.read_text(encoding="utf-8")).splitlines()
    pins = [line for line in lines if not line.lstrip().startswith("#")]
    matches = [(line, LOCKED.fullmatch(line)) for line in pins]
    assert [line for line, match in matches if match is None] == []
    return {match["name"]: match["version"] for _, match in matches if match}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The ``project`` table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_no_file_names_a_package_index() -> None:
    found = [f"{path}: {hit[0]}" for path, text in texts() if (hit := INDEX_ADDRESS.search(text))]
    assert found == []


def test_no_file_names_a_place_on_this_machine() -> None:
    # A root's home says nothing about the machine, and documents name it as an example.
    places = {f"{ROOT}/", f"{Path.home()}/"} - {"//", "/root/"}
    found = [f"{path}: {place}" for path, text in texts() for place in places if place in text]
    assert found == []


def test_modules_stay_short() -> None:
    lengths = {
        path: text.count("\n")
        for path, text in texts()
        if path.suffix == ".py" and path.parts[0] in {"prefetch", "migrations", "tools"}
    }
    assert Path("prefetch/__init__.py") in lengths
    assert {path: lines for path, lines in lengths.items() if lines >= MAX_LINES} == {}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_hash_every_requirement(path: Path) -> None:
    assert len(locked(path)) > 1


def test_locks_agree_with_each_other() -> None:
    seen: dict[str, set[str]] = {}
    for path in LOCKS:
        for name, version in locked(path).items():
            seen.setdefault(name, set()).add(version)
    assert {name: versions for name, versions in seen.items() if len(versions) > 1} == {}


def test_locks_hold_what_the_project_asks_for(project: dict[str, Any]) -> None:
    dev = project["optional-dependencies"]["dev"]
    wanted = {"runtime.txt": project["dependencies"], "dev.txt": project["dependencies"] + dev}
    for name, requirements in wanted.items():
        pins = locked(ROOT / "requirements" / name)
        for requirement in map(Requirement, requirements):
            pin = pins.get(canonicalize_name(requirement.name))
            assert pin is not None, f"{requirement} is not in {name}: run make lock"
            assert requirement.specifier.contains(pin), f"{requirement} is {pin} in {name}"


def test_the_version_is_told_alike(project: dict[str, Any]) -> None:
    assert prefetch.__version__ == project["version"]


def test_make_explains_each_target_in_80_columns() -> None:
    command = ["make", "--no-print-directory"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert max(map(len, shown.splitlines())) <= 80
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split()
    assert re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE) == targets


def test_the_image_is_built_from_what_its_context_lets_through() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        copied |= {source.rstrip("/") for source in sources.split()}
    assert copied == allowed
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert "://" not in dockerfile
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["65532:65532"]

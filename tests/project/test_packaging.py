"""What is installed from the wheel works without the checkout that it was built from."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import sysconfig
import zipfile
from contextlib import closing
from email.parser import HeaderParser
from pathlib import Path

import pytest
from tree import ROOT

import prefetch

pytestmark = pytest.mark.long


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that finds nothing of this checkout in its environment; return its stdout."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built with the tools of this environment alone."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", *build, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in a fresh virtual environment, with the wheel and the locked dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    venv = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    install = ("install", "--no-index", "--no-deps", wheel)
    run(sys.executable, "-m", "pip", "--python", venv / "bin/python", *install, cwd=folder)
    # The dependencies are this environment's own. Its editable install of the checkout is a .pth
    # file, and those of a directory that another .pth file adds are not read.
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin/prefetch"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    folder = metadata.partition("/")[0]
    assert {name.partition("/")[0] for name in names} == {"prefetch", folder}
    assert f"{folder}/licenses/LICENSE" in names
    assert "prefetch/py.typed" in names
    assert (headers["Name"], headers["Version"]) == ("oci-prefetch", prefetch.__version__)


def test_the_wheel_carries_every_migration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    scripts = [path.relative_to(ROOT) for path in ROOT.glob("migrations/versions/*.py")]
    assert scripts
    assert {f"prefetch/{path}" for path in [*scripts, "migrations/env.py"]} <= names


def test_an_installed_program_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert prefetch.__version__ in run(installed, "--version", cwd=tmp_path)


def test_an_installed_program_makes_its_database(installed: Path, tmp_path: Path) -> None:
    run(installed, "--data-dir", tmp_path / "data", "db", "upgrade", cwd=tmp_path)
    with closing(sqlite3.connect(tmp_path / "data/prefetch.db")) as database:
        ((revision,),) = database.execute("SELECT version_num FROM alembic_version")
    assert revision

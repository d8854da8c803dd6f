"""systemd takes the units, and what they run is a command of the program."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tree import ROOT

from prefetch.cli import main as program
from prefetch.errors import UsageError
from prefetch.sync.report import EXIT_DEFERRED

UNITS = ROOT / "packaging/systemd"
SERVICES = ("prefetch.service", "prefetch-sync.service")
PROGRAM = "/opt/prefetch/bin/prefetch"
# systemd's own scale: 0 is the most confined, and most of a distribution's services have 9.
EXPOSURE = "20"


def read(name: str) -> dict[str, dict[str, str]]:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((UNITS / name).read_text(encoding="utf-8"))
    return {section: dict(unit[section]) for section in unit.sections()}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with the program of this environment in place of the one that they name."""
    here = str(Path(sys.executable).parent / "prefetch")
    directory = tmp_path / "units"
    directory.mkdir()
    for path in UNITS.iterdir():
        text = path.read_text(encoding="utf-8")
        (directory / path.name).write_text(text.replace(PROGRAM, here))
    return directory


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("systemd-analyze", "--no-pager", *words), check=False, capture_output=True, text=True
    )


@pytest.mark.real("systemd-analyze")
def test_systemd_takes_the_units(installed: Path) -> None:
    units = [path for path in installed.iterdir() if path.suffix in {".service", ".timer"}]
    assert len(units) == 3
    done = analyze("verify", "--man=no", *units)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.real("systemd-analyze")
def test_systemd_would_say_what_is_wrong(installed: Path) -> None:
    unit = installed / "prefetch.service"
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHouse=yes"))
    done = analyze("verify", "--man=no", unit)
    assert "'ProtectHouse'" in done.stderr


@pytest.mark.real("systemd-analyze")
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(installed: Path, name: str) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", installed / name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_it_runs_a_command_of_the_program(name: str) -> None:
    path, command, *words = read(name)["Service"]["ExecStart"].split()
    assert path == PROGRAM
    found = program.get_command(click.Context(program), command)
    assert found is not None
    found.make_context(command, words, parent=click.Context(program, info_name="prefetch"))


def test_what_was_put_off_or_stopped_has_not_failed() -> None:
    service = read("prefetch-sync.service")["Service"]
    assert service["Type"] == "oneshot"
    assert service["SuccessExitStatus"].split() == [str(EXIT_DEFERRED), "143"]
    # Nothing that a second attempt could mend.
    assert read("prefetch.service")["Service"]["RestartPreventExitStatus"] == str(
        UsageError("").exit_code
    )


def test_both_keep_one_state_as_one_user() -> None:
    first, second = (read(name)["Service"] for name in SERVICES)
    kept = ("User", "Group", "StateDirectory", "Environment", "EnvironmentFile", "WorkingDirectory")
    assert {name: first[name] for name in kept} == {name: second[name] for name in kept}
    confined = {name for name in first if name.startswith(("Protect", "Private", "Restrict"))}
    assert {each: first[each] for each in confined - {"RestartPreventExitStatus"}} == {
        each: second[each] for each in second if each in confined
    }


@pytest.mark.real("systemd-sysusers")
def test_the_user_can_be_made(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/sysusers.d"
    place.mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    shutil.copy(UNITS / "prefetch.sysusers", place / "prefetch.conf")
    subprocess.run(("systemd-sysusers", f"--root={tmp_path}"), check=True)
    users = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    assert [(each[0], each[5]) for each in users] == [("prefetch", "/var/lib/prefetch")]

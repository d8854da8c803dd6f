"""The command line's own rules: options on either side, the environment, help, errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from prefetch.cli import main
from prefetch.cli.text import middle, size, table


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CliRunner()


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, below) for below in command.list_commands(context)]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_has_an_example_and_fits_80_columns(words: tuple[str, ...], runner: CliRunner) -> None:
    result = runner.invoke(main, [*words, "--help"], prog_name="prefetch")
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    if words != ("db",):
        assert re.search(r"Examples?:\n", result.output)


@pytest.mark.parametrize(
    "words",
    [
        ["--data-dir", "here", "images", "-o", "json"],
        ["images", "--data-dir", "here", "-o", "json"],
    ],
)
def test_global_options_work_on_either_side(words: list[str], runner: CliRunner) -> None:
    result = runner.invoke(main, words)
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert Path("here/prefetch.db").exists()


@pytest.mark.parametrize("variable", ["PREFETCH_OUTPUT", "PREFETCH_IMAGES_OUTPUT"])
def test_the_environment_gives_options(variable: str, runner: CliRunner) -> None:
    environment = {variable: "json", "PREFETCH_DATA_DIR": "there"}
    result = runner.invoke(main, ["images"], env=environment)
    assert json.loads(result.stdout) == []
    assert Path("there/prefetch.db").exists()


def test_an_option_goes_before_the_environment(runner: CliRunner) -> None:
    environment = {"PREFETCH_DATA_DIR": "there"}
    runner.invoke(main, ["--data-dir", "here", "images"], env=environment)
    assert Path("here").exists()
    assert not Path("there").exists()


def test_kubernetes_service_variables_are_ignored(runner: CliRunner) -> None:
    environment = {"PREFETCH_OUTPUT": "tcp://10.0.0.7:5000", "PREFETCH_DATA_DIR": "there"}
    assert runner.invoke(main, ["images"], env=environment).exit_code == 0


def test_lists_in_the_environment_are_separated_by_spaces(runner: CliRunner) -> None:
    environment = {"PREFETCH_IMAGE": "a//b also/BAD", "PREFETCH_DATA_DIR": "there"}
    result = runner.invoke(main, ["sync", "-o", "json"], env=environment)
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["errors"]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sync"], "nothing to do"),
        (["sync", "nginx:1.27"], "--image nginx:1.27"),
        (["sync", "missing.txt/"], "no such file"),
        (["sync", "--image", "nginx", "--platform", "plan9/vax/x/y"], "--platform"),
        (["sync", "--image", "nginx", "--reserve", "some"], "reserve"),
        (["sync", "--image", "nginx", "--timeout", "5s"], "--wait or --pace smooth"),
        (["sync", "--image", "nginx", "--pace", "slow"], "--pace"),
        (["sync", "--image", "nginx", "--wait", "--timeout", "soon"], "duration"),
        (["--config", "missing.yaml", "sync"], "missing.yaml"),
        (["unknown"], "No such command"),
    ],
)
def test_usage_errors_exit_2_and_print_nothing(
    words: list[str], says: str, runner: CliRunner
) -> None:
    result = runner.invoke(main, words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert says in result.stderr
    assert not Path(".local").exists()


def test_completion_scripts_name_the_program(runner: CliRunner) -> None:
    for shell in ("bash", "zsh", "fish"):
        result = runner.invoke(main, ["completion", shell])
        assert result.exit_code == 0
        assert "_PREFETCH_COMPLETE" in result.output


def test_in_a_pipe_nothing_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("x" * 100, "1")]
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "x" * 100 in table(("NAME", "N "), rows)
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, table(("NAME", "N "), rows).splitlines())) <= 40


def test_sizes_and_tables() -> None:
    assert [size(n) for n in (None, 0, 999, 1000, 1_234_567)] == [
        "-",
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
    ]
    assert middle("docker.io/library/nginx:1.27", 12) == "dock…nx:1.27"
    lines = table(("NAME", "N "), [("x" * 100, "1")], width=40).splitlines()
    assert max(map(len, lines)) <= 40

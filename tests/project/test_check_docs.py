"""The docs check finds what it says that it finds."""

from __future__ import annotations

import sys
from pathlib import Path

import check_docs
import click
import pytest
from pydantic import BaseModel, Field
from tree import project_files


@click.group()
def tool() -> None:
    """A program."""


@tool.command()
@click.option("--limit", help="How many.")
def count(limit: str | None) -> None:
    """Count what is there."""


@tool.group()
def db() -> None:
    """The database."""


@db.command()
def upgrade() -> None:
    """Move it to the newest schema."""


@tool.command(hidden=True)
def secret() -> None:
    """Not for everyone."""


class Window(BaseModel):
    pulls: int


class Registry(BaseModel):
    window: Window | None = None


class Job(BaseModel):
    cron: str
    window: Window


class Settings(BaseModel):
    data_dir: Path
    registries: dict[str, Registry] = Field(default_factory=dict)
    planned: list[Job] = Field(default_factory=list, alias="jobs")


def page(folder: Path, text: str, name: str = "page.md") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_blocks_are_filled_and_then_stay() -> None:
    before = "# Count\n\n<!-- help: count -->\nold\n<!-- /help -->\n\nThe end.\n"
    after = check_docs.with_help(before, tool)
    assert "Usage: prefetch count [OPTIONS]" in after
    assert "--limit TEXT  How many." in after
    assert "old" not in after
    assert after.startswith("# Count\n\n<!-- help: count -->\n```text\n")
    assert after.endswith("```\n<!-- /help -->\n\nThe end.\n")
    assert check_docs.with_help(after, tool) == after


def test_help_is_made_for_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    tool_with_much_to_say = click.Command("count", help="word " * 60)
    lines = check_docs.help_text(click.Group(commands=[tool_with_much_to_say]), ["count"])
    assert 60 < max(map(len, lines.splitlines())) <= 80


def test_a_stale_block_is_shown_as_a_diff(tmp_path: Path) -> None:
    stale = page(tmp_path, "<!-- help: count -->\nold\n<!-- /help -->\n")
    fresh = page(tmp_path, check_docs.with_help(stale.read_text(), tool), "fresh.md")
    (problem,) = check_docs.stale_help([stale, fresh], tool)
    assert "-old" in problem
    assert "+Usage: prefetch count [OPTIONS]" in problem


def test_a_block_for_an_unknown_command_stops_the_check() -> None:
    with pytest.raises(SystemExit, match="No such command"):
        check_docs.with_help("<!-- help: nonsense -->\n<!-- /help -->\n", tool)


def test_commands_without_a_block_are_named(tmp_path: Path) -> None:
    path = page(tmp_path, "<!-- help: count -->\n<!-- /help -->\n<!-- help: db -->\n<!-- /help -->")
    (problem,) = check_docs.missing_commands(path, tool)
    assert problem.endswith("no block <!-- help: db upgrade -->")


def test_keys_are_dotted_paths_and_a_model_is_entered_once() -> None:
    assert list(check_docs.config_keys(Settings)) == [
        "data_dir",
        "registries",
        "registries.NAME.window",
        "registries.NAME.window.pulls",
        "jobs",
        "jobs.cron",
        "jobs.window",
    ]


def test_only_outermost_models_are_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "settings_for_test"
    package.mkdir()
    page(package, "", "__init__.py")
    page(
        package,
        "from pydantic import BaseModel\n"
        "class Strict(BaseModel): pass\n"
        "class Inner(Strict):\n    size: int\n"
        "class Outer(Strict):\n    inner: dict[str, list[Inner]]\n",
        "models.py",
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        roots = check_docs.config_models("settings_for_test")
        assert [model.__name__ for model in roots] == ["Outer"]
    finally:
        for name in [name for name in sys.modules if name.startswith("settings_for_test")]:
            del sys.modules[name]


def test_keys_that_a_page_lacks_are_named(tmp_path: Path) -> None:
    path = page(
        tmp_path,
        "`data_dir`, `registries`, `registries.NAME.window`, `jobs`, cron, `jobs.window`\n",
    )
    assert [problem.split("`")[1] for problem in check_docs.missing_keys(path, [Settings])] == [
        "registries.NAME.window.pulls",
        "jobs.cron",
    ]


@pytest.mark.parametrize(
    ("link", "sound"),
    [
        ("other.md", True),
        ("other.md#more-of-it", True),
        ("other.md#more-of-it-1", True),
        ("#here--there", True),
        ("https://example.org/nowhere", True),
        ("mailto:nobody@example.org", True),
        ("missing.md", False),
        ("other.md#nothing", False),
        ("other.md#not-a-heading", False),
        ("#nothing", False),
    ],
)
def test_links_lead_somewhere(tmp_path: Path, link: str, *, sound: bool) -> None:
    page(tmp_path, "## More of it\n\n## More `of` it\n\n```\n# not a heading\n```\n", "other.md")
    path = page(tmp_path, f"# Here & there\n\nSee [this]({link}).\n\n```\n[x](gone.md)\n```\n")
    assert (list(check_docs.broken_links([path])) == []) is sound


@pytest.mark.parametrize(
    ("heading", "sound"),
    [
        ("## [Unreleased]", True),
        ("## [1.2.3] - 2026-01-01", True),
        ("## [1.2.2] - 2026-01-01", False),
        ("Unreleased", False),
    ],
)
def test_the_changelog_has_a_place_for_changes(
    tmp_path: Path, heading: str, *, sound: bool
) -> None:
    path = page(tmp_path, f"# Changelog\n\n{heading}\n")
    assert (list(check_docs.missing_changes(path, "1.2.3")) == []) is sound


def test_ignored_files_are_no_part_of_the_project(tmp_path: Path) -> None:
    for name in ["docs", ".git", "build", "deep/__pycache__"]:
        (tmp_path / name).mkdir(parents=True)
        page(tmp_path / name, "", "a.md")
    page(tmp_path, "build/\n__pycache__/\n*.log\n", ".gitignore")
    page(tmp_path, "", "x.log")
    found = [str(path.relative_to(tmp_path)) for path in project_files(tmp_path)]
    assert found == [".gitignore", "docs/a.md"]
    assert project_files(tmp_path, "*.md") == [tmp_path / "docs/a.md"]

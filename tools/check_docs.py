"""Hold the documentation against the program.

Checks that every ``<!-- help: sync -->`` … ``<!-- /help -->`` block in README.md and docs/ is what
``prefetch sync --help`` prints on a terminal of 80 columns, that docs/cli.md has a block for every
command, that docs/configuration.md names every configuration key, that docs/serving.md has the
table of the metrics that there are, that links between files and their headings lead somewhere,
and that CHANGELOG.md has a section for what comes next.

Exits 1 and says what is wrong; with ``--write`` it renews the blocks first.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import click
from click.testing import CliRunner
from pydantic import BaseModel
from tree import ROOT, project_files

METRICS_BLOCK = re.compile(r"(?P<open><!-- metrics -->\n).*?(?=<!-- /metrics -->)", re.DOTALL)
HELP_BLOCK = re.compile(
    r"(?P<open><!-- help:(?P<command>[a-z -]*)-->\n).*?(?=<!-- /help -->)", re.DOTALL
)
FENCED = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6} +(?P<text>.+?)\s*$", re.MULTILINE)
REMOTE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def walk_commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that ``--help`` shows, groups before their members."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from walk_commands(command, (*path, name))


def help_text(group: click.Group, words: Iterable[str]) -> str:
    """Return what ``prefetch WORDS --help`` prints on a terminal of 80 columns."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(
        group, [*words, "--help"], prog_name="prefetch", catch_exceptions=False
    )
    if result.exit_code != 0:
        raise SystemExit(f"prefetch {' '.join(words)} --help failed: {result.output}")
    return result.stdout


def with_help(text: str, group: click.Group) -> str:
    """Return a page with the content of each of its help and metrics blocks made afresh."""

    def fill(block: re.Match[str]) -> str:
        shown = help_text(group, block["command"].split())
        return f"{block['open']}```text\n{shown}```\n"

    return HELP_BLOCK.sub(fill, METRICS_BLOCK.sub(lambda block: block["open"] + metrics(), text))


def metrics() -> str:
    """Return the table of the server's metrics."""
    from prefetch.server.metrics import METRICS

    rows = ["| metric | type | labels | |", "|---|---|---|---|"]
    for each in METRICS:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        rows.append(f"| `{each.name}` | {each.type} | {labels} | {each.help} |")
    return "\n".join(rows) + "\n"


def stale_help(pages: Iterable[Path], group: click.Group) -> Iterator[str]:
    """Yield a diff for each page whose help blocks are not what the program prints."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fresh = with_help(text, group)
        if fresh != text:
            lines = difflib.unified_diff(
                text.splitlines(), fresh.splitlines(), str(page), "prefetch --help", lineterm=""
            )
            yield "\n".join([f"{page}: help has changed; run make docs", *lines])


def missing_commands(page: Path, group: click.Group) -> Iterator[str]:
    """Yield a complaint for each command that has no help block on the page."""
    shown = {
        tuple(block["command"].split())
        for block in HELP_BLOCK.finditer(page.read_text(encoding="utf-8"))
    }
    for words in walk_commands(group):
        if words not in shown:
            yield f"{page}: no block <!-- help: {' '.join(words)} -->"


def config_models(package: str) -> list[type[BaseModel]]:
    """Return the models that the modules of a package define and no other of them contains."""
    parts = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    modules = [importlib.import_module(name) for name in [package, *(part.name for part in parts)]]
    models = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel
    }
    inner = {
        part
        for model in models
        for field in model.model_fields.values()
        for part, _ in _models_in(field.annotation)
    }
    bases = {base for model in models for base in model.__mro__[1:]}
    return sorted(models - inner - bases, key=lambda model: model.__qualname__)


def config_keys(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted path of every key of a model, in order: ``registries.NAME.limit.pulls``.

    ``NAME`` stands for a key of the user's choice; the items of a list add no word of their own.
    A model that is used in several places is entered at the first of them only.
    """
    yield from _keys_below(model, "", {model})


def _keys_below(
    model: type[BaseModel], prefix: str, entered: set[type[BaseModel]]
) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        for inner, words in _models_in(field.annotation):
            if inner not in entered:
                entered.add(inner)
                yield from _keys_below(inner, f"{key}.{words}", entered)


def _models_in(annotation: object, words: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, words
    origin = typing.get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        words += "NAME."
    for part in typing.get_args(annotation):
        yield from _models_in(part, words)


def missing_keys(page: Path, models: Iterable[type[BaseModel]]) -> Iterator[str]:
    """Yield a complaint for each configuration key that the page does not name in backquotes."""
    text = page.read_text(encoding="utf-8")
    for model in models:
        for key in config_keys(model):
            if f"`{key}`" not in text:
                yield f"{page}: the configuration key `{key}` is not described"


def anchors(text: str) -> set[str]:
    """Return the fragments that a page's headings answer to, made as GitHub makes them."""
    found: set[str] = set()
    for heading in HEADING.finditer(FENCED.sub("", text)):
        slug = re.sub(r"[^\w\- ]", "", heading["text"].lower()).replace(" ", "-")
        copies = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
        found.add(f"{slug}-{copies}" if copies else slug)
    return found


def broken_links(pages: Iterable[Path]) -> Iterator[str]:
    """Yield a complaint for each relative link to a file or a heading that is not there."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for link in LINK.finditer(FENCED.sub("", text)):
            if REMOTE.match(link["target"]):
                continue
            name, _, fragment = link["target"].partition("#")
            target = page.parent / name if name else page
            if not target.exists():
                yield f"{page}: broken link to {link['target']}"
            elif fragment and fragment not in anchors(target.read_text(encoding="utf-8")):
                yield f"{page}: no such heading: {link['target']}"


def missing_changes(page: Path, version: str) -> Iterator[str]:
    """Yield a complaint when the changelog has neither an Unreleased nor the version's section."""
    sections = re.findall(r"^## \[([^\]]+)\]", page.read_text(encoding="utf-8"), re.MULTILINE)
    if not {"Unreleased", version} & set(sections):
        yield f"{page}: neither [Unreleased] nor [{version}] has a section"


def main(arguments: list[str]) -> int:
    """Check everything; with ``--write`` renew the help blocks first. Returns the exit status."""
    from prefetch import __version__
    from prefetch.cli import main as group

    everywhere = project_files(pattern="*.md")
    pages = [page for page in everywhere if page.is_relative_to(ROOT / "docs")]
    pages.append(ROOT / "README.md")
    if "--write" in arguments:
        for page in pages:
            page.write_text(with_help(page.read_text(encoding="utf-8"), group), encoding="utf-8")
    problems = [
        *stale_help(pages, group),
        *missing_commands(ROOT / "docs/cli.md", group),
        *missing_keys(ROOT / "docs/configuration.md", config_models("prefetch.config")),
        *broken_links(everywhere),
        *missing_changes(ROOT / "CHANGELOG.md", __version__),
    ]
    for problem in problems:
        print(problem.replace(f"{ROOT}/", ""), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

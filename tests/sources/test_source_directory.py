"""Directories: all that is in them is read, or said not to be."""

from __future__ import annotations

import io
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefetch.errors import UsageError
from prefetch.sources import directory
from prefetch.sources.detect import load
from prefetch.sources.selector import Parsed

POD = "kind: Pod\napiVersion: v1\nspec: {containers: [{image: NAME}]}\n"


def write(root: Path, *names: str) -> None:
    """A pod in each file, with an image called as the file."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(POD.replace("NAME", path.stem.lower()))


def read(root: Path) -> Parsed:
    return load(root, io.BytesIO)


def images(parsed: Parsed) -> list[str]:
    return [
        each.reference.repository.path.removeprefix("library/")
        for each in parsed.selectors
        if each.reference
    ]


def test_capital_suffixes_are_as_good(tmp_path: Path) -> None:
    write(tmp_path, "a.YAML", "b.Yml", "c.JSON", "d.txt")
    assert images(read(tmp_path)) == ["a", "b", "c"]


def test_the_order_is_that_of_names(tmp_path: Path) -> None:
    write(tmp_path, "b/b.yaml", "a.yaml", "c.yaml", "b/a.yaml", ".hidden/x.yaml", "b/.x.yaml")
    assert images(read(tmp_path)) == ["a", "a", "b", "c"]


def test_links_are_followed_and_loops_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path, "all/a.yaml", "elsewhere/b.yaml", "elsewhere/c.yaml")
    (tmp_path / "all/loop").symlink_to(tmp_path / "all")
    (tmp_path / "all/dir").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "all/same").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "all/z.yaml").symlink_to(tmp_path / "elsewhere/b.yaml")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "all")
    parsed = read(tmp_path / "all")
    assert parsed.errors == []
    assert images(parsed) == ["a", "b", "c", "b"]


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that anybody may read, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        yield root
        (root / "closed").chmod(0o755)


def test_what_cannot_be_read_is_an_error_each(
    open_directory: Path, request: pytest.FixtureRequest
) -> None:
    root = open_directory
    write(root, "a.yaml", "closed/b.yaml", "d.yaml")
    (root / "closed").chmod(0)
    (root / "d.yaml").chmod(0)
    (root / "gone.yaml").symlink_to("nowhere")
    (root / "gone").symlink_to("nowhere")
    (root / "gone.md").symlink_to("nowhere")
    (root / "round.yaml").symlink_to("round.yaml")
    os.mkfifo(root / "pipe.yaml")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(root)  # a socket's path may not be long
        listening.bind("socket.json")
        os.chdir(here)
        request.getfixturevalue("nobody")
        parsed = read(root)
    assert images(parsed) == ["a"]
    assert [str(error).removeprefix(f"{root}/") for error in parsed.errors] == [
        "closed: cannot be read: Permission denied",
        "d.yaml: cannot be read: Permission denied",
        "gone: a link that leads nowhere",
        "gone.yaml: a link that leads nowhere",
        "pipe.yaml: not a regular file",
        "round.yaml: cannot be read: Too many levels of symbolic links",
        "socket.json: not a regular file",
    ]


def test_a_directory_with_nothing_to_read_but_errors(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    assert len(read(tmp_path).errors) == 1
    (tmp_path / "gone.yaml").unlink()
    with pytest.raises(UsageError, match=r"there is no \.yaml"):
        read(tmp_path)


def test_a_directory_has_so_many_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "MAX_FILES", 3)
    write(tmp_path, "a.yaml", "b.yaml")
    assert read(tmp_path).errors == []
    write(tmp_path, "c.yaml")
    parsed = read(tmp_path)
    assert images(parsed) == ["a", "b"]
    assert str(parsed.errors[0]) == f"{tmp_path}: more than 3 files: the rest is not read"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kustomization.yaml", "resources: [x.yaml]\nimages: [{name: nginx, newTag: '2'}]\n"),
        ("values.yaml", "services: {web: {port: 80}}\nreplicas: 2\n"),
        ("values.yaml", "services: [web, db]\n"),
        ("values.yaml", "services: {web: {image: {repository: a, tag: b}}}\n"),
        ("values.yaml", "services: {web: {image: a}}\nreplicas: 2\n"),
        ("values.yaml", "images: {web: {repository: a, tag: b}}\n"),
        ("values.yaml", "images: [{name: web, tag: '1'}]\nreplicas: 2\n"),
        ("values.yaml", "kind: Deployment\nreplicas: 2\n"),
        ("scalar.yaml", "hello\n"),
        ("lines.yaml", "nginx\nredis\n"),
        ("number.json", "42"),
        ("text.json", '"hello"'),
        ("list.json", '["a", "b"]'),
        ("package.json", '{"name": "x", "version": "1.0.0"}'),
    ],
)
def test_other_programs_files_are_noted(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    parsed = read(tmp_path)
    assert (parsed.errors, parsed.selectors) == ([], [])
    assert len(parsed.notes) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.yaml", "images: nginx\n"),
        ("list.yaml", "images: ['A b']\n"),
        ("list.yaml", "images: [{imag: nginx}]\n"),
        ("list.yaml", "images: [nginx]\nimage: redis\n"),
        ("list.yaml", "images: [{image: nginx, platfroms: [all]}]\nextra: 1\n"),
        ("list.yaml", "images: [{repository: nginx, tags: {newest: x}}]\nextra: 1\n"),
        ("list.yaml", "images: [nginx\n"),
        ("compose.yaml", "services: [web]\n"),
        ("docker-compose.yml", "services: {web: }\nvolume: {}\n"),
        ("stack.yaml", "services: {web: {image: 'A b'}}\nvolumes: {}\n"),
        ("stack.yaml", "services: {web: {build: .}, db: {}}\n"),
        ("pod.yaml", "kind: Pod\nmetadata: {name: x}\n"),
        ("latin.yaml", "images: [\xff]\n"),
    ],
)
def test_what_was_meant_for_us_and_is_broken_is_an_error(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    parsed = read(tmp_path)
    assert len(parsed.errors) == 1, parsed.notes


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null"])
def test_an_empty_file_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.yaml").write_text(text)
    assert read(tmp_path) == Parsed()

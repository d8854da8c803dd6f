"""Faults of the disk in plain words, and the free-space check."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from prefetch.errors import NoSpace, StoreError
from prefetch.store.disk import disk_errors, replace_file, require_space

PATH = Path("/data/ingest/x")


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, NoSpace, "free some space"),
        (errno.EDQUOT, NoSpace, "raise the quota"),
        (errno.EIO, StoreError, "kernel's log"),
        (errno.EROFS, StoreError, "mount it read-write"),
        (errno.EACCES, StoreError, "permission"),
        (errno.EMFILE, StoreError, "ulimit"),
        (errno.ELOOP, StoreError, "Too many levels"),
    ],
)
def test_fault_names_the_path_and_what_to_do(
    number: int, kind: type[StoreError], words: str
) -> None:
    with pytest.raises(StoreError, match=words) as caught, disk_errors("write", PATH):
        raise OSError(number, "told otherwise")
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"cannot write {PATH}: ")


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="not ours"), disk_errors("write", PATH):
        raise ValueError("not ours")


def test_space_is_required_for_large_needs_only(tmp_path: Path) -> None:
    require_space(tmp_path, 0)
    require_space(tmp_path, 1 << 20)
    with pytest.raises(NoSpace, match=rf"{1 << 60} and a margin of \d+ are needed"):
        require_space(tmp_path, 1 << 60)
    with pytest.raises(StoreError, match="cannot examine"):
        require_space(tmp_path / "missing", 1)


def test_replacement_that_fails_leaves_the_old(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    target.rmdir()
    for text in (b"one", b"two"):
        replace_file(target, text)
        assert target.read_bytes() == text

"""Content on disk: looked up, read, listed and removed. Everything here blocks."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

from prefetch.errors import InvalidReference, StoreError
from prefetch.oci.reference import Digest
from prefetch.store.content import Info
from prefetch.store.datadir import DataDirectory
from prefetch.store.disk import disk_errors

_MANY = 512


def info(directory: DataDirectory, digest: Digest) -> Info | None:
    """The content's size; None when it is absent."""
    path = directory.blob_path(digest)
    with disk_errors("examine", path):
        try:
            return Info(digest, path.stat().st_size)
        except FileNotFoundError:
            return None


def present(directory: DataDirectory, wanted: set[Digest]) -> set[Digest]:
    """A look at each, or, when there are many, one at each directory."""
    if len(wanted) < _MANY:
        return {digest for digest in wanted if info(directory, digest)}
    found: dict[str, set[str]] = defaultdict(set)
    for algorithm in {digest.algorithm for digest in wanted}:
        found[algorithm] = {entry.name for entry in files(directory.blobs(algorithm))}
    return {digest for digest in wanted if digest.hex in found[digest.algorithm]}


def read(directory: DataDirectory, digest: Digest, limit: int) -> bytes:
    """The whole content, verified; see prefetch.store.content.Provider."""
    path = directory.blob_path(digest)
    with disk_errors("read", path), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise StoreError(f"{digest} is larger than the {limit} bytes that are read at once")
    if Digest.of(data, digest.algorithm) != digest:
        raise StoreError(
            f"{path} is damaged: its content does not have the digest that it is named after",
            hint="remove the file and sync again",
        )
    return data


def contents(directory: DataDirectory, algorithm: str) -> Generator[Info]:
    """All content of one algorithm; what is not named by a digest is not ours."""
    for entry in files(directory.blobs(algorithm)):
        digest = parse_name(algorithm, entry.name)
        if digest is not None:
            with contextlib.suppress(FileNotFoundError):
                yield Info(digest, entry.stat().st_size)


def delete(directory: DataDirectory, digest: Digest) -> bool:
    """Remove content; False when it was absent."""
    path = directory.blob_path(digest)
    with disk_errors("remove", path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    return True


def files(directory: Path) -> Generator[os.DirEntry[str]]:
    """The regular files in `directory`, as the kernel lists them."""
    with disk_errors("list", directory), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield entry


def parse_name(algorithm: str, hex_digits: str) -> Digest | None:
    """The digest that a file's name spells, or None for a file that is not ours."""
    try:
        return Digest(algorithm, hex_digits)
    except InvalidReference:
        return None

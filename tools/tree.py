"""The project's own files, as opposed to what builds, tools and tests leave beside them."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def project_files(root: Path = ROOT, pattern: str = "*") -> list[Path]:
    """Return every file under ``root`` whose name matches ``pattern``, sorted.

    Leaves out ``.git`` and whatever ``.gitignore`` names. Reads the tree and not git's index, so
    that a release's tarball is checked as a clone is; of ``.gitignore``'s grammar it knows names
    with wildcards, which is what the project's own holds.
    """
    ignored = [".git", *_ignored_names(root / ".gitignore")]

    def kept(name: str) -> bool:
        return not any(fnmatch(name, entry) for entry in ignored)

    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = filter(kept, folders)
        found += [Path(folder, name) for name in names if fnmatch(name, pattern) and kept(name)]
    return sorted(found)


def _ignored_names(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip("/ ") for line in lines if line.strip() and not line.startswith("#")]

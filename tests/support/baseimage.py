"""An image to build on where none can be pulled: Python out of this Debian's own packages."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

# What an image such as python:slim has, as far as the Dockerfile uses it.
_PACKAGES = ("base-files", "base-passwd", "coreutils", "dash", "libc-bin", "passwd", "python3-venv")
# Debian's tools come by priority, not by a dependency that would name them; these hold scripts of
# the machine's administration alone.
_NOT_NEEDED = frozenset({"debconf", "perl-base"})
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_MERGED = ("bin", "lib", "lib64", "sbin")
_UNREAD = ("/usr/share/doc", "/usr/share/locale", "/usr/share/man")


def make_rootfs(root: Path) -> None:
    """Copy the packages' files, and the machine's authorities, into an empty directory."""
    root.mkdir()
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    packed = root.with_suffix(".tar")
    pack = ("tar", "--create", "--file", packed, "--directory=/", "--no-recursion")
    subprocess.run(
        (*pack, "--null", "--files-from=-"),
        input="\0".join(sorted(_files(_closure(_PACKAGES)))).encode(),
        check=True,
    )
    unpack = ("tar", "--extract", "--keep-directory-symlink", "--file", packed)
    subprocess.run((*unpack, "--directory", root), check=True)
    packed.unlink()
    _finish(root)


def _finish(root: Path) -> None:
    """What the packages' scripts would have made."""
    for name in ("passwd", "group"):
        shutil.copy(f"/usr/share/base-passwd/{name}.master", root / "etc" / name)
    (root / "usr/bin/python").symlink_to("python3")
    (root / "usr/bin/sh").unlink(missing_ok=True)
    (root / "usr/bin/sh").symlink_to("dash")
    authorities = root / _AUTHORITIES.relative_to("/")
    authorities.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_AUTHORITIES, authorities)
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    subprocess.run(("ldconfig", "-r", root), check=True)


def _files(packages: Iterable[str]) -> set[str]:
    """Without documents; relative to the root, as tar wants them."""
    tops = {Path("/"), *(Path("/", name) for name in _MERGED)}
    listed = subprocess.run(
        ("dpkg-query", "--listfiles", *packages), check=True, capture_output=True, text=True
    ).stdout
    paths = (Path(line) for line in listed.splitlines() if line.startswith("/"))
    return {
        str(path.relative_to("/"))
        for path in paths
        if path.is_symlink() or path.exists()
        if path not in tops and not any(path.is_relative_to(each) for each in _UNREAD)
    }


def _closure(packages: Iterable[str]) -> set[str]:
    """The packages with all that they depend on, of what is installed."""
    depends, providers = _installed()
    found: set[str] = set()
    wanted = list(packages)
    while wanted:
        name = wanted.pop()
        name = name if name in depends else providers.get(name, "")
        if name and name not in found and name not in _NOT_NEEDED:
            found.add(name)
            wanted += depends[name]
    return found


def _installed() -> tuple[Mapping[str, list[str]], Mapping[str, str]]:
    """What each package depends on, one of them where it has a choice; and who provides what."""
    form = "${Package}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    shown = subprocess.run(
        ("dpkg-query", "--show", "--showformat", form), check=True, capture_output=True, text=True
    ).stdout
    rows = [line.split("\t") for line in shown.splitlines()]
    names = {row[0] for row in rows}
    providers = {each: name for name, _, provided in rows for each in _names(provided)}
    depends = {
        name: [
            next((each for each in choice if each in names), choice[0])
            for choice in map(_alternatives, depending.split(","))
            if choice
        ]
        for name, depending, _ in rows
    }
    return depends, providers


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") for name in _alternatives(part)]


def _alternatives(text: str) -> list[str]:
    """`a (>= 1) | b:any`: a and b."""
    return [match[1] for part in text.split("|") if (match := re.match(r"\s*([a-z0-9.+-]+)", part))]

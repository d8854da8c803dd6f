"""Which real parts this machine has, for `@pytest.mark.real`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from support import gotools

# The dynamic linker that a program asks for is named close behind its headers (ELF, PT_INTERP).
_ELF_HEAD = 4096
_CAP_SYS_ADMIN = 1 << 21


def lacks(part: str) -> str | None:
    """Why a part cannot be used, or None; what is of Go is built, which can take minutes.

    A part is a program on PATH, one of `gotools.PROGRAMS`, `root` (which containers need), or
    `busybox-static`.
    """
    if part == "root":
        return None if _may_mount() else "root, free to mount"
    if part == "busybox-static":
        return None if static_busybox() else part
    if part in gotools.PROGRAMS:
        try:
            gotools.build(part)
        except gotools.BuildFailed as error:
            return f"{part} ({error})"
        return None
    return None if shutil.which(part) else part


def static_busybox() -> Path | None:
    """A busybox that runs where there are no libraries."""
    found = shutil.which("busybox")
    if found is None:
        return None
    with Path(found).open("rb") as program:
        return None if b"/ld-" in program.read(_ELF_HEAD) else Path(found)


def _may_mount() -> bool:
    """Root of the machine, not of a container that has been denied it."""
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 and bool(int(effective.split()[1], 16) & _CAP_SYS_ADMIN)

"""The guided run, in a directory of its own."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

from prefetch.app.signals import run
from prefetch.demo.guide import Say, guided_run


def run_demo(say: Say, keep: Path | None) -> bool:
    """Run it; True when all went as it should. With `keep` its files stay there."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    place = tempfile.TemporaryDirectory(prefix="prefetch-demo-")
    with nullcontext(str(keep)) if keep is not None else place as directory:
        went_well, _ = run(lambda _: guided_run(say, Path(directory)))
    return went_well

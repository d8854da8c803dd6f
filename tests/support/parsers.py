"""What the systems that the written files are for read in them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from support.gotools import path_of

_SECONDS = 60


def parse(name: str, *words: str | Path) -> Any:
    """Run one of `gotools.PARSERS`, which has been built, and decode what it prints.

    What it says where it fails is the message of an AssertionError.
    """
    done = subprocess.run(
        [path_of(name), *words], check=False, capture_output=True, text=True, timeout=_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

"""What must be true after every run, whatever the registry did."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from support.processes import CommandLine, Result

_LENGTHS = {"sha256": 64, "sha512": 128}
_SIGNS_OF_A_CRASH = ("Traceback", "never retrieved", "never awaited", "Unclosed", "Exception in")


def assert_blobs_sound(cache: Path) -> int:
    """Every file under `blobs` is named by its content, and nothing else is there; their number."""
    count = 0
    for path in (cache / "blobs").rglob("*"):
        if path.is_dir():
            assert path.parent == cache / "blobs"
            continue
        algorithm = path.parent.name
        assert len(path.name) == _LENGTHS[algorithm], path
        with path.open("rb") as file:
            assert hashlib.file_digest(file, algorithm).hexdigest() == path.name, path
        count += 1
    return count


def assert_no_crash(*results: Result) -> None:
    """Nothing that a user would read as a bug of ours."""
    for result in results:
        for sign in _SIGNS_OF_A_CRASH:
            assert sign not in result.stderr, result.stderr
            assert sign not in result.stdout, result.stdout


def assert_no_secret(cli: CommandLine, secrets: Iterable[str], *results: Result) -> None:
    """No secret in what was printed or logged, in the database, or anywhere on the disk."""
    wanted = [secret.encode() for secret in secrets]
    assert wanted
    texts = [(result.stdout + result.stderr).encode() for result in results]
    for directory in (cli.data_dir, cli.home):
        texts += [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    for text in texts:
        for secret in wanted:
            assert secret not in text, f"{secret!r} has leaked"

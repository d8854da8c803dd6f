"""Opens a source, tells by its content what it is, and has it parsed."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import BinaryIO, Final

from prefetch.errors import InvalidReference, SourceError, UsageError
from prefetch.oci.reference import Reference
from prefetch.sources import text
from prefetch.sources.selector import Origin, Parsed

MAX_SIZE: Final = 32 << 20
"""Bytes of a source that are read at most."""
STDIN: Final = "-"

_YAML_START = re.compile(r"---(\s|$)|%YAML\s|- |-$|[\[{]|[\"']?[A-Za-z_][\w.-]*[\"']?\s*:(\s|$)")
_OTHER_KINDS = (
    (re.compile(rb"(?m)^[{ ]*[\"']?(?:apiVersion|kind)[\"']?\s*:"), "a Kubernetes object"),
    (re.compile(rb"(?m)^[{ ]*[\"']?services[\"']?\s*:"), "a compose file"),
)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def load(source: str | Path, stdin: BinaryIO) -> Parsed:
    """Read a source: a file's path, or `-` for `stdin`.

    What is wrong with its content is in the result's `errors`. Raises UsageError if there is no
    such file, or none that can be read.
    """
    if str(source) == STDIN:
        return parse(stdin.read(MAX_SIZE + 1), STDIN)
    path = Path(source)
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise UsageError(
                f"{source} is a directory, not an image list", hint="name the files in it"
            )
        with path.open("rb") as file:
            return parse(file.read(MAX_SIZE + 1), str(source))
    except FileNotFoundError:
        raise _missing(str(source)) from None
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{ascii(str(source))[:200]} is not a file's path") from None


def parse(data: bytes, name: str) -> Parsed:
    """Parse a source's content; `name` stands in origins and errors. Raises nothing."""
    refusal = _refusal(data)
    if refusal is not None:
        return Parsed(errors=[Origin(name).error(refusal)])
    if _YAML_START.match(_first_line(data)):
        return _parse_yaml(data, name)
    return text.parse(data, name)


def _parse_yaml(data: bytes, name: str) -> Parsed:
    from prefetch.sources import yamllist
    from prefetch.sources.yamltree import read

    for pattern, kind in _OTHER_KINDS:
        if pattern.search(data):
            error = Origin(name).error(
                f"this is {kind}, which is not read as an image list",
                hint="list its images, one a line",
            )
            return Parsed(errors=[error])
    try:
        return yamllist.parse(read(data.decode("utf-8-sig"), name), name)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Parsed(errors=[Origin(name, line).error("the line is not UTF-8")])
    except SourceError as error:
        return Parsed(errors=[error])


def _refusal(data: bytes) -> str | None:
    if len(data) > MAX_SIZE:
        return f"larger than {MAX_SIZE >> 20} MiB, which no image list is"
    if data.startswith(_UTF16):
        return "written in UTF-16; save it as UTF-8"
    return "a binary file, not an image list" if b"\0" in data else None


def _first_line(data: bytes) -> str:
    """The first line that says something; comments look alike in all kinds."""
    for raw in data.removeprefix(b"\xef\xbb\xbf").splitlines():
        line = raw.strip()
        if line and not line.startswith(b"#"):
            return line[:256].decode(errors="replace")
    return ""


def _missing(source: str) -> UsageError:
    try:
        Reference.parse(source)
    except InvalidReference:
        return UsageError(f"no such file: {source}")
    return UsageError(f"no such file: {source}", hint=f"for an image write --image {source}")

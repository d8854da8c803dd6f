"""Opens a source, tells by its content what it is, and has it parsed."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from prefetch.errors import InvalidReference, SourceError, UsageError
from prefetch.oci.reference import Reference
from prefetch.sources import text
from prefetch.sources.selector import Note, Origin, Parsed

if TYPE_CHECKING:
    from prefetch.sources.kinds import CustomKind
    from prefetch.sources.yamltree import Node

MAX_SIZE: Final = 32 << 20
"""Bytes of a source that are read at most."""
STDIN: Final = "-"

_YAML_START = re.compile(r"---(\s|$)|%YAML\s|- |-$|[\[{]|[\"']?[A-Za-z_][\w.-]*[\"']?\s*:(\s|$)")
_TEMPLATE = re.compile(rb"\{\{")
_RENDER: Final = "render it first: helm template, kustomize build"
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def load(source: str | Path, stdin: BinaryIO, kinds: Sequence[CustomKind] = ()) -> Parsed:
    """Read a source: a file's path, or `-` for `stdin`; `kinds` are custom resources.

    What is wrong with its content is in the result's `errors`. Raises UsageError if there is no
    such file, or none that can be read.
    """
    if str(source) == STDIN:
        return parse(stdin.read(MAX_SIZE + 1), STDIN, kinds)
    path = Path(source)
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return _directory(path, kinds)
        with path.open("rb") as file:
            return parse(file.read(MAX_SIZE + 1), str(source), kinds)
    except FileNotFoundError:
        raise _missing(str(source)) from None
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{ascii(str(source))[:200]} is not a file's path") from None


def _directory(path: Path, kinds: Sequence[CustomKind]) -> Parsed:
    """What lies in it and in the directories below, hidden ones left out, in order of name."""
    parsed = Parsed()
    files = [
        each
        for each in sorted(path.rglob("*"))
        if each.suffix in _SUFFIXES
        and each.is_file()
        and not any(part.startswith(".") for part in each.relative_to(path).parts)
    ]
    if not files:
        raise UsageError(f"{path}: there is no .yaml, .yml or .json file in it")
    for each in files:
        with each.open("rb") as file:
            parsed.extend(parse(file.read(MAX_SIZE + 1), str(each), kinds, strict=False))
    return parsed


def parse(
    data: bytes, name: str, kinds: Sequence[CustomKind] = (), *, strict: bool = True
) -> Parsed:
    """Parse a source's content; `name` stands in origins and errors. Raises nothing.

    Without `strict`, YAML that is of no kind that we know is a note, not an error: directories
    hold all sorts of files.
    """
    refusal = _refusal(data)
    if refusal is not None:
        return Parsed(errors=[Origin(name).error(refusal)])
    if _YAML_START.match(_first_line(data)):
        return _parse_yaml(data, name, kinds, strict=strict)
    return text.parse(data, name)


def _parse_yaml(data: bytes, name: str, kinds: Sequence[CustomKind], *, strict: bool) -> Parsed:
    """Each document by what it is; what is wrong with one does not touch those before it."""
    from prefetch.sources.yamltree import read_all

    parsed = Parsed()
    try:
        for node in read_all(data.decode("utf-8-sig"), name):
            parsed.extend(_document(node, name, kinds, strict=strict))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        parsed.errors.append(Origin(name, line).error("the line is not UTF-8"))
    except SourceError as error:
        if _TEMPLATE.search(data):
            error = Origin(name, error.line).error("a template, not yet rendered", hint=_RENDER)
        parsed.errors.append(error)
    return parsed


def _document(node: Node, name: str, kinds: Sequence[CustomKind], *, strict: bool) -> Parsed:
    from prefetch.sources import compose, kubernetes, yamllist
    from prefetch.sources.yamltree import MapNode, Scalar

    if isinstance(node, Scalar) and node.value is None:
        return Parsed()
    if kubernetes.is_object(node):
        return kubernetes.parse(node, name, kinds)
    if isinstance(node, MapNode) and compose.is_compose(node):
        return compose.parse(node, name)
    if strict or (isinstance(node, MapNode) and "images" in node.items):
        return yamllist.parse(node, name)
    return Parsed(notes=[Note(Origin(name, node.line), "no object, compose file or image list")])


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

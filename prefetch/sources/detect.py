"""Opens a source, tells by its content what it is, and has it parsed."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from prefetch.errors import InvalidReference, SourceError, UsageError
from prefetch.oci.reference import Reference
from prefetch.regular import Reader, open_regular
from prefetch.sources import text
from prefetch.sources.directory import files
from prefetch.sources.kinds import CustomKind
from prefetch.sources.selector import Origin, Parsed, shown

MAX_SIZE: Final = 32 << 20
"""Bytes of a source that are read at most."""
STDIN: Final = "-"

_YAML_START = re.compile(r"---(\s|$)|%YAML\s|- |-$|[\[{]|[\"']?[A-Za-z_][\w.-]*[\"']?\s*:(\s|$)")
_TEMPLATE = re.compile(rb"\{\{")
_RENDER: Final = "render it first: helm template, kustomize build"
# YAML 1.2, section 5.1, "Character set".
_NO_YAML: Final = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEAD: Final = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def load(
    source: str | Path,
    stdin: Callable[[], AbstractContextManager[Reader]],
    kinds: Sequence[CustomKind] = (),
) -> Parsed:
    """Read a source: a file's path, or the text `-` for what `stdin` opens; `kinds` are custom
    resources.

    May block for as long as a pipe does. What is wrong with its content is in the result's
    `errors`. Raises UsageError if there is no such file, or none that can be read.
    """
    name, from_stdin = str(source), source == STDIN
    try:
        if not from_stdin and stat.S_ISDIR(Path(source).stat().st_mode):
            return _directory(Path(source), kinds).summed_up(name)
        with stdin() if from_stdin else Path(source).open("rb", buffering=0) as file:
            return _file(file, name, kinds, strict=True).summed_up(name)
    except FileNotFoundError:
        raise _missing(name) from None
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{ascii(name)[:200]} is not a file's path") from None


def _directory(path: Path, kinds: Sequence[CustomKind]) -> Parsed:
    """What lies in it and in the directories below."""
    parsed = Parsed()
    found = False
    for each in files(path):
        found = True
        if isinstance(each, SourceError):
            parsed.refuse(each)
            continue
        try:
            with open_regular(each) as file:
                parsed.extend(_file(file, str(each), kinds, strict=False))
        except OSError as error:
            parsed.refuse(Origin(str(each)).error(f"cannot be read: {error.strerror}"))
        if parsed.is_full(Origin(str(each))):
            break
    if not found:
        raise UsageError(f"{path}: there is no .yaml, .yml or .json file in it")
    return parsed


def _file(file: Reader, name: str, kinds: Sequence[CustomKind], *, strict: bool) -> Parsed:
    """A large list of objects is read bit by bit, all else at once. Raises OSError."""
    head = _content(file, _HEAD)
    if len(head) == _HEAD:
        from prefetch.sources import jsonlist

        if jsonlist.begins(head):
            return jsonlist.parse(head, file, name, kinds)
    return _parse(head + _content(file, MAX_SIZE + 1 - len(head)), name, kinds, strict=strict)


def _content(file: Reader, size: int) -> bytes:
    """So many bytes, fewer at the end: a pipe gives less at a time. Raises OSError."""
    data = bytearray()
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return bytes(data)


def parse(
    data: bytes, name: str, kinds: Sequence[CustomKind] = (), *, strict: bool = True
) -> Parsed:
    """Parse a source's content; `name` stands in origins and errors. Raises nothing.

    Without `strict` it is a file among others in a directory, which holds all sorts of them: YAML
    that is not clearly of a kind that we know is a note, not an error.
    """
    return _parse(data, name, kinds, strict=strict).summed_up(name)


def _parse(data: bytes, name: str, kinds: Sequence[CustomKind], *, strict: bool) -> Parsed:
    refusal = _refusal(data)
    if refusal is not None:
        return Parsed(errors=[Origin(name).error(refusal)])
    if not strict or _YAML_START.match(_first_line(data)):
        return _parse_yaml(data, name, kinds, strict=strict)
    return text.parse(data, name)


def _parse_yaml(data: bytes, name: str, kinds: Sequence[CustomKind], *, strict: bool) -> Parsed:
    """Each document by what it is; what is wrong with one does not touch those before it."""
    from prefetch.sources import documents
    from prefetch.sources.yamltree import read_all

    parsed = Parsed()
    readable, unreadable = _readable(data, name)
    try:
        for node in read_all(readable, name):
            parsed.extend(documents.parse(node, name, kinds, strict=strict))
            if parsed.is_full(Origin(name, node.line)):
                return parsed
    except SourceError as error:
        if _TEMPLATE.search(data):
            error = Origin(name, error.line).error("a template, not yet rendered", hint=_RENDER)
        # Told whatever has been told before: it is why there is no more.
        parsed.errors.append(error)
    if unreadable is not None:
        parsed.errors.append(unreadable)
    return parsed


def _readable(data: bytes, name: str) -> tuple[str, SourceError | None]:
    """The documents before the first byte that YAML cannot have, and what is wrong with it."""
    fault: str | None = None
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        content = data[: error.start].decode("utf-8-sig", errors="ignore")
        fault = "the line is not UTF-8"
    else:
        control = _NO_YAML.search(content)
        if control is not None:
            content = content[: control.start()]
            fault = f"not valid YAML: the character {shown(control[0])}"
    if fault is None:
        return content, None
    origin = Origin(name, content.count("\n") + 1)
    whole = max(content.rfind("\n---"), 0)
    return content[:whole], origin.error(fault)


def _refusal(data: bytes) -> str | None:
    if len(data) > MAX_SIZE:
        return f"larger than {MAX_SIZE >> 20} MiB, which only a Kubernetes list as JSON may be"
    if data.startswith(_UTF16):
        return "written in UTF-16; save it as UTF-8"
    return "a binary file, not an image list" if b"\0" in data else None


def _first_line(data: bytes) -> str:
    """The first line that says something; comments look alike in all kinds."""
    for raw in text.lines(data):
        line = raw.removeprefix(b"\xef\xbb\xbf").strip()
        if line and not line.startswith(b"#"):
            return line[:256].decode(errors="replace")
    return ""


def _missing(source: str) -> UsageError:
    try:
        Reference.parse(source)
    except InvalidReference:
        return UsageError(f"no such file: {source}")
    return UsageError(f"no such file: {source}", hint=f"for an image write --image {source}")

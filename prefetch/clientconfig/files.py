"""Files to be written on a node: data in one of the formats that nodes read, and its text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from prefetch.errors import UsageError
from prefetch.regular import open_regular

Format: TypeAlias = Literal["yaml", "json", "toml", "hcl", "pem"]

_MAX_BYTES = 1 << 20
_MAX_NODES = 200_000
_WIDTH = 10_000  # no line is broken: people search for what they know


def read_text(path: Path, *, pipes: bool = False) -> str:
    """A small text file of this machine, UTF-8; with `pipes` also what a process writes.

    Raises UsageError.
    """
    try:
        with path.open("rb") if pipes else open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise UsageError(f"{path}: larger than {_MAX_BYTES >> 20} MiB")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: this is no text") from None


def check_yaml(text: str, name: str) -> None:
    """Refuse what stands in no node's file, and makes the parsers fail or grow without bound.

    That is explicit tags, and aliases that stand for more and more. Raises UsageError, and
    YAMLError.
    """
    counts = [0]
    anchors: list[str | None] = []
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if getattr(event, "tag", None) not in (None, "!"):
            line = event.start_mark.line + 1 if event.start_mark else "?"
            raise UsageError(f"{name}: a tag in line {line}, where no tags are read")
        match event:
            case yaml.CollectionStartEvent():
                counts.append(1)
                anchors.append(event.anchor)
            case yaml.CollectionEndEvent():
                size, anchor = counts.pop(), anchors.pop()
                sizes[anchor or ""] = size
                counts[-1] += size
            case yaml.AliasEvent():
                counts[-1] += sizes.get(event.anchor or "", 1)
            case yaml.ScalarEvent():
                sizes[event.anchor or ""] = 1
                counts[-1] += 1
        if counts[-1] > _MAX_NODES:
            raise UsageError(f"{name}: more than {_MAX_NODES:,} entries, aliases counted")


def is_text(text: str) -> bool:
    """Whether it can be written in UTF-8: bytes that were none stand in it as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file at `path` of the node.

    `data` is a tree of dicts, lists and scalars; for YAML of several documents a tuple of them;
    for `hcl` blocks as `(type, attributes)`; for `pem` the text. `comments` go on top, where the
    format has comments. A `secret` one is for root's eyes only.
    """

    path: str
    format: Format
    data: Any
    comments: tuple[str, ...] = ()
    secret: bool = False

    @property
    def mode(self) -> int:
        """The permissions that it is written with."""
        return 0o600 if self.secret else 0o644

    def text(self) -> str:
        """What stands in the file."""
        head = "".join(f"# {line}".rstrip() + "\n" for line in self.comments)
        match self.format:
            case "json":
                return json.dumps(self.data, indent=2, ensure_ascii=False) + "\n"
            case "pem":
                return str(self.data)
            case "yaml":
                return head + _yaml(self.data)
            case "toml":
                return head + _toml(self.data)
            case "hcl":
                return head + _hcl(self.data)


def _yaml(data: Any) -> str:
    documents = data if isinstance(data, tuple) else (data,)
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=_WIDTH))


class _Dumper(yaml.SafeDumper):
    """PyYAML's, for people: lists indented, nothing aliased, text of several lines as it is.

    It quotes what YAML 1.1 would take for something else than text, since Go's parsers do.
    """

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def represent_text(self, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def _toml(data: Any) -> str:
    import tomlkit

    return tomlkit.dumps(data)


def _hcl(blocks: list[tuple[str, dict[str, Any]]]) -> str:
    """HCL's native syntax: blocks of attributes with strings and booleans."""
    lines: list[str] = []
    for kind, attributes in blocks:
        width = max(map(len, attributes), default=0)
        lines.append(f"{kind} {{")
        lines += [f"  {name:<{width}} = {_hcl_value(v)}" for name, v in attributes.items()]
        lines.append("}")
    return "\n".join(lines) + "\n"


def _hcl_value(value: str | bool) -> str:
    """A literal; `${` and `%{` would begin a template (HCL specification, "Templates")."""
    if isinstance(value, bool):
        return "true" if value else "false"
    quoted = json.dumps(value, ensure_ascii=False)
    return quoted.replace("${", "$${").replace("%{", "%%{")

"""YAML and JSON from strangers, read into a small tree that remembers lines.

Built from the parser's events, without recursion into what the document nests and without
constructing anything: depth, size and aliases are bounded, duplicate keys and tags refused. Plain
scalars mean what YAML 1.2's core schema says (section 10.3.2): `no` and `1:30` are text. The merge
key `<<`, which YAML 1.1 had (yaml.org/type/merge.html), is followed: Kubernetes objects, compose
files and charts live by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

from prefetch.errors import SourceError

MAX_DEPTH: Final = 64
"""Collections within collections at most."""
MAX_NODES: Final = 2_000_000
"""Scalars and collections in a text at most, those behind aliases counted each time."""

_MERGE: Final = "<<"

Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None

_NULL = re.compile("null|Null|NULL|~|")
_BOOL = re.compile("true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")


@dataclass(slots=True)
class Scalar:
    """A string, number, boolean or null, as written."""

    line: int
    text: str
    quoted: bool
    nodes: int = 1

    @property
    def value(self) -> bool | int | float | str | None:
        """What the text means."""
        if self.quoted:
            return self.text
        if _NULL.fullmatch(self.text):
            return None
        if _BOOL.fullmatch(self.text):
            return self.text.lower() == "true"
        if _INT.fullmatch(self.text):
            return int(self.text)
        return float(self.text) if _FLOAT.fullmatch(self.text) else self.text


@dataclass(slots=True)
class ListNode:
    """A sequence."""

    line: int
    items: list[Node] = field(default_factory=list)
    nodes: int = 1
    depth: int = 1


@dataclass(slots=True)
class MapNode:
    """A mapping; keys are text."""

    line: int
    items: dict[str, Node] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)
    nodes: int = 1
    depth: int = 1


Node: TypeAlias = Scalar | ListNode | MapNode


def read(text: str, source: str) -> Node | None:
    """The only document of `text`, None if there is none.

    Raises SourceError, naming `source` and the line.
    """
    found: list[Node] = []
    for document in read_all(text, source):
        if found:
            raise SourceError(source, document.line, "more than one YAML document")
        found.append(document)
    return found[0] if found else None


def read_all(text: str, source: str) -> Iterator[Node]:
    """The documents of `text`, one by one, whatever is wrong with a later one.

    Raises SourceError, naming `source` and the line.
    """
    try:
        events = yaml.parse(text, Loader=yaml.CSafeLoader)
        yield from _Builder(events, source).documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not readable"
        line = mark.line + 1 if mark else None
        raise SourceError(source, line, f"not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SourceError(source, line, f"not valid YAML: {error.reason}") from None


def is_null(node: Node) -> bool:
    """Whether it is `null`, however that is written."""
    return isinstance(node, Scalar) and node.value is None


def plain(node: Node | None) -> Plain:
    """The tree as Python's own types."""
    match node:
        case None:
            return None
        case Scalar():
            return node.value
        case ListNode():
            return [plain(item) for item in node.items]
        case MapNode():
            return {key: plain(value) for key, value in node.items.items()}


def tree_of(value: object, line: int = 0) -> Node:
    """The other way round, for what JSON was; all of it on the one line. Depth must be bounded."""
    match value:
        case dict():
            return MapNode(line, {str(k): tree_of(v, line) for k, v in value.items()})
        case list():
            return ListNode(line, [tree_of(item, line) for item in value])
        case str():
            return Scalar(line, value, quoted=True)
        case None:
            return Scalar(line, "null", quoted=False)
        case bool():
            return Scalar(line, "true" if value else "false", quoted=False)
        case _:
            return Scalar(line, str(value), quoted=False)


class _Builder:
    """Turns events into nodes; what is open is on a stack of its own."""

    def __init__(self, events: Iterator[Any], source: str) -> None:
        self._events = events
        self._source = source
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._root: Node | None = None
        self._nodes = 0

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            line = event.start_mark.line + 1
            match event:
                case yaml.DocumentStartEvent():
                    self._root, self._anchors = None, {}
                case yaml.DocumentEndEvent() if self._root is not None:
                    self._nodes += self._root.nodes
                    self._check_nodes(self._nodes, self._root.line)
                    yield self._root
                case yaml.ScalarEvent():
                    self._refuse_tag(event, line)
                    quoted = bool(event.style) or event.tag == "!"
                    self._add(Scalar(line, event.value, quoted), event.anchor)
                case yaml.SequenceStartEvent():
                    self._start(ListNode(line), event)
                case yaml.MappingStartEvent():
                    self._start(MapNode(line), event)
                case yaml.CollectionEndEvent():
                    done = self._open.pop()
                    if done.merges is not None and not done.merge():
                        message = "<< takes a mapping, or a list of mappings"
                        raise self._error(done.merges.line, message)
                    self._add(done.node, done.anchor)
                case yaml.AliasEvent():
                    self._add(self._alias(event.anchor or "", line), None)

    def _start(self, node: ListNode | MapNode, event: Any) -> None:
        self._refuse_tag(event, node.line)
        self._check_depth(len(self._open) + 1, node.line)
        self._open.append(_Open(node, event.anchor))

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        fault = parent.add(node)
        if fault is not None:
            raise self._error(node.line, fault)
        parent.node.nodes += node.nodes
        if not isinstance(node, Scalar) and node.depth >= parent.node.depth:
            parent.node.depth = node.depth + 1
            # Through aliases, collections nest deeper than they are written.
            self._check_depth(len(self._open) + node.depth, node.line)
        self._check_nodes(parent.node.nodes, node.line)

    def _check_depth(self, depth: int, line: int) -> None:
        if depth > MAX_DEPTH:
            raise self._error(line, f"nested deeper than {MAX_DEPTH} levels")

    def _check_nodes(self, count: int, line: int) -> None:
        if count > MAX_NODES:
            raise self._error(line, f"more than {MAX_NODES} entries, aliases counted")

    def _alias(self, anchor: str, line: int) -> Node:
        if anchor not in self._anchors:
            raise self._error(line, f"unknown alias {ascii(anchor)[:80]}")
        return self._anchors[anchor]

    def _error(self, line: int, message: str) -> SourceError:
        return SourceError(self._source, line, message)

    def _refuse_tag(self, event: Any, line: int) -> None:
        if event.tag not in (None, "!"):
            raise self._error(line, f"the tag {ascii(event.tag)[:80]} is not allowed")


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come; `key` waits for its value, `merges` for the end."""

    node: ListNode | MapNode
    anchor: str | None
    key: Scalar | None = None
    merges: Node | None = None

    def add(self, node: Node) -> str | None:
        """Take the next child; or say what is wrong with it."""
        if isinstance(self.node, ListNode):
            self.node.items.append(node)
        elif self.key is not None:
            self._pair(self.node, self.key, node)
            self.key = None
        elif not isinstance(node, Scalar):
            return "a key must be text"
        elif node.text in self.node.items or (_is_merge(node) and self.merges is not None):
            return f"duplicate key {ascii(node.text)[:80]}"
        else:
            self.key = node
        return None

    def _pair(self, parent: MapNode, key: Scalar, value: Node) -> None:
        if _is_merge(key):
            self.merges = value
        else:
            parent.items[key.text] = value
            parent.key_lines[key.text] = key.line

    def merge(self) -> bool:
        """Add what `<<` names and the mapping does not say itself; False if it names no mappings.

        All of it has been counted with the mapping: as an alias, if it is one.
        """
        found = self.merges.items if isinstance(self.merges, ListNode) else [self.merges]
        for each in found:
            if not isinstance(each, MapNode) or not isinstance(self.node, MapNode):
                return False
            for key, value in each.items.items():
                if key not in self.node.items:
                    self.node.items[key] = value
                    self.node.key_lines[key] = each.key_lines[key]
        return True


def _is_merge(key: Scalar) -> bool:
    return key.text == _MERGE and not key.quoted

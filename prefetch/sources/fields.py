"""Checked access to a tree's fields: types, unknown keys, and where in the document it was."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prefetch.errors import SourceError
from prefetch.sources.selector import Origin, shown
from prefetch.sources.yamltree import ListNode, MapNode, Node, Scalar, is_null


@dataclass(frozen=True, slots=True)
class Field:
    """A node, the path that leads to it (`images[3].tags`), and the source that it is in."""

    node: Node
    path: str
    source: str

    @property
    def origin(self) -> Origin:
        """The place, for selectors and errors."""
        return Origin(self.source, self.node.line)

    def error(self, message: str, *, hint: str | None = None) -> SourceError:
        """An error that names the path."""
        text = f"{self.path}: {message}" if self.path else message
        return self.origin.error(text, hint=hint)

    def expected(self, what: str) -> SourceError:
        """An error that says what should have been here."""
        return self.error(f"expected {what}, got {self._what()}")

    def mapping(self, known: Iterable[str], what: str) -> dict[str, Field]:
        """The values of a mapping that has no other keys than `known`; nulls are left out."""
        node = self.node
        if not isinstance(node, MapNode):
            raise self.expected(what)
        for key, line in node.key_lines.items():
            if key not in known:
                path = f"{self.path}.{key[:80]}".lstrip(".")
                raise Origin(self.source, line).error(unknown_key(shown(path)[1:-1], key, known))
        return {
            key: Field(value, f"{self.path}.{key}".lstrip("."), self.source)
            for key, value in node.items.items()
            if not is_null(value)
        }

    def elements(self, what: str) -> Iterator[Field]:
        """The elements of a sequence, in order."""
        if not isinstance(self.node, ListNode):
            raise self.expected(what)
        return (
            Field(node, f"{self.path}[{index}]", self.source)
            for index, node in enumerate(self.node.items)
        )

    def text(self, what: str) -> str:
        """A scalar as it was written, so that the tag 1.10 stays 1.10."""
        if not isinstance(self.node, Scalar) or is_null(self.node) or not self.node.text:
            raise self.expected(what)
        return self.node.text

    def number(self, what: str) -> int:
        """A whole number."""
        value = self.node.value if isinstance(self.node, Scalar) else None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.expected(what)
        return value

    def _what(self) -> str:
        match self.node:
            case MapNode():
                return "a mapping"
            case ListNode():
                return "a list"
            case Scalar():
                return "nothing" if is_null(self.node) else shown(self.node.text)


def unknown_key(path: str, key: str, known: Iterable[str]) -> str:
    """What to say of a key that is not `known`: the likely one, or all of them."""
    near = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"{path}: unknown key ({advice})"

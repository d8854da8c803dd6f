"""Kubernetes lists as JSON, of any size, item by item: `kubectl get pods -A -o json`.

    {"apiVersion": "v1", "kind": "List", "items": [{…}, {…}]}

A cluster of thousands of pods is described by more than a YAML reader takes in a minute. Only one
item is in memory at a time. Lines are those where items begin.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from prefetch.errors import SourceError
from prefetch.regular import Reader
from prefetch.sources import kubernetes
from prefetch.sources.kinds import CustomKind
from prefetch.sources.selector import Origin, Parsed
from prefetch.sources.yamltree import tree_of

MAX_SIZE: Final = 512 << 20
"""Bytes of such a list at most."""
MAX_ITEM: Final = 4 << 20
"""Characters of an item at most; etcd takes 1.5 MB."""

_BLOCK: Final = 1 << 20
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_ITEMS: Final = "items"
_LIST: Final = "List"
# What kubectl prints besides is half of it: a status says what the spec says.
_UNUSED: Final = "status"
_NAMES: Final = ("name", "generateName", "namespace")


def begins(head: bytes) -> bool:
    """Whether a file that begins so, and goes on, is JSON with a list of `items` at the top."""
    try:
        scanner = _Scanner(head, io.BytesIO())
        for key in scanner.each_key():
            if key == _ITEMS:
                return scanner.peek() == "["
            scanner.value()
    except _Fault:
        pass
    return False


def parse(head: bytes, rest: Reader, name: str, kinds: Sequence[CustomKind] = ()) -> Parsed:
    """The images of the list; `name` stands in origins and errors. Raises OSError."""
    parsed = Parsed()
    kind: object = None
    try:
        scanner = _Scanner(head, rest)
        for key in scanner.each_key():
            if key != _ITEMS or scanner.peek() != "[":
                value = scanner.value()
                kind = value if key == "kind" else kind
                continue
            for line, item in scanner.each_item():
                if parsed.is_full(Origin(name, line)):
                    return parsed
                parsed.extend(_item(item, line, name, kinds))
        scanner.end()
    except _Fault as fault:
        # Told whatever has been told before: it is why there is no more.
        parsed.errors.append(SourceError(name, fault.line, fault.message))
        return parsed
    if not str(kind).endswith(_LIST):
        return Parsed(errors=[Origin(name).error("it has `items`, but is no Kubernetes list")])
    return parsed


def _item(item: object, line: int, name: str, kinds: Sequence[CustomKind]) -> Parsed:
    if isinstance(item, dict):
        item = {key: value for key, value in item.items() if key != _UNUSED}
        metadata = item.get("metadata")
        if isinstance(metadata, dict):
            item["metadata"] = {key: metadata[key] for key in _NAMES if key in metadata}
    try:
        return kubernetes.parse(tree_of(item, line), name, kinds)
    except RecursionError:
        return Parsed(errors=[Origin(name, line).error("nested too deeply")])


class _Fault(Exception):
    """What is wrong with the text, and in which line."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _Scanner:
    """Walks through a text of which only a window is here. All methods raise _Fault."""

    def __init__(self, head: bytes, rest: Reader) -> None:
        self._rest = rest
        self._bytes = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = self._counted = self._size = 0
        self._line = self._began = 1
        self._ended = self._broken = False
        self._take(head)

    def each_key(self) -> Iterator[str]:
        """The keys of the mapping that begins here; each one's value has to be read in between."""
        for key in self._entries("{", "}"):
            if not isinstance(key, str) or self.peek() != ":":
                raise self._fault("not valid JSON: a key and a colon should stand here")
            self._at += 1
            yield key

    def each_item(self) -> Iterator[tuple[int, object]]:
        """The elements of the list that begins here, with their lines."""
        for value in self._entries("[", "]"):
            yield self._began, value

    def value(self) -> object:
        """What stands here, whole."""
        self.peek()
        self._began = self.line()
        size = _BLOCK
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                # A number may go on behind the window.
                if end < len(self._text) or self._ended:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self._fault(f"not valid JSON: {error.msg}") from None
            except (ValueError, RecursionError):
                raise self._fault("not readable: nested too deeply, or a number too long") from None
            if len(self._text) - self._at > MAX_ITEM:
                raise self._fault(f"not valid JSON, or larger than {MAX_ITEM >> 20} MiB") from None
            size *= 2
            self._more()
            while len(self._text) - self._at < size and not self._exhausted:
                self._more()

    def peek(self) -> str:
        """The next character that is no space; none: the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def end(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise self._fault("something follows the list, and is not read")

    def line(self) -> int:
        """The line that has been come to, from 1."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _entries(self, begin: str, end: str) -> Iterator[object]:
        if self.peek() != begin:
            raise self._fault(f"not valid JSON: {begin} should stand here")
        self._at += 1
        if self.peek() == end:
            self._at += 1
            return
        while True:
            yield self.value()
            found = self.peek()
            if found not in (",", end):
                raise self._fault(f"not valid JSON: a comma or {end} should stand here")
            self._at += 1
            if found == end:
                return

    @property
    def _exhausted(self) -> bool:
        """Whether the window has all that can be had."""
        return self._ended or self._broken

    def _more(self) -> None:
        """Read on, and forget what has been walked through."""
        self.line()
        self._text = self._text[self._at :]
        self._at = self._counted = 0
        if self._broken:
            raise self._fault("not UTF-8")
        self._take(self._rest.read(_BLOCK) or b"")

    def _take(self, data: bytes) -> None:
        self._ended = not data
        self._size += len(data)
        if self._size > MAX_SIZE:
            raise self._fault(f"larger than {MAX_SIZE >> 20} MiB: the rest is not read")
        try:
            self._text += self._bytes.decode(data, self._ended)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode("utf-8-sig")
            self._broken = True

    def _fault(self, message: str) -> _Fault:
        return _Fault(self.line(), message)

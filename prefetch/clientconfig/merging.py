"""Adds to a file that is there already, and keeps what else is in it.

Mappings are merged key by key. Of lists of values ours come first, since the order is one of
preference; entries of lists of mappings are told apart by a key of theirs. Comments and layout of
YAML and TOML stay; JSON has none.
"""

from __future__ import annotations

import io
import json
import re
import tomllib
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol, cast

import yaml

from prefetch.clientconfig.files import ConfigFile, check_yaml, is_text
from prefetch.errors import UsageError

# In lists of these, what comes first is asked first.
_PREFERENCES = frozenset({"mirror"})
_ITEM = re.compile(
    r"^( *)[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\n(?:\s*(?:#[^\n]*)?\n)*( *)- ", re.MULTILINE
)
# A [[registry]] without a prefix is for what its location names (containers-registries.conf(5)).
_INSTEAD = {"prefix": "location"}
# Numbers stay as they are written: in the tree, as text between these.
_MARK = "\ue000"
_NUMBER = re.compile(r'"(?:\ue000|\\ue000)(-?[0-9][-+0-9.eE]*)(?:\ue000|\\ue000)"')
_NULLS = frozenset({"~", "null", "Null", "NULL", ""})
_TYPES = frozenset({"int", "float", "bool", "null", "timestamp"})
_QUOTED = re.compile("[\"']")
_WIDTH = 10_000


@dataclass(frozen=True, slots=True)
class Merged:
    """The whole new text and tree, and the keys' paths whose values are others now."""

    text: str
    replaced: tuple[str, ...]
    tree: Mapping[str, Any]


def merge(file: ConfigFile, existing: str, name: str, keys: Mapping[str, str]) -> Merged:
    """`existing`, the text of the file called `name`, with what `file` says added.

    `keys` name the key that tells entries of a list apart, by the list's own key. Raises
    UsageError, in one line, for a text that is not of the format or has something else in a place
    of ours.
    """
    if not existing.strip():
        return Merged(file.text(), (), file.data)
    text = _FORMATS[file.format](name, existing if existing.endswith("\n") else f"{existing}\n")
    if text.tree is None:  # comments alone
        return Merged(f"{existing.rstrip()}\n{file.text()}", (), file.data)
    merging = _Merging(name, keys, _shared(text.tree))
    try:
        merging.mapping(text.tree, text.ours(file), "")
        expected = text.values(existing)
        values = text.values(replace(file, comments=()).text())
        _Merging(name, keys, _shared(expected)).mapping(expected, values, "")
        merged = text.dumped()
        kept = text.values(merged) == expected
    except RecursionError:
        raise UsageError(f"{name}: nested too deeply") from None
    except ValueError:
        kept = False
    if not kept:
        raise UsageError(
            f"{name}: cannot be merged without changing what else is in it",
            hint="write ours without --merge, and add it by hand",
        )
    return Merged(merged, tuple(merging.replaced), expected)


@dataclass(slots=True)
class _Merging:
    name: str
    keys: Mapping[str, str]
    shared: frozenset[int]
    replaced: list[str] = field(default_factory=list)

    def mapping(self, old: MutableMapping[str, Any], new: Mapping[str, Any], at: str) -> None:
        for key, value in new.items():
            path = f"{at}.{key}" if at else key
            found = old.get(key)
            if id(found) in self.shared:
                # An alias: what is meant here is not meant in the other places.
                found = old[key] = _plain(found)
            if found is None or (isinstance(found, str) and found in _NULLS):
                old[key] = value
            elif isinstance(value, Mapping):
                self._is(found, MutableMapping, path, "a mapping")
                self.mapping(found, value, path)
            elif isinstance(value, list):
                self._is(found, MutableSequence, path, "a list")
                self._list(found, value, key, path)
            elif found != value:
                self.replaced.append(path)
                old[key] = value

    def _list(self, old: MutableSequence[Any], new: list[Any], key: str, path: str) -> None:
        identity = self.keys.get(key)
        if identity is None:
            for value in reversed(new):
                if value in old:
                    old.remove(value)
                old.insert(0, value)
            return
        for place, entry in enumerate(new):
            found = next((e for e in old if _named(e, identity) == entry[identity]), None)
            if found is not None:
                self.mapping(found, entry, f"{path}[{entry[identity]}]")
            elif key in _PREFERENCES:
                old.insert(place, entry)
            else:
                old.append(entry)

    def _is(self, found: object, kind: Any, path: str, what: str) -> None:
        if not isinstance(found, kind):
            raise UsageError(f"{self.name}: {path} is not {what}")


class _Written(yaml.SafeLoader):
    """Scalars as they are written, merge keys followed."""


_Written.yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("<<"))]}


def _as_written() -> Any:
    """A resolver to which every plain scalar but an empty one is text: written as it was read."""
    from ruamel.yaml.resolver import VersionedResolver

    class AsWritten(VersionedResolver):  # type: ignore[misc,unused-ignore]
        def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
            found = super().resolve(kind, value, implicit)
            scalar = isinstance(value, str) and value and implicit and implicit[0]
            plain = str(found).rpartition(":")[2] in _TYPES
            return self.DEFAULT_SCALAR_TAG if scalar and plain else found

    return AsWritten


def _contains_itself(text: str) -> bool:
    """Whether a collection has an alias for itself in it, which would be lost."""
    opened: list[str | None] = []
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        match event:
            case yaml.CollectionStartEvent():
                opened.append(event.anchor)
            case yaml.CollectionEndEvent():
                opened.pop()
            case yaml.AliasEvent() if event.anchor in opened:
                return True
    return False


def _shared(tree: object) -> frozenset[int]:
    """Which collections stand in several places, by aliases or merge keys."""
    seen: set[int] = set()
    shared: set[int] = set()
    todo = [tree]
    while todo:
        node = todo.pop()
        if not isinstance(node, MutableMapping | MutableSequence):
            continue
        if id(node) in seen:
            shared.add(id(node))
            continue
        seen.add(id(node))
        todo += node.values() if isinstance(node, MutableMapping) else node
    return frozenset(shared)


def _plain(node: Any) -> Any:
    """A copy that shares nothing, and has no anchors."""
    if isinstance(node, MutableMapping):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, MutableSequence) else node


def _named(entry: object, identity: str) -> object:
    if not isinstance(entry, Mapping):
        return None
    return entry.get(identity) or entry.get(_INSTEAD.get(identity, identity))


class _Text(Protocol):
    """A file that was parsed: its tree, which may be changed, and what is then to be written."""

    tree: MutableMapping[str, Any] | None

    def ours(self, file: ConfigFile) -> Mapping[str, Any]:
        """What is to be added."""
        return cast("Mapping[str, Any]", file.data)

    def dumped(self) -> str: ...

    def values(self, text: str) -> MutableMapping[str, Any]:
        """What another parser reads, scalars as they are written. Raises ValueError."""
        ...


class _Json(_Text):
    def __init__(self, name: str, text: str) -> None:
        try:
            found = json.loads(
                text,
                object_pairs_hook=_unique,
                parse_int=_as_text,
                parse_float=_as_text,
                parse_constant=_no_number,
            )
            self.tree = _mapping(found, name)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name}: not valid JSON: {_line(error)}") from None

    def dumped(self) -> str:
        text = json.dumps(self.tree, indent=2, ensure_ascii=False)
        # Half a surrogate pair is legal in JSON, and nothing that a file can hold.
        text = text if is_text(text) else json.dumps(self.tree, indent=2)
        return _NUMBER.sub(r"\1", text) + "\n"

    def values(self, text: str) -> MutableMapping[str, Any]:
        return cast("MutableMapping[str, Any]", json.loads(text, parse_float=str, parse_int=str))


class _Yaml(_Text):
    def __init__(self, name: str, text: str) -> None:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        self._yaml = YAML()
        self._yaml.Resolver = _as_written()
        self._yaml.preserve_quotes = True
        self._yaml.width = _WIDTH
        lists = _ITEM.search(text)
        offset = 0 if lists is not None and len(lists[2]) <= len(lists[1]) else 2
        self._yaml.indent(mapping=2, sequence=2 + offset, offset=offset)
        try:
            check_yaml(text, name)
            if _contains_itself(text):
                raise UsageError(f"{name}: an alias stands within what it stands for")
            found = self._yaml.load(text)
            self.tree = None if found is None else _mapping(found, name)
        except (YAMLError, yaml.YAMLError, ValueError, RecursionError) as error:
            raise UsageError(f"{name}: not valid YAML: {_line(error)}") from None

    def ours(self, file: ConfigFile) -> Mapping[str, Any]:
        """With the quotes that it would be written with: those here follow other rules."""
        return cast("Mapping[str, Any]", self._yaml.load(replace(file, comments=()).text()))

    def dumped(self) -> str:
        stream = io.StringIO()
        self._yaml.dump(self.tree, stream)
        return stream.getvalue()

    def values(self, text: str) -> MutableMapping[str, Any]:
        try:
            return cast("MutableMapping[str, Any]", yaml.load(text, _Written))  # noqa: S506
        except yaml.YAMLError as error:
            raise ValueError from error


class _Toml(_Text):
    def __init__(self, name: str, text: str) -> None:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError

        try:
            tree = tomlkit.parse(text)
        except (TOMLKitError, ValueError, RecursionError) as error:
            raise UsageError(f"{name}: not valid TOML: {_line(error)}") from None
        self.tree = tree
        if "registries" in tree:
            raise UsageError(
                f"{name}: this registries.conf has the older form, which takes no [[registry]]",
                hint="put ours into registries.conf.d, or see containers-registries.conf(5)",
            )

    def dumped(self) -> str:
        import tomlkit

        return tomlkit.dumps(self.tree or {})

    def values(self, text: str) -> MutableMapping[str, Any]:
        return tomllib.loads(text, parse_float=str)


_FORMATS: Mapping[str, Callable[[str, str], _Text]] = {
    "json": _Json,
    "yaml": _Yaml,
    "toml": _Toml,
}


def _mapping(tree: object, name: str) -> MutableMapping[str, Any]:
    if not isinstance(tree, MutableMapping):
        raise UsageError(f"{name}: expected a mapping at the top")
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _as_text(number: str) -> str:
    return f"{_MARK}{number}{_MARK}"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _line(error: Exception) -> str:
    """A parser's complaint without the text around it, which may hold secrets."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem = getattr(error, "problem", None) or "cannot be read"
        return f"{_QUOTED.split(problem)[0].strip()} in line {mark.line + 1}"
    return str(error).splitlines()[0] if str(error) else "nested too deeply"

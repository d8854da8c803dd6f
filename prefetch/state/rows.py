"""What the repositories share: records to rows and back, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from sqlalchemy import Column, Connection, Table, bindparam, func, or_
from sqlalchemy.dialects.sqlite import Insert, insert

T = TypeVar("T")

# Well under SQLite's limit of bound variables, and few enough distinct statements to cache.
CHUNK = 500


class Session(Protocol):
    """Where transactions are run: `prefetch.state.database.State`."""

    async def run(self, work: Callable[[Connection], T]) -> T: ...

    async def read(self, work: Callable[[Connection], T]) -> T: ...


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items, at most `CHUNK` at a time."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def columns(table: Table, record: type) -> list[Column[Any]]:
    """The table's columns in the order of the record's fields."""
    return [table.c[field.name] for field in fields(record)]


def values(records: Iterable[Any], prefix: str = "") -> list[dict[str, Any]]:
    """Slotted records, all of one type, as parameters of a statement.

    A `prefix` before the fields' names sets them apart from columns, as an UPDATE needs that has
    them in its WHERE too.
    """
    rows = list(records)
    if not rows:
        return []
    names = [field.name for field in fields(rows[0])]
    get = attrgetter(*names)
    keys = [prefix + name for name in names]
    return [dict(zip(keys, get(row), strict=True)) for row in rows]


def upsert_into(table: Table, *keep: str, prefix: str = "") -> Insert:
    """Insert, or update all but the key and `keep`; parameters are columns after `prefix`."""
    statement = insert(table)
    if prefix:
        statement = statement.values({c.name: bindparam(prefix + c.name) for c in table.c})
    key = {column.name for column in table.primary_key}
    changed = {
        column.name: statement.excluded[column.name]
        for column in table.c
        if column.name not in key and column.name not in keep
    }
    return statement.on_conflict_do_update(index_elements=list(key), set_=changed)


def upsert_changed(table: Table) -> Insert:
    """Insert, or update where something differs: the result's `rowcount` tells in how many rows.

    Null is what was not told, and leaves what is known as it is.
    """
    statement = insert(table)
    key = {column.name for column in table.primary_key}
    new = {
        column: func.coalesce(statement.excluded[column.name], column)
        if column.nullable
        else statement.excluded[column.name]
        for column in table.c
        if column.name not in key
    }
    return statement.on_conflict_do_update(
        index_elements=list(key),
        set_={column.name: value for column, value in new.items()},
        where=or_(*(column.is_distinct_from(value) for column, value in new.items())),
    ).execution_options(preserve_rowcount=True)

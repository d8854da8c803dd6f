"""The generation: a number that moves with every change of what is served.

Whoever answers from memory polls it (`State.generation`), and drops what it remembers when the
number has moved. It is bumped within the transaction that makes the change, so whoever sees the
new number sees the change. What only tells of work (the ledger, runs, when a tag was last looked
at, what was last served) leaves it alone.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from prefetch.state.models import generation

_READ = select(generation.c.value).where(generation.c.id == 1)
_BUMP = update(generation).where(generation.c.id == 1).values(value=generation.c.value + 1)


def read_generation(connection: Connection) -> int:
    """The present number; it never falls."""
    return int(connection.execute(_READ).scalar_one())


def bump_generation(connection: Connection) -> None:
    """Tell everyone that something served has changed, once this transaction is committed."""
    connection.execute(_BUMP)

"""Runs the migrations on the connection that `prefetch.state.schema` hands over."""

from __future__ import annotations

from alembic import context

from prefetch.state.models import metadata

# SQLite alters tables by copying them (batch mode); it runs DDL inside the transaction.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()

"""Notices on their way to hooks, and what has been told.

Revision 0007.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hook", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", "hook", name=op.f("pk_notices")),
    )
    op.create_index(
        op.f("ix_notices_hook_notices_next_at"), "notices", ["hook", "next_at"], unique=False
    )
    op.create_table(
        "notice_conditions",
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("until", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("event", "subject", "detail", name=op.f("pk_notice_conditions")),
    )


def downgrade() -> None:
    op.drop_table("notice_conditions")
    op.drop_index(op.f("ix_notices_hook_notices_next_at"), table_name="notices")
    op.drop_table("notices")

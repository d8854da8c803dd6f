"""What the schedule needs: which entry a run belongs to, and why it was started.

Revision 0003.

The table is altered in place: a copy would delete what became of each reference, as in 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("entry", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("cause", sa.Text(), nullable=True))
    op.create_index(op.f("ix_runs_entry_runs_id"), "runs", ["entry", "id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_runs_entry_runs_id"), table_name="runs")
    op.drop_column("runs", "cause")
    op.drop_column("runs", "entry")

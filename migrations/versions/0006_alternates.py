"""What asking alternates for a repository's content has come to.

Revision 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alternate_facts",
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("alternate", sa.Text(), nullable=False),
        sa.Column("worked_at", sa.Double(), nullable=True),
        sa.Column("lacked_at", sa.Double(), nullable=True),
        sa.Column("lacked", sa.Integer(), nullable=False),
        sa.Column("lied_at", sa.Double(), nullable=True),
        sa.Column("lie", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("registry", "repository", "alternate", name="pk_alternate_facts"),
    )


def downgrade() -> None:
    op.drop_table("alternate_facts")

"""What serving needs: the generation, a freeze, subjects, and indexes for its lookups.

Revision 0002.

Tables are altered in place. Copying `manifests` and dropping the old one, as Alembic's batch mode
does, would delete every child with it, since foreign keys cascade.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "generation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generation")),
    )
    op.create_table(
        "freezes",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_freezes")),
    )
    op.add_column("manifests", sa.Column("subject", sa.Text(), nullable=True))
    op.create_index(op.f("ix_manifests_subject"), "manifests", ["subject"], unique=False)
    op.create_index(
        op.f("ix_image_references_registry_image_references_repository"),
        "image_references",
        ["registry", "repository"],
        unique=False,
    )
    op.drop_index(op.f("ix_holds_meter"), table_name="holds")
    op.create_index(op.f("ix_holds_meter_holds_label"), "holds", ["meter", "label"], unique=False)

    op.execute("INSERT INTO generation (id, value) VALUES (1, 0)")


def downgrade() -> None:
    op.drop_index(op.f("ix_holds_meter_holds_label"), table_name="holds")
    op.create_index(op.f("ix_holds_meter"), "holds", ["meter"], unique=False)
    op.drop_index(
        op.f("ix_image_references_registry_image_references_repository"),
        table_name="image_references",
    )
    op.drop_index(op.f("ix_manifests_subject"), table_name="manifests")
    op.drop_column("manifests", "subject")
    op.drop_table("freezes")
    op.drop_table("generation")

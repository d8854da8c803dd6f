"""What forecasts are learned from: how meters have changed.

Revision 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "meter_samples",
        sa.Column("id", _ID, nullable=False),
        sa.Column("meter", _ID, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("fall", sa.BigInteger(), nullable=False),
        sa.Column("gets", sa.BigInteger(), nullable=False),
        sa.Column("heads", sa.BigInteger(), nullable=False),
        sa.Column("remaining", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["meter"],
            ["meters.id"],
            name=op.f("fk_meter_samples_meter_meters"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_meter_samples")),
    )
    op.create_index(
        op.f("ix_meter_samples_meter_meter_samples_source_meter_samples_at"),
        "meter_samples",
        ["meter", "source", "at"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_table("meter_samples")

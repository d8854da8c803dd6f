"""What nobody asks for by name, and its upstream does not have.

Revision 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("image_references", sa.Column("absent_since", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("image_references", "absent_since")

"""The first schema.

Revision 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "blobs",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("registry", sa.Text(), nullable=True),
        sa.Column("fetched_at", sa.Double(), nullable=True),
        sa.Column("last_served_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blobs")),
    )
    op.create_table(
        "image_references",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("media_type", sa.Text(), nullable=True),
        sa.Column("platforms", sa.Text(), nullable=False),
        sa.Column("warm", sa.Boolean(), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("resolved_at", sa.Double(), nullable=True),
        sa.Column("changed_at", sa.Double(), nullable=True),
        sa.Column("synced_at", sa.Double(), nullable=True),
        sa.Column("deferred_since", sa.Double(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_image_references")),
    )
    op.create_index(
        op.f("ix_image_references_digest"), "image_references", ["digest"], unique=False
    )
    op.create_table(
        "ledger_sequence",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_sequence")),
    )
    op.create_table(
        "links",
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("visibility", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("registry", "repository", "digest", name=op.f("pk_links")),
    )
    op.create_index(op.f("ix_links_digest"), "links", ["digest"], unique=False)
    op.create_table(
        "manifests",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_manifests")),
    )
    op.create_table(
        "meters",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("asked_sequence", sa.BigInteger(), nullable=True),
        sa.Column("asked_at", sa.Double(), nullable=True),
        sa.Column("empty_sequence", sa.BigInteger(), nullable=True),
        sa.Column("empty_at", sa.Double(), nullable=True),
        sa.Column("empty_seconds", sa.Double(), nullable=True),
        sa.Column("heads", sa.BigInteger(), nullable=False),
        sa.Column("head_samples", sa.Integer(), nullable=False),
        sa.Column("head_cost", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_meters")),
    )
    op.create_index(
        op.f("ix_meters_registry_meters_identity"), "meters", ["registry", "identity"], unique=True
    )
    op.create_table(
        "repository_facts",
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("exempt", sa.Boolean(), nullable=False),
        sa.Column("exempt_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "registry", "repository", "identity", name=op.f("pk_repository_facts")
        ),
    )
    op.create_table(
        "repository_visibility",
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("visibility", sa.Text(), nullable=False),
        sa.Column("checked_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("registry", "repository", name=op.f("pk_repository_visibility")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("pulls", sa.Integer(), nullable=False),
        sa.Column("bytes_fetched", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_table(
        "throttles",
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("registry", name=op.f("pk_throttles")),
    )
    op.create_table(
        "children",
        sa.Column("parent", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["parent"],
            ["manifests.digest"],
            name=op.f("fk_children_parent_manifests"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("parent", "position", name=op.f("pk_children")),
    )
    op.create_index(op.f("ix_children_digest"), "children", ["digest"], unique=False)
    op.create_table(
        "holds",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("meter", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("pulls", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["meter"], ["meters.id"], name=op.f("fk_holds_meter_meters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
    )
    op.create_index(op.f("ix_holds_meter"), "holds", ["meter"], unique=False)
    op.create_table(
        "observations",
        sa.Column("meter", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("observed_at", sa.Double(), nullable=False),
        sa.Column("remaining", sa.BigInteger(), nullable=False),
        sa.Column("limit", sa.BigInteger(), nullable=True),
        sa.Column("window_seconds", sa.Double(), nullable=True),
        sa.Column("reset_at", sa.Double(), nullable=True),
        sa.Column("clean_sequence", sa.BigInteger(), nullable=True),
        sa.Column("clean_at", sa.Double(), nullable=True),
        sa.Column("clean_remaining", sa.BigInteger(), nullable=True),
        sa.Column("burn_rate", sa.Double(), nullable=False),
        sa.Column("head_remaining", sa.BigInteger(), nullable=True),
        sa.Column("head_count", sa.BigInteger(), nullable=True),
        sa.Column("falls", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["meter"], ["meters.id"], name=op.f("fk_observations_meter_meters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("meter", "source", name=op.f("pk_observations")),
    )
    op.create_table(
        "run_images",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("platforms", sa.Text(), nullable=False),
        sa.Column("pulls", sa.Integer(), nullable=False),
        sa.Column("bytes_fetched", sa.BigInteger(), nullable=False),
        sa.Column("bytes_reused", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_run_images_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "reference", name=op.f("pk_run_images")),
    )
    op.create_index(op.f("ix_run_images_reference"), "run_images", ["reference"], unique=False)
    op.create_table(
        "spends",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("meter", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("begun_at", sa.Double(), nullable=False),
        sa.Column("ended_sequence", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["meter"], ["meters.id"], name=op.f("fk_spends_meter_meters"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spends")),
    )
    op.create_index(
        op.f("ix_spends_meter_spends_ended_sequence"),
        "spends",
        ["meter", "ended_sequence"],
        unique=False,
    )

    op.execute("INSERT INTO ledger_sequence (id, value) VALUES (1, 0)")


def downgrade() -> None:
    op.drop_index(op.f("ix_spends_meter_spends_ended_sequence"), table_name="spends")
    op.drop_table("spends")
    op.drop_index(op.f("ix_run_images_reference"), table_name="run_images")
    op.drop_table("run_images")
    op.drop_table("observations")
    op.drop_index(op.f("ix_holds_meter"), table_name="holds")
    op.drop_table("holds")
    op.drop_index(op.f("ix_children_digest"), table_name="children")
    op.drop_table("children")
    op.drop_table("throttles")
    op.drop_table("runs")
    op.drop_table("repository_visibility")
    op.drop_table("repository_facts")
    op.drop_index(op.f("ix_meters_registry_meters_identity"), table_name="meters")
    op.drop_table("meters")
    op.drop_table("manifests")
    op.drop_index(op.f("ix_links_digest"), table_name="links")
    op.drop_table("links")
    op.drop_table("ledger_sequence")
    op.drop_index(op.f("ix_image_references_digest"), table_name="image_references")
    op.drop_table("image_references")
    op.drop_table("blobs")

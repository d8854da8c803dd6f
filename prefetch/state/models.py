"""The tables. Nothing here that PostgreSQL lacks.

Digests are text (`sha256:…`). Times are seconds since the epoch, UTC, in double precision;
`Moment` columns turn them into aware datetimes, the ledger's do arithmetic and stay numbers.
The ledger orders by its own sequence, never by a time.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

SCHEMA_REVISION = "0008"

# SQLite numbers rows only in a column that is exactly INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")


class Moment(TypeDecorator[datetime]):
    """An aware datetime, stored as seconds since the epoch."""

    impl = Double
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> float | None:
        """To seconds since the epoch."""
        return None if value is None else value.timestamp()

    def process_result_value(
        self,
        value: float | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        """To an aware datetime in UTC."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

image_references = Table(
    "image_references",
    metadata,
    Column("name", Text, primary_key=True),
    Column("registry", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("tag", Text),
    Column("digest", Text),
    Column("media_type", Text),
    Column("platforms", Text, nullable=False),
    Column("warm", Boolean, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("resolved_at", Moment),
    Column("changed_at", Moment),
    Column("synced_at", Moment),
    Column("deferred_since", Moment),
    Column("last_error", Text),
    Column("absent_since", Moment),
    Index(None, "digest"),
    Index(None, "registry", "repository"),
)

manifests = Table(
    "manifests",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("subject", Text),
    Index(None, "subject"),
)

children = Table(
    "children",
    metadata,
    Column("parent", Text, ForeignKey("manifests.digest", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("platform", Text),
    Index(None, "digest"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("registry", Text),
    Column("fetched_at", Moment),
    Column("last_served_at", Moment),
)

links = Table(
    "links",
    metadata,
    Column("registry", Text, primary_key=True),
    Column("repository", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("visibility", Text, nullable=False),
    Index(None, "digest"),
)

repository_facts = Table(
    "repository_facts",
    metadata,
    Column("registry", Text, primary_key=True),
    Column("repository", Text, primary_key=True),
    Column("identity", Text, primary_key=True),
    # Whether its answers lack rate-limit headers, and the method of the request that told.
    Column("exempt", Boolean, nullable=False),
    Column("exempt_by", Text, nullable=False),
)

repository_visibility = Table(
    "repository_visibility",
    metadata,
    Column("registry", Text, primary_key=True),
    Column("repository", Text, primary_key=True),
    Column("visibility", Text, nullable=False),
    Column("checked_at", Moment, nullable=False),
)

# One row, bumped with every change of what is served.
generation = Table(
    "generation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)

# No row, or one.
freezes = Table(
    "freezes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("since", Moment, nullable=False),
    Column("until", Moment),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("command", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("outcome", Text),
    Column("images", Integer, nullable=False),
    Column("pulls", Integer, nullable=False),
    Column("bytes_fetched", BigInteger, nullable=False),
    # The schedule's entry that it was a run of, and why it was started; null for any other run.
    Column("entry", Text),
    Column("cause", Text),
    Index(None, "entry", "id"),
)

run_images = Table(
    "run_images",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("reference", Text, primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("digest", Text),
    Column("platforms", Text, nullable=False),
    Column("pulls", Integer, nullable=False),
    Column("bytes_fetched", BigInteger, nullable=False),
    Column("bytes_reused", BigInteger, nullable=False),
    Column("retry_at", Moment),
    Column("error_code", Text),
    Column("error", Text),
    Column("http_status", Integer),
    Index(None, "reference"),
)

# What the dropped ones among the runs of the schedule's entries came to.
dropped_runs = Table(
    "dropped_runs",
    metadata,
    Column("entry", Text, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("runs", BigInteger, nullable=False),
    Column("last_at", Moment, nullable=False),
)

# A row a notice and a hook that has not taken it yet: neither URL nor secret is here.
notices = Table(
    "notices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hook", Text, primary_key=True),
    Column("event", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("next_at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    Index(None, "hook", "next_at"),
)

# What has been told and lasts; `until` null: until it is cleared.
notice_conditions = Table(
    "notice_conditions",
    metadata,
    Column("event", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("detail", Text, primary_key=True),
    Column("until", Moment),
)

# ── the ledger ──────────────────────────────────────────────────────────────────────────────────

ledger_sequence = Table(
    "ledger_sequence",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)

meters = Table(
    "meters",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("registry", Text, nullable=False),
    Column("identity", Text, nullable=False),
    # When an answer that could have carried a reading was last asked for, whatever it said.
    Column("asked_sequence", BigInteger),
    Column("asked_at", Double),
    # Told empty by a 429 at that sequence; without readings it lasts that many seconds.
    Column("empty_sequence", BigInteger),
    Column("empty_at", Double),
    Column("empty_seconds", Double),
    # HEADs answered with a reading, and evidence that the registry counts them.
    Column("heads", BigInteger, nullable=False),
    Column("head_samples", Integer, nullable=False),
    Column("head_cost", Integer, nullable=False),
    Index(None, "registry", "identity", unique=True),
)

observations = Table(
    "observations",
    metadata,
    Column("meter", RowId, ForeignKey("meters.id", ondelete="CASCADE"), primary_key=True),
    Column("source", Text, primary_key=True),
    # The stamp of the request that brought it.
    Column("sequence", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("observed_at", Double, nullable=False),
    Column("remaining", BigInteger, nullable=False),
    Column("limit", BigInteger),
    Column("window_seconds", Double),
    Column("reset_at", Double),
    # The last observation with none of our spends in flight, from which foreign burn is measured.
    Column("clean_sequence", BigInteger),
    Column("clean_at", Double),
    Column("clean_remaining", BigInteger),
    Column("burn_rate", Double, nullable=False),
    # Where the present comparison of HEADs sent with the fall of the meter began.
    Column("head_remaining", BigInteger),
    Column("head_count", BigInteger),
    Column("head_at", Double),
    # JSON: [[seen_at, pulls], …], usage by when it was first seen.
    Column("falls", Text, nullable=False),
)

# What forecasts are learned from: how a source's reading changed between two clean observations.
meter_samples = Table(
    "meter_samples",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("meter", RowId, ForeignKey("meters.id", ondelete="CASCADE"), nullable=False),
    Column("source", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("at", Double, nullable=False),
    # Below zero where the meter rose.
    Column("fall", BigInteger, nullable=False),
    Column("gets", BigInteger, nullable=False),
    Column("heads", BigInteger, nullable=False),
    Column("remaining", BigInteger, nullable=False),
    Index(None, "meter", "source", "at"),
)

spends = Table(
    "spends",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("meter", RowId, ForeignKey("meters.id", ondelete="CASCADE"), nullable=False),
    Column("owner", Text, nullable=False),
    Column("run_id", Text),
    Column("repository", Text, nullable=False),
    Column("digest", Text),
    # GET, or HEAD where the registry counts those.
    Column("method", Text, nullable=False),
    # What the answer named as the one who pays; null: it named nobody, or has not come.
    Column("source", Text),
    Column("sequence", BigInteger, nullable=False),
    Column("begun_at", Double, nullable=False),
    # Null while in flight.
    Column("ended_sequence", BigInteger),
    Column("ended_at", Double),
    Index(None, "meter", "ended_sequence"),
)

holds = Table(
    "holds",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("meter", RowId, ForeignKey("meters.id", ondelete="CASCADE"), nullable=False),
    Column("owner", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("pulls", Integer, nullable=False),
    Index(None, "meter", "label"),
)

throttles = Table(
    "throttles",
    metadata,
    Column("registry", Text, primary_key=True),
    Column("since", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("step", Integer, nullable=False),
)


def create(connection: Connection) -> None:
    """Make all tables, as the migrations would leave them, in an empty database.

    A new database is part of a first run's time, and Alembic takes longer to import than this; a
    test holds the two to the same result.
    """
    metadata.create_all(connection)
    version = Table(
        "alembic_version",
        MetaData(),
        Column("version_num", String(32), nullable=False),
        PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
    )
    version.create(connection)
    connection.execute(version.insert().values(version_num=SCHEMA_REVISION))
    for counter in (ledger_sequence, generation):
        connection.execute(counter.insert().values(id=1, value=0))

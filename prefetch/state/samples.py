"""The samples that forecasts are learned from: how each source's reading has changed."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from prefetch.ratelimit.learning import Sample
from prefetch.state.models import meter_samples
from prefetch.state.rows import columns, values

KEPT_SECONDS = 32 * 86400.0
"""As long as spends are."""

# The latest so many are looked at: a learner gains nothing from more.
_READ = 2000
_T = meter_samples.c
_OF = (_T.meter == bindparam("of_meter"), _T.source == bindparam("of_source"))
_ADD = insert(meter_samples)
_LAST = select(_T.id, _T.at, _T.fall, _T.gets, _T.heads).where(*_OF).order_by(_T.id.desc()).limit(1)
_PROLONG = update(meter_samples).where(_T.id == bindparam("of_id")).values(at=bindparam("until"))
_SAMPLES = select(*columns(meter_samples, Sample)).where(*_OF).order_by(_T.id.desc()).limit(_READ)


def add_sample(connection: Connection, meter: int, source: str, sample: Sample) -> None:
    """Keep a sample; stretches in which nothing happened grow into one."""
    whose = {"of_meter": meter, "of_source": source}
    if not (sample.fall or sample.gets or sample.heads):
        last = connection.execute(_LAST, whose).first()
        if last is not None and last.at == sample.since and not any(last[2:]):
            connection.execute(_PROLONG, {"of_id": last.id, "until": sample.at})
            return
    connection.execute(_ADD, {"meter": meter, "source": source, **values([sample])[0]})


def read_samples(connection: Connection, meter: int, source: str) -> list[Sample]:
    """A source's samples, in order."""
    rows = connection.execute(_SAMPLES, {"of_meter": meter, "of_source": source}).all()
    return [Sample(*row) for row in reversed(rows)]


def forget_samples(connection: Connection, before: float) -> None:
    """Drop those that ended long ago."""
    connection.execute(delete(meter_samples).where(_T.at < before))

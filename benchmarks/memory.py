"""How much memory it takes: one very large blob, and very many references."""

from __future__ import annotations

import shutil

from lab import GIB, MIB, Lab
from table import Row, at_most

_BLOB_TARGET = 150
_MANY_TARGET = 300
_REQUESTS_TARGET = 1.3


def blob(lab: Lab, *, rounds: int, quick: bool) -> list[Row]:  # noqa: ARG001 - one run will do
    """One image with a single layer of 4 GiB."""
    size = GIB // 4 if quick else 4 * GIB
    upstream = lab.upstream(
        {"repository": "bench/large", "single": True, "layers": 1, "layer_size": size}
    )
    data_dir = lab.fresh("data")
    lab.say("blob: prefetch sync")
    run, totals = lab.prefetch(data_dir, "--image", upstream.references()[0])
    assert totals["synced"] == 1
    shutil.rmtree(data_dir)
    return [
        Row(
            f"one blob of {size // MIB} MiB: peak memory",
            f"{run.memory / 1e6:.0f} MB",
            **at_most(run.memory / 1e6, _BLOB_TARGET, "MB"),
        ),
        Row("  time and rate", f"{run.seconds:.1f} s, {size / run.seconds / 1e6:.0f} MB/s"),
    ]


def many(lab: Lab, *, rounds: int, quick: bool) -> list[Row]:  # noqa: ARG001 - one run will do
    """10,000 references in 2,000 repositories, none of them changed."""
    repositories, tags = (200 if quick else 2000), 5
    upstream = lab.upstream(
        {
            "repository": "bench/repository-{n}",
            "count": repositories,
            "tags": [f"v{number}" for number in range(tags)],
            "layers": 2,
            "layer_size": 1024,
            "shared_layers": True,
            "single": True,
        }
    )
    references = upstream.references()
    data_dir, images = lab.fresh("data"), lab.list_of(references)
    lab.say("many: first sync")
    first, _ = lab.prefetch(data_dir, images)
    upstream.reset()
    lab.say("many: again")
    run, totals = lab.prefetch(data_dir, images)
    assert totals["unchanged"] == len(references)
    requests = sum(upstream.counts().values()) / len(references)
    return [
        Row(
            f"{len(references):,} unchanged references: peak memory",
            f"{run.memory / 1e6:.0f} MB",
            **at_most(run.memory / 1e6, _MANY_TARGET, "MB"),
        ),
        Row(
            "  requests a reference",
            f"{requests:.2f}",
            **at_most(requests, _REQUESTS_TARGET, "requests"),
        ),
        Row("  pulls", str(upstream.pulls), **at_most(upstream.pulls, 0, "pulls")),
        Row("  time", f"{run.seconds:.1f} s"),
        Row("  the first sync of them", f"{first.seconds:.0f} s, {first.memory / 1e6:.0f} MB"),
    ]

"""A cold image: 1 GiB in 8 layers, into an empty cache."""

from __future__ import annotations

import shutil

from lab import MIB, Lab
from measure import Run, alternate, cpu_seconds, seconds
from table import Row, at_least

_TARGET = 2.0


def cold(lab: Lab, *, pairs: int, quick: bool) -> list[Row]:
    """`prefetch sync` against `skopeo copy` into an OCI layout, both from process start."""
    layer = (16 if quick else 128) * MIB
    upstream = lab.upstream(
        {"repository": "bench/cold", "single": True, "layers": 8, "layer_size": layer}
    )
    reference = upstream.references()[0]

    def ours() -> Run:
        data_dir = lab.fresh("data")
        lab.say("cold: prefetch sync")
        run, totals = lab.prefetch(data_dir, "--image", reference)
        assert totals["synced"] == 1
        shutil.rmtree(data_dir)
        return run

    def theirs() -> Run:
        layout = lab.fresh("layout")
        lab.say("cold: skopeo copy")
        source = f"docker://{reference}"
        run = lab.skopeo("copy", "-q", "--src-tls-verify=false", source, f"oci:{layout}:latest")
        shutil.rmtree(layout)
        return run

    measured = alternate(pairs, ours, theirs)
    return [
        Row(
            f"{8 * layer // MIB} MiB in 8 layers, cold",
            f"{seconds(measured.ours):.2f} s",
            f"{seconds(measured.theirs):.2f} s",
            **at_least(measured.ratio, _TARGET),
        ),
        Row(
            "  processor time of it",
            f"{cpu_seconds(measured.ours):.2f} s",
            f"{cpu_seconds(measured.theirs):.2f} s",
        ),
    ]

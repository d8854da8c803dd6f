"""A cold image: 1 GiB in 8 layers, into an empty cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from lab import MIB, Lab
from measure import Run, alternate, cpu_seconds, seconds
from table import Row, at_least

_TARGET = 2.0
_IMAGE = "bench/cold:latest"


def cold(lab: Lab, *, rounds: int, quick: bool) -> list[Row]:
    """`prefetch sync` against `skopeo copy`, from process start; all pull from Debian's registry.

    skopeo writes a folder (`dir:`) layer by layer, an OCI layout (`oci:`) six layers at a time.
    """
    layer = (16 if quick else 128) * MIB
    reference = _registry_with_image(lab, layer)

    def ours() -> Run:
        data_dir = lab.fresh("data")
        lab.say("cold: prefetch sync")
        run, totals = lab.prefetch(data_dir, "--image", reference)
        assert totals["synced"] == 1
        shutil.rmtree(data_dir)
        return run

    def theirs(kind: str) -> Callable[[], Run]:
        def copy() -> Run:
            directory = lab.fresh("copy")
            lab.say(f"cold: skopeo copy to {kind}")
            target = f"{kind}:{directory}" + (":latest" if kind == "oci" else "")
            run = lab.skopeo(
                "copy", "-q", "--src-tls-verify=false", f"docker://{reference}", target
            )
            shutil.rmtree(directory)
            return run

        return copy

    runs = alternate(rounds, {"ours": ours, "dir": theirs("dir"), "oci": theirs("oci")})
    what = f"{8 * layer // MIB} MiB in 8 layers, cold"
    took = f"{seconds(runs['ours']):.2f} s"
    ratios = {kind: seconds(runs[kind]) / seconds(runs["ours"]) for kind in ("dir", "oci")}
    return [
        Row(
            f"{what}; skopeo to a folder",
            took,
            f"{seconds(runs['dir']):.2f} s",
            **at_least(ratios["dir"], _TARGET),
        ),
        Row(
            f"{what}; skopeo to an OCI layout",
            took,
            f"{seconds(runs['oci']):.2f} s",
            f"{ratios['oci']:.1f} times",
            value=round(ratios["oci"], 3),
        ),
        Row(
            "  processor time; skopeo to an OCI layout",
            f"{cpu_seconds(runs['ours']):.2f} s",
            f"{cpu_seconds(runs['oci']):.2f} s",
        ),
    ]


def _registry_with_image(lab: Lab, layer: int) -> str:
    """The reference of the image in Debian's registry."""
    upstream = lab.upstream(
        {"repository": "bench/cold", "single": True, "layers": 8, "layer_size": layer}
    )
    reference = f"{lab.registry().address}/{_IMAGE}"
    lab.say("cold: filling the registry")
    source = f"docker://{upstream.references()[0]}"
    options = ("-q", "--src-tls-verify=false", "--dest-tls-verify=false")
    lab.skopeo("copy", *options, source, f"docker://{reference}")
    return reference

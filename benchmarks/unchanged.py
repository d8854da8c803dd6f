"""Nothing has changed: what a cron job pays each time, and what it costs in pulls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab import Lab
from measure import Run, alternate, cpu_seconds, seconds
from table import Row, at_least, at_most

from support.processes import UpstreamProcess

_TARGET = 10.0


def unchanged(lab: Lab, *, rounds: int, quick: bool) -> list[Row]:
    """`prefetch sync -o json` against `skopeo sync --all` into Debian's registry."""
    count = 50 if quick else 500
    upstream = lab.upstream(
        {"repository": "bench/image-{n}", "count": count, "layers": 2, "layer_size": 2048}
    )
    data_dir = lab.fresh("data")
    images = lab.list_of(upstream.references())
    # As skopeo-sync(1) has it: registries, their repositories, and their tags.
    source = _skopeo_source(lab, upstream)
    target = lab.registry().address

    def ours() -> Run:
        run, totals = lab.prefetch(data_dir, images)
        assert totals["synced"] + totals["unchanged"] == count
        return run

    def theirs() -> Run:
        options = ["--all", "--src", "yaml", "--dest", "docker"]
        return lab.skopeo("sync", *options, "--dest-tls-verify=false", source, target)

    lab.say("unchanged: first syncs")
    ours()
    theirs()
    lab.say("unchanged: again")
    upstream.reset()
    pulls: dict[str, list[int]] = {"prefetch": [], "skopeo": []}
    requests: dict[str, list[int]] = {"prefetch": [], "skopeo": []}

    def counted(name: str, side: Callable[[], Run]) -> Run:
        run = side()
        pulls[name].append(upstream.pulls)
        requests[name].append(sum(upstream.counts().values()))
        upstream.reset()
        return run

    runs = alternate(
        rounds,
        {
            "prefetch": lambda: counted("prefetch", ours),
            "skopeo": lambda: counted("skopeo", theirs),
        },
    )
    return [
        Row(
            f"{count} unchanged images of 2 platforms",
            f"{seconds(runs['prefetch']):.2f} s",
            f"{seconds(runs['skopeo']):.2f} s",
            **at_least(seconds(runs["skopeo"]) / seconds(runs["prefetch"]), _TARGET),
        ),
        Row(
            "  pulls that it costs",
            str(max(pulls["prefetch"])),
            str(min(pulls["skopeo"])),
            **at_most(max(pulls["prefetch"]), 0, "pulls"),
        ),
        Row("  requests", str(max(requests["prefetch"])), str(min(requests["skopeo"]))),
        Row(
            "  processor time of it",
            f"{cpu_seconds(runs['prefetch']):.2f} s",
            f"{cpu_seconds(runs['skopeo']):.2f} s",
        ),
    ]


def _skopeo_source(lab: Lab, upstream: UpstreamProcess) -> Path:
    lines = [f"{upstream.address}:", "  tls-verify: false", "  images:"]
    for reference in upstream.references():
        repository, _, tag = reference.partition("/")[2].rpartition(":")
        lines += [f"    {repository}:", f"      - {tag}"]
    path = lab.fresh("source") / "sync.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path

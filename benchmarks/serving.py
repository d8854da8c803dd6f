"""`prefetch serve` beside Debian's `docker-registry`, on the same content."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import MIB, Lab
from load import Load, Wrk, middle
from table import Row, at_least, at_most, no_more_than

_MANIFESTS_TARGET = 5.0
_BLOBS_TARGET = 1.0
_MEMORY_TARGET = 200
_MANIFEST_CONNECTIONS = 32
_CLIENTS = 200


def serving(lab: Lab, *, rounds: int, quick: bool) -> list[Row]:
    """A warm cache, one worker; both registries have the same image, and take turns."""
    seconds = 2.0 if quick else 6.0
    size = (16 if quick else 100) * MIB
    image = lab.upstream({"repository": "bench/serve", "layers": 1, "layer_size": size})
    theirs = lab.registry()
    lab.say("serving: filling the registries")
    options = ("--all", "-q", "--src-tls-verify=false", "--dest-tls-verify=false")
    source = image.references()[0]
    lab.skopeo("copy", *options, f"docker://{source}", f"docker://{theirs.address}/bench/serve:1")
    data_dir = lab.fresh("data")
    lab.prefetch(data_dir, "--image", f"{theirs.address}/bench/serve:1")
    ours = lab.serve(data_dir)
    sides = {
        "ours": f"{ours.url}/v2/{theirs.address}/bench/serve",
        "theirs": f"{theirs.url}/v2/bench/serve",
    }
    manifest = _manifest(data_dir)
    layer = manifest["layers"][0]["digest"]

    def turns(what: str, measured: Callable[[str], Load]) -> tuple[Load, Load]:
        lab.say(f"serving: {what}")
        loads: dict[str, list[Load]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, base in sides.items():
                loads[name].append(measured(base))
        return middle(loads["ours"]), middle(loads["theirs"])

    rows = []
    for what, reference in (("tag", "1"), ("digest", manifest["digest"])):
        mine, other = turns(
            f"manifests by {what}",
            lambda base, reference=reference: Wrk(
                f"{base}/manifests/{reference}",
                connections=_MANIFEST_CONNECTIONS,
                seconds=seconds,
            ).result(),
        )
        rows.append(
            Row(
                f"a warm manifest by {what}, {_MANIFEST_CONNECTIONS} connections",
                f"{mine.requests:,.0f} /s",
                f"{other.requests:,.0f} /s",
                **at_least(mine.requests / other.requests, _MANIFESTS_TARGET),
            )
        )
    blob = f"blobs/{layer}"
    for connections in (4, 64):
        mine, other = turns(
            f"blobs, {connections} connections",
            lambda base, connections=connections: Wrk(
                f"{base}/{blob}", connections=connections, seconds=seconds
            ).result(),
        )
        rows.append(
            Row(
                f"a blob of {size // MIB} MiB, {connections} connections",
                f"{mine.bytes / 1e9:.2f} GB/s",
                f"{other.bytes / 1e9:.2f} GB/s",
                **at_least(mine.bytes / other.bytes, _BLOBS_TARGET),
            )
        )

    def beside_blobs(base: str) -> Load:
        burden = Wrk(f"{base}/{blob}", connections=8, seconds=seconds + 1, complete=False)
        load = Wrk(f"{base}/manifests/1", connections=4, seconds=seconds).result()
        burden.result()
        return load

    mine, other = turns("manifests beside blobs", beside_blobs)
    rows.append(
        Row(
            "99th percentile of manifests while blobs saturate",
            f"{mine.p99 * 1000:.1f} ms",
            f"{other.p99 * 1000:.1f} ms",
            **no_more_than(mine.p99, other.p99),
        )
    )
    ours.stop()
    return rows


def memory(lab: Lab, *, rounds: int, quick: bool) -> list[Row]:  # noqa: ARG001 - one run will do
    """200 clients download a blob of 1 GiB at once; how much memory the server has at most."""
    size = (64 if quick else 1024) * MIB
    image = lab.upstream(
        {"repository": "bench/large", "single": True, "layers": 1, "layer_size": size}
    )
    data_dir = lab.fresh("data")
    lab.prefetch(data_dir, "--image", image.references()[0])
    server = lab.serve(data_dir)
    layer = _manifest(data_dir)["layers"][0]["digest"]
    lab.say("memory: 200 clients")
    base = f"{server.url}/v2/{image.address}/bench/large/blobs/{layer}"
    load = Wrk(base, connections=_CLIENTS, seconds=3 if quick else 20, complete=False).result()
    peak = _peak(server.process.pid)
    server.stop()
    return [
        Row(
            f"{_CLIENTS} clients, a blob of {size // MIB} MiB: peak memory",
            f"{peak / 1e6:.0f} MB",
            **at_most(peak / 1e6, _MEMORY_TARGET, "MB"),
        ),
        Row("  rate over all of them", f"{load.bytes / 1e9:.2f} GB/s"),
    ]


def _manifest(data_dir: Path) -> dict[str, Any]:
    """An image manifest of the cache, with its digest."""
    for path in (data_dir / "cache/blobs/sha256").iterdir():
        if path.stat().st_size < MIB:
            with suppress(ValueError):
                document = json.loads(path.read_bytes())
                if "layers" in document:
                    return {**document, "digest": f"sha256:{path.name}"}
    raise RuntimeError("the cache has no image manifest")


def _peak(pid: int) -> int:
    """The most resident memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024

"""Load on a registry, made by wrk."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from statistics import median

# Debian's registry gives no OCI index to who does not ask for it.
_ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
_UNITS = {"": 1.0, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_BYTES = re.compile(r"Transfer/sec:\s+([\d.]+)([KMGT]?)B")
_P99 = re.compile(r"99%\s+([\d.]+)(us|ms|s|m)")
_BAD = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk has measured: requests and bytes a second, the 99th percentile in seconds."""

    requests: float
    bytes: float
    p99: float


class Wrk:
    """One wrk under way."""

    def __init__(
        self, url: str, *, connections: int, seconds: float, complete: bool = True
    ) -> None:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "60s"]
        command += ["-H", f"Accept: {_ACCEPT}"]
        self._complete = complete
        self._process = subprocess.Popen(
            [*command, "--latency", url], stdout=subprocess.PIPE, text=True
        )

    def result(self) -> Load:
        """Wait for its end. Raises RuntimeError for answers that were errors."""
        out, _ = self._process.communicate()
        bad = _BAD.search(out)
        if self._process.returncode != 0 or (bad and self._complete):
            raise RuntimeError(f"wrk: {out}")
        requests, amount, late = _RATE.search(out), _BYTES.search(out), _P99.search(out)
        assert requests
        assert amount
        p99 = float(late[1]) * _TIMES[late[2]] if late else 0.0
        return Load(float(requests[1]), float(amount[1]) * _UNITS[amount[2]], p99)


def middle(loads: list[Load]) -> Load:
    """The median of each figure."""
    return Load(
        median(load.requests for load in loads),
        median(load.bytes for load in loads),
        median(load.p99 for load in loads),
    )

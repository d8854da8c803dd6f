"""What a probe of a running cache finds out, and the document that it makes (docs/contract.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One thing about the connection; `message` is what was found, or what is wrong."""

    step: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """One request as a client sends it, and whether its answer will do.

    `path` has the query, `status` is None where nothing was answered, or nothing was asked.
    """

    step: str
    method: str
    path: str
    status: int | None
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Pulled:
    """A reference as one kind of client pulls it; `digest` is its root's, None if it is unknown."""

    reference: str
    digest: str | None
    checks: Sequence[Check]

    @property
    def ok(self) -> bool:
        """Whether all of it can be pulled."""
        return all(check.ok for check in self.checks)


@dataclass(frozen=True, slots=True)
class ClientResult:
    """One kind of client; `pulled` lacks the references that this kind never asks a cache for."""

    client: str
    pulled: Sequence[Pulled]

    @property
    def ok(self) -> bool:
        """Whether it can pull all of them."""
        return all(each.ok for each in self.pulled)


@dataclass(frozen=True, slots=True)
class ProbeError:
    """What kept the probe from asking; `reference` is the one at fault, as it was given."""

    reference: str | None
    message: str


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """All of it; `clients` is empty where no content was asked for."""

    cache_url: str
    connection: Sequence[Step]
    clients: Sequence[ClientResult] = ()
    errors: Sequence[ProbeError] = ()

    @property
    def connected(self) -> bool:
        """Whether nothing is wrong with the connection."""
        return all(step.ok for step in self.connection)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.connected and not self.errors and all(each.ok for each in self.clients)

    def document(self) -> dict[str, Any]:
        """`probe -o json`."""
        return {
            "cache_url": self.cache_url,
            "ok": self.ok,
            "connection": [
                {"step": each.step, "ok": each.ok, "message": each.message}
                for each in self.connection
            ],
            "clients": [
                {
                    "client": each.client,
                    "ok": each.ok,
                    "references": [_pulled(pulled) for pulled in each.pulled],
                }
                for each in self.clients
            ],
            "errors": [
                {"reference": each.reference, "message": each.message} for each in self.errors
            ],
        }


def _pulled(pulled: Pulled) -> dict[str, Any]:
    return {
        "reference": pulled.reference,
        "ok": pulled.ok,
        "digest": pulled.digest,
        "checks": [
            {
                "step": check.step,
                "method": check.method,
                "path": check.path,
                "status": check.status,
                "ok": check.ok,
                "message": check.message,
            }
            for check in pulled.checks
        ],
    }

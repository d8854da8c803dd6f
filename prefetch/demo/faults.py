"""Faults to order: when which one strikes. What each does is in `misbehaviour`."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefetch.demo.requests import Kind, Request
from prefetch.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: what, to which requests, and how.

    It strikes requests of this `method`, `kind`, `repository` and `reference` (the last two
    are shell patterns; None is any), from the `nth` of them on, `count` times (None: always),
    each with `probability`. A request that is turned away with a challenge meets none but
    `bad-realm`, and none counts it. With a CDN a blob's bytes come from kind `cdn`, kind `blob` is
    the redirect.

    `at` is an offset in the body that is sent, None its middle. What the fields below it mean
    is told with each fault.
    """

    name: str
    method: str | None = None
    kind: Kind | None = None
    repository: str | None = None
    reference: str | None = None
    nth: int = 1
    count: int | None = 1
    probability: float = 1.0
    at: int | None = None
    seconds: float = 1.0
    status: int = 503
    bytes_per_second: float = 65536
    retry_after: Literal["seconds", "date", "epoch", "duration", "none"] = "seconds"
    text: str = ""
    headers: Mapping[str, str | None] = field(default_factory=dict)

    def matches(self, request: Request) -> bool:
        return (
            self.method in (None, request.method)
            and self.kind in (None, request.kind)
            and _like(self.repository, request.repository)
            and _like(self.reference, request.reference)
        )

    def strikes(self, occurrence: int) -> bool:
        """Whether it hits its request number `occurrence`, counted from 1; chance is repeatable."""
        if occurrence < self.nth:
            return False
        if self.probability >= 1:
            return True
        draw = hashlib.sha256(f"{self.name} {occurrence}".encode()).digest()[:8]
        return int.from_bytes(draw) / 2**64 < self.probability


@dataclass(slots=True)
class _Order:
    fault: Fault
    seen: int = 0
    struck: int = 0


class Faults:
    """All that are in force. Those that no longer strike stay until `clear`."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = known
        self._orders: list[_Order] = []

    def add(self, name: str, **details: Any) -> None:
        """Order a fault; `details` are the fields of `Fault`. UsageError if there is
        no such fault, or it has no such field."""
        if name not in self._known:
            raise UsageError(
                f"no fault is called {name!r}", hint=f"known: {', '.join(self._known)}"
            )
        try:
            fault = Fault(name=name, **details)
        except TypeError as error:
            raise UsageError(f"the fault {name!r} cannot be ordered so: {error}") from error
        self._orders.append(_Order(fault))

    def clear(self) -> None:
        self._orders.clear()

    def strike(self, request: Request, among: Collection[str] | None = None) -> list[Fault]:
        """The faults that this request meets, in the order they were added; it is counted.

        Those not `among` the given names neither strike nor count it; None considers all.
        """
        struck = []
        for order in self._orders:
            fault = order.fault
            considered = among is None or fault.name in among
            if not considered or not fault.matches(request):
                continue
            order.seen += 1
            spent = fault.count is not None and order.struck >= fault.count
            if not spent and fault.strikes(order.seen):
                order.struck += 1
                struck.append(fault)
        return struck

    def counted(self) -> list[tuple[int, int]]:
        """How often each was met and has struck, for `count_as`."""
        return [(order.seen, order.struck) for order in self._orders]

    def count_as(self, counted: list[tuple[int, int]]) -> None:
        """Go on as if nothing had been met since `counted`; no fault was added or cleared since."""
        for order, (seen, struck) in zip(self._orders, counted, strict=True):
            order.seen, order.struck = seen, struck

    def struck(self, name: str) -> int:
        """How often a fault has struck, to see that a test met it."""
        return sum(order.struck for order in self._orders if order.fault.name == name)


def _like(pattern: str | None, value: str) -> bool:
    return pattern is None or fnmatch.fnmatchcase(value, pattern)

"""A command line that asks for the price of each sync before, and judges what was spent."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from prefetch.demo.faults import Faults
from prefetch.demo.upstream import Upstream
from support.prices import assert_spent_as_planned, assert_totals_add_up
from support.processes import CommandLine, Result, UpstreamProcess

CHALLENGE = 401
"""What is answered so was no pull: it is sent again with another token."""


class Watched(Protocol):
    """An upstream whose log can be read, and made as if a plan had not been."""

    @property
    def address(self) -> str: ...

    def pulls(self) -> Counter[str]:
        """The manifest GETs so far, by `address/repository`."""
        ...

    def count(self) -> int:
        """How many requests there were."""
        ...

    def forget(self, keep: int) -> None:
        """Strike from the log all requests but the first so many."""
        ...


@dataclass(frozen=True)
class Within:
    """An upstream in this process."""

    upstream: Upstream

    @property
    def address(self) -> str:
        return self.upstream.address

    def pulls(self) -> Counter[str]:
        asked = self.upstream.log.select(kind="manifest", method="GET")
        return Counter(f"{self.address}/{r.repository}" for r in asked if r.status != CHALLENGE)

    def count(self) -> int:
        return len(self.upstream.log)

    def forget(self, keep: int) -> None:
        self.upstream.log.reset(keep)


@dataclass(frozen=True)
class Beside:
    """An upstream in a process of its own."""

    process: UpstreamProcess

    @property
    def address(self) -> str:
        return self.process.address

    def pulls(self) -> Counter[str]:
        return Counter(
            f"{self.address}/{each['repository']}"
            for each in self.process.requests()
            if (each["kind"], each["method"]) == ("manifest", "GET") and each["status"] != CHALLENGE
        )

    def count(self) -> int:
        return len(self.process.requests())

    def forget(self, keep: int) -> None:
        self.process.ask("reset", {"keep": keep})


@contextmanager
def as_before(faults: Iterable[Faults]) -> Iterator[None]:
    """What strikes within does not count: faults are as they were at the end."""
    kept = [(each, each.counted()) for each in faults]
    try:
        yield
    finally:
        for each, counted in kept:
            each.count_as(counted)


@dataclass
class Foreseeing(CommandLine):
    """Each `sync … -o json` is planned on a copy of the data directory, run, and judged.

    The plan's requests, which must be free, are struck from the upstreams' logs. A test in which
    something changes between the two, or during the sync, says so by `changes`: why no price can be
    told. For the references of `unforeseen` the upper bound may be exceeded; those of `scripted`
    meet faults that cost pulls.
    """

    home: Path
    data_dir: Path
    upstreams: list[Watched] = field(default_factory=list)

    async def __call__(
        self,
        *words: str | Path,
        stdin: str = "",
        data_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        changes: str = "",
        unforeseen: Sequence[str] = (),
        scripted: Sequence[str] = (),
    ) -> Result:
        def call(*words: str | Path, data_dir: Path | None) -> Any:
            return CommandLine.__call__(
                self, *words, stdin=stdin, data_dir=data_dir, env=env, timeout=timeout
            )

        if changes or not _is_priced(words):
            return await call(*words, data_dir=data_dir)
        kept = [(each, await asyncio.to_thread(each.count)) for each in self.upstreams]
        before = await self._pulls()
        inside = [each.upstream.faults for each in self.upstreams if isinstance(each, Within)]
        with _copied(data_dir or self.data_dir) as copy, as_before(inside):
            planned = await call(*words, "--dry-run", data_dir=copy)
        assert await self._pulls() == before, "a plan has pulled"
        for upstream, count in kept:
            await asyncio.to_thread(upstream.forget, count)
        done = await call(*words, data_dir=data_dir)
        assert bool(planned.stdout) == bool(done.stdout), (planned, done)
        if done.stdout:
            assert_totals_add_up(planned.json)
            assert_spent_as_planned(
                planned.json,
                done.json,
                await self._pulls() - before,
                watched=[each.address for each in self.upstreams],
                unforeseen=unforeseen,
                scripted=scripted,
                waits="--wait" in words,
            )
        return done

    async def _pulls(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for each in self.upstreams:
            found += await asyncio.to_thread(each.pulls)
        return found


def _is_priced(words: Sequence[str | Path]) -> bool:
    """Whether it is a sync whose document can be read."""
    return "sync" in words and "json" in words and "--dry-run" not in words


@contextmanager
def _copied(data_dir: Path) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="planned-"))
    try:
        if data_dir.exists():
            shutil.copytree(data_dir, directory / "data")
        yield directory / "data"
    finally:
        shutil.rmtree(directory)

"""`prefetch sync` started by a clock that does not look whether the last run is done."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from acceptance_support import pulls_by_repository, refused, write_list

from prefetch.filelock import Lease
from support.factories import UpstreamProcessFactory
from support.history import past_runs_of, pulls_at
from support.processes import CommandLine, Result, finish

EIGHT = {"repository": "app{n}", "count": 8, "single": True, "layers": 1}
MIB = 1 << 20
WINDOW = 20.0
OTHERS = "other runs of the same sync are under way"


def slow(bytes_per_second: int) -> dict[str, object]:
    return {
        "name": "slow",
        "kind": "cdn",
        "count": None,
        "bytes_per_second": bytes_per_second,
    }


async def test_one_runs_one_waits_and_there_is_no_third(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    order = {**EIGHT, "layer_size": MIB}
    upstream = await upstream_process(
        settings={"limit": None}, images=[order], faults=[slow(MIB // 50)]
    )
    listed = write_list(tmp_path / "images.txt", upstream.references())
    words = ("sync", listed, "--reserve", "0", "-o", "json")
    first = await cli.start(*words)
    await until(lambda: upstream.pulls > 0)
    second = await cli.start(*words)
    # The first has one to run and one for its pulls, the second one to wait.
    await until(lambda: leases(cli) >= 3)

    third, quiet, other = await asyncio.gather(
        cli(*words, changes=OTHERS),
        cli("sync", listed, "--reserve", "0", "-q", "--deferred-ok"),
        # Another sync is another matter.
        cli("sync", "--image", upstream.references()[0], "--dry-run"),
    )
    document = third.json
    assert (third.code, document["outcome"], document["run_id"]) == (75, "deferred", None)
    assert document["images"] == document["errors"] == []
    assert third.stderr == "this sync is being run already: nothing was started, try again later\n"
    assert (quiet.code, quiet.stdout, quiet.stderr) == (0, "", "")
    assert other.code == 0

    upstream.ask("faults", method="DELETE")
    first.kill()
    await first.wait()
    # A kill gives the turn back at once, and nothing is pulled twice.
    result = await finish(second)
    assert (result.code, result.json["outcome"]) == (0, "complete")
    assert set(pulls_by_repository(upstream).values()) == {1}
    again = await cli(*words)
    assert (again.code, again.json["totals"]["unchanged"]) == (0, 8)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not done():
            await asyncio.sleep(0.05)


def leases(cli: CommandLine) -> int:
    """How many are held."""
    locks = cli.data_dir / "locks"
    names = [each.stem for each in locks.iterdir() if len(each.stem) == 32]
    return sum(Lease.alive(locks, name) for name in names)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["fixed", "rolling"])
async def test_a_run_every_other_second_is_as_good_as_a_schedule(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path, kind: str
) -> None:
    limits = {"limit": 3, "window": WINDOW, "window_kind": kind}
    order = {**EIGHT, "layer_size": MIB // 4}
    upstream = await upstream_process(settings=limits, images=[order], faults=[slow(MIB // 16)])
    listed = write_list(tmp_path / "images.txt", upstream.references())

    async def run(number: int) -> Result:
        await asyncio.sleep(2.0 * number)
        words = ("sync", listed, "--reserve", "0", "-o", "json")
        return await cli(*words, timeout=240, changes=OTHERS)

    results = await asyncio.gather(*(run(number) for number in range(36)))

    assert {result.code for result in results} <= {0, 75}, [r.stderr for r in results if r.code]
    assert refused(upstream) == []
    # Nothing twice.
    assert pulls_by_repository(upstream) == {f"app{number}": 1 for number in range(8)}
    at, runs = pulls_at(upstream), past_runs_of(cli.data_dir)
    assert len(runs) == sum(result.json["run_id"] is not None for result in results)
    assert {run.outcome for run in runs} <= {"complete", "deferred"}
    # One after the other.
    assert all((one.ended or 0) <= later.began for one, later in itertools.pairwise(runs))
    # What is put off comes with the first run that begins after its budget has returned.
    for returned, came in zip(at, at[3:], strict=False):
        in_time = next(run for run in runs if run.began >= returned + WINDOW)
        assert came <= (in_time.ended or 0)
    assert (runs[-1].outcome, runs[-1].pulls) == ("complete", 0)

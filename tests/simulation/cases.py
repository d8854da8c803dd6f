"""What is tried, and what must hold of each case and of all of them."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from prefetch.ratelimit.supply import View
from simulation.virtual import EPOCH, run
from simulation.warming import Warming, Watched
from simulation.world import Burn, Registry, Terms, least_time

IMAGES, PULLS, LIMIT, RESERVE = 500, 1300, 100, 20
HOURS = (1, 6, 24)
SEEDS = 200
_WATCHED_WINDOWS = 4
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Case:
    """A registry and its other users: `hours` a window, every `every`th GET counted."""

    seed: int
    hours: int
    rolling: bool
    every: int
    burn: Burn

    @property
    def allowed(self) -> float:
        """How many times the least possible time all may take."""
        return 1.25 if self.burn.bursts else 1.1

    def __str__(self) -> str:
        burn = f"{self.burn.pulls} {'in a burst' if self.burn.bursts else 'steadily'}"
        refill = "rolling" if self.rolling else "at once"
        counts = "every GET" if self.every == 1 else "every second GET"
        return f"seed {self.seed}: {self.hours} h, {refill}, {counts} counts, others {burn}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case. `ratio` is the time over the least possible; `forecast` the forecast
    of what was left after four windows over what it took."""

    case: Case
    ratio: float
    refused: int
    low: int
    sent: int
    restarts: int
    forecast: float | None

    @property
    def problems(self) -> list[str]:
        """What must never be."""
        found = []
        if self.refused:
            found.append(f"{self.refused} GETs were answered 429")
        if self.low:
            found.append(f"{self.low} pulls were sent at or under the reserve")
        if self.ratio > self.case.allowed:
            found.append(f"took {self.ratio:.3f} times the least possible time")
        return found

    @property
    def forecast_is_close(self) -> bool:
        """Within 15 % of the truth; what was done before four windows were over counts as such."""
        return self.forecast is None or abs(self.forecast - 1) <= 0.15


def case_of(seed: int) -> Case:
    """The case of a seed: all kinds come equally often, burn is drawn."""
    draw = random.Random(seed)
    kind, hours = divmod(seed, len(HOURS))
    pulls = draw.randint(0, (LIMIT - RESERVE) // 2)
    return Case(
        seed,
        hours=HOURS[hours],
        rolling=bool(kind & 1),
        every=1 + (kind >> 1 & 1),
        burn=Burn(pulls, bursts=bool(kind >> 2 & 1)),
    )


def prices(seed: int) -> list[int]:
    """What each image costs: lone manifests, and indexes of one to four platforms."""
    draw = random.Random(seed)
    found = [draw.choice((1, 2, 3, 3, 4)) for _ in range(IMAGES)]
    while (over := sum(found) - PULLS) != 0:
        position = draw.randrange(IMAGES)
        step = -1 if over > 0 else 1
        if 1 <= found[position] + step <= 5:
            found[position] += step
    return found


def try_case(case: Case) -> Result:
    """Warm all of it, and compare with the least possible time."""
    terms = Terms(LIMIT, case.hours * 3600.0, case.rolling, case.every)
    least = least_time(Registry(terms, case.burn, case.seed), PULLS, RESERVE)
    look = _WATCHED_WINDOWS * terms.window
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as directory:
        warming = Warming(
            Registry(terms, case.burn, case.seed),
            prices(case.seed),
            RESERVE,
            Path(directory),
            restarts=random.Random(case.seed).uniform(0, 1),
            looks=(look,),
            seed=case.seed,
        )
        seen = run(warming.run())
    return Result(
        case,
        ratio=seen.seconds / least,
        refused=seen.refused,
        low=seen.low,
        sent=seen.sent,
        restarts=seen.restarts,
        forecast=_forecast(seen, look),
    )


def _forecast(seen: Watched, look: float) -> float | None:
    if look not in seen.outlooks:
        return None
    outlook, left = seen.outlooks[look]
    moment = outlook.starts([left], View.EXPECTED)[0]
    if moment is None:
        return float("inf")
    return (moment - EPOCH.timestamp() - look) / (seen.seconds - look)

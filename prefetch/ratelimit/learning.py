"""What a meter's past tells of it: what a GET costs, how it refills, how fast others spend.

Pure: samples in, a model out. It serves forecasts alone; the ledger charges one pull a GET
whatever is learned here. What is not known yet is read in the way that promises least.

Docker Hub has been seen to count every second GET, and no documentation tells how its window
refills; that is why both are learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean, median, pstdev

from prefetch.ratelimit.budget import UNKNOWN_WINDOW

# So many GETs must have been seen before their cost is believed to be other than one.
_GETS_TO_KNOW = 16
# Pulls by which one way of refilling has contradicted what was seen, before the other is believed.
_PULLS_TO_KNOW = 8
# A GET's cost is one over a whole number, where it is within this share of that.
_SNAP = 0.15
# Longer intervals may hide usage that came back.
_SHORT_SHARE = 0.02
_SLACK = 2.0
_WINDOWS_LOOKED_AT = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """What lies between two readings of a source that show all our spends.

    From `since` to `at` (Unix seconds) the meter fell by `fall` pulls (below zero: rose) to
    `remaining`, while `gets` manifest GETs and `heads` charged HEADs of ours were counted.
    """

    since: float
    at: float
    fall: int
    gets: int
    heads: int
    remaining: int

    @property
    def seconds(self) -> float:
        return self.at - self.since


class Refill(StrEnum):
    """How used pulls come back: a window after the first of them, all together; or each a window
    after it was made."""

    AT_ONCE = "at_once"
    ROLLING = "rolling"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Learned:
    """A value, and how far it may be trusted: from 0 (a guess) to nearly 1."""

    value: float
    confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class MeterModel:
    """A meter as it has behaved.

    `window` in seconds; `get_cost` in pulls; `burn` is what others spend in a window, in pulls,
    `burn_low` and `burn_high` between what it has mostly been; `windows` is how many of them have
    been watched.
    """

    limit: int | None
    window: Learned
    refill: Refill = Refill.UNKNOWN
    refill_confidence: float = 0.0
    get_cost: Learned = Learned(1.0)
    burn: Learned = Learned(0.0)
    burn_low: float = 0.0
    burn_high: float = 0.0
    windows: float = 0.0


def configured(limit: int, window: float) -> MeterModel:
    """The model of a limit that is configured: it is kept by us, so all of it is known."""
    sure = Learned(1.0, 1.0)
    return MeterModel(
        limit, Learned(window, 1.0), Refill.ROLLING, 1.0, get_cost=sure, burn=Learned(0.0, 1.0)
    )


def learn(
    samples: Sequence[Sample], *, limit: int | None, window: float | None, burn_rate: float = 0.0
) -> MeterModel:
    """The model of one source, from its samples in order.

    `limit` and `window` (seconds) as reported, None where they are not; `burn_rate` is the last
    minutes' burn in pulls a second, which stands where the samples tell nothing.
    """
    span = Learned(window, 1.0) if window else _window(samples, limit)
    now = samples[-1].at if samples else 0.0
    recent = [s for s in samples if s.at > now - _WINDOWS_LOOKED_AT * span.value]
    model = MeterModel(limit, span)
    if recent:
        watched = (now - recent[0].since) / span.value
        model = replace(model, windows=watched, get_cost=_get_cost(recent, span.value))
        if limit is not None:
            refill, confidence = _refill(recent, limit, span.value, model.get_cost.value)
            model = replace(model, refill=refill, refill_confidence=confidence)
    return _with_burn(model, recent, burn_rate)


def _window(samples: Sequence[Sample], limit: int | None) -> Learned:
    """A window that is not reported: from a first use to the moment at which all was back."""
    if limit is None:
        return Learned(UNKNOWN_WINDOW)
    lengths: list[float] = []
    opened: float | None = None
    for sample in samples:
        if sample.fall < 0 and sample.remaining >= limit - _SLACK and opened is not None:
            lengths.append(sample.at - opened)
            opened = None
        elif sample.fall > 0 and opened is None:
            opened = sample.at
    if not lengths:
        return Learned(UNKNOWN_WINDOW)
    return Learned(median(lengths), len(lengths) / (len(lengths) + 2))


def _get_cost(samples: Sequence[Sample], window: float) -> Learned:
    """Pulls a GET, from short intervals that nobody else is seen in."""
    telling = [
        sample
        for sample in samples
        if sample.gets
        and sample.seconds <= _SHORT_SHARE * window
        and 0 <= sample.fall - sample.heads <= sample.gets
    ]
    gets = sum(sample.gets for sample in telling)
    if gets < _GETS_TO_KNOW:
        return Learned(1.0, 0.0)
    cost = sum(sample.fall - sample.heads for sample in telling) / gets
    confidence = gets / (gets + _GETS_TO_KNOW)
    if cost <= 0:
        return Learned(1.0, 0.0)  # it reports, and does not count: nothing to rely on
    whole = 1 / max(1, round(1 / cost))
    return Learned(whole if abs(cost - whole) <= _SNAP * whole else cost, confidence)


def _refill(
    samples: Sequence[Sample], limit: int, window: float, cost: float
) -> tuple[Refill, float]:
    """Which way of refilling what was seen contradicts the less; and how surely.

    At each rise, all of a window that comes back at once is back; of a rolling one, what was used
    within the window before is still out.
    """
    at_once = rolling = 0.0
    for position, sample in enumerate(samples):
        if sample.fall >= 0:
            continue
        young = sum(
            max(earlier.fall, _own(earlier, cost), 0)
            for earlier in _since(samples, position, sample.at - window)
        )
        used = limit - sample.remaining
        just_now = _own(sample, cost) + _SLACK
        if used + _SLACK < young:
            at_once += young - used
        elif used > just_now:
            rolling += used - just_now
    stronger, all_of_it = max(at_once, rolling), at_once + rolling
    if stronger < _PULLS_TO_KNOW or stronger < 2 * min(at_once, rolling):
        return Refill.UNKNOWN, 0.0
    confidence = (2 * stronger - all_of_it) / (all_of_it + _PULLS_TO_KNOW)
    return (Refill.AT_ONCE if at_once > rolling else Refill.ROLLING), confidence


def _own(sample: Sample, cost: float) -> float:
    return sample.gets * cost + sample.heads


def _since(samples: Sequence[Sample], position: int, moment: float) -> Iterator[Sample]:
    """The samples before that position that lie wholly after `moment`, latest first."""
    for index in range(position - 1, -1, -1):
        if samples[index].since <= moment:
            return
        yield samples[index]


def _with_burn(model: MeterModel, samples: Sequence[Sample], burn_rate: float) -> MeterModel:
    """What others spend in a window: mean, and how it has varied from window to window."""
    window = model.window.value
    cost = model.get_cost.value
    if model.limit is None or model.refill is Refill.UNKNOWN:
        seen = _burn_of_falls(samples, window, cost)
    elif model.refill is Refill.ROLLING:
        seen = _burn_of_rolling(samples, model.limit, window, cost)
    else:
        seen = _burn_of_epochs(samples, window, cost)
    if not seen:
        guess = burn_rate * window
        return replace(model, burn=Learned(guess), burn_high=1.5 * guess)
    mean, spread = fmean(seen), pstdev(seen)
    confidence = model.windows / (model.windows + 2)
    # With a window or two, the spread is not known either.
    margin = spread + mean / (1 + len(seen))
    return replace(
        model,
        burn=Learned(mean, confidence),
        burn_low=max(0.0, mean - margin),
        burn_high=mean + margin,
    )


def _burn_of_falls(samples: Sequence[Sample], window: float, cost: float) -> list[float]:
    """From each window's falls alone: what came back in the meantime hides some of it."""
    found: list[float] = []
    pulls = seconds = 0.0
    for sample in samples:
        if sample.fall < 0:
            continue
        pulls += max(0.0, sample.fall - _own(sample, cost))
        seconds += sample.seconds
        if seconds >= window:
            found.append(pulls / seconds * window)
            pulls = seconds = 0.0
    if not found and seconds > window / 20:
        found.append(pulls / seconds * window)
    return found


def _burn_of_rolling(
    samples: Sequence[Sample], limit: int, window: float, cost: float
) -> list[float]:
    """What is used now and was not by us, once for each window that has been watched."""
    found: list[float] = []
    first, own, total, seconds = 0, 0.0, 0.0, 0.0
    for sample in samples:
        own += _own(sample, cost)
        while samples[first].at <= sample.at - window:
            own -= _own(samples[first], cost)
            first += 1
        if sample.at - samples[0].since < window:
            continue
        total += max(0.0, limit - sample.remaining - own) * sample.seconds
        seconds += sample.seconds
        if seconds >= window:
            found.append(total / seconds)
            total = seconds = 0.0
    if not found and seconds > 0:
        found.append(total / seconds)
    return found or _burn_of_falls(samples, window, cost)


def _burn_of_epochs(samples: Sequence[Sample], window: float, cost: float) -> list[float]:
    """From each refill to the next: the falls that are not ours, by the time watched."""
    found: list[float] = []
    pulls = seconds = 0.0
    for sample in samples:
        if sample.fall < 0:
            if seconds > window / 4:
                found.append(max(0.0, pulls) / seconds * window)
            pulls = seconds = 0.0
            continue
        pulls += sample.fall - _own(sample, cost)
        seconds += sample.seconds
    if seconds > window / 2 or (not found and seconds > window / 20):
        found.append(max(0.0, pulls) / seconds * window)
    return found

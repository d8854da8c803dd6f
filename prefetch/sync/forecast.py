"""What a meter's forecast rests on, in JSON (docs/contract.md) and in words."""

from __future__ import annotations

from typing import Any

from prefetch.clock import rfc3339_due
from prefetch.ratelimit.learning import MeterModel, Refill
from prefetch.ratelimit.supply import Outlook, Stock
from prefetch.sync.deadlinereport import moment_of

JSON = dict[str, Any]

_HOUR, _MINUTE = 3600, 60
_REFILLS = {
    Refill.AT_ONCE: "all back at once",
    Refill.ROLLING: "each back after that time",
    Refill.UNKNOWN: "how they come back is not known yet",
}


def forecast_document(outlook: Outlook | None) -> JSON | None:
    """The tightest view of a meter; None where nothing limits it."""
    if outlook is None or not outlook.limits:
        return None
    stock, model = outlook.limits[0]
    full = full_at(stock, model)
    return {
        "window_seconds": round(model.window.value, 3),
        "window_confidence": round(model.window.confidence, 3),
        "refill": str(model.refill),
        "refill_confidence": round(model.refill_confidence, 3),
        "get_cost": round(model.get_cost.value, 3),
        "get_cost_confidence": round(model.get_cost.confidence, 3),
        "burn_per_window": round(model.burn.value, 3),
        "burn_low": round(model.burn_low, 3),
        "burn_high": round(model.burn_high, 3),
        "burn_confidence": round(model.burn.confidence, 3),
        "windows_watched": round(model.windows, 3),
        "full_at": None if full is None else rfc3339_due(moment_of(full)),
    }


def forecast_words(outlook: Outlook | None) -> str | None:
    """The same in words; when it is full again is left to the caller."""
    if outlook is None or not outlook.limits:
        return None
    stock, model = outlook.limits[0]
    return "; ".join(
        (
            f"{stock.limit} pulls in {_length(model.window.value)}"
            f"{_sure(model.window.confidence)}, {_REFILLS[model.refill]}"
            f"{_sure(model.refill_confidence) if model.refill is not Refill.UNKNOWN else ''}",
            f"a GET costs {model.get_cost.value:g}{_sure(model.get_cost.confidence)}",
            f"others spend {model.burn.value:.0f} in a window{_sure(model.burn.confidence)}",
        )
    )


def full_at(stock: Stock, model: MeterModel) -> float | None:
    """When it is full if nobody pulls until then; None: it is."""
    if not stock.falls:
        return None
    window = model.window.value
    if model.refill is Refill.AT_ONCE:
        first = min(fall.seen_at for fall in stock.falls)
        return max(stock.now, stock.reset_at or first + window)
    return max(stock.now, max(fall.seen_at for fall in stock.falls) + window)


def _sure(confidence: float) -> str:
    """` (87 %)`; a guess is called one, what is reported needs no word."""
    if confidence >= 1:
        return ""
    return f" ({confidence:.0%} sure)".replace("%", " %") if confidence > 0 else " (a guess)"


def _length(seconds: float) -> str:
    """`6 h`, `30 min`, `8 s`."""
    for unit, name in ((_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"

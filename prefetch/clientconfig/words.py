"""What the files say of themselves, and what has to be known besides."""

from __future__ import annotations

from prefetch.clientconfig.plan import Plan

SPENDS = "what the cache cannot give is pulled from the registry, and spends this node's own pulls"
NO_UPSTREAM = "what the cache cannot give is not pulled: no registry is asked"


def header(target: str, plan: Plan) -> tuple[str, ...]:
    """Comments for the top of a file."""
    written = f"Written by `prefetch client-config {target}`."
    return (written, f"{fallback_note(plan).capitalize()}.")


def fallback_note(plan: Plan) -> str:
    """The same as a note."""
    return SPENDS if plan.fallback else NO_UPSTREAM

"""Pieces of HTTP that tests write themselves."""

from __future__ import annotations

import base64


def basic(name: str, password: str) -> dict[str, str]:
    """The header of Basic credentials (RFC 7617)."""
    encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}

"""Secrets, and the two kinds of credentials that registries take."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from typing import NoReturn, TypeAlias


class Secret:
    """Text that no log, error or repr may show; `reveal` is the only way out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the request that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


@dataclass(frozen=True, slots=True)
class Credential:
    """A user and a password (or personal access token), for Basic authentication."""

    username: str
    password: Secret

    def basic(self) -> str:
        """`user:password` in base64, as Basic credentials and auth files have it (RFC 7617)."""
        return base64.b64encode(f"{self.username}:{self.password.reveal()}".encode()).decode()


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """An OAuth2 refresh token (distribution, "Token authentication": grant_type=refresh_token).

    `username` is the account that it belongs to, empty where the source does not say.
    """

    token: Secret
    username: str = ""


Login: TypeAlias = Credential | IdentityToken
"""What a registry is shown."""

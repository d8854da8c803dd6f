"""Credential helpers: `docker-credential-<name> get` (docker-credential-helpers, "Development").

The registry's key goes to standard input; `{"ServerURL", "Username", "Secret"}` comes back. The
user name `<token>` marks an identity token. Failures are told in words, on either output.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Mapping
from typing import Any, Final

from prefetch.credentials.credential import Credential, IdentityToken, Login, Secret
from prefetch.errors import CredentialError

TIMEOUT: Final = 30.0
"""Seconds that a helper may take."""

_NOT_FOUND: Final = "credentials not found"
_TOKEN_USER: Final = "<token>"  # noqa: S105 - the protocol's word, not a secret
_LIKE_A_SECRET = re.compile(r"[A-Za-z0-9+_=-]{24,}|//[^/\s@]*@|(?<=[=:])[^\s=:]{8,}")
_LONGEST_REASON: Final = 160


async def ask(
    helper: str, server: str, *, environ: Mapping[str, str], timeout: float = TIMEOUT
) -> Login | None:
    """What a helper has for `server`, None if it has nothing.

    The program is looked up in `environ`'s PATH. Raises CredentialError, naming helper and
    registry, if it is missing, fails, takes longer than `timeout` seconds or answers nonsense.
    """
    program = f"docker-credential-{helper}"
    failed = f"credential helper {program} failed for {server}"
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as error:
        raise CredentialError(
            f"credential helper {program} cannot be run for {server}: {error.strerror}",
            hint="install it, or take it out of the auth file",
        ) from None
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(server.encode())
    except TimeoutError:
        raise CredentialError(f"{failed}: no answer within {timeout:g} s") from None
    finally:
        if process.returncode is None:
            # A helper is often a script: what it runs holds its pipes, and must go with it.
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode == 0:
        return _parse(out, failed)
    if _NOT_FOUND in (out + err).decode(errors="replace").lower():
        return None
    raise CredentialError(f"{failed}: {_reason(out, err) or f'exit {process.returncode}'}")


def _parse(out: bytes, failed: str) -> Login | None:
    try:
        answer: Any = json.loads(out)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CredentialError(f"{failed}: its answer is not credentials in JSON") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise CredentialError(f"{failed}: its answer is not credentials in JSON")
    if username == _TOKEN_USER:
        return IdentityToken(Secret(secret))
    return Credential(username, Secret(secret)) if username or secret else None


def _reason(out: bytes, err: bytes) -> str:
    """The first line that was said, made safe to print; JSON may hold the secret itself."""
    said = [text for text in (err.strip(), out.strip()) if text and not text.startswith(b"{")]
    if not said:
        return ""
    line = said[0].splitlines()[0].decode(errors="replace")
    printable = "".join(char if char.isprintable() else " " for char in line)
    return _LIKE_A_SECRET.sub("[redacted]", printable)[:_LONGEST_REASON]

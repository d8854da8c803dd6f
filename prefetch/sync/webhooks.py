"""One notice posted to a webhook, signed as receivers have libraries for.

Standard Webhooks 1.0.0 (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md,
"Webhook metadata" and "Symmetric signatures"): `webhook-id`, `webhook-timestamp` (Unix seconds)
and `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. A secret is
`whsec_` and the key in base64; any other text is the key itself.

Redirects are not followed, answers' bodies are not read. Of a URL nothing is told but host and
port: its path and query may be secrets as well as its user.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Final

from multidict import CIMultiDict, istr
from yarl import URL

from prefetch.clock import Clock
from prefetch.credentials.credential import Credential, Secret
from prefetch.errors import CredentialError, PrefetchError
from prefetch.ratelimit.throttle import retry_after
from prefetch.remote.connections import Connections, broken
from prefetch.sync.hooks import Attempt, Message, SecretSource, Webhook

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what a secret begins with
# 4xx that say nothing against the message: later it may be taken.
_PASSING: Final = frozenset({408, 425, 429})


async def post(
    hook: Webhook, message: Message, *, environ: Mapping[str, str], clock: Clock
) -> Attempt:
    """Send a message once; whatever goes wrong is told in the attempt."""
    try:
        url, headers = await asyncio.to_thread(_request, hook, message, environ, clock)
        connections = await Connections.to(
            url, f"notify.{hook.name}", ca_file=hook.ca_file, timeout=hook.timeout
        )
        try:
            async with asyncio.timeout(hook.timeout):
                response = await connections.send("POST", url, headers, body=message.body.encode())
            response.close()
        except TimeoutError as error:
            raise broken(error, url) from None
        finally:
            await connections.close()
    except PrefetchError as error:
        return Attempt(taken=False, said=error.advice)
    return _judged(response.status, response.headers, clock)


def _judged(status: int, headers: Mapping[str, str], clock: Clock) -> Attempt:
    """2xx has taken it; what is wrong with the request, or leads elsewhere, does not heal."""
    said = f"answered {status}"
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Attempt(taken=True, said=said)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
        wait = retry_after(b"", headers, clock.now())
        return Attempt(taken=False, said=said, wait=wait)
    if status < HTTPStatus.BAD_REQUEST:
        said = f"{said}, a redirect, which is not followed"
    return Attempt(taken=False, said=said, again=False)


def _request(
    hook: Webhook, message: Message, environ: Mapping[str, str], clock: Clock
) -> tuple[URL, CIMultiDict[str]]:
    """Where it goes, and its headers. Raises CredentialError."""
    url = _url(hook.url, environ, f"the URL of notify.{hook.name}")
    headers: CIMultiDict[str] = CIMultiDict()
    if url.user is not None:
        login = Credential(url.user, Secret(url.password or ""))
        headers["Authorization"] = f"Basic {login.basic()}"
        url = url.with_user(None)
    for name, variable in hook.headers:
        value = SecretSource(env=variable).read(environ, f"the header {name} of {hook.name}")
        text = value.reveal()
        if not text.isprintable():
            raise CredentialError(f"{variable}: not fit for the header {name}")
        headers[istr(name)] = text
    timestamp = int(clock.now().timestamp())
    headers.update(
        {
            "Content-Type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
        }
    )
    if hook.secret is not None:
        secret = hook.secret.read(environ, f"the secret of notify.{hook.name}")
        headers["webhook-signature"] = sign(secret, message.id, timestamp, message.body)
    return url, headers


def _url(source: SecretSource, environ: Mapping[str, str], what: str) -> URL:
    text = source.read(environ, what).reveal()
    try:
        url = URL(text)
        good = url.scheme in ("http", "https") and bool(url.raw_host) and url.port != 0
    except ValueError:
        good = False
    if not good:
        raise CredentialError(f"{what} is not an http:// or https:// URL")
    return url.with_fragment(None)


def sign(secret: Secret, message_id: str, timestamp: int, body: str) -> str:
    """The value of `webhook-signature`. Raises CredentialError for a `whsec_` without base64."""
    signed = f"{message_id}.{timestamp}.{body}".encode()
    digest = hmac.new(_key(secret.reveal()), signed, sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise CredentialError("a secret that begins with whsec_ has to go on in base64")
    return key

"""One hop: aiohttp sessions, TLS, proxies, and broken connections as errors of ours.

Redirects are not followed here, cookies are not kept, bodies are not decompressed, and `.netrc` is
not read: none of it may happen behind the back of whoever checks digests and addresses.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.request import getproxies

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from prefetch import __version__
from prefetch.errors import ConfigError, NetworkError, PrefetchError, RegistryError, ServerFault
from prefetch.regular import check_regular
from prefetch.remote.addresses import Guard, GuardedResolver
from prefetch.remote.faults import redact, sanitise
from prefetch.remote.proxies import Proxies
from prefetch.remote.settings import RegistrySettings, TransportSettings

# aiohttp reads ahead twice as much: what a blob's writer takes at a time. More is only memory.
READ_BUFFER: Final = 256 * 1024
BROKEN: Final = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
"""What aiohttp raises for a connection that failed, or for nonsense on it; see `broken`."""

_KEEP_ALIVE: Final = 30.0
_DNS_TTL: Final = 60
_TO_REGISTRIES: Final = {"Docker-Distribution-API-Version": "registry/2.0"}


class Connections:
    """The connections to one registry and to where it leads, or to another server (`to`)."""

    def __init__(
        self,
        timeout: aiohttp.ClientTimeout,
        guard: Guard,
        home: URL,
        contexts: tuple[ssl.SSLContext | bool, ssl.SSLContext | bool],
        headers: Mapping[str, str] = _TO_REGISTRIES,
    ) -> None:
        self._timeout = timeout
        self._headers = headers
        self._home = home.origin()
        self._contexts = contexts
        self._proxies = Proxies(getproxies())
        self._direct = self._session(GuardedResolver(aiohttp.ThreadedResolver(), guard))
        # A proxy's own address is the user's choice; beyond it only spellings can be checked.
        self._proxied = self._session(aiohttp.ThreadedResolver())

    @classmethod
    async def open(
        cls, settings: RegistrySettings, timeouts: TransportSettings, guard: Guard
    ) -> Connections:
        """Load certificates and be ready. Raises ConfigError for files that cannot be used."""
        contexts = await asyncio.to_thread(_contexts, settings)
        timeout = aiohttp.ClientTimeout(
            total=None, connect=timeouts.connect_timeout, sock_read=settings.idle_timeout
        )
        return cls(timeout, guard, URL(settings.endpoint), contexts)

    @classmethod
    async def to(cls, url: URL, name: str, *, ca_file: Path | None, timeout: float) -> Connections:
        """To a server that the user has named in the configuration, under `name`, and no other.

        `timeout` bounds, in seconds, the connecting and any silence. Raises ConfigError for a
        `ca_file` that cannot be used.
        """
        trusted: ssl.SSLContext | bool = True
        if ca_file is not None:
            trusted = await asyncio.to_thread(_trusting, ca_file, name)
        patience = aiohttp.ClientTimeout(total=None, connect=timeout, sock_read=timeout)
        return cls(patience, Guard(name, url.raw_host or ""), url, (True, trusted), {})

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        once: bool = False,
    ) -> aiohttp.ClientResponse:
        """One request, answered with status and headers; the caller reads or closes the body.

        aiohttp sends a request again when a kept connection turns out closed; `once` forbids that,
        for requests that are counted. Raises NetworkError, ServerFault, ForbiddenAddress, or
        RegistryError for TLS that fails.
        """
        proxy = self._proxies.find(url)
        session = self._direct if proxy is None else self._proxied
        if proxy is not None and url.scheme == "http":
            headers = {**headers, **proxy.headers}
        try:
            return await session.request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=self._contexts[url.origin() == self._home] if url.scheme == "https" else True,
                proxy=None if proxy is None else proxy.url,
                proxy_headers=None if proxy is None else proxy.headers,
                middlewares=(_send_once,) if once else None,
            )
        except BROKEN as error:
            raise broken(error, url) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._direct.close()
        await self._proxied.close()

    def _session(self, resolver: aiohttp.abc.AbstractResolver) -> aiohttp.ClientSession:
        # The request slots bound the connections, so that no request ever waits for one here.
        connector = aiohttp.TCPConnector(
            limit=0, ttl_dns_cache=_DNS_TTL, resolver=resolver, keepalive_timeout=_KEEP_ALIVE
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": f"prefetch/{__version__}",
                "Accept-Encoding": "identity",
                **self._headers,
            },
            skip_auto_headers=("Accept", "Content-Type"),
            timeout=self._timeout,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
        )


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise broken(error, request.url) from None


def broken(error: BaseException, url: URL) -> PrefetchError:
    """The error for a connection that failed, or for what came over it making no sense.

    Raise it `from None`: aiohttp's own errors carry whole requests, signatures and tokens included.
    """
    where = f"{url.raw_host}:{url.port}"
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return RegistryError(
                f"the certificate of {where} is not trusted: "
                f"{sanitise(str(error.certificate_error))}",
                url=redact(url),
                code="CERTIFICATE_UNTRUSTED",
                hint="name its authority with ca_file",
            )
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return RegistryError(
                f"TLS with {where} failed: {sanitise(str(error))}",
                url=redact(url),
                code="TLS_FAILED",
                hint="an endpoint without TLS is written http://…",
            )
        case aiohttp.ClientHttpProxyError():
            return NetworkError(f"the proxy refused the way to {where}: {error.status}")
        case TimeoutError():
            return NetworkError(f"{where} did not answer in time")
        case aiohttp.ClientConnectorError():
            return NetworkError(f"cannot reach {where}: {sanitise(str(error.os_error))}")
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return _nonsense(url, f": {sanitise(error.message)}")
        case ValueError():
            return _nonsense(url, "")
        case _:
            return NetworkError(f"the connection to {where} broke: {sanitise(str(error))}")


def _nonsense(url: URL, detail: str) -> ServerFault:
    return ServerFault(
        f"{url.raw_host}:{url.port} sent no valid HTTP answer{detail}", url=redact(url)
    )


def _contexts(
    settings: RegistrySettings,
) -> tuple[ssl.SSLContext | bool, ssl.SSLContext | bool]:
    """TLS for where the registry leads, and for the registry itself; True is the default."""
    if settings.ca_file is None and settings.cert_file is None:
        return True, True
    where = f"registries.{settings.name}"
    elsewhere, home = _trusting(settings.ca_file, where), _trusting(settings.ca_file, where)
    if settings.cert_file is not None:
        try:
            check_regular(settings.cert_file, settings.key_file)
            home.load_cert_chain(settings.cert_file, settings.key_file)
        except OSError as error:
            raise _unusable(f"{where}.cert_file", settings.cert_file, error) from None
    return elsewhere, home


def _trusting(ca_file: Path | None, where: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            check_regular(ca_file)
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            raise _unusable(f"{where}.ca_file", ca_file, error) from None
    return context


def _unusable(key: str, path: Path, error: OSError) -> ConfigError:
    reason = getattr(error, "reason", None) or error.strerror or "it holds no usable PEM"
    return ConfigError(f"{key}: cannot use {path}: {reason}")

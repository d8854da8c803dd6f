"""One server, asked directly and trusted with nothing: how a probe speaks to a cache.

No proxy, redirect, cookie or decompression comes in between, every answer is bounded in size and
time, and every request says `only-if-cached`. The name is resolved once: all requests go to the
address that was found, so that credentials cannot end up elsewhere.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from prefetch import __version__
from prefetch.credentials.credential import Credential
from prefetch.errors import NetworkError, UsageError
from prefetch.oci.distribution import parse_errors
from prefetch.regular import check_regular
from prefetch.remote.addresses import Reach, literal, reach_of
from prefetch.remote.connections import BROKEN, broken
from prefetch.remote.faults import ERROR_BODY_LIMIT, sanitise, strike

_HEADER_LIMIT: Final = 8190
_MOST_HEADERS: Final = 64
_AT_ONCE: Final = 8
_NEXT_ADDRESS: Final = 0.25
_MAX_TEXT: Final = 1000
_MAX_NAMES: Final = 5
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
_OTHER_NAME: Final = frozenset({62, 64})


class OtherName(Exception):
    """The certificate is trusted, and is for `names` rather than for the host."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(", ".join(names))
        self.names = names


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe over TLS: the system's authorities and those of `ca_file` (PEM).

    `cert_file` and `key_file` are shown to a server that asks for them. Without `verify` anybody
    is believed.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    verify: bool = True

    def context(self, *, check_name: bool = True) -> ssl.SSLContext:
        """A client's TLS. Blocks; raises UsageError for files that cannot be used."""
        context = ssl.create_default_context()
        if self.ca_file is not None:
            try:
                check_regular(self.ca_file)
                context.load_verify_locations(cafile=self.ca_file)
            except OSError as error:
                raise _unusable("--ca-file", self.ca_file, error) from None
        if self.cert_file is not None:
            try:
                check_regular(self.cert_file, self.key_file)
                # Without a password to give, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")
            except (OSError, ValueError) as error:
                raise _unusable("--cert-file and --key-file", self.cert_file, error) from None
        if not (check_name and self.verify):
            context.check_hostname = False
        if not self.verify:
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server has shown, `protocol` (`TLSv1.3`) included.

    `expires` is None for one that was not verified, which tells nothing.
    """

    protocol: str
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `body` is at most what was asked for, `more` says that it was not all.

    `words` are the answer's own about an error, in one line, safe to show; empty for none.
    """

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    more: bool
    words: str

    def header(self, name: str) -> str:
        """A header's value, empty where it is not there."""
        return self.headers.get(name, "")


class DirectServer:
    """A server at `scheme://host:port`; each request and each connection takes `timeout` at most.

    To be connected before it is asked, and closed in the end.
    """

    def __init__(
        self, url: URL, *, trust: Trust, timeout: float, credential: Credential | None = None
    ) -> None:
        self.url = url.origin()
        self.secure = url.scheme == "https"
        self.timeout = timeout
        self.trust = trust
        self.credential = credential
        self._host, self._port = url.raw_host or "", url.port or 0
        self._context = trust.context() if self.secure else None
        self._secrets = _secrets(credential)
        self._address = ""
        self._session: aiohttp.ClientSession | None = None

    @property
    def where(self) -> str:
        """`host:port`, for messages."""
        return f"{self.url.host_subcomponent}:{self._port}"

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way reads what is sent: TLS, or an address of this machine."""
        address = literal(self._address)
        return self.secure or (address is not None and reach_of(address) is Reach.LOOPBACK)

    def clean(self, text: str) -> str:
        """Any text as one line to show, without the password."""
        return sanitise(strike(text, self._secrets), _MAX_TEXT)

    async def connect(self) -> str:
        """Find the name, make a connection; returns the address. Raises NetworkError."""
        try:
            async with asyncio.timeout(self.timeout):
                _, writer = await asyncio.open_connection(
                    self._host, self._port, happy_eyeballs_delay=_NEXT_ADDRESS
                )
        except TimeoutError:
            raise self._too_slow() from None
        except (socket.gaierror, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no name"
            raise NetworkError(f"the name {self._host} is not known: {reason}") from None
        except OSError as error:
            reason = sanitise(error.strerror or str(error))
            raise NetworkError(f"cannot reach {self.where}: {reason}") from None
        self._address = str(writer.get_extra_info("peername")[0])
        writer.transport.abort()
        self._session = self._open_session()
        return self._address

    async def handshake(self) -> Certificate:
        """Speak TLS, and see the certificate.

        Raises NetworkError; OtherName for a certificate that does not name the host; ssl.SSLError.
        """
        try:
            return await self._shake(self._context)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code not in _OTHER_NAME:
                raise
        nameless = await asyncio.to_thread(self.trust.context, check_name=False)
        names: list[str] = []
        await self._shake(nameless, names)
        raise OtherName(tuple(names))

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        limit: int = ERROR_BODY_LIMIT,
        anonymously: bool = True,
    ) -> Reply:
        """One request for a path and query, as they are; `limit` bytes of the answer are read.

        Raises NetworkError, ServerFault for what is no HTTP, RegistryError for TLS that fails.
        """
        if self._session is None:
            raise RuntimeError("not connected")
        url = URL(f"{self.url}{path}", encoded=True)
        sent = {"Cache-Control": "only-if-cached", "Accept": "*/*", **(headers or {})}
        if not anonymously and self.credential is not None and self.is_private:
            sent["Authorization"] = f"Basic {self.credential.basic()}"
        try:
            async with (
                asyncio.timeout(self.timeout),
                self._session.request(method, url, headers=sent, allow_redirects=False) as answer,
            ):
                body = await _read(answer, ERROR_BODY_LIMIT if _failed(answer) else limit)
                return self._reply(answer, body, limit)
        except TimeoutError:
            raise self._too_slow() from None
        except BROKEN as error:
            raise broken(error, url) from None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _reply(self, answer: aiohttp.ClientResponse, body: bytes, limit: int) -> Reply:
        headers = CIMultiDict((k, strike(v, self._secrets)) for k, v in answer.headers.items())
        said = parse_errors(body) if _failed(answer) else []
        words = " ".join(part for part in (said[0].code, said[0].message) if part) if said else ""
        return Reply(
            answer.status,
            CIMultiDictProxy(headers),
            body[:limit],
            len(body) > limit,
            sanitise(strike(words, self._secrets)),
        )

    def _too_slow(self) -> NetworkError:
        return NetworkError(f"{self.where} did not answer within {self.timeout:g} s")

    async def _shake(
        self, context: ssl.SSLContext | None, names: list[str] | None = None
    ) -> Certificate:
        """One handshake; the certificate's names are added to `names`."""
        try:
            async with asyncio.timeout(self.timeout):
                _, writer = await asyncio.open_connection(
                    self._address, self._port, ssl=context, server_hostname=self._host
                )
        except TimeoutError:
            raise self._too_slow() from None
        except ssl.SSLError:
            raise
        except OSError as error:
            reason = sanitise(error.strerror or str(error) or "it was closed")
            raise NetworkError(f"TLS with {self.where} broke off: {reason}") from None
        shown = writer.get_extra_info("peercert") or {}
        protocol = str(writer.get_extra_info("ssl_object").version())
        writer.transport.abort()
        if names is not None:
            names += _names(shown)
        return Certificate(protocol, _expiry(shown))

    def _open_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=_AT_ONCE,
            resolver=_Pinned(self._address),
            ssl=self._context if self._context is not None else True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"prefetch/{__version__}", "Accept-Encoding": "identity"},
            skip_auto_headers=("Content-Type",),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            max_line_size=_HEADER_LIMIT,
            max_field_size=_HEADER_LIMIT,
            max_headers=_MOST_HEADERS,
        )


class _Pinned(AbstractResolver):
    """Gives the one address that was found, whatever the name has become meanwhile."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - it has but one
    ) -> list[ResolveResult]:
        """The address."""
        found = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return [
            ResolveResult(
                hostname=host,
                host=self._address,
                port=port,
                family=found,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing to close."""


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """At most `limit` + 1 bytes; a body that has more takes its connection along."""
    chunks, length = [], 0
    while length <= limit and (chunk := await answer.content.readany()):
        chunks.append(chunk)
        length += len(chunk)
    if length > limit:
        answer.close()
    return b"".join(chunks)[: limit + 1]


def _failed(answer: aiohttp.ClientResponse) -> bool:
    return answer.status >= HTTPStatus.BAD_REQUEST


def _secrets(credential: Credential | None) -> tuple[str, ...]:
    """In which forms an answer might repeat the password, the longest first."""
    if credential is None:
        return ()
    password = credential.password.reveal()
    return (credential.basic(), ascii(password)[1:-1], password)


def _expiry(shown: Mapping[str, Any]) -> datetime | None:
    text = shown.get("notAfter")
    if not isinstance(text, str):
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def _names(shown: Mapping[str, Any]) -> list[str]:
    """The hosts and addresses that a certificate is for."""
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind in _NAMED]
    return [sanitise(str(name), 100) for name in names[:_MAX_NAMES]]


_NAMED: Final = frozenset({"DNS", "IP Address"})


def _unusable(option: str, path: Path, error: Exception) -> UsageError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return UsageError(f"{option}: cannot use {path}: {reason or 'it holds no usable PEM'}")

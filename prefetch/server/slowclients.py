"""Limits for clients that take their time: who holds a connection has to use it.

aiohttp closes connections that idle between requests, but in some of its versions not those that
never send a first one; and it waits without end for a client that takes nothing of an answer which
aiohttp itself sends, or which is left in the buffers of a connection being closed. Here all
connections are looked at from time to time, and these are cut off. A request under way is not: it
may take as long as its client takes something of it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from yarl import URL

from prefetch.clock import Clock

MAX_CONNECTIONS: Final = 4096
"""Connections at once, in each worker."""

MAX_LINE_SIZE: Final = 8190
"""Bytes of a request line; paths and queries are far shorter."""

MAX_FIELD_SIZE: Final = 8190
"""Bytes of a header's name and value; tokens of some registries' come near to it."""

MAX_HEADERS: Final = 64
"""Headers of a request: a dozen from a client, as many from proxies before us."""

_LINGERING = 10.0  # seconds that a body is read on for that nobody has asked for
_LOOKS = 4  # in the time that a client has

# `tcpi_bytes_acked` of Linux' struct tcp_info (linux/tcp.h), since 4.2.
_ACKED_AT = 120
_ACKED = struct.Struct("=Q")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Malformed = Callable[[], web.Response]
"""The answer to a request that cannot be parsed, in place of aiohttp's, which repeats it."""


def bytes_taken(connection: socket.socket) -> int | None:
    """How many bytes the peer's machine has confirmed in all, since the connection was made.

    It grows whenever a client reads, however slowly. Whether a socket can be written to does not:
    the kernel says so only when a third of its buffer, which may hold megabytes, is free. None
    when the socket is not TCP, or the kernel does not tell.
    """
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + _ACKED.size)
    except OSError:
        return None
    if len(told) < _ACKED_AT + _ACKED.size:
        return None
    return int(_ACKED.unpack_from(told, _ACKED_AT)[0])


@dataclass(slots=True)
class _Client:
    """A connection as it was when last looked at.

    `silent_since` is when it was made, until its first request is here. `stuck_since` is when
    `left` was first seen: what has not been taken of what was sent.
    """

    transport: asyncio.Transport
    silent_since: float | None
    stuck_since: float = 0.0
    left: tuple[int, int | None] | None = None


class PatientServer(web.Server):
    """A `web.Server` whose patience has an end.

    A client has `client_timeout` seconds to send a request's head whole, from when it has
    connected or has got its last answer; and it must take something of an answer in as many
    seconds. Up to a quarter more may pass until it is cut off. Beyond `max_connections`, further
    ones are closed at once.

    `counted` is told of each connection that comes (1) or goes (-1); `complained` is given what
    aiohttp would have logged: an `aiohttp.http_exceptions.HttpProcessingError` for a request that
    cannot be parsed, anything else for a bug. `malformed` makes the answer to the former. None
    of them may raise.

    Other keywords are aiohttp's. Over TLS a connection counts when the handshake is done; give
    `ssl_handshake_timeout` to the loop's `create_server`.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        client_timeout: float,
        clock: Clock,
        counted: Callable[[int], object],
        complained: Callable[[BaseException], object],
        malformed: Malformed | None = None,
        max_connections: int = MAX_CONNECTIONS,
        **settings: Any,
    ) -> None:
        super().__init__(
            self._first_seen,
            keepalive_timeout=client_timeout,
            lingering_time=min(client_timeout, _LINGERING),
            max_line_size=MAX_LINE_SIZE,
            max_field_size=MAX_FIELD_SIZE,
            max_headers=MAX_HEADERS,
            access_log=None,
            logger=_Complaints(complained),
            **settings,
        )
        self._handler = handler
        self._malformed = malformed
        self._timeout = client_timeout
        self._clock = clock
        self._counted = counted
        self._max = max_connections
        self._clients: dict[object, _Client] = {}
        self._next_look: asyncio.TimerHandle | None = None

    def __call__(self) -> web.RequestHandler:
        """aiohttp: what handles a new connection."""
        return _Connection(self, self._malformed, loop=asyncio.get_running_loop(), **self._kwargs)

    def _make_request(self, message: RawRequestMessage, *arguments: Any) -> web.BaseRequest:
        if not message.path:
            # `CONNECT` and no target: aiohttp's parser in C lets it pass, with no path, and with
            # the URL of the connection's request before, if any.
            message = message._replace(path="", url=URL())
        return super()._make_request(message, *arguments)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """aiohttp: a client has connected."""
        super().connection_made(handler, transport)
        self._counted(1)
        if len(self._clients) >= self._max:
            # Not at once: aiohttp has yet to start what it expects to be told of the end.
            asyncio.get_running_loop().call_soon(transport.abort)
        self._clients[handler] = _Client(transport, self._clock.monotonic())
        if self._next_look is None:
            self._look_later()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """aiohttp: a client has gone."""
        super().connection_lost(handler, exc)
        if self._clients.pop(handler, None) is not None:
            self._counted(-1)

    @property
    def connected(self) -> int:
        """How many connections there are, those included that are being closed."""
        return len(self._clients)

    def _first_seen(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        client = self._clients.get(request.protocol)
        if client is not None:
            client.silent_since = None
        return self._handler(request)

    def _look_later(self) -> None:
        # The timer stands still while there are no connections.
        loop = asyncio.get_running_loop()
        self._next_look = loop.call_later(self._timeout / _LOOKS, self._look)

    def _look(self) -> None:
        now = self._clock.monotonic()
        for client in list(self._clients.values()):
            if self._has_dawdled(client, now):
                client.transport.abort()
        self._next_look = None
        if self._clients:
            self._look_later()

    def _has_dawdled(self, client: _Client, now: float) -> bool:
        if client.silent_since is not None and now - client.silent_since >= self._timeout:
            return True
        waiting = client.transport.get_write_buffer_size()
        if waiting == 0 and not client.transport.is_closing():
            client.left = None
            return False
        connection = client.transport.get_extra_info("socket")
        left = (waiting, None if connection is None else bytes_taken(connection))
        if left != client.left:
            client.left, client.stuck_since = left, now
            return False
        return now - client.stuck_since >= self._timeout


class _Connection(web.RequestHandler):
    """aiohttp's handler of one connection, with an answer of ours to what cannot be parsed."""

    __slots__ = ("_malformed",)

    def __init__(self, server: web.Server, malformed: Malformed | None, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._malformed = malformed

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp: the answer to a request that its parser (400) or its handler has failed at."""
        if self.transport is None:
            # Nobody is there to be told, and aiohttp would look for the client's address.
            raise ConnectionResetError("the client has gone")
        response = super().handle_error(request, status, exc, message)
        if self._malformed is None or status != HTTPStatus.BAD_REQUEST:
            return response
        response = self._malformed()
        response.force_close()
        return response


class _Complaints(logging.Logger):
    """Logs nowhere: in aiohttp's own log, every malformed request is a stack trace."""

    def __init__(self, complained: Callable[[BaseException], object]) -> None:
        super().__init__(__name__)
        self._complained = complained

    def handle(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._complained(record.exc_info[1])

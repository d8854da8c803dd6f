"""The sockets that servers listen on."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from prefetch.errors import UsageError
from prefetch.server.settings import Listen

_BACKLOG: Final = 1024
_LAST_PORT: Final = 65535


def listen(host: str, port: int, count: int = 1) -> list[socket.socket]:
    """Listening TCP sockets on one port, non-blocking: one for each of `count` workers.

    Port 0 takes a free one; an empty host is every address, of both families where there are two.
    The kernel shares connections out among the sockets (socket(7), SO_REUSEPORT). They belong to
    the supervisor: a connection that a dead worker has not accepted waits for its successor.
    Raises UsageError.
    """
    if not 0 <= port <= _LAST_PORT:
        raise UsageError(f"cannot listen on {Listen(host, port)}: no such port")
    try:
        # The first is exclusive, so that two servers never share a port without knowing.
        first = _listening(host, port, shared=False)
        if count == 1:
            return [first]
        found = first.getsockname()[1]
        first.close()
        return [_listening(host, found, shared=True) for _ in range(count)]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot listen on {Listen(host, port)}: {_reason(error)}") from None


def _listening(host: str, port: int, *, shared: bool) -> socket.socket:
    if host in ("", "::") and socket.has_dualstack_ipv6():
        sock = socket.create_server(
            ("::", port),
            family=socket.AF_INET6,
            dualstack_ipv6=True,
            backlog=_BACKLOG,
            reuse_port=shared,
        )
    else:
        family, address = _address(host, port)
        sock = socket.create_server(address, family=family, backlog=_BACKLOG, reuse_port=shared)
    sock.setblocking(False)
    return sock


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The first address that the host's name has. Raises OSError or UnicodeError."""
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    family, _, _, _, address = found[0]
    return family, (str(address[0]), port)


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return "no such host"
    number = error.errno if isinstance(error, OSError) else None
    reasons = {
        errno.EADDRINUSE: "the address is in use",
        errno.EACCES: "no permission; ports below 1024 take privileges",
        errno.EADDRNOTAVAIL: "it is no address of this machine",
    }
    return reasons.get(number or 0) or os.strerror(number or errno.EINVAL)

"""TLS for the server, with a certificate that can be renewed while it runs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prefetch.clock import Clock
from prefetch.errors import ConfigError
from prefetch.server.settings import FileVersion, Tls, file_version

_LOOK_AGAIN: Final = 1.0
_MAX_FILE: Final = 1 << 20
_NO_PAIR: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})


class ReloadingContext:
    """A server's TLS: 1.2 or later, HTTP/1.1, and the certificate that is in the files now.

    `context` is what a server listens with. Each handshake is handed on to a context that was made
    whole, from both files, before it was first used: a handshake under way never sees half of a
    change, and nothing of the old pair stays behind, as it does in a context that is loaded twice
    when the kind of key changes (OpenSSL keeps one certificate for each kind).

    Reads the files at once, on the caller's thread. Raises ConfigError, one line, for files that
    cannot be used; once it runs, such files change nothing, and `warn` is given one line about
    them.
    """

    def __init__(self, files: Tls, *, clock: Clock, warn: Callable[[str], None]) -> None:
        self._files = files
        self._clock = clock
        self._warn = warn
        self._version = _version(files)
        self._fault: str | None = None
        self.context = _load(files)
        self._current = self.context
        self.context.sni_callback = self._hand_on

    async def watch(self) -> None:
        """Look at the files once a second, for ever."""
        while True:
            await self._clock.sleep(_LOOK_AGAIN)
            await self.refresh()

    async def refresh(self) -> None:
        """Load the files if they have changed.

        The two cannot be replaced at the same instant: a pair that does not fit is told of only
        when it still does not at the next look.
        """
        version = await asyncio.to_thread(_version, self._files)
        if version == self._version:
            self._tell()
            return
        try:
            loaded = await asyncio.to_thread(_load, self._files)
        except ConfigError as error:
            self._fault = str(error)
        else:
            self._current, self._fault = loaded, None
        self._version = version

    def _tell(self) -> None:
        if self._fault is not None:
            self._warn(f"the certificate stays as it was: {self._fault}")
            self._fault = None

    def _hand_on(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        """Called in each handshake, whether the client names a server or not."""
        connection.context = self._current


def _load(files: Tls) -> ssl.SSLContext:
    """A context with the pair as the files have it. Blocks; raises ConfigError."""
    certificate = _read("cert_file", files.cert_file)
    key = _read("key_file", files.key_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password to give, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(files.cert_file, files.key_file, password=lambda: "")
    except (OSError, ValueError) as error:
        raise _unusable(files, certificate, key, error) from None
    return context


def _unusable(files: Tls, certificate: bytes, key: bytes, error: Exception) -> ConfigError:
    """OpenSSL has one error for nearly everything: find out which file is at fault."""
    if not _is_certificate(certificate):
        return _fault("cert_file", files.cert_file, "it holds no certificate in PEM")
    if getattr(error, "reason", None) in _NO_PAIR:
        return _fault("key_file", files.key_file, f"it is not the key of {files.cert_file}")
    if b"ENCRYPTED" in key:
        return _fault("key_file", files.key_file, "it is encrypted")
    return _fault("key_file", files.key_file, "it holds no private key in PEM")


def _is_certificate(data: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(
            cadata=data.decode("ascii", "ignore")
        )
    except (OSError, ValueError):
        return False
    return True


def _read(key: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE)
    except OSError as error:
        raise _fault(key, path, error.strerror or "it cannot be read") from None


def _fault(key: str, path: Path, reason: str) -> ConfigError:
    return ConfigError(f"serve.tls.{key}: cannot use {path}: {reason}")


def _version(files: Tls) -> tuple[FileVersion, FileVersion]:
    return file_version(files.cert_file), file_version(files.key_file)

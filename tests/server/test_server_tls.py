"""The server's certificate: renewed under way, and kept when what comes next is broken."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from prefetch.errors import ConfigError
from prefetch.server.settings import Tls
from prefetch.server.tls import ReloadingContext
from support.clock import ManualClock


class Authority:
    """Issues certificates into the files of a server, and trusts them as a client."""

    def __init__(self, directory: Path) -> None:
        self.files = Tls(directory / "cert.pem", directory / "key.pem")
        self.ca = trustme.CA()
        self.warnings: list[str] = []

    def issue(self, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> trustme.LeafCert:
        return self.ca.issue_cert("localhost", "127.0.0.1", key_type=key_type)

    def install(self, pair: trustme.LeafCert) -> int:
        """Put a pair into the files; returns its serial number."""
        self.install_certificate(pair)
        self.install_key(pair)
        return serial_of(pair)

    def install_certificate(self, pair: trustme.LeafCert) -> None:
        chain = b"".join(part.bytes() for part in pair.cert_chain_pems)
        self.files.cert_file.write_bytes(chain)

    def install_key(self, pair: trustme.LeafCert) -> None:
        self.files.key_file.write_bytes(pair.private_key_pem.bytes())

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def load(self) -> ReloadingContext:
        return ReloadingContext(self.files, clock=ManualClock(), warn=self.warnings.append)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serial_of(pair: trustme.LeafCert) -> int:
    return x509.load_pem_x509_certificate(pair.cert_chain_pems[0].bytes()).serial_number


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that sends back every line; yields its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


class Connection:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.tls: ssl.SSLObject = writer.get_extra_info("ssl_object")

    @property
    def serial(self) -> int:
        """The serial number of the certificate that the server has shown."""
        shown = self.tls.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number

    async def echoes(self) -> bool:
        self._writer.write(b"hello\n")
        return await self._reader.readline() == b"hello\n"

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def connected(
    port: int, context: ssl.SSLContext, name: str = "localhost"
) -> AsyncIterator[Connection]:
    streams = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    connection = Connection(*streams)
    try:
        yield connection
    finally:
        await connection.close()


async def shown(port: int, authority: Authority, name: str = "localhost") -> int:
    async with connected(port, authority.client(), name) as connection:
        assert await connection.echoes()
        return connection.serial


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1"]
)  # no server name is sent for the latter
async def test_new_handshakes_get_the_new_certificate(authority: Authority, name: str) -> None:
    old = authority.install(authority.issue())
    reloading = authority.load()
    async with (
        listening(reloading.context) as port,
        connected(port, authority.client(), name) as before,
    ):
        assert before.serial == old
        new = authority.install(authority.issue())
        assert await shown(port, authority, name) == old
        await reloading.refresh()
        assert await shown(port, authority, name) == new
        assert await before.echoes()  # what is open stays open
    assert authority.warnings == []


async def test_watching_finds_what_has_changed(authority: Authority) -> None:
    authority.install(authority.issue())
    reloading = authority.load()
    async with listening(reloading.context) as port:
        watching = asyncio.create_task(reloading.watch())
        new = authority.install(authority.issue())
        async with asyncio.timeout(30):
            while await shown(port, authority) != new:
                await asyncio.sleep(0.01)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching


async def test_files_are_looked_at_once_a_second(authority: Authority) -> None:
    authority.install(authority.issue())
    clock = ManualClock()
    sleeps: list[float] = []

    class Sleepless(ManualClock):
        async def sleep(self, seconds: float) -> None:
            sleeps.append(seconds)
            await super().sleep(seconds)

    reloading = ReloadingContext(authority.files, clock=Sleepless(clock.now()), warn=print)
    watching = asyncio.create_task(reloading.watch())
    while len(sleeps) < 3:
        await asyncio.sleep(0)
    watching.cancel()
    assert set(sleeps) == {1.0}


async def test_another_kind_of_key_leaves_nothing_of_the_first(authority: Authority) -> None:
    old = authority.install(authority.issue(trustme.KeyType.RSA))
    only_rsa = authority.client()
    only_rsa.maximum_version = ssl.TLSVersion.TLSv1_2
    only_rsa.set_ciphers("aRSA")
    reloading = authority.load()
    async with listening(reloading.context) as port:
        async with connected(port, only_rsa) as connection:
            assert connection.serial == old
        new = authority.install(authority.issue(trustme.KeyType.ECDSA))
        await reloading.refresh()
        assert await shown(port, authority) == new
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(port, only_rsa):
                pass


def other_key(authority: Authority) -> None:
    authority.install_key(authority.issue())


def other_kind_of_key(authority: Authority) -> None:
    authority.install_key(authority.issue(trustme.KeyType.RSA))


def encrypted_key(authority: Authority) -> None:
    key = serialization.load_pem_private_key(authority.files.key_file.read_bytes(), None)
    authority.files.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def no_certificate(authority: Authority) -> None:
    authority.files.cert_file.write_text("-----BEGIN CERTIFICATE-----\nMII")


def empty_certificate(authority: Authority) -> None:
    authority.files.cert_file.write_text("")


def no_key(authority: Authority) -> None:
    authority.files.key_file.write_bytes(authority.files.cert_file.read_bytes())


def missing_certificate(authority: Authority) -> None:
    authority.files.cert_file.unlink()


def missing_key(authority: Authority) -> None:
    authority.files.key_file.unlink()


def directory_for_a_key(authority: Authority) -> None:
    authority.files.key_file.unlink()
    authority.files.key_file.mkdir()


BROKEN: list[tuple[Callable[[Authority], None], str]] = [
    (other_key, "key_file: cannot use {key}: it is not the key of {cert}"),
    (other_kind_of_key, "key_file: cannot use {key}: it is not the key of {cert}"),
    (encrypted_key, "key_file: cannot use {key}: it is encrypted"),
    (no_certificate, "cert_file: cannot use {cert}: it holds no certificate in PEM"),
    (empty_certificate, "cert_file: cannot use {cert}: it holds no certificate in PEM"),
    (no_key, "key_file: cannot use {key}: it holds no private key in PEM"),
    (missing_certificate, "cert_file: cannot use {cert}: No such file or directory"),
    (missing_key, "key_file: cannot use {key}: No such file or directory"),
    (directory_for_a_key, "key_file: cannot use {key}: Is a directory"),
]


def told(message: str, files: Tls) -> str:
    return "serve.tls." + message.format(cert=files.cert_file, key=files.key_file)


@pytest.mark.parametrize(("spoil", "message"), BROKEN)
def test_files_that_cannot_be_used_are_refused(
    authority: Authority, spoil: Callable[[Authority], None], message: str
) -> None:
    authority.install(authority.issue())
    spoil(authority)
    with pytest.raises(ConfigError) as caught:
        authority.load()
    assert str(caught.value) == told(message, authority.files)


@pytest.mark.parametrize(("spoil", "message"), BROKEN)
async def test_a_broken_pair_keeps_the_old_one_and_is_told_of_once(
    authority: Authority, spoil: Callable[[Authority], None], message: str
) -> None:
    old = authority.install(authority.issue())
    reloading = authority.load()
    async with listening(reloading.context) as port:
        spoil(authority)
        for _ in range(4):
            await reloading.refresh()
            assert await shown(port, authority) == old
        assert authority.warnings == [
            f"the certificate stays as it was: {told(message, authority.files)}"
        ]
        if authority.files.key_file.is_dir():
            authority.files.key_file.rmdir()
        new = authority.install(authority.issue())
        await reloading.refresh()
        assert await shown(port, authority) == new
        assert len(authority.warnings) == 1


async def test_half_a_renewal_is_not_worth_a_line(authority: Authority) -> None:
    old = authority.install(authority.issue())
    reloading = authority.load()
    async with listening(reloading.context) as port:
        pair = authority.issue()
        authority.install_certificate(pair)
        await reloading.refresh()
        assert await shown(port, authority) == old
        authority.install_key(pair)
        await reloading.refresh()
        await reloading.refresh()
        assert await shown(port, authority) == serial_of(pair)
    assert authority.warnings == []


async def test_links_are_followed_as_secrets_are_mounted(
    authority: Authority, tmp_path: Path
) -> None:
    mounts = [Authority(tmp_path / name) for name in ("first", "second")]
    serials = []
    for mount in mounts:
        mount.files.cert_file.parent.mkdir()
        serials.append(mount.install(authority.issue()))
    link = tmp_path / "current"
    link.symlink_to("first")
    authority.files = replace(
        authority.files, cert_file=link / "cert.pem", key_file=link / "key.pem"
    )
    reloading = authority.load()
    async with listening(reloading.context) as port:
        assert await shown(port, authority) == serials[0]
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").rename(link)
        await reloading.refresh()
        assert await shown(port, authority) == serials[1]


async def test_what_is_spoken(authority: Authority) -> None:
    authority.install(authority.issue())
    reloading = authority.load()
    client = authority.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    async with listening(reloading.context) as port:
        for _ in range(2):
            async with connected(port, client) as connection:
                assert connection.tls.selected_alpn_protocol() == "http/1.1"
                assert connection.tls.version() == "TLSv1.3"
            authority.install(authority.issue())
            await reloading.refresh()
    assert reloading.context.minimum_version == ssl.TLSVersion.TLSv1_2

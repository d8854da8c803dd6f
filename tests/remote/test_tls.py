"""TLS: own authorities, client certificates, and what goes wrong with them."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from remote_support import Connect, Serve, found

from prefetch.errors import ConfigError, NetworkError, RegistryError
from prefetch.oci.reference import Repository


class Authority:
    """A certificate authority with its files."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.file = directory / "ca.pem"
        self.ca.cert_pem.write_to_path(self.file)
        self.client_file = directory / "client.pem"
        self.client_key = directory / "client.key"
        issued = self.ca.issue_cert("client@example.com")
        issued.cert_chain_pems[0].write_to_path(self.client_file)
        issued.private_key_pem.write_to_path(self.client_key)

    def server(self, *, ask: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        if ask:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({}) if request.path == "/v2/" else found()


async def test_an_authority_of_ones_own(
    connect: Connect, serve: Serve, authority: Authority
) -> None:
    server = await serve(answer, tls=authority.server())
    client = (await connect(server.url, ca_file=authority.file)).client
    resolved = await client.resolve(Repository(client.settings.name, "team/app"), "latest")
    assert resolved.digest is not None


async def test_a_certificate_that_is_not_trusted(
    connect: Connect, serve: Serve, authority: Authority
) -> None:
    server = await serve(answer, tls=authority.server())
    client = (await connect(server.url)).client
    with pytest.raises(RegistryError, match=r"is not trusted: .*name its authority with ca_file"):
        await client.resolve(Repository(client.settings.name, "team/app"), "latest")
    assert client.requests == 1


async def test_tls_with_a_server_that_has_none(connect: Connect, serve: Serve) -> None:
    server = await serve(answer)
    client = (await connect(server.url.replace("http:", "https:"))).client
    with pytest.raises(RegistryError, match=r"an endpoint without TLS is written http://"):
        await client.resolve(Repository(client.settings.name, "team/app"), "latest")


async def test_a_client_certificate(connect: Connect, serve: Serve, authority: Authority) -> None:
    server = await serve(answer, tls=authority.server(ask=True))
    files = {"cert_file": authority.client_file, "key_file": authority.client_key}
    client = (await connect(server.url, ca_file=authority.file, **files)).client
    resolved = await client.resolve(Repository(client.settings.name, "team/app"), "latest")
    assert resolved.digest is not None
    without = (await connect(server.url, ca_file=authority.file)).client
    with pytest.raises((RegistryError, NetworkError)):
        await without.resolve(Repository(client.settings.name, "team/app"), "latest")


async def test_a_client_certificate_is_shown_to_the_registry_alone(
    connect: Connect, serve: Serve, authority: Authority
) -> None:
    shown = []

    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        shown.append(request.transport.get_extra_info("peercert"))
        return found()

    async def redirect(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        raise web.HTTPTemporaryRedirect(f"{other.url}/elsewhere")

    curious = authority.server(ask=True)
    curious.verify_mode = ssl.CERT_OPTIONAL
    other = await serve(elsewhere, tls=curious)
    server = await serve(redirect, tls=authority.server(ask=True))
    files = {"cert_file": authority.client_file, "key_file": authority.client_key}
    client = (await connect(server.url, ca_file=authority.file, **files)).client
    await client.resolve(Repository(client.settings.name, "team/app"), "latest")
    assert shown in ([None], [{}])


@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
async def test_files_that_cannot_be_used(
    connect: Connect, tmp_path: Path, authority: Authority, key: str
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    for path in (garbage, tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match=rf"registries\.127\.0\.0\.1:1\.{key}: cannot use"):
            await connect("https://127.0.0.1:1", **{key: path, "key_file": authority.client_key})

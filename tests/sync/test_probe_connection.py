"""The connection, who asks, and whether it is `prefetch serve`: before any image is asked for."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from fake_cache import (
    API,
    REFERENCE,
    FakeCache,
    everything,
    failed,
    not_here,
    probe,
    running,
    step,
)

from prefetch.demo.images import OCI_INDEX, document, manifest
from prefetch.remote.direct import Trust
from support.processes import free_port

APP = manifest("app")
PASSWORD = "pässword-5b1c9e"


def cache_of(**settings: Any) -> FakeCache:
    return FakeCache({REFERENCE: APP}, **settings)


def content(cache: FakeCache) -> list[str]:
    """The requests for images."""
    return [line for line in cache.seen if APP.digest in line or "/manifests/1" in line]


async def test_nobody_listens() -> None:
    report = await probe(f"http://127.0.0.1:{free_port()}", REFERENCE)
    ok, message = step(report, "address")
    assert not ok
    assert "Connect" in message
    assert (report.ok, report.clients, len(report.connection)) == (False, (), 1)


async def test_a_name_that_nobody_has() -> None:
    report = await probe("http://cache.invalid:5000", REFERENCE)
    ok, message = step(report, "address")
    assert not ok
    assert message.startswith("the name cache.invalid is not known")


# TLS


class Authority:
    """Issues what servers show."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.file = directory / "ca.pem"
        self.ca.cert_pem.write_to_path(self.file)

    @property
    def trust(self) -> Trust:
        return Trust(ca_file=self.file)

    def server(self, *names: str, **settings: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert(*(names or ("127.0.0.1",)), **settings).configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_certificate_and_how_long_it_is_valid(authority: Authority) -> None:
    until = datetime.now(UTC) + timedelta(days=30, hours=1)
    async with running(cache_of(), authority.server(not_after=until)) as cache:
        report = await probe(cache.url, REFERENCE, trust=authority.trust)
    assert report.ok
    assert step(report, "tls") == (True, "TLSv1.3, the certificate is valid for 30 days")


@pytest.mark.parametrize(
    ("names", "expired", "trusted", "words"),
    [
        ([], False, False, "is not trusted: unable to get local issuer certificate"),
        ([], True, True, "is not trusted: certificate has expired"),
        (["cache.test", "10.0.0.1"], False, True, "is not for 127.0.0.1, but for cache.test, 10."),
    ],
)
async def test_certificates_that_will_not_do(
    authority: Authority, names: list[str], expired: bool, trusted: bool, words: str
) -> None:
    settings: dict[str, Any] = {}
    if expired:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        settings = {"not_before": yesterday - timedelta(days=9), "not_after": yesterday}
    trust = authority.trust if trusted else Trust()
    async with running(cache_of(), authority.server(*names, **settings)) as cache:
        report = await probe(cache.url, REFERENCE, trust=trust)
        anyhow = await probe(cache.url, REFERENCE, trust=Trust(verify=False))
    ok, message = step(report, "tls")
    assert not ok
    assert words in message
    assert (report.clients, step(anyhow, "tls")) == (
        (),
        (True, "TLSv1.3, the certificate is not checked"),
    )
    assert anyhow.ok


async def test_a_client_certificate(authority: Authority, tmp_path: Path) -> None:
    context = authority.server()
    authority.ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    issued = authority.ca.issue_cert("node.test")
    cert_file, key_file = tmp_path / "client.pem", tmp_path / "client.key"
    issued.cert_chain_pems[0].write_to_path(cert_file)
    issued.private_key_pem.write_to_path(key_file)
    async with running(cache_of(), context) as cache:
        shown = await probe(cache.url, REFERENCE, trust=Trust(authority.file, cert_file, key_file))
        without = await probe(cache.url, REFERENCE, trust=authority.trust)
    assert shown.ok
    assert not without.ok
    assert without.clients == ()


async def test_schemes_that_are_mixed_up(authority: Authority) -> None:
    async with running(cache_of(), authority.server()) as cache:
        report = await probe(cache.url.replace("https:", "http:"), REFERENCE)
    ok, message = step(report, "api")
    assert not ok
    assert "https://" in message
    async with running(cache_of()) as cache:
        report = await probe(cache.url.replace("http:", "https:"), REFERENCE)
    ok, message = step(report, "tls")
    assert not ok
    assert "a cache without TLS is http://" in message


# The API


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (web.Response(status=404, text="nothing here"), "/v2/ is 404: there is no registry here"),
        (web.Response(status=400, text="HTTP to HTTPS"), "here (a cache with TLS is https://)"),
        (
            web.Response(text="<html><body>Welcome!</body></html>", content_type="text/html"),
            "200, a web page: there is no registry here",
        ),
        (
            web.Response(status=401, headers={"WWW-Authenticate": 'Bearer realm="http://x/"'}),
            "names bearer: a cache asks for Basic",
        ),
        (web.Response(status=401), "names no way to show them"),
        (
            web.Response(status=308, headers={"Location": "https://evil.example/v2/?a=b"}),
            "308, a redirect to https://evil.example/v2/, which is not followed",
        ),
        (
            web.json_response(
                {"errors": [{"code": "X", "message": "\x1b]0;evil\x07"}]}, status=500
            ),
            "500, X ]0;evil: there is no registry here",
        ),
    ],
    ids=str,
)
async def test_what_is_no_registry(answer: web.Response, words: str) -> None:
    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        return answer if request.path == "/v2/" else None

    async with running(cache_of(spoil=spoil)) as cache:
        report = await probe(cache.url, REFERENCE)
    ok, message = step(report, "api")
    assert not ok
    assert words in message
    assert message.isprintable()
    assert report.clients == ()
    assert cache.seen == ["GET /v2/"]


async def test_what_does_not_speak_http() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"\x1b[2J220 mail.example ESMTP\r\n" * 10)
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    async with server:
        report = await probe(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", REFERENCE)
    ok, message = step(report, "api")
    assert not ok
    assert "sent no valid HTTP answer" in message
    assert message.isprintable()


# Credentials


async def test_credentials_are_shown_when_they_are_asked_for() -> None:
    async with running(cache_of(password=PASSWORD)) as cache:
        report = await probe(cache.url, REFERENCE, password=PASSWORD)
    assert report.ok
    assert step(report, "credentials") == (True, "accepted for alice")
    assert "Authorization" not in cache.headers[0]
    assert all("Authorization" in sent for sent in cache.headers[1:])


async def test_and_not_when_they_are_not() -> None:
    async with running(cache_of()) as cache:
        report = await probe(cache.url, REFERENCE, password=PASSWORD)
    assert report.ok
    assert step(report, "credentials") == (True, "none are asked for; those given are not sent")
    assert not [sent for sent in cache.headers if "Authorization" in sent]


async def test_wrong_credentials_are_shown_once() -> None:
    async with running(cache_of(password="another-one")) as cache:
        report = await probe(cache.url, REFERENCE, password=PASSWORD)
    ok, message = step(report, "credentials")
    assert (ok, report.ok) == (False, False)
    assert message == "not accepted for alice (401): check the name and the password"
    assert len([sent for sent in cache.headers if "Authorization" in sent]) == 1
    # Images are asked for all the same: some are for everybody.
    assert [client.client for client in report.clients if client.ok] == ["containerd", "podman"]


async def test_without_credentials_a_docker_daemon_gives_up() -> None:
    async with running(cache_of(password=PASSWORD)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert report.connected
    assert [client for client, _ in failed(report)] == ["docker", "path"]
    for _, check in failed(report):
        assert (check.step, check.status) == ("ping", 401)
        assert "--username" in check.message


@pytest.mark.parametrize("login", [None, PASSWORD])
async def test_what_is_not_here_may_be_private(login: str | None) -> None:
    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        return not_here() if "/manifests/1" in request.path else None

    async with running(cache_of(password=PASSWORD, spoil=spoil)) as cache:
        report = await probe(cache.url, REFERENCE, password=login)
    words = "or it is private: --username" if login is None else "private, and not for alice"
    found = [check.message for client, check in failed(report) if check.step == "resolve"]
    assert found
    assert all(words in message for message in found)


async def test_a_password_is_never_repeated() -> None:
    """By a server that says whatever it has heard, wherever that would be shown."""
    encoded = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()

    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        if "Authorization" not in request.headers or request.path in ("/v2/", "/readyz"):
            return None
        if "probe.invalid" in request.path:
            return None
        said = f"you said {PASSWORD} {encoded} {PASSWORD!a}"
        if request.path.startswith("/docker.io/"):
            return web.Response(headers={"Content-Encoding": encoded, **API})
        if "ns" in request.query:
            return web.Response(headers={"Content-Type": encoded, **API})
        if request.path.startswith("/v2/docker.io/"):
            body = {"schemaVersion": 2, "layers": [], "mediaType": encoded}
            return web.json_response(body, content_type=APP.media_type)
        if request.path.startswith("/v2/library/"):
            location = f"http://{encoded}.example/{encoded}"
            return web.Response(status=302, headers={"Location": location})
        errors = {"errors": [{"code": encoded, "message": said}]}
        return web.json_response(errors, status=400, headers=API)

    async with running(cache_of(password=PASSWORD, spoil=spoil)) as cache:
        report = await probe(cache.url, REFERENCE, password=PASSWORD)
        listed = await probe(cache.url, password=PASSWORD)
    assert len(failed(report)) == 4
    for shown in (everything(report), everything(listed)):
        for secret in (PASSWORD, encoded, encoded.lower(), ascii(PASSWORD)[1:-1]):
            assert secret not in shown
    assert everything(report).count("***") >= 4


# Is it `prefetch serve`?


@pytest.mark.parametrize(
    "ready",
    [
        (404, "404 page not found"),
        (200, "OK"),
        (200, "ready\nand more"),
        (500, "ready"),
        (200, "not ready: " + "x" * 5000),
        (200, "<html>ready</html>"),
    ],
)
async def test_a_stranger_is_asked_for_nothing(ready: tuple[int, str]) -> None:
    async with running(cache_of(ready=ready)) as cache:
        report = await probe(cache.url, REFERENCE)
        assert content(cache) == []
        assert "probe.invalid" not in "".join(cache.seen)
        anyhow = await probe(cache.url, REFERENCE, any_registry=True)
    ok, message = step(report, "ready")
    assert not ok
    assert "no image is asked for (--any-registry asks all the same)" in message
    assert report.clients == ()
    assert anyhow.ok
    assert "asked all the same" in step(anyhow, "ready")[1]


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=404, headers=API),
        web.Response(status=200, headers=API),
        web.Response(status=504, text="<html>", content_type="text/html"),
    ],
    ids=str,
)
async def test_what_does_not_heed_only_if_cached_is_asked_for_nothing(
    answer: web.Response,
) -> None:
    """It says that it is ready, as `serve` does; but a probe could cost a pull."""

    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        return answer if "probe.invalid" in request.path else None

    async with running(cache_of(spoil=spoil)) as cache:
        report = await probe(cache.url, REFERENCE)
    ok, message = step(report, "only-if-cached")
    assert not ok
    assert "drops the Cache-Control of requests" in message
    assert (report.clients, content(cache)) == ((), [])


@pytest.mark.parametrize(
    "reason", ["draining", "not ready: STATE_LOCKED", "not ready: the database does not answer"]
)
async def test_one_that_is_not_ready_says_why(reason: str) -> None:
    async with running(cache_of(ready=(503, reason))) as cache:
        report = await probe(cache.url, REFERENCE)
    ok, message = step(report, "ready")
    assert not ok
    assert f"/readyz is 503: {reason} (" in message
    # What is warm is served all the same.
    assert [client.ok for client in report.clients] == [True] * 4
    assert not report.ok


async def test_one_that_is_ready_and_not_alive() -> None:
    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        return web.Response(status=500) if request.path == "/healthz" else None

    async with running(cache_of(spoil=spoil)) as cache:
        report = await probe(cache.url, REFERENCE)
    assert step(report, "alive") == (False, "/healthz is 500")


# What the cache lists


async def listed(cache: FakeCache) -> list[str]:
    """What is chosen of it."""
    report = await probe(cache.url)
    [containerd] = [client for client in report.clients if client.client == "containerd"]
    return [pulled.reference for pulled in containerd.pulled]


async def test_some_of_what_is_listed_is_asked_for() -> None:
    names = [f"docker.io/library/a{number}:{tag}" for number in range(9) for tag in ("1", "2")]
    names += ["quay.io/org/tool:9", "localhost:5000/x:1", f"docker.io/library/a0:sha256-{'0' * 64}"]
    async with running(FakeCache(dict.fromkeys(names, APP))) as cache:
        found = await listed(cache)
    assert len(found) == 5
    assert {"quay.io/org/tool:9", "localhost:5000/x:1"} < set(found)
    assert len({name.rpartition(":")[0] for name in found}) == 5


async def test_several_tags_where_there_are_few_repositories() -> None:
    names = [f"docker.io/library/a:{tag}" for tag in "123456"] + ["docker.io/library/b:1"]
    async with running(FakeCache(dict.fromkeys(names, APP))) as cache:
        found = await listed(cache)
    assert len(found) == 5
    assert "docker.io/library/b:1" in found


async def test_signatures_are_not_taken_for_images() -> None:
    tags = ["1", f"sha256-{'0' * 64}", f"sha256-{'0' * 64}.sig", f"sha512-{'0' * 64}"]
    images = {f"docker.io/library/app:{tag}": APP for tag in tags}
    async with running(FakeCache(images)) as cache:
        assert await listed(cache) == [REFERENCE]


@pytest.mark.parametrize(
    "catalog", [{"repositories": []}, {"repositories": None}, {}, {"repositories": "x"}]
)
async def test_an_empty_cache_is_no_fault(catalog: Any) -> None:
    async with running(cache_of(catalog=catalog)) as cache:
        report = await probe(cache.url)
    assert report.ok
    assert report.clients == ()
    assert step(report, "catalog")[1].startswith("the cache lists no image")


async def test_what_is_no_name_is_not_asked_for() -> None:
    names = ["../../etc", "docker.io/library/app", "UPPER/x", "a b", "\x1b[31m", 7, None, "x" * 999]
    async with running(cache_of(catalog={"repositories": names})) as cache:
        assert await listed(cache) == [REFERENCE]
    assert not [line for line in cache.seen if ".." in line or "\x1b" in line]


def list_of(data: bytes, status: int = 200) -> web.Response:
    return web.Response(body=data, status=status, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"[]", 200, "the list makes no sense"),
        (b"{" * 100_000, 200, "the list makes no sense"),
        (b'{"repositories":["' + b"x" * (2 << 20) + b'"]}', 200, "more than 1048576 bytes"),
        (b"", 404, "there is no such thing"),
        (b"", 403, "refused"),
    ],
)
async def test_a_list_that_cannot_be_had(data: bytes, status: int, words: str) -> None:
    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        return list_of(data, status) if "_catalog" in request.path else None

    async with running(cache_of(spoil=spoil)) as cache:
        report = await probe(cache.url)
    [error] = report.errors
    assert error.reference is None
    assert error.message.startswith("it does not tell what it has, name references: ")
    assert words in error.message
    assert (report.ok, report.connected, report.clients) == (False, True, ())


async def test_references_that_are_none() -> None:
    async with running(cache_of()) as cache:
        report = await probe(cache.url, "app:1", "http://x/y", "docker.io/library/app:1")
        alone = await probe(cache.url, "Not/Valid/\x1b[2J")
    [error] = report.errors
    assert error.reference == "http://x/y"
    assert [len(client.pulled) for client in report.clients] == [1] * 4
    assert not report.ok
    assert (alone.ok, alone.clients, len(alone.errors)) == (False, (), 1)


# Time


@asynccontextmanager
async def silent_at(*paths: str, after: bytes = b"") -> Any:
    """A cache that says nothing more to requests for these paths than `after`, drop by drop."""

    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        if not request.path.endswith(paths) or (after and request.method == "HEAD"):
            return None
        if not after:
            await asyncio.sleep(30)
            return None
        stream = web.StreamResponse(headers={"Content-Type": APP.media_type, **API})
        await stream.prepare(request)
        with suppress(ConnectionError):
            while True:
                await stream.write(after)
                await asyncio.sleep(0.05)
        return stream

    async with running(cache_of(spoil=spoil)) as cache:
        yield cache


async def timed(work: Callable[[], Awaitable[Any]]) -> tuple[Any, float]:
    began = time.monotonic()
    return await work(), time.monotonic() - began


@pytest.mark.parametrize("path", ["/v2/", "/readyz", "/healthz", "/none", "/_catalog"])
async def test_a_cache_that_never_answers(path: str) -> None:
    async with silent_at(path) as cache:
        report, seconds = await timed(lambda: probe(cache.url, timeout=0.3))
    assert not report.ok
    assert "did not answer within 0.3 s" in everything(report)
    assert seconds < 3


@pytest.mark.parametrize("after", [b"", b" "])
async def test_images_that_never_come(after: bytes) -> None:
    async with silent_at(APP.digest, "/manifests/1", after=after) as cache:
        report, seconds = await timed(lambda: probe(cache.url, REFERENCE, timeout=0.3))
    assert [check.status for _, check in failed(report)] == [None] * 4
    assert all("did not answer within 0.3 s" in check.message for _, check in failed(report))
    assert seconds < 3


async def test_the_whole_has_an_end() -> None:
    """Of a cache that is slow, always just fast enough, and has an index with much to look for."""
    entry = {"mediaType": APP.media_type, "size": 1}
    children = [{**entry, "digest": f"sha256:{number:064x}"} for number in range(31)]
    top = document({"schemaVersion": 2, "manifests": children}, OCI_INDEX)

    async def spoil(request: web.BaseRequest) -> web.StreamResponse | None:
        if "/manifests/" in request.path:
            await asyncio.sleep(0.2)
        return None

    names = [REFERENCE, "docker.io/library/b:1"]
    async with running(FakeCache(dict.fromkeys(names, top), spoil)) as cache:
        report, seconds = await timed(lambda: probe(cache.url, *names, timeout=0.6))
    assert 4.8 <= seconds < 15
    assert not report.ok
    assert [len(client.pulled) for client in report.clients] == [2] * 4
    assert len(failed(report)) == 8
    for _, check in failed(report):
        assert (check.status, check.path) == (None, "")
        assert check.message == "not asked for: the probe has taken 4.8 s (--timeout)"

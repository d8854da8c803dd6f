"""Clients that are slow, many, or ask too much; probes and metrics whatever happens."""

from __future__ import annotations

import concurrent.futures
import http.client
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from api_serving import (
    PLATFORM,
    Answer,
    Server,
    UpstreamThread,
    command_line,
    configure,
    metrics,
    read_answer,
    request,
    running,
    sync,
    until,
)

from prefetch.demo.images import image
from prefetch.demo.upstream import Upstream
from support.processes import CommandLine

APP = "library/app"
CLIENT_TIMEOUT = 1.0
# Connections are looked at four times in that time; machines may be slow.
CUT_OFF = CLIENT_TIMEOUT * 1.25 + 2.0


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with UpstreamThread(cdn=False, limit=10_000) as running_upstream:
        running_upstream.content.put(APP, image("app"), "1")
        yield running_upstream


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Server]:
    cli = command_line(tmp_path_factory.mktemp("limits"))
    config = configure(
        cli,
        {"docker.io": {"endpoint": upstream.url}},
        client_timeout=f"{CLIENT_TIMEOUT}s",
        misses_per_second=1,
        negative_ttl="5m",
        tag_ttl="1h",
    )
    sync(cli, config, "app:1")
    with running(cli, config) as started:
        yield started


def ask_from(server: Server, address: str, path: str) -> Answer:
    """One request from another of this machine's addresses."""
    source = (address, 0)
    with socket.create_connection((server.host, server.port), 15, source) as line:
        line.sendall(request(path))
        return read_answer(line)


# ── Slow and idle clients ────────────────────────────────────────────────────────────────────────


def seconds_until_closed(line: socket.socket, dribble: bytes = b"") -> float:
    """How long the server keeps the connection, while a byte is sent every tenth of a second."""
    began = time.monotonic()
    line.settimeout(0.1)
    rest = iter(dribble)
    while time.monotonic() - began < 20:
        try:
            byte = next(rest, None)
            if byte is not None:
                line.sendall(bytes([byte]))
            if line.recv(1 << 16) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - began


def test_who_says_nothing_is_cut_off(server: Server) -> None:
    with server.connect() as line:
        assert CLIENT_TIMEOUT * 0.9 <= seconds_until_closed(line) < CUT_OFF


@pytest.mark.parametrize(
    "dribble",
    [
        b"GET /v2/" + b"a" * 1000,
        b"\r\n" * 500,
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000,
    ],
)
def test_who_sends_a_head_byte_by_byte_is_cut_off(server: Server, dribble: bytes) -> None:
    with server.connect() as line:
        assert seconds_until_closed(line, dribble) < CUT_OFF


def test_who_has_been_answered_and_asks_no_more_is_cut_off(server: Server) -> None:
    with server.connect() as line:
        line.sendall(request("/v2/"))
        assert read_answer(line).status == 200
        assert CLIENT_TIMEOUT * 0.9 <= seconds_until_closed(line) < CUT_OFF


def test_a_body_that_dribbles_is_not_waited_for(server: Server) -> None:
    with server.connect() as line:
        head = request("/v2/", {"Content-Length": "100000"}, method="PUT")
        line.sendall(head)
        assert read_answer(line).status == 405
        assert seconds_until_closed(line, b"x" * 1000) < CUT_OFF


def test_slow_ones_hold_nobody_up(server: Server) -> None:
    lines = [server.connect() for _ in range(200)]
    try:
        for line in lines:
            line.sendall(b"GET /v2/ HT")
        began = time.monotonic()
        for _ in range(20):
            assert server.ask(f"/v2/{APP}/manifests/1").body == image("app").raw
        assert time.monotonic() - began < CUT_OFF
        until(lambda: metrics(server)["prefetch_connections"] < 10)
    finally:
        for line in lines:
            line.close()


# ── Too much ─────────────────────────────────────────────────────────────────────────────────────


def test_too_many_misses_by_one_client(server: Server) -> None:
    """Two at once, then one a second: 503 with when to come back, and never 429."""
    client, other = "127.0.0.9", "127.0.0.10"
    answers = [ask_from(server, client, f"/v2/{APP}/manifests/none{n}") for n in range(8)]
    refused = [answer for answer in answers if answer.status == 503]
    assert [answer.status for answer in answers[:2]] == [404, 404]
    assert len(refused) >= 5
    for answer in refused:
        assert (answer.code, answer["Retry-After"]) == ("UNAVAILABLE", "1")
    # Neither what is warm, nor what is known not to exist, nor others are held up by that.
    for _ in range(5):
        assert ask_from(server, client, f"/v2/{APP}/manifests/1").status == 200
        assert ask_from(server, client, f"/v2/{APP}/manifests/none0").status == 404
    assert ask_from(server, other, f"/v2/{APP}/manifests/none-else").status == 404
    until(lambda: ask_from(server, client, f"/v2/{APP}/manifests/late").status == 404, 5)


def test_blobs_tags_and_digests_count_alike(server: Server) -> None:
    rests = [f"blobs/sha256:{n:064}" for n in range(5)]
    rests += [f"manifests/sha256:{n:064}" for n in range(5)]
    for number, method in enumerate(("GET", "HEAD")):
        statuses = []
        for rest in rests:
            path = f"/v2/library/other{number}/{rest}"
            source = (f"127.0.0.{20 + number}", 0)
            with socket.create_connection((server.host, server.port), 15, source) as line:
                line.sendall(request(path, method=method))
                statuses.append(read_answer(line, method).status)
        assert set(statuses) == {404, 503}
        assert statuses.count(404) < 6


def test_no_pull_is_spent_on_what_is_no_manifest(server: Server, upstream: Upstream) -> None:
    """Layers, asked for as manifests, of an image whose documents alone are here."""
    item = upstream.content.put("library/cold", image("cold"), "1")
    child = item.child(PLATFORM)
    for number, reference in enumerate(("1", item.digest, child.digest)):
        path = f"/v2/library/cold/manifests/{reference}"
        assert ask_from(server, f"127.0.0.{30 + number}", path).status == 200
    before = upstream.log.pulls
    assert before > 0
    for number, blob in enumerate(child.blobs):
        path = f"/v2/library/cold/manifests/{blob.digest}"
        assert ask_from(server, f"127.0.0.{40 + number}", path).status == 404
        assert not upstream.log.select(method="GET", reference=blob.digest)
    assert upstream.log.pulls == before


def test_too_many_fetches_under_way(cli: CommandLine) -> None:
    with UpstreamThread(cdn=False, limit=10_000) as hub:
        hub.content.put(APP, image("app"), "1")
        hub.faults.add("stall", kind="token", at=0, seconds=2, count=None)
        config = configure(
            cli,
            {"docker.io": {"endpoint": hub.url, "max_concurrency": 64}},
            max_fetches=1,
            misses_per_second=10**6,
        )
        with running(cli, config) as server:

            def ask(number: int) -> Answer:
                return server.ask(f"/v2/{APP}/manifests/sha256:{number:064}")

            with concurrent.futures.ThreadPoolExecutor(40) as pool:
                answers = list(pool.map(ask, range(40)))
            assert {answer.status for answer in answers} <= {404, 503}
            refused = [a for a in answers if b"too many fetches" in a.body]
            assert refused
            assert all((a.status, a.code) == (503, "UNAVAILABLE") for a in refused)
            assert all(a["Retry-After"] for a in refused)


def test_heads_as_large_as_they_may_be(server: Server) -> None:
    for headers in (
        {"X": "y" * 8000},
        {"Authorization": "Bearer " + "t" * 8000},
        {f"X-{number}": "y" * 100 for number in range(60)},
    ):
        assert server.ask("/v2/", headers).status == 200
    for too_much in (
        {"X": "y" * 8200},
        {"Authorization": "Bearer " + "t" * 9000},
        {f"X-{number}": "y" for number in range(65)},
    ):
        answer = server.ask("/v2/", too_much)
        assert (answer.status, answer.code) == (400, "UNSUPPORTED")
    assert server.ask("/v2/" + "a" * 2000).status == 400
    assert server.ask("/v2/_catalog?last=" + "a" * 2000).status == 400


def test_a_head_without_end_is_cut_off_early(server: Server) -> None:
    """However much is sent, little of it is kept."""
    with server.connect() as line:
        line.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n")
        sent = 0
        try:
            while sent < 64 << 20:
                line.sendall(b"X: " + b"y" * 8000 + b"\r\n")
                sent += 8000
        except ConnectionError:
            pass
        except TimeoutError:
            pytest.fail("it neither reads on nor closes the connection")
    assert sent < 16 << 20


# ── Probes and metrics ───────────────────────────────────────────────────────────────────────────


def test_probes(server: Server) -> None:
    for path, word in (("/healthz", b"ok\n"), ("/readyz", b"ready\n")):
        for target in (path, f"{path}?verbose", f"http://cache.test{path}"):
            answer = server.ask(target)
            assert (answer.status, answer.body) == (200, word)
            head = server.ask(target, method="HEAD")
            assert (head.status, head.body) == (200, b"")
        assert server.ask(path, method="POST").status == 405
        assert server.ask(f"{path}/x").status == 404
        assert server.ask(f"/docker.io{path}").status == 404


def test_metrics_are_for_prometheus(server: Server) -> None:
    answer = server.ask("/metrics")
    assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    head = server.ask("/metrics", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    series = metrics(server)
    assert series["prefetch_requests_under_way"] == 1
    assert (
        series['prefetch_budget_limit_pulls{identity="anonymous",registry="docker.io"}'] == 10_000
    )
    assert all(name.startswith("prefetch_") for name in series)


def test_no_client_makes_metrics_grow(server: Server) -> None:
    word = "zz9-client-made"

    def fire(round_: int) -> None:
        for number in range(60):
            own = f"{word}-{round_}-{number}"
            for path in (
                *(f"/v2/{own}/manifests/1?ns={own}.example", f"/v2/{own}.example/a/manifests/1"),
                *(f"/{own}.example/v2/a/tags/list", f"/v2/{own}/tags/list", f"/{own}"),
                *(f"/v2/_catalog?ns={own}.example", f"/v2/a/referrers/sha256:{number:064}"),
                *(f"/metrics?{own}", f"/healthz?{own}", f"/v2/{APP}/manifests/1?{own}"),
            ):
                server.ask(path, {"User-Agent": own, "Authorization": f"Bearer {own}"})
            server.ask("/v2/", {own: own}, method="DELETE")
            server.ask("/v2/", method=own.upper())

    fire(1)
    before = set(metrics(server))
    fire(2)
    assert set(metrics(server)) == before
    assert not [series for series in before if word in series]
    labels = {label for series in before for label in re.findall(r'(\w+)="', series)}
    known = {"kind", "method", "status", "result", "outcome", "reason", "cause", "le"}
    assert labels == known | {"registry", "identity"}


def test_draining_lets_requests_end(cli: CommandLine) -> None:
    with UpstreamThread(cdn=False) as hub:
        item = hub.content.put(APP, image("app"), "1")
        hub.faults.add("stall", kind="manifest", method="GET", at=0, seconds=2, count=None)
        config = configure(cli, {"docker.io": {"endpoint": hub.url}})
        with running(cli, config) as server, server.connect() as line:
            line.sendall(request(f"/v2/{APP}/manifests/1"))
            until(lambda: hub.log.counts(kind="manifest", method="GET"))
            server.process.terminate()
            until(lambda: "draining" in server.log)
            with pytest.raises(ConnectionError):
                server.ask("/readyz")
            assert read_answer(line).body == item.raw


@pytest.mark.real("prlimit")
def test_more_clients_than_there_are_files_for(cli: CommandLine, upstream: Upstream) -> None:
    """Some are turned away; nobody who is let in goes without, and nothing is lamented."""
    config = configure(cli, {"docker.io": {"endpoint": upstream.url}}, client_timeout="2s")
    item = upstream.content.put(APP, image("app"), "1")
    sync(cli, config, "app:1")
    with running(cli, config, prefix=["prlimit", "--nofile=256:256"]) as server:
        lines: list[socket.socket] = []
        with server.connect() as kept:
            for _ in range(400):
                kept.sendall(request("/v2/"))
                assert read_answer(kept).status == 200
                lines.append(server.connect())
            # All at once, when it takes whatever waits.
            server.process.send_signal(signal.SIGSTOP)
            lines += [server.connect() for _ in range(400)]
            server.process.send_signal(signal.SIGCONT)
            for blob in item.child(PLATFORM).blobs:
                kept.sendall(request(f"/v2/{APP}/blobs/{blob.digest}"))
                assert read_answer(kept).body == blob.read()
        for line in lines:
            line.close()
        until(lambda: ask_or_none(server, "/v2/") == 200)


def ask_or_none(server: Server, path: str) -> int | None:
    try:
        return server.ask(path).status
    except (OSError, http.client.HTTPException):
        return None


def test_who_never_ends_a_handshake_is_cut_off(cli: CommandLine, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    certificate.cert_chain_pems[0].write_to_path(files["cert_file"])
    certificate.private_key_pem.write_to_path(files["key_file"])
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with running(cli, configure(cli, {}, tls=files, client_timeout="1s")) as server:
        for sent in (
            b"",
            b"\x16\x03\x01\x02\x00",
            b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\0" * 9,
        ):
            with server.connect() as line:
                line.sendall(sent)
                assert seconds_until_closed(line) < CUT_OFF
        server.secure(context)
        assert server.ask("/v2/").status == 200
        with server.connect() as line:
            assert seconds_until_closed(line) < CUT_OFF

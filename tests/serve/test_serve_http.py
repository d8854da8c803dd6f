"""HTTP/1.1 itself, as odd as it comes (RFC 9112)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_serving import read_answer, request
from api_world import APP, DEEP, NOWHERE, World, next_of, open_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("api")) as opened:
        yield opened


def test_http_1_0(world: World) -> None:
    for path, body in [(f"/v2/{APP}/manifests/1", world.app.raw), (world.blob_path, world.blob)]:
        with world.server.connect() as line:
            line.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = read_answer(line)
            assert (answer.status, answer.body) == (200, body)
            assert answer["Content-Length"] == str(len(body))
            assert answer["Transfer-Encoding"] is None
            assert line.recv(1) == b""
        with world.server.connect() as line:
            for _ in range(2):
                line.sendall(f"GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
                assert read_answer(line).body == body


def test_a_connection_is_kept(world: World) -> None:
    paths = [f"/v2/{APP}/manifests/1", world.blob_path, "/v2/none/tags/list", "/healthz"]
    paths += [f"/v2/{APP}/manifests/{NOWHERE}", "/v2/app/manifests/.x", "/v2/_catalog"]
    with world.server.connect() as line:
        for path in paths * 3:
            for method in ("GET", "HEAD", "DELETE"):
                line.sendall(request(path, method=method))
                answer = read_answer(line, method)
                assert answer["Connection"] in (None, "keep-alive"), path
                assert (answer.status == 405) == (method == "DELETE")


def test_requests_may_be_sent_ahead(world: World) -> None:
    paths = [f"/v2/{APP}/manifests/1", world.blob_path, "/v2/", f"/v2/{DEEP}/manifests/1"]
    bodies = [world.app.raw, world.blob, b"{}", world.deep.raw]
    with world.server.connect() as line:
        line.sendall(b"".join(request(path) for path in paths * 20))
        for _ in range(20):
            assert [read_answer(line).body for _ in paths] == bodies


def test_ranges_over_one_connection(world: World) -> None:
    size = len(world.blob)
    with world.server.connect() as line:
        found = b""
        while len(found) < size:
            line.sendall(
                request(world.blob_path, {"Range": f"bytes={len(found)}-{len(found) + 499}"})
            )
            found += read_answer(line).body
    assert found == world.blob


def test_whoever_expects_to_be_let_in_is_answered_at_once(world: World) -> None:
    """RFC 9110, section 10.1.1: the final answer may take the place of 100 (Continue)."""
    for method, status in (("GET", 200), ("PUT", 405)):
        with world.server.connect(5) as line:
            headers = {"Expect": "100-continue", "Content-Length": "1000000"}
            line.sendall(request(f"/v2/{APP}/manifests/1", headers, method=method))
            assert read_answer(line).status in (status, 417)


def test_bodies_of_requests_are_ignored(world: World) -> None:
    with world.server.connect() as line:
        for body in (b"x", b"x" * 100_000, b"GET /v2/ HTTP/1.1\r\n\r\n"):
            line.sendall(request(f"/v2/{APP}/manifests/1", body=body))
            assert read_answer(line).body == world.app.raw
        headers = {"Transfer-Encoding": "chunked"}
        line.sendall(request("/v2/", headers, body=b"5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"))
        assert read_answer(line).body == b"{}"
        line.sendall(request(world.blob_path))
        assert read_answer(line).body == world.blob


def test_targets_in_absolute_form(world: World) -> None:
    """RFC 9112, section 3.2.2: a server must accept it; no request is sent on."""
    for authority in ("cache.test", "169.254.169.254", "user:secret@127.0.0.1:1", "[::1]:80"):
        for scheme in ("http", "https"):
            answer = world.server.ask(f"{scheme}://{authority}/v2/{APP}/manifests/1")
            assert (answer.status, answer.body) == (200, world.app.raw)
            answer = world.server.ask(f"{scheme}://{authority}/v2/{APP}/tags/list?n=1")
            assert next_of(answer) == f"/v2/{APP}/tags/list?n=1&last=1"
    assert "secret" not in world.server.log
    assert world.server.ask("http://cache.test/healthz").status == 200
    assert world.server.ask("http://cache.test").status == 404


def test_no_tunnels(world: World) -> None:
    for target in ("127.0.0.1:22", "169.254.169.254:80", "registry-1.docker.io:443", "/v2/"):
        with world.server.connect() as line:
            line.sendall(request(target, method="CONNECT"))
            assert read_answer(line).status in (400, 405)
    for before in (b"", request("/v2/")):
        with world.server.connect(5) as line:
            line.sendall(before + b"CONNECT  \r\nHost: cache.test\r\n\r\n")
            if before:
                assert read_answer(line).status == 200
            assert read_answer(line).status == 405


def test_no_upgrades(world: World) -> None:
    """What follows on the connection is answered, or it is closed; it does not hang."""
    for protocol in ("websocket", "h2c", "TLS/1.0"):
        with world.server.connect(5) as line:
            headers = {"Connection": "Upgrade", "Upgrade": protocol, "HTTP2-Settings": "AAMAAABk"}
            line.sendall(request(f"/v2/{APP}/manifests/1", headers) + request("/v2/"))
            assert read_answer(line).body == world.app.raw
            rest = line.recv(1 << 16)
            assert rest == b"" or rest.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked, identity\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\x00: y\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + b"X" * 9000 + b": y\r\n\r\n",
        b"GET /v2/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n",
        b"GET /v2/ HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /v2/ HTTX/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/\r\n\r\n",
        b"GET  /v2/  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2/ \xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\x00T /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a:99999999/v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
        b"\r\n" * 100,
        b"\x00" * 100,
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
def test_what_is_no_http_is_answered_400_or_closed(world: World, data: bytes) -> None:
    with world.server.connect(5) as line:
        line.sendall(data)
        line.shutdown(1)
        found = b""
        while piece := line.recv(1 << 16):
            found += piece
    assert found == b"" or found.split(b"\r\n")[0].split()[1] in (b"400", b"200"), found
    assert b"Traceback" not in found
    assert world.server.ask("/v2/").status == 200


def test_refused_requests_answer_with_an_error_of_the_api(world: World) -> None:
    """Headers that are too long are no reason to leave the format of errors."""
    answer = world.server.ask("/v2/", {"X": "y" * 9000})
    assert (answer.status, answer.code) == (400, "UNSUPPORTED")
    assert "yyy" not in answer.body.decode()


def test_odd_targets(world: World) -> None:
    for target in (
        "*",
        "v2/",
        "?",
        "//",
        "///v2/",
        "/v2//",
        "/v2/?",
        "/v2/#x",
        "/v2/;x",
        "/.",
        "/..",
    ):
        answer = world.server.ask(target)
        assert answer.status in (200, 400, 404), target
        if answer.status != 200:
            assert answer.code in ("UNSUPPORTED", "NAME_INVALID", "NAME_UNKNOWN"), target


def test_nothing_of_the_host_is_told(world: World) -> None:
    for path in ("/v2/", "/nothing", f"/v2/{APP}/manifests/1"):
        answer = world.server.ask(path)
        assert "python" not in (answer["Server"] or "").lower()

"""Whatever bytes come: each request is answered or closed soon, never by 500, never by a bug."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from api_serving import (
    Server,
    UpstreamThread,
    assert_sound,
    command_line,
    configure,
    request,
    start_server,
    sync,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefetch.demo.images import image

PATIENCE = 5.0
# aiohttp answers in the version that it was asked in, whatever that is.
STATUS = re.compile(rb"HTTP/[0-9]\.[0-9] ([0-9]{3}) ")
ALLOWED = {200, 206, 304, 400, 401, 404, 405, 416, 503, 504}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    cli = command_line(tmp_path_factory.mktemp("fuzz"))
    with UpstreamThread() as hub:
        hub.content.put("library/app", image("app"), "1", "latest")
        hub.content.put("library/cold", image("cold"), "1")
        config = configure(
            cli,
            {"docker.io": {"endpoint": hub.url}},
            client_timeout="1s",
            negative_ttl="2s",
            misses_per_second=10**6,
        )
        sync(cli, config, "app:1", "app:latest")
        server = start_server(cli, config)
        try:
            yield server
            assert server.alive()
        finally:
            code = server.stop()
        assert_sound(server, code)


DIGESTS = [image("app").digest, image("app").child("linux/amd64").blobs[0].digest]
WORDS = [
    *("/v2/", "/v2", "v2", "docker.io", "quay.io", "library", "app", "library/app", "cold", "/"),
    *("manifests", "blobs", "tags", "tags/list", "referrers", "_catalog", "list", "uploads"),
    *("1", "latest", "sha256:", "sha512:", "sha256", ":", "@", *DIGESTS, "sha256:" + "0" * 64),
    *("?", "&", "=", "ns=", "n=", "last=", "artifactType=", "ns=docker.io", "ns=quay.io", "n=1"),
    *("%", "%2f", "%2F", "%252f", "%00", "%0d%0a", "%ff", "%e2%84%aa", "%25", "+", ";", "#"),
    *(".", "..", "../", "//", "\\", "~", "*", "[::1]", "localhost", "127.0.0.1", ":80"),
    *("/healthz", "/readyz", "/metrics", "http://", "https://", "file://", "A", "a" * 300),
]
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
TARGETS = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map("".join),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(lambda w: "/v2/" + "/".join(w)),
    st.sampled_from(
        [
            f"/v2/library/app/{kind}/{argument}"
            for kind in ("manifests", "blobs", "referrers")
            for argument in ("1", *DIGESTS, "sha256:" + "1" * 64)
        ]
    ),
    PRINTABLE.map(lambda text: "/v2/" + text),
    st.text(max_size=60).map(lambda text: "/" + quote(text, safe="/:?=&")),
    st.binary(max_size=60),
)
RESTS = st.builds(
    "{}/{}".format,
    st.sampled_from(["manifests", "blobs", "referrers", "tags"]),
    st.sampled_from(["1", "latest", "list", "none", *DIGESTS, "sha256:" + "1" * 64, "sha256:1"]),
)
QUERIES = st.lists(
    st.builds(
        "{}={}".format,
        st.sampled_from(["ns", "n", "last", "artifactType", "", "x"]),
        st.one_of(st.sampled_from(["docker.io", "1", "0"]), PRINTABLE.map(quote)),
    ),
    max_size=4,
).map("&".join)
NUMBERS = st.one_of(st.integers(-10, 10**4), st.sampled_from([10**19, 10**30, 2**63, 2**64]))
RANGES = st.one_of(
    st.builds("bytes={}-{}".format, NUMBERS, NUMBERS),
    st.builds("bytes={}-".format, NUMBERS),
    st.builds("bytes=-{}".format, NUMBERS),
    st.lists(st.builds("{}-{}".format, NUMBERS, NUMBERS), max_size=5).map(
        lambda parts: "bytes=" + ",".join(parts)
    ),
    *[PRINTABLE] * 2,
    st.text(max_size=30),
)
TAGS = st.one_of(
    st.sampled_from([f'"{digest}"' for digest in DIGESTS] + ["*", "W/", '"', ",", '""']),
    PRINTABLE,
)
VALUES = st.one_of(
    *[PRINTABLE] * 8,
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda b: b.decode("latin-1")),
)
HEADERS = st.one_of(
    st.tuples(st.just("Range"), RANGES),
    st.tuples(st.sampled_from(["If-None-Match", "If-Range", "If-Match"]), TAGS),
    st.tuples(
        st.sampled_from(
            [
                *("Accept", "Authorization", "Cache-Control", "Host", "Expect", "TE", "Upgrade"),
                *("Connection", "Cookie", "Forwarded", "X-Forwarded-For", "User-Agent", "Via"),
                *("Content-Type", "Content-Encoding", "If-Modified-Since", "Accept-Encoding"),
                *("X-HTTP-Method-Override", "Transfer-Encoding", "Content-Length"),
            ]
        ),
        VALUES,
    ),
    st.sampled_from(
        [
            *(("Cache-Control", "only-if-cached"), ("Connection", "close"), ("Upgrade", "h2c")),
            *(("Authorization", "Basic Og=="), ("Authorization", "Bearer x"), ("Host", "")),
            *(("Transfer-Encoding", "chunked"), ("Content-Length", "0"), ("Expect", "x")),
            *(("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Content-Length", "7")),
        ]
    ),
    st.tuples(st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}", fullmatch=True), VALUES),
)
METHODS = st.one_of(
    *[st.just("GET")] * 12,
    *[st.just("HEAD")] * 4,
    st.sampled_from(["PUT", "POST", "DELETE", "CONNECT", "PRI", "M-SEARCH", "get", ""]),
    st.text(max_size=10),
)
VERSIONS = st.one_of(
    *[st.just("HTTP/1.1")] * 16,
    st.sampled_from(["HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "", "HTTP/1", "ICAP/1.0"]),
)


@st.composite
def odd(draw: st.DrawFn) -> bytes:
    """One request that may be no HTTP at all."""
    data = request(
        _raw(draw(TARGETS)),
        draw(st.lists(HEADERS, max_size=5)),
        method=draw(METHODS),
        version=draw(VERSIONS),
        body=draw(st.one_of(*[st.just(b"")] * 4, st.binary(max_size=40))),
    )
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=3)) + data[place:]
    return data


@st.composite
def sensible(draw: st.DrawFn) -> bytes:
    """One request that gets behind the parser, for something that is there or could be."""
    shape = draw(st.sampled_from(["/v2/{}/{}", "/v2/docker.io/{}/{}", "/docker.io/v2/{}/{}"]))
    name = draw(st.sampled_from(["library/app", "library/cold", "app", "library/none", "a/b/c"]))
    rest = draw(st.one_of(RESTS, PRINTABLE.map(lambda text: quote(text, safe="/:"))))
    query = draw(st.one_of(st.just(""), QUERIES.map(lambda text: "?" + text)))
    headers = st.one_of(
        st.tuples(st.just("Range"), RANGES.map(_line)),
        st.tuples(st.sampled_from(["If-None-Match", "If-Range"]), TAGS.map(_line)),
        st.tuples(st.sampled_from(["Authorization", "Cache-Control", "Accept"]), PRINTABLE),
    )
    return request(
        shape.format(name, rest) + query,
        draw(st.lists(headers, max_size=3)),
        method=draw(st.sampled_from(["GET", "HEAD"])),
    )


def requests() -> st.SearchStrategy[bytes]:
    return st.one_of(odd(), sensible())


def _line(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


def _raw(target: str | bytes) -> bytes:
    return target.encode("utf-8", "surrogatepass") if isinstance(target, str) else target


def check(server: Server, data: bytes, *, end: bool = True) -> None:
    """Send it, say that there is no more, and read what comes until the connection is closed.

    Without `end` the connection is left open, and an answer's first bytes will do.
    """
    found = bytearray()
    with server.connect(PATIENCE) as line:
        try:
            line.sendall(data)
            if end:
                line.shutdown(socket.SHUT_WR)
            while piece := line.recv(1 << 16):
                found += piece
                if not end:
                    break
        except ConnectionError:
            pass  # cut off, which is an answer, too
        except TimeoutError:
            pytest.fail(f"neither answered nor closed: {data!r}, {bytes(found)!r}")
    if found:
        status = STATUS.match(found)
        assert status, (data, bytes(found))
        assert int(status[1]) in ALLOWED, (data, bytes(found))
        assert b"Traceback" not in found


FUZZING = settings(
    # The same cases each time: a failure tells of a change. Without it, new ones are looked for.
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@settings(FUZZING, max_examples=1000)
@given(data=requests())
def test_any_request(server: Server, data: bytes) -> None:
    check(server, data)


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(FUZZING, max_examples=10_000)
@given(data=requests())
def test_any_request_many_times(server: Server, data: bytes) -> None:
    check(server, data)


@settings(FUZZING, max_examples=200)
@given(data=st.lists(requests(), min_size=2, max_size=8).map(b"".join))
def test_any_requests_in_a_row(server: Server, data: bytes) -> None:
    check(server, data)


@settings(FUZZING, max_examples=100)
@given(data=requests())
def test_nobody_is_left_waiting(server: Server, data: bytes) -> None:
    check(server, data, end=False)


@settings(FUZZING, max_examples=200)
@given(data=st.binary(max_size=200))
def test_any_bytes(server: Server, data: bytes) -> None:
    check(server, data)


def test_the_server_is_still_there(server: Server) -> None:
    answer = server.ask("/v2/library/app/manifests/1")
    assert (answer.status, answer.body) == (200, image("app").raw)

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.clock import SystemClock
from prefetch.server import accesslog
from prefetch.server.accesslog import AccessLog, DirectLines, LineWriter, Logs, ServerLog
from support.clock import ManualClock

CLOCK = ManualClock(datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC))
REQUEST: dict[str, Any] = {
    "client": "203.0.113.7",
    "user": "ci",
    "method": "GET",
    "target": "/v2/library/nginx/manifests/1.27?ns=docker.io",
    "status": 200,
    "sent": 1234,
    "seconds": 0.00216,
    "result": "hit",
    "registry": "docker.io",
    "agent": "containerd/1.7.2 (linux)",
}


class Kept:
    """A sink that keeps lines, and which of them were urgent."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.urgent: list[bool] = []

    def write(self, line: str, *, urgent: bool = False) -> None:
        self.lines.append(line)
        self.urgent.append(urgent)

    @property
    def json(self) -> Any:
        (line,) = self.lines
        assert line.endswith("}\n")
        return json.loads(line)


def logged(form: str = "json", **changes: Any) -> Kept:
    """What one request leaves in the log."""
    sink = Kept()
    log = AccessLog(sink, form=form, level="info", clock=CLOCK)
    log.request(**{**REQUEST, **changes})
    return sink


def path_of(target: str) -> str:
    return str(logged(target=target).json["path"])


def server_log(form: str = "json", level: str = "info") -> tuple[ServerLog, Kept]:
    sink = Kept()
    return ServerLog(sink, form=form, level=level, clock=CLOCK), sink


@contextmanager
def pipe(size: int | None = None) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as writer:
        if size is not None:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
        yield reader, writer


def read_until_closed(reader: BinaryIO, chunk: int = 1 << 16, pause: float = 0.0) -> bytes:
    parts = []
    while part := reader.read(chunk):
        parts.append(part)
        if pause:
            time.sleep(pause)
    return b"".join(parts)


def no_drops(count: int) -> str:
    raise AssertionError(f"{count} lines were dropped")


# ── a request's line ────────────────────────────────────────────────────────────────────────────


def test_a_request_as_json() -> None:
    assert logged().json == {
        "time": "2026-01-02T03:04:05.678Z",
        "level": "info",
        "event": "request",
        "client": "203.0.113.7",
        "user": "ci",
        "method": "GET",
        "path": "/v2/library/nginx/manifests/1.27?ns=docker.io",
        "status": 200,
        "bytes": 1234,
        "seconds": 0.0022,
        "result": "hit",
        "registry": "docker.io",
        "agent": "containerd/1.7.2 (linux)",
    }


def test_a_request_as_text() -> None:
    assert logged("text").lines == [
        "2026-01-02T03:04:05.678Z [info] request client=203.0.113.7 user=ci method=GET "
        "path=/v2/library/nginx/manifests/1.27?ns=docker.io status=200 bytes=1234 seconds=0.0022 "
        'result=hit registry=docker.io agent="containerd/1.7.2 (linux)"\n'
    ]


def test_what_is_not_known_is_a_dash() -> None:
    line = logged(user="anonymous", result=None, registry=None, agent=None, client=None).json
    assert {line[key] for key in ("user", "result", "registry", "agent", "client")} == {"-"}
    sink = logged("text", user="anonymous", agent="")
    assert " user=- " in sink.lines[0]
    assert sink.lines[0].endswith(" agent=-\n")


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("info", 1), ("warning", 0)])
def test_requests_are_of_level_info(level: str, lines: int) -> None:
    sink = Kept()
    AccessLog(sink, form="json", level=level, clock=CLOCK).request(**REQUEST)
    assert len(sink.lines) == lines


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v2/", "/v2/"),
        ("/v2/a%2Fb/tags/list?n=5&last=x%20y", "/v2/a%2Fb/tags/list?n=5&last=x%20y"),
        ("/v2/_catalog?token=hunter2", "/v2/_catalog"),
        ("/v2/_catalog?token=hunter2&ns=quay.io&nsx=hunter2", "/v2/_catalog?ns=quay.io"),
        ("/v2/a?", "/v2/a"),
        ("http://ci:hunter2@cache.example:5000/v2/a/tags/list?n=1", "/v2/a/tags/list?n=1"),
        ("http://ci:hunter2@cache.example?ns=quay.io", "?ns=quay.io"),
        ("http://ci:hunter2@cache.example", "/"),
        ("ci:hunter2@cache.example:443", "-"),
        ("*", "*"),
        ("", "-"),
        ('/a b\n\x1b[31m\x7f"é\udcff', '/a%20b%0A%1B[31m%7F"%C3%A9%FF'),
    ],
)
def test_of_a_target_only_what_may_be_seen_is_told(target: str, path: str) -> None:
    assert path_of(target) == path


def test_what_is_long_is_cut() -> None:
    assert path_of("/" + "a" * 9000) == "/" + "a" * 511
    assert path_of("/" + "\n" * 9000) == ("/" + "%0A" * 200)[:512]
    assert len(path_of("/a?" + "&".join(f"n={i}" for i in range(9000)))) <= 512
    assert logged(agent="b" * 500).json["agent"] == "b" * 128
    assert len(logged(method="M" * 5000).json["method"]) <= 255


def test_an_agent_cannot_make_lines_or_speak_to_a_terminal() -> None:
    agent = 'x" status=500\n{"level":"error"}\x1b[2J\x9b\u202e'
    for form in ("json", "text"):
        (line,) = logged(form, agent=agent).lines
        assert line.count("\n") == 1
        assert line.isascii()
        assert line[:-1].isprintable()
    assert logged(agent=agent).json["agent"] == (
        'x" status=500\\x0a{"level":"error"}\\x1b[2J\\x9b\\u202e'
    )


@given(st.text(), st.text(), st.text(max_size=20), st.sampled_from(["json", "text"]))
def test_whatever_a_client_sends_is_one_line(
    target: str, agent: str, method: str, form: str
) -> None:
    for raw in (target, "/" + target):
        sink = logged(form, target=raw, agent=agent, method=method)
        (line,) = sink.lines
        assert line[:-1].isascii()
        assert line[:-1].isprintable()
        assert line[-1] == "\n"
        if form == "json":
            assert len(sink.json["path"]) <= 512


# ── events ──────────────────────────────────────────────────────────────────────────────────────


def test_an_event_with_its_facts() -> None:
    facts = {
        "registry": "docker.io",
        "until": datetime(2026, 1, 2, tzinfo=UTC),
        "workers": 2,
        "frozen": True,
        "left_out": None,
        "reason": "it said:\n\x1b[1mno",
    }
    log, sink = server_log()
    log.warning("upstream is down", **facts)
    assert sink.json == {
        "time": "2026-01-02T03:04:05.678Z",
        "level": "warning",
        "event": "upstream is down",
        "registry": "docker.io",
        "until": "2026-01-02T00:00:00Z",
        "workers": 2,
        "frozen": True,
        "reason": "it said:\\x0a\\x1b[1mno",
    }
    log, sink = server_log("text")
    log.info("frozen", **facts)
    assert sink.lines == [
        "2026-01-02T03:04:05.678Z [info] frozen registry=docker.io until=2026-01-02T00:00:00Z "
        'workers=2 frozen=true reason="it said:\\\\x0a\\\\x1b[1mno"\n'
    ]


def test_the_level_decides_what_is_written_and_what_waits() -> None:
    log, sink = server_log(level="warning")
    log.info("start")
    log.warning("slow")
    log.error("broken")
    assert [json.loads(line)["event"] for line in sink.lines] == ["slow", "broken"]
    assert sink.urgent == [True, True]
    log, sink = server_log(level="debug")
    log.info("start")
    assert sink.urgent == [False]


def test_direct_lines_are_written_at_once() -> None:
    with pipe() as (reader, writer):
        DirectLines(writer.fileno()).write("one\n")
        assert reader.read(100) == b"one\n"
        reader.close()
        # That nobody reads is no error.
        DirectLines(writer.fileno()).write("nobody reads this\n", urgent=True)


# ── the thread that writes ──────────────────────────────────────────────────────────────────────


def test_lines_are_gathered_and_written_soon() -> None:
    with pipe() as (reader, writer):
        lines = LineWriter(no_drops, writer.fileno())
        lines.write("one\n")
        lines.write("two\n")
        # Both come in one piece, without anything more being done.
        assert reader.read(100) == b"one\ntwo\n"
        lines.close()


def test_a_line_that_comes_while_others_are_taken_is_not_forgotten() -> None:
    late = ["late\n"]

    class Raced(LineWriter):
        def _take(self) -> tuple[list[str], int]:
            taken = super()._take()
            if late:
                self.write(late.pop())
            return taken

    with pipe() as (reader, writer):
        lines = Raced(no_drops, writer.fileno())
        lines.write("early\n", urgent=True)
        assert reader.read(100) == b"early\n"
        assert reader.read(100) == b"late\n"
        lines.close()


def test_neither_a_full_batch_nor_an_urgent_line_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesslog, "_INTERVAL", 3600.0)
    with pipe(size=1 << 20) as (reader, writer):
        lines = LineWriter(no_drops, writer.fileno())
        lines.write("an ordinary line\n")
        lines.write("an urgent line\n", urgent=True)
        assert reader.read(100) == b"an ordinary line\nan urgent line\n"
        line = "x" * 1023 + "\n"
        for _ in range(64):
            lines.write(line)
        assert reader.read(10) == b"x" * 10
        lines.close()


def test_closing_writes_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesslog, "_INTERVAL", 3600.0)
    with pipe() as (reader, writer):
        logs = Logs.open(form="json", level="info", clock=CLOCK, descriptor=writer.fileno())
        logs.access.request(**REQUEST)
        logs.server.info("stop")
        logs.close()
        logs.server.error("after the end")
        assert logs._writer._lines == []
        writer.close()
        lines = read_until_closed(reader).decode().splitlines()
        assert [json.loads(line)["event"] for line in lines] == ["request", "stop"]


def test_a_reader_that_stands_still_blocks_nobody_and_costs_four_mebibytes() -> None:
    total = 60_000
    with pipe() as (reader, writer):
        logs = Logs.open(form="json", level="info", clock=SystemClock(), descriptor=writer.fileno())
        longest = 0.0
        for number in range(total):
            started = time.perf_counter()
            logs.access.request(**{**REQUEST, "sent": number})
            longest = max(longest, time.perf_counter() - started)
        assert longest < 1.0
        assert 3 << 20 < logs._writer._gathered + logs._writer._writing <= 4 << 20
        read: list[bytes] = []
        thread = threading.Thread(target=lambda: read.append(read_until_closed(reader)))
        thread.start()
        logs.server.info("still here")
        logs.close()
        assert logs._writer._gathered + logs._writer._writing == 0
        writer.close()
        thread.join()
    lines = [json.loads(line) for line in read[0].decode().splitlines()]
    dropped = [line for line in lines if line["event"] == "log lines dropped"]
    requests = [line["bytes"] for line in lines if line["event"] == "request"]
    assert dropped
    assert all(line["level"] == "warning" for line in dropped)
    kept = [line for line in lines if line["event"] == "still here"]
    assert len(requests) + len(kept) + sum(line["count"] for line in dropped) == total + 1
    assert requests == sorted(requests)


def test_lines_of_several_processes_stay_whole_in_a_pipe() -> None:
    with pipe(size=4096) as (reader, writer):
        writers = [LineWriter(no_drops, writer.fileno()) for _ in range(3)]
        letters = "abc"
        for number in range(1500):
            for letter, lines in zip(letters, writers, strict=True):
                lines.write(letter * (50 + number % 200) + "\n")
        read: list[bytes] = []
        thread = threading.Thread(target=lambda: read.append(read_until_closed(reader, 4000, 1e-4)))
        thread.start()
        for lines in writers:
            lines.close()
        writer.close()
        thread.join()
    got = read[0].decode().splitlines()
    assert len(got) == 3 * 1500
    torn = [line for line in got if len(set(line)) != 1]
    assert torn == []


def test_a_file_gets_large_pieces(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: sizes.append(len(data)) or write(fd, data))
    with (tmp_path / "log").open("wb") as file:
        lines = LineWriter(no_drops, file.fileno())
        for _ in range(1000):
            lines.write("x" * 99 + "\n")
        lines.close()
    assert (tmp_path / "log").read_bytes() == (b"x" * 99 + b"\n") * 1000
    assert max(sizes) > 32 << 10


def test_a_reader_that_has_gone_harms_nobody() -> None:
    with pipe() as (reader, writer):
        lines = LineWriter(lambda count: f"{count} dropped\n", writer.fileno())
        reader.close()
        lines.write("nobody reads this\n", urgent=True)
        lines.write("nor this\n", urgent=True)
        started = time.monotonic()
        lines.close()
        assert time.monotonic() - started < 2
        assert not lines._thread.is_alive()


def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesslog, "_CLOSE_SECONDS", 0.2)
    with pipe(size=4096) as (reader, writer):
        lines = LineWriter(no_drops, writer.fileno())
        for _ in range(100):
            lines.write("x" * 99 + "\n")
        started = time.monotonic()
        lines.close()
        assert 0.1 < time.monotonic() - started < 5
        reader.read(1 << 16)
        reader.close()
        lines._thread.join()


def test_a_descriptor_that_somebody_has_made_non_blocking() -> None:
    with pipe(size=4096) as (reader, writer):
        os.set_blocking(writer.fileno(), False)
        lines = LineWriter(no_drops, writer.fileno())
        for number in range(1000):
            lines.write(f"{number:099}\n", urgent=True)
        lines.write("x" * 100_000 + "\n")
        read: list[bytes] = []
        thread = threading.Thread(target=lambda: read.append(read_until_closed(reader, 1000)))
        thread.start()
        lines.close()
        writer.close()
        thread.join()
    *numbers, last = read[0].splitlines()
    assert numbers == [f"{number:099}".encode() for number in range(1000)]
    assert last == b"x" * 100_000

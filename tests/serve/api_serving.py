"""A server that many tests share, an upstream in a thread, and a client that sends any bytes."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.forking import Fork
from support.listener import Listener
from support.processes import CommandLine, Result

PLATFORM = "linux/amd64"
SIGNS_OF_A_CRASH = (
    "Traceback",
    "internal error",
    "never retrieved",
    "never awaited",
    "Unclosed",
    "Exception in",
)
_LISTENING = re.compile(r"listening on (https?)://(\S+:\d+)")
_STARTING_SECONDS = 30.0
_STOPPING_SECONDS = 40.0
_POLL_SECONDS = 0.02

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it came; `headers` in their order, with their own spelling."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    version: int = 11

    def __getitem__(self, name: str) -> str | None:
        """A header's value; None when it is not there. AssertionError when it is there twice."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) < 2, (name, found)
        return found[0] if found else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code; AssertionError unless the body is an error as the API has it."""
        assert self["Content-Type"] == "application/json", self
        [error] = self.json["errors"]
        assert set(error) <= {"code", "message", "detail"}, error
        assert error["message"], error
        return str(error["code"])

    def told(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """All that a client can tell it by, but for the time of day."""
        kept = [(key.lower(), value) for key, value in self.headers if key.lower() != "date"]
        return self.status, sorted(kept), self.body


class Server:
    """`prefetch serve` as a process whose log is a file; `address` is `127.0.0.1:port`."""

    def __init__(self, process: Fork | subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.address = ""
        self.scheme = ""
        self._context: ssl.SSLContext | None = None

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def ready(self) -> None:
        """Wait until it listens; RuntimeError with its words if it ends."""
        deadline = time.monotonic() + _STARTING_SECONDS
        while (found := _LISTENING.search(self.log)) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it does not listen: {self.log}")
            time.sleep(_POLL_SECONDS)
        self.scheme, self.address = found[1], found[2]

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        """End it with SIGTERM; killed if that takes too long. Returns its exit status."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def secure(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._context = context

    def connect(self, timeout: float = 15.0) -> socket.socket:
        line = socket.create_connection((self.host, self.port), timeout)
        if self._context is None:
            return line
        return self._context.wrap_socket(line, server_hostname=self.host)

    def ask(
        self,
        target: str | bytes,
        headers: Headers = (),
        *,
        method: str = "GET",
        version: str = "HTTP/1.1",
        body: bytes = b"",
    ) -> Answer:
        """One request on a connection of its own; `target` goes out as it is."""
        data = request(target, headers, method=method, version=version, body=body, close=True)
        with self.connect() as line:
            line.sendall(data)
            return read_answer(line, method)


def request(
    target: str | bytes,
    headers: Headers = (),
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    body: bytes = b"",
    close: bool = False,
) -> bytes:
    """A request's bytes."""
    raw = target if isinstance(target, bytes) else target.encode("utf-8", "surrogateescape")
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    names = {name.lower() for name, _ in pairs}
    if "host" not in names:
        pairs.insert(0, ("Host", "cache.test"))
    if close and "connection" not in names:
        pairs.append(("Connection", "close"))
    if body and not names & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    head = b"".join(
        f"{key}: {value}\r\n".encode("utf-8", "surrogateescape") for key, value in pairs
    )
    return method.encode() + b" " + raw + b" " + version.encode() + b"\r\n" + head + b"\r\n" + body


def read_answer(line: socket.socket, method: str = "GET") -> Answer:
    """The next answer on a connection. Raises http.client's errors for one that is cut."""
    # Unbuffered: what comes after this answer must be left to whoever reads next.
    stream = _Unbuffered(line)
    response = http.client.HTTPResponse(stream, method=method)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    return Answer(response.status, tuple(response.getheaders()), body, response.version)


class _Unbuffered:
    """What http.client takes for a socket: reads one byte at a time where lines end."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def makefile(self, mode: str) -> io.BufferedIOBase:
        return _Lines(self._line)


class _Lines(io.BufferedIOBase):
    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def readline(self, limit: int | None = -1) -> bytes:
        found = bytearray()
        while not found.endswith(b"\n") and (limit is None or limit < 0 or len(found) < limit):
            byte = self._line.recv(1)
            if not byte:
                break
            found += byte
        return bytes(found)

    def read(self, size: int | None = -1) -> bytes:
        found = bytearray()
        while size is None or size < 0 or len(found) < size:
            most = 1 << 16 if size is None or size < 0 else size - len(found)
            piece = self._line.recv(most)
            if not piece:
                break
            found += piece
        return bytes(found)

    def readable(self) -> bool:
        return True

    def flush(self) -> None:
        return


def start_server(
    cli: CommandLine,
    config: Path,
    *words: str,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    listen: str = "127.0.0.1:0",
) -> Server:
    """Start it on a free port, and wait until it listens; `prefix` runs it under a program."""
    serve = ["--config", config, "serve", "--listen", listen, *words]
    process, log = cli.serve(*serve, env=env, prefix=prefix)
    server = Server(process, log)
    try:
        server.ready()
    except BaseException:
        server.stop()
        raise
    return server


@contextmanager
def running(cli: CommandLine, config: Path, *words: str, **options: Any) -> Iterator[Server]:
    """A server for as long as the context lasts; nothing may have crashed in it."""
    server = start_server(cli, config, *words, **options)
    try:
        yield server
    finally:
        code = server.stop()
    assert_sound(server, code)


def assert_sound(server: Server, code: int = 0) -> None:
    """It has ended as it should, and its log shows no bug."""
    assert code == 0, server.log[-4000:]
    lines = server.log.splitlines()
    told = [line for line in lines if any(sign in line for sign in SIGNS_OF_A_CRASH)]
    assert not told, "\n".join(told[:20])


def command_line(directory: Path) -> CommandLine:
    """For fixtures that outlive a test."""
    home = directory / "home"
    home.mkdir(parents=True)
    return CommandLine(home, directory / "data")


def command(
    cli: CommandLine,
    *words: str | Path,
    env: Mapping[str, str] | None = None,
    data_dir: Path | None = None,
) -> Result:
    """Run any command to its end, beside a server and outside of an event loop."""
    return asyncio.run(cli(*words, env=env, data_dir=data_dir))


def sync(
    cli: CommandLine, config: Path, *references: str, env: Mapping[str, str] | None = None
) -> None:
    """`prefetch sync` of these; AssertionError unless it is complete."""
    words = [word for reference in references for word in ("--image", reference)]
    done = command(cli, "--config", config, "sync", *words, env=env)
    assert done.code == 0, done.stderr + done.stdout


def configure(cli: CommandLine, registries: Mapping[str, Any], **settings: Any) -> Path:
    """A `prefetch.yaml` with these registries; `settings` are `serve`'s."""
    path = cli.home / "prefetch.yaml"
    document = {"platforms": [PLATFORM], "registries": registries, "serve": settings}
    # YAML has JSON within it.
    path.write_text(json.dumps(document))
    return path


class UpstreamThread:
    """The scripted upstream on an event loop of its own, for tests that have none."""

    def __init__(self, **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.upstream = Upstream(UpstreamSettings(**settings))

    def __enter__(self) -> Upstream:
        self._thread.start()
        self._run(self.upstream.start)
        return self.upstream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def stop(self) -> None:
        """Stop listening."""
        self._run(self.upstream.close)

    def _run(self, work: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(20)


class Trap(Listener):
    """Listens and counts who comes: nobody should."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        super().__init__(host, port)
        self.visits: list[bytes] = []

    def handle(self, line: socket.socket) -> None:
        """Keep what comes first, and answer it."""
        with line:
            line.settimeout(2)
            try:
                self.visits.append(line.recv(4096))
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            except OSError:
                self.visits.append(b"")


def metrics(server: Server) -> dict[str, float]:
    """`/metrics` by series, as they are written."""
    lines = server.ask("/metrics").body.decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {series: float(value) for series, value in pairs}


def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    """Wait until it holds; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(_POLL_SECONDS)


def shapes(registry: str, repository: str, rest: str, query: str = "") -> Iterable[str]:
    """The three paths for one thing: by `ns`, behind `/v2/`, before it."""
    more = f"&{query}" if query else ""
    asked = f"?{query}" if query else ""
    yield f"/v2/{repository}/{rest}?ns={registry}{more}"
    yield f"/v2/{registry}/{repository}/{rest}{asked}"
    yield f"/{registry}/v2/{repository}/{rest}{asked}"

"""The server's log on standard error: a line a request, and lines for what happens besides.

Lines are JSON or text, pure ASCII, and gathered: a thread writes them, so that whoever reads too
slowly never holds up the event loop. What a client has sent is cut and escaped, so that it cannot
make lines of its own or speak to a terminal. Passwords are in none of it: of a request's target
only the path is told, and of its query what says where a tag is looked for.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import string
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, Self
from urllib.parse import quote

from prefetch.clock import Clock, rfc3339
from prefetch.server.routes import origin_form

LEVELS: Final = ("debug", "info", "warning", "error")

_STDERR = 2
_INTERVAL = 0.2
_BATCH = 64 << 10
_CAPACITY = 4 << 20
_CLOSE_SECONDS = 5.0

_LONGEST_TARGET = 512
_LONGEST_AGENT = 128
_LONGEST_WORD = 255
_LONGEST_FACT = 2048
_PARAMETERS = frozenset({"ns", "n", "last"})
_SIGNS_OF_A_USER = ("@", "%40", "%25")

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
_plain = re.compile(r"[!#-\[\]-~]+").fullmatch
_quoted = json.JSONEncoder().encode


class Sink(Protocol):
    """Where lines go."""

    def write(self, line: str, *, urgent: bool = False) -> None:
        """Take one line, its newline included; never blocks for long, never raises."""
        ...


class DirectLines:
    """Writes each line at once: for a process that has no event loop, and must have no threads."""

    def __init__(self, descriptor: int = _STDERR) -> None:
        self._descriptor = descriptor

    def write(self, line: str, *, urgent: bool = False) -> None:
        """Write it; waits for a reader that is behind."""
        del urgent
        _send(self._descriptor, [line])


class LineWriter:
    """Gathers lines and writes them from a thread: every 0.2 s, or as soon as there are 64 KiB.

    When more than 4 MiB wait, lines are dropped, and a line that `dropped` makes of their number
    follows. Several processes may write to one pipe: no line is torn by another. Make it after a
    fork, never before one.
    """

    def __init__(self, dropped: Callable[[int], str], descriptor: int = _STDERR) -> None:
        self._descriptor = descriptor
        self._dropped = dropped
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._gathered = 0  # characters in _lines
        self._writing = 0  # characters that the thread has taken
        self._lost = 0
        self._closing = False
        self._some = threading.Event()
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str, *, urgent: bool = False) -> None:
        """Take a line; an urgent one does not wait for others."""
        with self._lock:
            before, length = self._gathered, len(line)
            if self._closing or before + self._writing + length > _CAPACITY:
                self._lost += 1
                return
            self._lines.append(line)
            self._gathered = before + length
        if before == 0:
            self._some.set()
        if urgent or before < _BATCH <= before + length:
            self._due.set()

    def close(self) -> None:
        """Write what waits, for as long as five seconds; later lines are dropped."""
        with self._lock:
            self._closing = True
        self._some.set()
        self._due.set()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._some.wait()
            self._due.wait(_INTERVAL)
            self._some.clear()
            self._due.clear()
            closing = self._closing
            lines, lost = self._take()
            if lost:
                lines.append(self._dropped(lost))
            failed = _send(self._descriptor, lines)
            with self._lock:
                self._writing = 0
                self._lost += failed

    def _take(self) -> tuple[list[str], int]:
        with self._lock:
            lines, self._lines = self._lines, []
            lost, self._lost = self._lost, 0
            self._writing, self._gathered = self._gathered, 0
        return lines, lost


def _send(descriptor: int, lines: Sequence[str]) -> int:
    """Write lines, waiting for the reader; how many could not be written.

    Of a pipe's writers, POSIX keeps apart only what is written in pieces of PIPE_BUF at most.
    """
    try:
        whole = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return len(lines)
    failed = 0
    for count, piece in _pieces(lines, _BATCH if whole else select.PIPE_BUF):
        try:
            _write_all(descriptor, piece)
        except OSError:
            # Nobody reads any more, or the disk is full. There is nobody to tell.
            failed += count
    return failed


def _pieces(lines: Sequence[str], limit: int) -> Iterator[tuple[int, bytes]]:
    """Lines joined to pieces of at most `limit` bytes, with their number; a longer line is one."""
    start = size = 0
    for place, line in enumerate(lines):
        if size and size + len(line) > limit:
            yield place - start, "".join(lines[start:place]).encode("ascii", "backslashreplace")
            start, size = place, 0
        size += len(line)
    if size:
        yield len(lines) - start, "".join(lines[start:]).encode("ascii", "backslashreplace")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # Somebody who shares our standard error has made it non-blocking.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


class ServerLog:
    """What happens in the server besides requests, with its facts: one line an event.

    `level` is the lowest of LEVELS that is written. Facts that are None are left out; strings are
    cut and escaped. Whoever logs sees to it that no fact is a secret.
    """

    def __init__(self, sink: Sink, *, form: str, level: str, clock: Clock) -> None:
        self._sink = sink
        self._json = form == "json"
        self._lowest = LEVELS.index(level)
        self._clock = clock

    def debug(self, event: str, /, **facts: object) -> None:
        """Something that helps to find out why."""
        self._log("debug", event, facts)

    def info(self, event: str, /, **facts: object) -> None:
        """Something worth knowing, as it should be."""
        self._log("info", event, facts)

    def warning(self, event: str, /, **facts: object) -> None:
        """Something is not as it should be, and the server lives with it. Written at once."""
        self._log("warning", event, facts)

    def error(self, event: str, /, **facts: object) -> None:
        """Something that a person must see to. Written at once."""
        self._log("error", event, facts)

    def _log(self, level: str, event: str, facts: Mapping[str, object]) -> None:
        if LEVELS.index(level) >= self._lowest:
            self._sink.write(self.line(level, event, facts), urgent=level in ("warning", "error"))

    def line(self, level: str, event: str, facts: Mapping[str, object]) -> str:
        """The line of an event, with its newline."""
        moment = _now(self._clock)
        told = [(key, fact) for key, fact in facts.items() if fact is not None]
        if self._json:
            pairs = "".join(f",{_quoted(key)}:{_json_fact(fact)}" for key, fact in told)
            return f'{{"time":"{moment}","level":"{level}","event":{_quoted(event)}{pairs}}}\n'
        pairs = "".join(f" {key}={_word(_text_fact(fact))}" for key, fact in told)
        return f"{moment} [{level}] {event}{pairs}\n"


class AccessLog:
    """One line a request, at level info."""

    def __init__(self, sink: Sink, *, form: str, level: str, clock: Clock) -> None:
        self._sink = sink
        self._json = form == "json"
        self._clock = clock
        self.enabled = LEVELS.index(level) <= LEVELS.index("info")

    def request(
        self,
        *,
        client: str | None,
        user: str,
        method: str,
        target: str,
        status: int,
        sent: int,
        seconds: float,
        result: str | None = None,
        registry: str | None = None,
        agent: str | None = None,
    ) -> None:
        """A request is done.

        `target` is the request line's as it was received, `sent` the bytes of the body, `result`
        whether the cache had it, `agent` the User-Agent. Nobody in particular is `anonymous`.
        """
        if not self.enabled:
            return
        words = (
            client or "-",
            "-" if user == "anonymous" else _clean(user, _LONGEST_WORD),
            _clean(method, _LONGEST_WORD),
            _shown(target),
            result or "-",
            _clean(registry, _LONGEST_WORD) if registry else "-",
            _clean(agent, _LONGEST_AGENT) if agent else "-",
        )
        line = _json_request if self._json else _text_request
        self._sink.write(line(_now(self._clock), words, status, sent, seconds))


_Words = tuple[str, str, str, str, str, str, str]


def _json_request(moment: str, words: _Words, status: int, sent: int, seconds: float) -> str:
    client, user, method, path, result, registry, agent = map(_quoted, words)
    return (
        f'{{"time":"{moment}","level":"info","event":"request","client":{client},"user":{user},'
        f'"method":{method},"path":{path},"status":{status},"bytes":{sent},'
        f'"seconds":{seconds:.4f},"result":{result},"registry":{registry},"agent":{agent}}}\n'
    )


def _text_request(moment: str, words: _Words, status: int, sent: int, seconds: float) -> str:
    client, user, method, path, result, registry, agent = map(_word, words)
    return (
        f"{moment} [info] request client={client} user={user} method={method} path={path} "
        f"status={status} bytes={sent} seconds={seconds:.4f} result={result} registry={registry} "
        f"agent={agent}\n"
    )


@dataclass(frozen=True, slots=True)
class Logs:
    """Both of a process's logs, and the thread that writes them."""

    access: AccessLog
    server: ServerLog
    _writer: LineWriter

    @classmethod
    def open(cls, *, form: str, level: str, clock: Clock, descriptor: int = _STDERR) -> Self:
        """Start writing; `form` is `json` or `text`, `level` the lowest of LEVELS to write."""

        def dropped(count: int) -> str:
            return server.line("warning", "log lines dropped", {"count": count})

        writer = LineWriter(dropped, descriptor)
        server = ServerLog(writer, form=form, level=level, clock=clock)
        access = AccessLog(writer, form=form, level=level, clock=clock)
        return cls(access, server, writer)

    def close(self) -> None:
        """Write what waits; blocks for five seconds at most."""
        self._writer.close()


def _now(clock: Clock) -> str:
    """`2026-01-02T03:04:05.678Z` (RFC 3339)."""
    return clock.now().isoformat(timespec="milliseconds")[:23] + "Z"


def _json_fact(fact: object) -> str:
    if isinstance(fact, bool | int | float):
        return json.dumps(fact)
    return _quoted(_text_fact(fact))


def _text_fact(fact: object) -> str:
    if isinstance(fact, datetime):
        return rfc3339(fact)
    if isinstance(fact, bool):
        return "true" if fact else "false"
    return _clean(str(fact), _LONGEST_FACT)


def _word(text: str) -> str:
    return text if _plain(text) else _quoted(text)


def _clean(text: str, limit: int) -> str:
    """Printable ASCII, at most `limit` characters of it."""
    if len(text) > limit:
        text = text[:limit]
    if text.isascii() and text.isprintable():
        return text
    escaped = text.encode("ascii", "backslashreplace").decode("ascii").translate(_CONTROLS)
    return escaped[:limit]


def _shown(target: str) -> str:
    """A request's target without the parts that may hold a secret, at most 512 characters."""
    if not target.startswith("/"):
        target = _without_authority(target)
    path, asked, query = target.partition("?")
    path = path[:_LONGEST_TARGET]
    if asked:
        pairs = query[:_LONGEST_TARGET].split("&")
        kept = "&".join(pair for pair in pairs if _is_told(pair))
        path = f"{path}?{kept}" if kept else path
    if not (path.isascii() and path.isprintable()):
        path = quote(path, safe=string.punctuation, errors="surrogateescape")
    return path[:_LONGEST_TARGET]


def _is_told(pair: str) -> bool:
    """Whether a query's parameter is shown; one with an `@` may hold a user and a password."""
    name, _, value = pair.partition("=")
    return name in _PARAMETERS and not any(sign in value for sign in _SIGNS_OF_A_USER)


def _without_authority(target: str) -> str:
    """The path of an absolute-form target (RFC 9112, section 3.2.2), whose user may hold a secret.

    Every other form but `*` is `-`.
    """
    rest = origin_form(target)
    if rest == target:
        return "*" if target == "*" else "-"
    return rest or "/"

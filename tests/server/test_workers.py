from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from prefetch.app import workers
from prefetch.app.listening import listen
from prefetch.app.workers import raise_file_limit
from prefetch.errors import UsageError

SOON = 20.0

# A supervisor whose workers do as `mode` says; what happens goes to a file, a JSON line each.
PROGRAM = """
import json, os, signal, sys, time
from prefetch.app import workers
from prefetch.errors import UsageError

options = json.loads(sys.argv[1])
journal = os.open(options["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
for name, value in options["settings"].items():
    setattr(workers, name, value)

def say(what, **facts):
    line = json.dumps({"what": what, "pid": os.getpid(), "at": time.monotonic(), **facts})
    os.write(journal, line.encode() + b"\\n")

def state():
    mask = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    return {"mask": mask, "handlers": [repr(signal.getsignal(each)) for each in SIGNALS]}

def steady(index, status=0):
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    say("start", index=index)
    while True:
        number = signal.Signals(signal.sigwait(SIGNALS))
        say("got", index=index, signal=number.name)
        if number != signal.SIGHUP:
            time.sleep(options.get("finishing", 0.0))
            return status

def stubborn(index):
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    say("start", index=index)
    while True:
        time.sleep(60)

def naive(index):
    say("start", index=index, **state())
    while True:
        time.sleep(60)

def dies(index):
    say("start", index=index)
    time.sleep(options.get("living", 0.0))
    return options.get("status", 1)

def misconfigured(index):
    if index == 1:
        time.sleep(0.2)
        return 2
    return steady(index)

def misused(index):
    raise UsageError("no such\\nthing", hint="look again")

def crashes(index):
    say("start", index=index)
    raise RuntimeError("a bug of ours")

def failing(index):
    return steady(index, status=3 if index == 0 else 0)

def exits(index):
    print(f"worker {index} was here.", end="")
    sys.exit("so it is" if index == 0 else None)

if options.get("ignoring"):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if options.get("orphaned"):
    os.getppid = lambda: 1
if options.get("fork_fails"):
    real, left = os.fork, [2]
    def fork():
        if left[0]:
            left[0] -= 1
            raise BlockingIOError(11, "no")
        return real()
    os.fork = fork
before = state()
print("printed once, late", end="")
status = workers.supervise(
    options["count"], globals()[options["mode"]], drain=options["drain"],
    tell=lambda event, /, **facts: say("told", event=event, facts=facts),
    died=lambda index: say("died", index=index),
    roles={int(index): role for index, role in options.get("roles", {}).items()},
)
say("end", same=state() == before)
sys.exit(status)
"""

Lines = list[dict[str, Any]]


class Fleet:
    """The program above while it runs."""

    def __init__(self, directory: Path, mode: str, **options: Any) -> None:
        self.journal = directory / "journal"
        self.journal.write_bytes(b"")
        given = {"mode": mode, "count": 2, "drain": 5.0, "settings": {}, **options}
        given["journal"] = str(self.journal)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # What is printed has to wait in the buffer.
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )

    def lines(self, what: str | None = None, **facts: Any) -> Lines:
        """What has been said so far."""
        # A line that is being written is none yet.
        whole = self.journal.read_text().rpartition("\n")[0].splitlines()
        found = [json.loads(line) for line in whole]
        return [
            line
            for line in found
            if what in (None, line["what"]) and all(line.get(k) == v for k, v in facts.items())
        ]

    def told(self, event: str) -> Lines:
        return self.lines("told", event=event)

    def wait_for(self, number: int, what: str, **facts: Any) -> Lines:
        """The first so many lines of a kind, once they are there."""
        until(lambda: len(self.lines(what, **facts)) >= number or self.process.poll() is not None)
        found = self.lines(what, **facts)
        assert len(found) >= number, (self.lines(), self.process.poll())
        return found[:number]

    def pids(self, number: int = 2) -> list[int]:
        return [line["pid"] for line in self.wait_for(number, "start")]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        self.out, self.err = self.process.communicate(timeout=SOON)
        return self.process.returncode

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.end()


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


Start = Callable[..., Fleet]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    fleets = []

    def begin(mode: str, **options: Any) -> Fleet:
        directory = tmp_path / str(len(fleets))
        directory.mkdir()
        fleets.append(Fleet(directory, mode, **options))
        return fleets[-1]

    yield begin
    for fleet in fleets:
        left = {line["pid"] for line in fleet.lines("start")}
        if fleet.process.poll() is None:
            fleet.process.kill()
            fleet.process.communicate()
        until(lambda pids=left: not any(map(alive, pids)))


# ── the supervisor ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_workers_finish_and_it_exits_0(start: Start, number: signal.Signals) -> None:
    fleet = start("steady", count=3, finishing=0.3)
    pids = fleet.pids(3)
    assert len(set(pids)) == 3
    assert {line["index"] for line in fleet.lines("start")} == {0, 1, 2}
    fleet.send(number)
    assert fleet.end() == 0
    assert {line["signal"] for line in fleet.lines("got")} == {number.name}
    assert len(fleet.lines("got")) == 3
    assert not any(map(alive, pids))
    (told,) = fleet.lines("told")
    assert (told["event"], told["facts"]) == ("stop", {"signal": number.name})
    assert len(fleet.lines("died")) == 3
    # The supervisor's own signals are as they were, and what it had printed came out once.
    assert fleet.lines("end")[0]["same"] is True
    assert (fleet.out, fleet.err) == ("printed once, late", "")


def test_a_worker_finds_signals_as_a_new_process_does(start: Start) -> None:
    fleet = start("naive", count=1)
    (line,) = fleet.wait_for(1, "start")
    assert line["mask"] == []
    assert line["handlers"] == ["<Handlers.SIG_DFL: 0>"] * 3
    # It has no handler, so it dies of the signal itself; it was asked to.
    assert fleet.stop() == 0
    assert [each["event"] for each in fleet.lines("told")] == ["stop"]


def test_a_worker_that_dies_is_replaced(start: Start) -> None:
    fleet = start("steady")
    victim, survivor = fleet.pids()
    os.kill(victim, signal.SIGKILL)
    again = fleet.wait_for(3, "start")[2]
    first = fleet.lines("start", pid=victim)[0]
    assert again["index"] == first["index"]
    assert again["pid"] not in (victim, survivor)
    assert fleet.lines("died")[0]["index"] == first["index"]
    assert fleet.told("worker died")[0]["facts"] == {
        "worker": first["index"],
        "status": -signal.SIGKILL,
        "restart_in": 0.1,
    }
    assert alive(survivor)
    assert fleet.stop() == 0


def test_a_parent_that_ignored_its_children_harms_nobody(start: Start) -> None:
    fleet = start("dies", count=1, ignoring=True)
    fleet.wait_for(2, "start")
    assert fleet.stop() == 0
    assert fleet.lines("end")[0]["same"] is True


def test_a_worker_that_keeps_dying_is_started_ever_later(start: Start) -> None:
    fleet = start("dies", count=1, settings={"_LONGEST_PAUSE": 0.35})
    times = [line["at"] for line in fleet.wait_for(5, "start")]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.2
    assert gaps[2] >= 0.35
    pauses = [line["facts"]["restart_in"] for line in fleet.told("worker died")]
    assert pauses[:4] == [0.1, 0.2, 0.35, 0.35]
    # None of the dead is left lying about.
    children = Path(f"/proc/{fleet.process.pid}/task/{fleet.process.pid}/children")
    until(lambda: len(children.read_text().split()) <= 1)
    assert fleet.stop() == 0


def test_a_worker_that_has_lived_for_long_is_replaced_at_once(start: Start) -> None:
    fleet = start("dies", count=1, living=0.3, settings={"_EARLY": 0.2})
    fleet.wait_for(3, "start")
    assert [line["facts"]["restart_in"] for line in fleet.told("worker died")][:2] == [0.0, 0.0]
    assert fleet.stop() == 0


def test_a_configuration_error_ends_everything(start: Start) -> None:
    fleet = start("misconfigured")
    assert fleet.end() == 2
    assert [line["signal"] for line in fleet.lines("got")] == ["SIGTERM"]
    assert fleet.told("worker died") == []


def test_what_the_workers_can_do_without_is_started_again_whatever_it_says(start: Start) -> None:
    fleet = start("misconfigured", roles={1: "scheduler"})
    died = fleet.wait_for(2, "told", event="scheduler died")
    assert died[0]["facts"] == {"worker": None, "status": 2, "restart_in": 0.1}
    (survivor,) = fleet.lines("start")
    assert alive(survivor["pid"])
    assert fleet.told("worker died") == fleet.lines("got") == []
    assert fleet.stop() == 0


def test_an_error_of_the_users_is_told_in_one_line(start: Start) -> None:
    fleet = start("misused", count=1)
    assert fleet.end() == 2
    assert fleet.err == "prefetch: no such thing (look again)\n"


def test_a_bug_in_a_worker_is_told_and_survived(start: Start) -> None:
    fleet = start("crashes", count=1)
    fleet.wait_for(2, "start")
    assert fleet.told("worker died")[0]["facts"]["status"] == 70
    assert fleet.stop() == 0
    assert "RuntimeError: a bug of ours" in fleet.err
    # What the worker did wrong has not led it back into the supervisor's code.
    assert len(fleet.lines("end")) == 1


def test_a_worker_may_exit_as_programs_do(start: Start) -> None:
    fleet = start("exits", settings={"_FIRST_PAUSE": 30.0, "_LONGEST_PAUSE": 30.0})
    died = fleet.wait_for(2, "told", event="worker died")
    assert {(line["facts"]["worker"], line["facts"]["status"]) for line in died} == {(0, 1), (1, 0)}
    # Nobody is left to wait for, but for pauses that a stop cuts short.
    assert fleet.stop() == 0
    assert fleet.err == "so it is\n"
    assert "worker 0 was here." in fleet.out
    assert "worker 1 was here." in fleet.out


def test_reloading_is_passed_on_to_all(start: Start) -> None:
    fleet = start("steady")
    fleet.pids()
    fleet.send(signal.SIGHUP)
    got = fleet.wait_for(2, "got")
    assert [line["signal"] for line in got] == ["SIGHUP", "SIGHUP"]
    assert {line["index"] for line in got} == {0, 1}
    assert fleet.stop() == 0


@pytest.mark.parametrize(
    ("second", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=str
)
def test_a_second_signal_kills(start: Start, second: signal.Signals, status: int) -> None:
    fleet = start("stubborn", drain=60.0)
    pids = fleet.pids()
    fleet.send(signal.SIGTERM)
    fleet.wait_for(1, "told", event="stop")
    assert all(map(alive, pids))
    fleet.send(second)
    assert fleet.end() == status
    assert not any(map(alive, pids))


def test_workers_that_do_not_stop_are_killed_after_a_while(start: Start) -> None:
    fleet = start("stubborn", drain=0.3, settings={"_GRACE": 0.2})
    pids = fleet.pids()
    begun = time.monotonic()
    assert fleet.stop() == 1
    assert time.monotonic() - begun > 0.5
    assert not any(map(alive, pids))


def test_a_worker_that_fails_while_it_stops_is_told_of(start: Start) -> None:
    fleet = start("failing")
    fleet.pids()
    assert fleet.stop() == 0
    (told,) = fleet.told("worker failed while it stopped")
    assert told["facts"] == {"worker": 0, "status": 3}


def test_a_killed_supervisor_leaves_no_orphans(start: Start) -> None:
    fleet = start("stubborn", count=3)
    pids = fleet.pids(3)
    fleet.process.kill()
    assert fleet.end() == -signal.SIGKILL
    until(lambda: not any(map(alive, pids)))


def test_a_worker_whose_supervisor_has_died_already_does_nothing(start: Start) -> None:
    fleet = start("steady", count=1, orphaned=True)
    fleet.wait_for(2, "told", event="worker died")
    assert fleet.stop() == 0
    assert fleet.lines("start") == []


def test_no_process_to_be_had_is_tried_again(start: Start) -> None:
    fleet = start("steady", count=1, fork_fails=True)
    fleet.pids(1)
    told = [line["facts"]["again_in"] for line in fleet.told("cannot start a worker")]
    assert told == [0.1, 0.2]
    assert fleet.stop() == 0


def test_it_can_be_stopped_at_any_moment(start: Start) -> None:
    randomness = random.Random(7)
    for _ in range(8):
        # Workers come and go all the time.
        settings = {"_FIRST_PAUSE": 0.0, "_LONGEST_PAUSE": 0.0}
        fleet = start("dies", count=4, status=0, settings=settings)
        fleet.wait_for(1, "start")
        time.sleep(randomness.uniform(0, 0.1))
        assert fleet.stop() == 0
        assert len(fleet.lines("end")) == 1


# ── the socket ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "", "0.0.0.0", "::1", "::"])
def test_listening_on_each_kind_of_address(host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    (sock,) = listen(host, 0)
    port = sock.getsockname()[1]
    assert port > 0
    assert not sock.getblocking()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    peers = {"::1": ["::1"], "::": ["::1", "127.0.0.1"]}.get(host, ["127.0.0.1"])
    if host == "localhost":
        peers = ["localhost"]
    for peer in peers:
        socket.create_connection((peer, port), timeout=SOON).close()
    sock.close()


def test_several_sockets_share_a_port_that_nobody_else_gets() -> None:
    sockets = listen("127.0.0.1", 0, 3)
    ports = {sock.getsockname()[1] for sock in sockets}
    assert len(ports) == 1
    (port,) = ports
    with pytest.raises(UsageError, match="in use"):
        listen("127.0.0.1", port, 3)
    with ExitStack() as stack:
        for sock in sockets:
            stack.callback(sock.close)
        for _ in range(60):
            peer = socket.create_connection(("127.0.0.1", port), timeout=SOON)
            stack.callback(peer.close)
        # All of them get some: each has a chance of one in three, sixty times.
        assert all(_has_visitors(sock) for sock in sockets)


def _has_visitors(sock: socket.socket) -> bool:
    try:
        sock.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_what_cannot_be_listened_on_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def why(host: str, port: int) -> str:
        with pytest.raises(UsageError) as caught:
            listen(host, port)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with listen("127.0.0.1", 0)[0] as sock:
        port = sock.getsockname()[1]
        assert why("127.0.0.1", port) == (
            f"cannot listen on 127.0.0.1:{port}: the address is in use"
        )
    assert why("192.0.2.1", 5000) == (
        "cannot listen on 192.0.2.1:5000: it is no address of this machine"
    )
    assert why("127.0.0.1", 70000) == "cannot listen on 127.0.0.1:70000: no such port"
    assert why("a" * 70, 1) == f"cannot listen on {'a' * 70}:1: no such host"

    def refuse(*_: Any, **__: Any) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied (while attempting to bind)")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert why("::1", 443) == (
        "cannot listen on [::1]:443: no permission; ports below 1024 take privileges"
    )


def test_the_limit_of_files_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (1024, 4096)}
    monkeypatch.setattr(workers.resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(workers.resource, "setrlimit", lambda _, wanted: limits.update(now=wanted))
    raise_file_limit()
    assert limits["now"] == (4096, 4096)
    limits["now"] = (1024, 1 << 20)
    raise_file_limit()
    assert limits["now"] == (65536, 1 << 20)
    for enough in [(100_000, 1 << 20), (workers.resource.RLIM_INFINITY,) * 2]:
        limits["now"] = enough
        raise_file_limit()
        assert limits["now"] == enough

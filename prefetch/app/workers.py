"""Several processes that do one job, and the supervisor that keeps them.

The supervisor has one thread and no event loop. The signals that concern it are blocked, and taken
one after the other where it waits: none comes at a wrong moment, none is lost.

    SIGTERM, SIGINT    passed on once: workers finish what is under way. A second one kills them
    SIGHUP             passed on: workers reload
    SIGCHLD            a worker has ended: another takes its place, unless all are to end

A terminal, or a service manager, may send SIGINT or SIGTERM to the workers, too: to a worker, more
than one of them means the same as one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, MappingProxyType
from typing import Final, NoReturn, Protocol

from prefetch.clock import Clock, SystemClock
from prefetch.errors import PrefetchError

EXIT_CONFIGURATION: Final = 2
_EXIT_INTERNAL: Final = 70  # EX_SOFTWARE

_FILES = 65536
_WORKER: Final = "worker"

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_WATCHED = (*_STOPPING, signal.SIGHUP, signal.SIGCHLD)
# What workers that were told to stop end with, by their own doing or by a signal's.
_STOPPED = frozenset({0, *(128 + s for s in _STOPPING), *(-s for s in _STOPPING)})
_PR_SET_PDEATHSIG = 1

_GRACE = 5.0  # seconds after `drain` until workers are killed
_EARLY = 5.0  # seconds within which a death counts as a failure to start
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_A_LONG_TIME = 3600.0

Handler = Callable[[int, FrameType | None], object] | int | None


class Tell(Protocol):
    """Takes events of the supervisor, with their facts; `ServerLog`'s methods do."""

    def __call__(self, event: str, /, **facts: object) -> object: ...


def _silent(event: str, /, **facts: object) -> None:
    """Nobody wants to know."""


def raise_file_limit() -> None:
    """Allow this process, and those that it forks, as many open files as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def supervise(
    count: int,
    work: Callable[[int], int],
    *,
    drain: float,
    tell: Tell = _silent,
    died: Callable[[int], object] = lambda _: None,
    stopping: Callable[[], object] = lambda: None,
    roles: Mapping[int, str] = MappingProxyType({}),
    clock: Clock | None = None,
) -> int:
    """Run `work(0)` to `work(count - 1)`, each in a process of its own, until told to stop.

    Called in the main thread of a process that has no other. `work` returns the worker's exit
    status; it finds signals as a new process does, and dies with the supervisor. A worker that has
    died is started again, after a pause that grows from 0.1 to 5 s while it dies within 5 s; one
    that exits with 2 ends them all. Told to stop, workers have `drain` + 5 seconds, then they are
    killed. `tell` hears what happens, `died` the index of each worker that has ended, `stopping`
    that all are to end now. `roles` names what does something else than the workers do: they can do
    without it, and whatever it exits with, it is started again.

    Returns 0 when all have ended as told, 1 when one had to be killed for it, 2 for a worker's 2,
    130 or 143 after a second signal.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with _signals_held() as ordinary:
        slots = [_Slot(index, roles.get(index, _WORKER)) for index in range(count)]
        fleet = _Fleet(slots, work, ordinary, drain=drain, clock=clock or SystemClock())
        return fleet.run(tell, died, stopping)


@dataclass(frozen=True, slots=True)
class _Ordinary:
    """How signals were before the supervisor took them."""

    mask: set[int | signal.Signals]
    handlers: dict[signal.Signals, Handler]


@contextmanager
def _signals_held() -> Iterator[_Ordinary]:
    """Block what is waited for. What comes too late is forgotten."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    # A handler that ignores SIGCHLD would have the kernel reap our workers.
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in _WATCHED}
    try:
        yield _Ordinary(mask, handlers)
    finally:
        while signal.sigtimedwait(_WATCHED, 0) is not None:
            pass
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@dataclass(slots=True)
class _Slot:
    """A worker's place. `pid` is None between a death and the next start, which is at `due`."""

    index: int
    role: str = _WORKER
    pid: int | None = None
    started: float = 0.0
    due: float = 0.0
    pause: float = 0.0


class _Fleet:
    """The workers, and what is to become of them."""

    def __init__(
        self,
        slots: list[_Slot],
        work: Callable[[int], int],
        ordinary: _Ordinary,
        *,
        drain: float,
        clock: Clock,
    ) -> None:
        self._slots = slots
        self._work = work
        self._ordinary = ordinary
        self._drain = drain
        self._clock = clock
        self._libc = ctypes.CDLL(None)
        self._stopping = False
        self._deadline: float | None = None
        self._status = 0

    def run(self, tell: Tell, died: Callable[[int], object], stopping: Callable[[], object]) -> int:
        """Until the last one has ended."""
        self._tell = tell
        self._died = died
        self._to_stop = stopping
        try:
            while not self._stopping or any(slot.pid is not None for slot in self._slots):
                if not self._stopping:
                    self._start_due()
                self._wait()
        except BaseException:
            # Only a bug leads here: it must not leave workers without a supervisor.
            self._send(signal.SIGKILL)
            raise
        return self._status

    def _wait(self) -> None:
        """For a signal, or until something is due."""
        caught = signal.sigtimedwait(_WATCHED, self._time_left())
        if caught is not None:
            self._take(signal.Signals(caught.si_signo))
        elif self._deadline is not None and self._clock.monotonic() >= self._deadline:
            self._tell("workers do not stop and are killed")
            self._kill(1)

    def _time_left(self) -> float:
        times = [self._deadline] if self._deadline is not None else []
        if not self._stopping:
            times = [slot.due for slot in self._slots if slot.pid is None]
        if not times:
            return _A_LONG_TIME
        return max(0.0, min(times) - self._clock.monotonic())

    def _take(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGHUP:
                self._tell("reload")
                self._send(number)
            case _ if self._stopping:
                self._tell("stop at once", signal=number.name)
                self._kill(128 + number)
            case _:
                self._tell("stop", signal=number.name)
                self._stop(number, 0)

    def _stop(self, number: signal.Signals, status: int) -> None:
        self._stopping = True
        self._status = status
        self._deadline = self._clock.monotonic() + self._drain + _GRACE
        self._to_stop()
        self._send(number)

    def _kill(self, status: int) -> None:
        self._status = status
        self._deadline = None
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for slot in self._slots:
            # Ours until it is reaped: the number cannot be another process's.
            if slot.pid is not None:
                os.kill(slot.pid, number)

    def _reap(self) -> None:
        """All children that have ended: as the first process of a container, others' too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for slot in self._slots:
                if slot.pid == pid:
                    self._ended(slot, os.waitstatus_to_exitcode(status))

    def _ended(self, slot: _Slot, code: int) -> None:
        slot.pid = None
        self._died(slot.index)
        worker = slot.index if slot.role == _WORKER else None
        if code == EXIT_CONFIGURATION and slot.role == _WORKER and not self._stopping:
            self._stop(signal.SIGTERM, EXIT_CONFIGURATION)
        elif not self._stopping:
            self._postpone(slot)
            self._tell(f"{slot.role} died", worker=worker, status=code, restart_in=slot.pause)
        elif code not in _STOPPED and self._deadline is not None:
            self._tell(f"{slot.role} failed while it stopped", worker=worker, status=code)

    def _postpone(self, slot: _Slot) -> None:
        """When to start it again: at once, unless it has just been started."""
        now = self._clock.monotonic()
        if now - slot.started >= _EARLY:
            slot.pause = 0.0
        else:
            slot.pause = min(max(_FIRST_PAUSE, 2 * slot.pause), _LONGEST_PAUSE)
        slot.due = now + slot.pause

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.pid is None and slot.due <= self._clock.monotonic():
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        slot.started = self._clock.monotonic()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._postpone(slot)
            reason = os.strerror(error.errno or errno.EAGAIN)
            self._tell(f"cannot start a {slot.role}", reason=reason, again_in=slot.pause)
            return
        if pid == 0:
            self._be_worker(slot.index, parent)
        slot.pid = pid

    def _be_worker(self, index: int, parent: int) -> NoReturn:
        """In the new process; never returns to what the supervisor was doing."""
        status = _EXIT_INTERNAL
        try:
            # Killed, the supervisor passes nothing on: the kernel does.
            self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() == parent:
                for number in _WATCHED:
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, self._ordinary.mask)
                status = _status_of(lambda: self._work(index))
        finally:
            # Nothing may lead back to the supervisor's code, not even a broken standard error.
            try:
                if sys.exc_info()[0] is not None:
                    traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status & 0xFF)


def _status_of(work: Callable[[], int]) -> int:
    """What a process ends with that does this; what users are at fault for is told in a line."""
    try:
        return work()
    except PrefetchError as error:
        sys.stderr.write(f"prefetch: {' '.join(str(error).split())}\n")
        return error.exit_code
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
        return error.code if isinstance(error.code, int) else int(error.code is not None)

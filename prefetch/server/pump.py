"""Ranges of files into sockets, from threads of their own.

asyncio copies what a socket does not take at once, and `sendfile` hands a client pages that have
left the processor's cache; both are slower than Go's registry. Here a thread maps a short window
of the file and sends from it: one copy, in the kernel, with the interpreter's lock released, the
reading of pages that are not in memory included. (Populating the window when it is mapped would
read them under the lock.) Each thread has a selector over the sockets that it serves, and gives
each that is ready one window a turn, so that nobody waits for a slow client, and the event loop
for none of them. Windows are unmapped at once: mapped pages count as the process's memory. The
send buffer is left to the kernel's tuning: a size of our own would end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import mmap
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from prefetch.clock import Clock
from prefetch.server.slowclients import bytes_taken

WINDOW: Final = 512 << 10
"""Bytes that are mapped and sent at a time."""
_ENOUGH_EVENTS: Final = 64
_LOOKS: Final = 4  # in the time that a client has
_DROP_WHAT_IS_QUEUED: Final = struct.pack("ii", 1, 0)  # struct linger, socket(7)


class Connection(Protocol):
    """A socket, or asyncio's guard around one."""

    def dup(self) -> socket.socket:
        """The same connection under another number."""
        ...


@dataclass(eq=False, slots=True)
class _Job:
    """One range on its way; `position` to `end` of the file `fd` are still to be sent.

    `socket` is a duplicate: asyncio guards the number of its own. `taken` is what the peer had
    confirmed when last looked at, `moved` when it was last seen to take something; `due` is when
    to look again.
    """

    socket: socket.socket
    fd: int
    position: int
    end: int
    stall: float
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    moved: float
    taken: int | None = None
    abandoned: bool = False
    due: float = 0.0

    def finish(self, error: Exception | None) -> None:
        """Tell the event loop; called on the thread."""
        self.socket.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self.loop.call_soon_threadsafe(self._settle, error)

    def has_stalled(self, now: float) -> bool:
        """Whether the peer has taken nothing for too long; also says when to look again."""
        taken = bytes_taken(self.socket)
        if taken != self.taken:
            self.taken, self.moved = taken, now
        self.due = now + self.stall / _LOOKS
        return now - self.moved >= self.stall

    def _settle(self, error: Exception | None) -> None:
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Pump:
    """`threads` threads that send; `close` ends them. Used from one event loop."""

    def __init__(self, threads: int, clock: Clock) -> None:
        self._clock = clock
        self._closed = False
        self._threads = [_Thread(clock, number) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    async def send(
        self,
        sock: Connection,
        fd: int,
        start: int,
        count: int,
        *,
        stall: float,
        report: Callable[[int], object] | None = None,
    ) -> None:
        """Send `count` bytes of the file from `start` on; nothing else may be sent meanwhile.

        The socket is a non-blocking one, and both descriptors stay open until this has returned.
        `report` is told how many bytes went to the kernel, however it ends.

        Raises ConnectionError when the peer has gone or the pump is closed, TimeoutError when the
        peer takes nothing for `stall` seconds (up to a quarter more may pass), OSError when the
        file cannot be read, and ValueError for a range that cannot be. When cancelled, nothing
        more is sent once this has returned.
        """
        if start < 0 or count < 0:
            raise ValueError(f"no range of a file: {count} bytes from {start}")
        if self._closed:
            raise ConnectionAbortedError("the server ends")
        if not count:
            return
        loop = asyncio.get_running_loop()
        end, now = start + count, self._clock.monotonic()
        job = _Job(_copy(sock), fd, start, end, stall, loop, loop.create_future(), now)
        thread = min(self._threads, key=_Thread.load)
        thread.take(job)
        try:
            await asyncio.shield(job.done)
        except asyncio.CancelledError:
            job.abandoned = True
            thread.wake()
            await _end_of(job)
            raise
        finally:
            if report is not None:
                report(job.position - start)

    async def close(self) -> None:
        """End the threads; what is under way is broken off (ConnectionAbortedError)."""
        self._closed = True
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
            thread.dispose()
        self._threads = []


class _Thread(threading.Thread):
    """One selector, and the jobs that it serves.

    `load`, `take`, `wake`, `stop` and `dispose` are the event loop's; all else runs on the thread.
    """

    def __init__(self, clock: Clock, number: int) -> None:
        super().__init__(name=f"pump-{number}", daemon=True)
        self._clock = clock
        self._poll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._bell, select.EPOLLIN)
        self._new: deque[_Job] = deque()
        self._jobs: dict[int, _Job] = {}
        self._next_look = math.inf  # no job is due before
        self._stopping = False

    def load(self) -> int:
        """How many jobs it has."""
        return len(self._jobs) + len(self._new)

    def take(self, job: _Job) -> None:
        """Serve this job, too."""
        self._new.append(job)
        self.wake()

    def wake(self) -> None:
        """Have the thread see what has been asked of it."""
        os.eventfd_write(self._bell, 1)

    def stop(self) -> None:
        """Break off what is under way, and end."""
        self._stopping = True
        self.wake()

    def dispose(self) -> None:
        """Let go of the bell: after the end, when nobody can ring it any more."""
        os.close(self._bell)

    def run(self) -> None:
        """Serve until told to stop."""
        while not self._stopping:
            for number, _ in self._poll.poll(self._patience(), _ENOUGH_EVENTS):
                if number == self._bell:
                    os.eventfd_read(self._bell)
                    self._attend()
                elif (job := self._jobs.get(number)) is not None:
                    self._step(number, job)
            now = self._clock.monotonic()
            if now >= self._next_look:
                self._look(now)
        for number, job in [*self._jobs.items(), *((-1, job) for job in self._new)]:
            self._end(number, job, ConnectionAbortedError("the server ends"))
        self._poll.close()

    def _patience(self) -> float | None:
        """Seconds until somebody may have stalled; None to wait for events alone."""
        if not self._jobs:
            self._next_look = math.inf
            return None
        return max(0.0, self._next_look - self._clock.monotonic())

    def _attend(self) -> None:
        while self._new:
            job = self._new.popleft()
            number = job.socket.fileno()
            job.taken = bytes_taken(job.socket)
            job.due = job.moved + job.stall / _LOOKS
            self._jobs[number] = job
            self._next_look = min(self._next_look, job.due)
            self._poll.register(number, select.EPOLLOUT)
        for number, job in [each for each in self._jobs.items() if each[1].abandoned]:
            self._end(number, job, ConnectionAbortedError("nobody waits for it"))

    def _step(self, number: int, job: _Job) -> None:
        """Send one window, or as much of it as the socket takes."""
        try:
            job.position += _send_window(job)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(number, job, error)
            return
        job.moved = self._clock.monotonic()
        if job.position >= job.end:
            self._end(number, job, None)

    def _look(self, now: float) -> None:
        """See who has stalled. A socket can be slow to become writable, however its peer reads."""
        for number, job in list(self._jobs.items()):
            if job.due <= now and job.has_stalled(now):
                # Or the kernel would keep what is queued until it has lost patience, too.
                job.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_WHAT_IS_QUEUED)
                self._end(number, job, TimeoutError("the client takes nothing"))
        self._next_look = min((job.due for job in self._jobs.values()), default=math.inf)

    def _end(self, number: int, job: _Job, error: Exception | None) -> None:
        if self._jobs.pop(number, None) is not None:
            self._poll.unregister(number)
        job.finish(error)


def _copy(sock: Connection) -> socket.socket:
    try:
        return sock.dup()
    except OSError as error:
        if error.errno == errno.EBADF:
            raise ConnectionResetError("the connection is closed") from None
        raise


async def _end_of(job: _Job) -> None:
    """Wait until the thread has let go of the job, however often that is cancelled."""
    while not job.done.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([job.done])
    job.done.exception()


def _send_window(job: _Job) -> int:
    base = job.position - job.position % mmap.ALLOCATIONGRANULARITY
    length = min(WINDOW, job.end - base)
    try:
        window = mmap.mmap(job.fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=base)
    except ValueError:
        raise OSError(errno.EIO, "the file is shorter than it should be") from None
    with window, memoryview(window) as whole, whole[job.position - base :] as rest:
        return _send(job.socket, rest)


def _send(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data)
    except (BlockingIOError, ConnectionError, TimeoutError):
        raise
    except OSError as error:
        if error.errno == errno.EFAULT:  # a page that could not be read; only the kernel tried
            raise OSError(errno.EIO, "the file cannot be read") from None
        raise ConnectionAbortedError(error.errno, error.strerror) from None

"""A process that has imported what commands need, and forks one for each that is asked for.

Most of a short command's time is imports. `python -m support.nursery` does them once; a fork of it
goes on as `python -m prefetch …` would after them. It is asked over a socket: a message of JSON,
with the three standard streams as descriptors. It answers with the PID of what it has forked, and
with the exit status when that has ended. It ends with whoever holds the other end of its input.
"""

from __future__ import annotations

import json
import os
import runpy
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

MESSAGE = 1 << 20
_STREAMS = 3


class Nursery:
    """Serves until its input ends; only in a fork does `serve` return what that is to run."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._waiting: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._ended, write = socket.socketpair()
        write.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        self._write = write
        for each in (listener, sys.stdin, self._ended):
            self._selector.register(each, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any] | None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj is self._ended:
                    self._ended.recv(1024)
                    self._reap()
                elif task := self._fork():
                    return task
            sys.stdout.flush()

    def _fork(self) -> dict[str, Any] | None:
        client, _ = self._listener.accept()
        message, streams, _, _ = socket.recv_fds(client, MESSAGE, _STREAMS)
        pid = os.fork()
        if pid == 0:
            self._leave()
            client.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return dict(json.loads(message))
        for stream in streams:
            os.close(stream)
        self._waiting[pid] = client
        client.sendall(f"{pid}\n".encode())
        return None

    def _leave(self) -> None:
        """What the nursery has open is nothing to a command."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for each in (self._listener, self._ended, self._write, *self._waiting.values()):
            each.close()

    def _reap(self) -> None:
        while self._waiting:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            # Perhaps nobody waits for it any more.
            with self._waiting.pop(pid) as client, suppress(OSError):
                client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _preload() -> None:
    """What commands import sooner or later; a thread would not survive a fork."""
    import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401

    import prefetch.app.check
    import prefetch.app.queries
    import prefetch.app.registry
    import prefetch.app.serve
    import prefetch.app.sync
    import prefetch.app.warm
    import prefetch.config.schema
    import prefetch.demo.upstream  # noqa: F401


def main() -> None:
    _preload()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(sys.argv[1])
        listener.listen(16)
        print("ready", flush=True)
        task = Nursery(listener).serve()
    if task is None:
        return
    os.chdir(task["directory"])
    os.environ.clear()
    os.environ.update(task["environment"])
    time.tzset()
    sys.argv = [task["module"], *task["words"]]
    runpy.run_module(task["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

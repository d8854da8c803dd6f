"""A network of a test's own: public, private and metadata addresses that lead nowhere else.

A thread of Linux may have namespaces of its own, and whatever it starts has them, too: threads and
processes. So a test runs there as a whole, without leaving its process. Needs `real("root", "ip")`.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from support.listener import Listener

PUBLIC = "93.184.215.14"
PRIVATE = "10.1.2.3"
METADATA = "169.254.169.254"

_CLONE_FS = 0x00000200
_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_LIBC = ctypes.CDLL(None, use_errno=True)


class Hosts:
    """What names resolve to in the island: its `/etc/hosts`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, names: Mapping[str, list[str]]) -> None:
        """Names with their addresses. The file stays the same one: it is mounted."""
        lines = [f"{address} {name}" for name, found in names.items() for address in found]
        self.path.write_text("\n".join(["127.0.0.1 localhost", "::1 localhost", *lines, ""]))


def on_an_island(directory: Path, work: Callable[[Hosts], None]) -> None:
    """Call `work` where only loopback and this module's addresses exist. Raises what it raises."""
    failure: list[BaseException] = []

    def live() -> None:
        try:
            work(_settle(directory))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


@contextmanager
def island(directory: Path) -> Iterator[Hosts]:
    """As `on_an_island`, for the thread that asks: it is there until the block ends."""
    home = Path.cwd()
    # The namespaces that it comes from: a mount namespace is given back with its own root.
    back = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "net")]
    try:
        yield _settle(directory)
    finally:
        # Threads that were started meanwhile share its directories, which setns(2) forbids.
        _check(_LIBC.unshare(_CLONE_FS))
        for namespace in back:
            _check(_LIBC.setns(namespace, 0))
            os.close(namespace)
        os.chdir(home)


def bind(source: Path, target: Path) -> None:
    """On the island, let a file or a directory be seen at another path, which must be there."""
    _check(_LIBC.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND, None))


def _settle(directory: Path) -> Hosts:
    _check(_LIBC.unshare(_CLONE_NEWNS | _CLONE_NEWNET))
    _check(_LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    hosts = Hosts(directory / "hosts")
    hosts.write({})
    bind(hosts.path, Path("/etc/hosts"))
    for words in (
        "link set lo up",
        *(f"addr add {address}/32 dev lo" for address in (PUBLIC, PRIVATE, METADATA)),
    ):
        subprocess.run(["ip", *words.split()], check=True, capture_output=True)
    return hosts


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Forwarder(Listener):
    """Listens at an address of the island, and passes all that comes on to a port of loopback."""

    def __init__(self, address: tuple[str, int], port: int) -> None:
        super().__init__(*address)
        self._behind = port
        self.visits = 0

    def handle(self, line: socket.socket) -> None:
        """Pass it on, in a thread of its own."""
        self.visits += 1
        threading.Thread(target=_join, args=(line, self._behind), daemon=True).start()


def _join(line: socket.socket, port: int) -> None:
    """Pass everything on, both ways, until one side ends."""
    with suppress(OSError), line, socket.create_connection(("127.0.0.1", port)) as behind:
        other = {line: behind, behind: line}
        while True:
            for ready in select.select(list(other), [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                other[ready].sendall(data)

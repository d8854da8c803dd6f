"""The cache is no open proxy, and no way into the network behind it: refused, and nothing leaves.

What leaves is seen by the kernel (strace), by who listens where nobody should come, or both.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from api_serving import (
    Server,
    Trap,
    UpstreamThread,
    configure,
    running,
    shapes,
    until,
)

from prefetch.demo.images import Image, image
from prefetch.demo.upstream import Upstream
from support.island import METADATA, PRIVATE, PUBLIC, Forwarder, Hosts, on_an_island
from support.processes import CommandLine

APP = "library/app"
NOWHERE = "sha256:" + "0" * 64
RESTS = ("manifests/1", f"manifests/{NOWHERE}", f"blobs/{NOWHERE}", "tags/list")


def hostile_registries(trap: int) -> list[str]:
    """Registries that a client must not get us to, in all spellings; `trap` is a port here."""
    hosts = [
        # The metadata service of most clouds: in numbers of all bases, and within IPv6.
        *("169.254.169.254", "2852039166", "0xa9fea9fe", "0XA9FEA9FE", "025177524776"),
        *("0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "169.254.43518", "169.16689662"),
        *("[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]"),
        *("[64:ff9b::a9fe:a9fe]", "[fe80::1]", "[fe80::1%25eth0]", "::ffff:a9fe:a9fe"),
        *("metadata.google.internal", "169.254.169.254.nip.io", "instance-data"),
        # This machine.
        *("127.0.0.1", "127.1", "0x7f000001", "2130706433", "017700000001", "127.000.000.001"),
        *("localhost", "LOCALHOST", "localhost.", "a.localhost", "[::1]", "[0:0:0:0:0:0:0:1]"),
        *("[::]", "0.0.0.0", "0", "[::ffff:127.0.0.1]", "localhost.localdomain"),
        # The network behind it.
        *("10.0.0.1", "192.168.1.1", "172.16.0.1", "kubernetes.default.svc", "registry"),
        # Others.
        *("unlisted.example", "evil.docker.io", "docker.io.evil.example", "docker.io."),
        *("docker.io:443", "docker.io:80", "quay.io:8443", "DOCKER.IO:443", "1.1.1.1"),
        # What no registry is called.
        *("", " ", ".", "..", "/", "\\", "*", "?", "docker.io/", "/docker.io", "//docker.io"),
        *("alice:secret@docker.io", "docker.io@evil.example", "docker.io#@evil.example"),
        *("http://docker.io", "https://169.254.169.254/", "file:///etc/passwd", "docker.io?x"),
        *("docker.io\0", "\0docker.io", "docker.io\r\nHost: evil", "docker.io\n", "docker.io\t"),
        *("docker.io%00", "docker%2eio", "%64ocker.io", "docker.io%2f..", "%5b::1%5d"),
        # Letters that look like others, or become them.
        *("d\u043ecker.io", "doc\u212aer.io", "docker\u3002io", "\uff44ocker.io", "qu\u0430y.io"),
        *("xn--dcker-jye.io", "docker.\u0131o", "\u2460\u2467\u2468.254.169.254", "quay\uff0eio"),
        *("a" * 64 + ".io", "a." * 200 + "io", "d" * 5000, "docker.io:99999", "docker.io:0"),
        *("docker.io:", "docker.io:-1", "docker.io:443:443", "[::1", "::1]", "[docker.io]"),
    ]
    with_port = ["127.0.0.1", "localhost", "[::1]", "127.1", "2130706433", "[::ffff:7f00:1]"]
    return hosts + [f"{host}:{trap}" for host in with_port]


def hostile_targets(registry: str, rest: str) -> Iterator[str]:
    """Every way to name a registry, percent-encoded once, twice, and as far as it goes, not."""
    once = quote(registry, safe="")
    twice = quote(once, safe="")
    for name in (once, twice):
        yield f"/v2/{APP}/{rest}?ns={name}"
        yield f"/v2/{APP}/{rest}?ns={name}&ns={name}"
        yield f"/v2/{name}/{APP}/{rest}"
        yield f"/{name}/v2/{APP}/{rest}"
    yield f"/v2/{APP}/{rest}?ns={''.join(f'%{byte:02x}' for byte in registry.encode())}"
    if re.fullmatch(r"[!-~]+", registry) and not set(registry) & set("?#&%+;"):
        yield f"/v2/{APP}/{rest}?ns={registry}"
        yield f"/v2/{registry}/{APP}/{rest}"
        yield f"/{registry}/v2/{APP}/{rest}"


def connections(trace: Path) -> set[str]:
    """To where the traced processes have sent anything but by connections that came to them."""
    wanted = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*?(\{sa_family=AF_INET6?[^}]*\})")
    return set(wanted.findall(trace.read_text(errors="replace")))


@contextmanager
def traced(cli: CommandLine, config: Path, trace: Path, **options: Any) -> Iterator[Server]:
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    prefix = ["strace", "-D", "-f", "-qq", "-s", "0", "-e", calls, "-o", str(trace)]
    with running(cli, config, prefix=prefix, **options) as server:
        yield server


@pytest.mark.real("strace")
def test_a_registry_that_is_not_configured_is_not_contacted(
    cli: CommandLine, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    with ExitStack() as stack:
        hub = stack.enter_context(UpstreamThread(cdn=False))
        trap = stack.enter_context(Trap())
        hub.content.put(APP, image("app"), "1")
        registries = {"docker.io": {"endpoint": hub.url}, "quay.io": {"endpoint": hub.url}}
        config = configure(cli, registries)
        server = stack.enter_context(traced(cli, config, trace))
        hostile = hostile_registries(trap.port)
        answered = set()
        for number, registry in enumerate(hostile):
            for rest in RESTS if number % 8 == 0 else RESTS[:1]:
                for target in hostile_targets(registry, rest):
                    answer = server.ask(target)
                    # Some of them make a path that is a repository of docker.io, and not there.
                    assert answer.status in (400, 404), (registry, target, answer)
                    assert answer.code in (
                        *("NAME_INVALID", "NAME_UNKNOWN", "UNSUPPORTED"),
                        *("MANIFEST_UNKNOWN", "BLOB_UNKNOWN"),
                    ), (registry, target)
                    answered.add((answer.status, answer.code))
        assert {(404, "NAME_UNKNOWN"), (400, "NAME_INVALID")} <= answered
        before = connections(trace)
        # To see that what leaves is seen: this does.
        assert server.ask(f"/v2/{APP}/manifests/1").status == 200
        port = hub.port
    assert trap.visits == []
    only = {f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("127.0.0.1")}}'}
    assert connections(trace) == only
    assert before <= only
    # Whatever was sent to docker.io's endpoint asks for a repository of docker.io's.
    asked = {each.path for each in hub.log if each.kind != "token"}
    assert not [path for path in asked if "169.254" in path or "localhost" in path], asked


# ── With `"*"`, on an island where private addresses are there to be reached ─────────────────────

PORTS = (80, 443)


class Island:
    """What lies there: a public registry by several names, and traps at every private address."""

    def __init__(self, hosts: Hosts, stack: ExitStack, directory: Path) -> None:
        authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        names = ["public.example", "both.example", "links.example", "realm.example"]
        authority.issue_cert(*names, PUBLIC, "127.0.0.1", "localhost").configure_cert(self._context)
        self._stack = stack
        self.traps = [
            stack.enter_context(Trap(port, host))
            for host in (PRIVATE, METADATA, "127.0.0.1")
            for port in PORTS
        ]
        hosts.write(
            {
                "public.example": [PUBLIC],
                "both.example": [PRIVATE, PUBLIC],
                "links.example": [PUBLIC],
                "realm.example": [PUBLIC],
                "inside.example": ["127.0.0.1"],
                "six.example": ["::1"],
                "lan.example": [PRIVATE],
                "metadata.example": [METADATA],
                "mapped.example": [f"::ffff:{METADATA}", "::ffff:127.0.0.1", f"::ffff:{PRIVATE}"],
                "none.example": ["0.0.0.0"],
            }
        )

    def registry(self, port: int, *, secure: bool = True, **settings: Any) -> Upstream:
        """A registry with `library/app:1`, to be reached at the public address and this port."""
        tls = self._context if secure else None
        made = self._stack.enter_context(UpstreamThread(tls=tls, **settings))
        made.content.put(APP, image("app"), "1")
        self._stack.enter_context(Forwarder((PUBLIC, port), made.port))
        return made

    def visits(self) -> list[bytes]:
        return [visit for trap in self.traps for visit in trap.visits]


@pytest.fixture
def island(tmp_path: Path) -> Callable[[Callable[[Island], None]], None]:
    """`island(work)` calls `work` there."""

    def run(work: Callable[[Island], None]) -> None:
        def live(hosts: Hosts) -> None:
            with ExitStack() as stack:
                work(Island(hosts, stack, tmp_path))

        on_an_island(tmp_path, live)

    return run


def pulls(server: Server, registry: str, item: Image) -> None:
    """A client gets the image from there, by all three shapes of path."""
    for path in shapes(registry, APP, "manifests/1"):
        assert server.ask(path).body == item.raw, server.log[-2000:]
    child = item.child("linux/amd64")
    for blob in child.blobs:
        for path in shapes(registry, APP, f"blobs/{blob.digest}"):
            assert server.ask(path).body == blob.read()


@pytest.mark.real("root", "ip")
def test_an_open_server_asks_public_registries_and_no_others(
    cli: CommandLine, island: Callable[[Callable[[Island], None]], None]
) -> None:
    def work(world: Island) -> None:
        public = world.registry(8443, cdn=False, auth="none")
        config = configure(
            cli, {"*": {"ca_file": str(world.ca_file)}}, negative_ttl=0, misses_per_second=10**6
        )
        with running(cli, config) as server:
            pulls(server, "public.example:8443", image("app"))
            # A name that leads here as well is used for what is public of it.
            pulls(server, "both.example:8443", image("app"))
            pulls(server, f"{PUBLIC}:8443", image("app"))
            names = ["inside", "six", "lan", "metadata", "mapped", "none", "unknown"]
            inside = [f"{name}.example" for name in names]
            inside += [f"{name}:{port}" for name in inside for port in PORTS]
            hostile = hostile_registries(80)
            for registry in [*inside, *hostile]:
                for rest in RESTS[:3] if registry in inside else RESTS[:1]:
                    encoded = quote(registry, safe="")
                    for path in shapes(encoded, APP, rest):
                        answer = server.ask(path)
                        assert answer.status in (400, 404, 503), (path, answer)
                        told = answer.body.decode()
                        assert not re.search(r"127\.0|10\.1\.2|169\.254\.169", told) or re.search(
                            r"\b(127|10|169)\b", registry
                        ), (path, told)
            assert world.visits() == []
            pulls(server, "public.example:8443", image("app"))
            # Clients have named these registries: they make no series of their own.
            assert not re.search(r'registry="(?!docker\.io")', server.ask("/metrics").body.decode())
        assert public.log.counts(kind="manifest", method="GET") > 0

    island(work)


@pytest.mark.real("root", "ip")
def test_a_public_registry_leads_nobody_inside(
    cli: CommandLine, island: Callable[[Callable[[Island], None]], None]
) -> None:
    """Redirects of blobs and manifests, and token services, at private addresses."""
    inside = (
        *(f"http://{host}/x" for host in ("127.0.0.1", PRIVATE, METADATA, "localhost")),
        *("http://lan.example/x", "http://inside.example/x", "http://metadata.example/x"),
        *("http://mapped.example/x", "http://0x7f000001/x", "http://2130706433/x"),
        *(f"http://[::ffff:{METADATA}]/x", "https://127.1/x", "//10.1.2.3/x"),
        *("http://public.example@127.0.0.1/x", "file:///etc/passwd", "gopher://127.0.0.1/x"),
    )

    def work(world: Island) -> None:
        registries: dict[str, Any] = {"*": {"ca_file": str(world.ca_file)}}
        upstreams = {}
        # One that the configuration names, at a public address, and one that it does not.
        for number, secure in enumerate((False, True)):
            made = world.registry(8000 + number, secure=secure, cdn=False, auth="none")
            name = "named.example" if number == 0 else f"public.example:{8000 + number}"
            upstreams[name] = made
        registries["named.example"] = {"endpoint": f"http://{PUBLIC}:8000"}
        config = configure(cli, registries, negative_ttl=0, misses_per_second=10**6)
        with running(cli, config) as server:
            for name, made in upstreams.items():
                for number, target in enumerate(inside):
                    check_redirects(server, name, made, target, number)
                    if not re.search("/(127.1|[0-9]+)/", target):
                        check_realm(server, name, made, target, number)
            assert world.visits() == []
            for name in upstreams:
                pulls(server, name, image("app"))

    def check_redirects(
        server: Server, name: str, made: Upstream, target: str, number: int
    ) -> None:
        item = image(f"redirect {name} {number}", layers=1)
        made.content.put(f"r/{number}", item, "1")
        made.faults.add("redirect", method="GET", kind="manifest", text=target, count=None)
        path = f"/v2/r/{number}/manifests/1?ns={name}"
        assert server.ask(path).status == 503, target
        made.faults.clear()
        made.faults.add("redirect", method="HEAD", kind="manifest", text=target, count=None)
        assert server.ask(f"/v2/h/{number}/manifests/1?ns={name}").status in (404, 503)
        made.faults.clear()
        # What makes no sense at all is taken for a registry that is down, for two seconds.
        until(lambda: server.ask(path).status == 200)
        made.faults.add("redirect", kind="blob", text=target, count=None)
        blob = item.child("linux/amd64").blobs[-1]
        answer = server.ask(f"/v2/r/{number}/blobs/{blob.digest}?ns={name}")
        assert (answer.status, answer.code) == (503, "UNAVAILABLE"), target
        made.faults.clear()

    def check_realm(server: Server, name: str, made: Upstream, target: str, number: int) -> None:
        made.content.put(f"t/{number}", image("realm"), "1")
        made.faults.add("bad-realm", repository=f"t/{number}", text=target, count=None)
        answer = server.ask(f"/v2/t/{number}/manifests/1?ns={name}")
        assert (answer.status, answer.code) == (503, "UNAVAILABLE"), target
        made.faults.clear()

    island(work)

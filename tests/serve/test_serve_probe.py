"""`prefetch probe` of `prefetch serve`: it asks as each kind of client does, and spends nothing."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api_serving import (
    Server,
    UpstreamThread,
    command,
    command_line,
    configure,
    running,
    sync,
    until,
)
from private_serving import OPEN, PASSWORDS, SECRET, World, open_world, with_users

from prefetch.demo.images import Image, image, manifest
from prefetch.demo.upstream import Upstream
from support.authority import Authority
from support.cache import write_users
from support.evidence import assert_no_crash, assert_no_secret
from support.factories import DockerRegistryFactory
from support.island import PRIVATE, Hosts, on_an_island
from support.listener import Listener
from support.processes import CommandLine, Result

APP, TOOL, HALF, COLD = (
    "docker.io/library/app:1",
    "quay.io/org/tool:2",
    "docker.io/library/half:1",
    "docker.io/library/cold:1",
)
KINDS = ["containerd", "podman", "docker", "path"]


def probe(
    cli: CommandLine, server: Server | str, *words: str, env: Mapping[str, str] | None = None
) -> Result:
    """Run it; nothing may look like a bug."""
    url = server if isinstance(server, str) else f"{server.scheme}://{server.address}"
    result = command(cli, "probe", "--cache-url", url, *words, env=env)
    assert_no_crash(result)
    return result


def asked(cli: CommandLine, server: Server | str, *words: str, **options: Any) -> Any:
    """The document; its `ok` and the exit status agree."""
    result = probe(cli, server, "-o", "json", *words, **options)
    assert result.stderr == ""
    assert result.code == (0 if result.json["ok"] else 1)
    return result.json


def sent(document: Any, kind: str, reference: str) -> list[tuple[str, str, str, int]]:
    """What one kind of client asked for, and how it was answered."""
    [client] = [each for each in document["clients"] if each["client"] == kind]
    [found] = [each for each in client["references"] if each["reference"] == reference]
    return [(c["step"], c["method"], c["path"], c["status"]) for c in found["checks"]]


def step(document: Any, name: str) -> tuple[bool, str]:
    [found] = [each for each in document["connection"] if each["step"] == name]
    return found["ok"], found["message"]


def faults(document: Any) -> list[tuple[str, str, str, int | None, str]]:
    """Kind of client, reference, step, status and message of each check that failed."""
    return [
        (client["client"], each["reference"], check["step"], check["status"], check["message"])
        for client in document["clients"]
        for each in client["references"]
        for check in each["checks"]
        if not check["ok"]
    ]


@dataclass(frozen=True, slots=True)
class Half:
    """A server with two images that are whole, one in part, and one not at all."""

    cli: CommandLine
    server: Server
    hub: Upstream
    quay: Upstream
    app: Image
    tool: Image

    @property
    def requests(self) -> int:
        """How many there have been to upstreams."""
        return len(self.hub.log) + len(self.quay.log)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Half]:
    cli = command_line(tmp_path_factory.mktemp("probe"))
    with UpstreamThread() as hub, UpstreamThread() as quay:
        # The platform that nobody wants stands first.
        app, tool = image("app", platforms=("linux/arm64", "linux/amd64")), manifest("tool")
        hub.content.put("library/app", app, "1")
        hub.content.put("library/half", image("half"), "1")
        hub.content.put("library/cold", image("cold"), "1")
        quay.content.put("org/tool", tool, "2")
        registries = {"docker.io": {"endpoint": hub.url}, "quay.io": {"endpoint": quay.url}}
        # Tags would be looked at all the time, were it not for only-if-cached.
        config = configure(cli, registries, tag_ttl="1ms")
        sync(cli, config, APP, TOOL)
        with running(cli, config, "--workers", "2") as server:
            assert server.ask("/v2/library/half/manifests/1").status == 200
            yield Half(cli, server, hub, quay, app, tool)


def test_each_client_asks_as_it_does(half: Half) -> None:
    before = half.requests
    document = asked(half.cli, half.server, "app:1", TOOL)
    assert half.requests == before
    assert document["ok"]
    child, top = half.app.child("linux/amd64"), half.app.digest
    arm = half.app.child("linux/arm64").digest
    config, layer = child.blobs[0].digest, min(child.blobs[1:], key=lambda each: each.size).digest
    hub, image_ = "/v2/library/app", "/v2/docker.io/library/app"
    ns, below = "?ns=docker.io", "/docker.io/v2/library/app"
    assert sent(document, "containerd", APP) == [
        ("resolve", "HEAD", f"{hub}/manifests/1{ns}", 200),
        ("digest", "GET", f"{hub}/manifests/{top}{ns}", 200),
        ("platform", "GET", f"{hub}/manifests/{child.digest}{ns}", 200),
        ("config-head", "HEAD", f"{hub}/blobs/{config}{ns}", 200),
        ("config", "GET", f"{hub}/blobs/{config}{ns}", 200),
        ("layer-start", "GET", f"{hub}/blobs/{layer}{ns}", 206),
        ("layer-end", "GET", f"{hub}/blobs/{layer}{ns}", 206),
    ]
    assert sent(document, "podman", APP) == [
        ("ping", "GET", "/v2/", 200),
        ("resolve", "GET", f"{image_}/manifests/1", 200),
        ("platform", "GET", f"{image_}/manifests/{child.digest}", 200),
        ("config", "GET", f"{image_}/blobs/{config}", 200),
        ("layer", "GET", f"{image_}/blobs/{layer}", 200),
    ]
    for kind, ping, path in (("docker", "/v2/", hub), ("path", "/docker.io/v2/", below)):
        assert sent(document, kind, APP) == [
            ("ping", "GET", ping, 200),
            ("resolve", "HEAD", f"{path}/manifests/1", 200),
            ("digest", "GET", f"{path}/manifests/{top}", 200),
            ("platform", "GET", f"{path}/manifests/{child.digest}", 200),
            ("config", "GET", f"{path}/blobs/{config}", 200),
            ("layer", "GET", f"{path}/blobs/{layer}", 200),
        ]
    assert sent(document, "containerd", TOOL)[0][2] == "/v2/org/tool/manifests/2?ns=quay.io"
    assert sent(document, "path", TOOL)[0][2] == "/quay.io/v2/"
    # Docker asks a mirror for docker.io alone.
    by_kind = {client["client"]: client["references"] for client in document["clients"]}
    assert list(by_kind) == KINDS
    assert [each["reference"] for each in by_kind["docker"]] == [APP]
    # The server has heard the very same requests, and the one for the platform that it lacks.
    heard = [("GET", f"{hub}/manifests/{arm}{ns}")]
    heard += [(method, path) for kind in KINDS for _, method, path, _ in sent(document, kind, APP)]
    for method, path in heard:
        line = f" method={method} path={path} status="
        until(lambda line=line: line in half.server.log)


def test_the_document(half: Half) -> None:
    document = asked(half.cli, half.server, APP)
    assert list(document) == ["cache_url", "ok", "connection", "clients", "errors"]
    assert (document["cache_url"], document["errors"]) == (f"http://{half.server.address}", [])
    steps = ["address", "tls", "api", "credentials", "ready", "only-if-cached"]
    assert [each["step"] for each in document["connection"]] == steps
    assert all(list(each) == ["step", "ok", "message"] for each in document["connection"])
    for client in document["clients"]:
        assert list(client) == ["client", "ok", "references"]
        [reference] = client["references"]
        assert list(reference) == ["reference", "ok", "digest", "checks"]
        assert reference["digest"] == half.app.digest
        for check in reference["checks"]:
            assert list(check) == ["step", "method", "path", "status", "ok", "message"]
            assert (check["ok"], bool(check["message"])) == (True, True)


def test_what_the_cache_lists_is_asked_for(half: Half) -> None:
    before = half.requests
    document = asked(half.cli, half.server)
    assert half.requests == before
    containerd = document["clients"][0]
    assert {each["reference"] for each in containerd["references"]} == {APP, TOOL, HALF}
    assert {fault[1] for fault in faults(document)} == {HALF}


@pytest.mark.parametrize("reference", [HALF, COLD, "quay.io/org/tool:nope", "ghcr.io/org/none:1"])
def test_what_is_not_whole(half: Half, reference: str) -> None:
    before = half.requests
    document = asked(half.cli, half.server, reference, APP)
    assert half.requests == before
    found = faults(document)
    assert [fault[0] for fault in found] == [
        kind for kind in KINDS if kind != "docker" or reference.startswith("docker.io")
    ]
    for _, name, name_of_step, status, message in found:
        assert (name, name_of_step, status) == (reference, "resolve", 504)
        assert message == (
            f"not whole in the cache: `prefetch sync --image {reference}` would fetch it"
        )


def test_by_digest(half: Half) -> None:
    child = half.app.child("linux/amd64").digest
    document = asked(half.cli, half.server, f"app@{child}", f"app:1@{half.app.digest}")
    assert document["ok"]
    assert sent(document, "podman", f"docker.io/library/app@{child}")[1][2].endswith(child)


def test_text_is_for_people(half: Half) -> None:
    bad = probe(half.cli, half.server, APP, COLD, TOOL)
    lines = bad.stdout.splitlines()
    assert bad.code == 1
    assert lines[0] == "connection  ok      plain HTTP"
    assert "containerd  failed  2 of 3 images" in lines
    assert "docker      failed  1 of 2 images" in lines
    assert lines.count(f"  {COLD}") == 4
    assert f"  {APP}" not in lines
    assert lines[-1].endswith(": 2 of 3 images can be pulled by every kind of client")
    assert "would fetch it" in " ".join(bad.stdout.split())
    assert max(map(len, lines)) <= 80
    good = probe(half.cli, half.server, APP)
    assert good.code == 0
    assert good.stdout.splitlines()[1:5] == [f"{kind.ljust(10)}  ok      1 image" for kind in KINDS]
    quiet = probe(half.cli, half.server, APP, "-q")
    assert (quiet.code, quiet.stdout) == (0, "")
    wordy = probe(half.cli, half.server, TOOL, "-v").stdout.splitlines()
    assert "  ok only-if-cached: heeded: nothing that is asked for here costs a pull" in wordy
    assert "docker      ok      no image of docker.io is among them" in wordy
    assert [line for line in wordy if line.startswith("    ok layer-end: GET /v2/org/tool/blobs")]


def test_an_empty_cache(cli: CommandLine) -> None:
    config = configure(cli, {"docker.io": {"endpoint": "http://127.0.0.1:1"}})
    with running(cli, config) as server:
        document = asked(cli, server)
        text = probe(cli, server)
    assert (document["ok"], document["clients"], document["errors"]) == (True, [], [])
    assert step(document, "catalog")[0]
    assert (text.code, text.stderr) == (0, "")
    assert text.stdout.endswith(": the connection works, the cache lists no image\n")


def test_a_cache_that_cannot_work_says_why(cli: CommandLine) -> None:
    config = configure(cli, {"docker.io": {"endpoint": "http://127.0.0.1:1"}})
    with running(cli, config) as server:
        locked = sqlite3.connect(cli.data_dir / "prefetch.db", isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        try:
            document = asked(cli, server)
            text = probe(cli, server)
        finally:
            locked.close()
    ok, message = step(document, "ready")
    assert not ok
    assert "/readyz is 503: not ready: the database or the disk does not answer" in message
    assert step(document, "only-if-cached")[0]
    assert "/readyz is 503" in text.stdout


# Behind a proxy


class Stripping(Listener):
    """A reverse proxy that drops Cache-Control from requests, and writes its own name."""

    def __init__(self, server: Server, *, strip: bool) -> None:
        super().__init__("127.0.0.1", 0)
        self._server = server
        self._strip = strip

    def handle(self, line: socket.socket) -> None:
        threading.Thread(target=self._pass_on, args=(line,), daemon=True).start()

    def _pass_on(self, line: socket.socket) -> None:
        with line:
            line.settimeout(10)
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    piece = line.recv(65536)
                    if not piece:
                        return
                    head += piece
                first, *fields = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
                kept = [f for f in fields if not f.lower().startswith((b"connection:",))]
                if self._strip:
                    kept = [f for f in kept if not f.lower().startswith(b"cache-control:")]
                with self._server.connect() as inner:
                    inner.sendall(b"\r\n".join([first, *kept, b"Connection: close", b"", b""]))
                    answer = b""
                    while piece := inner.recv(65536):
                        answer += piece
                line.sendall(answer.replace(b"Server: prefetch", b"Server: proxy"))
            except OSError:
                return


def test_a_proxy_that_changes_nothing_is_none_of_our_business(half: Half) -> None:
    with Stripping(half.server, strip=False) as proxy:
        document = asked(half.cli, f"http://127.0.0.1:{proxy.port}", APP)
    assert document["ok"]


def test_a_proxy_that_makes_probes_dear_is_found_out(half: Half) -> None:
    before = half.requests
    with Stripping(half.server, strip=True) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        document = asked(half.cli, url, COLD)
        text = probe(half.cli, url, COLD)
        assert half.requests == before
        # Whoever asks all the same learns that it would have cost pulls.
        asked(half.cli, url, "docker.io/library/none:1", "--any-registry")
        assert half.requests > before
    ok, message = step(document, "only-if-cached")
    assert not ok
    assert "is not heeded (404)" in message
    assert document["clients"] == []
    assert text.stdout.endswith(": no image was asked for\n")


# TLS and users


@pytest.fixture
def world(cli: CommandLine) -> Iterator[World]:
    with open_world(cli) as opened:
        yield opened


def test_over_tls_with_users(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    issued = authority.issue("127.0.0.1")
    tls = {"cert_file": str(issued.cert_file), "key_file": str(issued.key_file)}
    config = with_users(world, tls=tls)
    world.sync(config)
    secret, public = f"docker.io/{SECRET}:1", f"docker.io/{OPEN}:1"
    trusting = ["--ca-file", str(authority.ca_file)]
    alice = [*trusting, "--username", "alice", "--password-env", "PASSWORD"]
    env = {"PASSWORD": PASSWORDS["alice"]}
    results = []
    with world.serving(config) as server:
        before = len(world.upstream.log)
        untrusting = asked(world.cli, server, secret)
        nobody = asked(world.cli, server, secret, public, *trusting)
        known = asked(world.cli, server, secret, public, *alice, env=env)
        listed = asked(world.cli, server, *alice, env=env)
        wrong = asked(world.cli, server, public, *alice, env={"PASSWORD": "wrong-5b1c9e"})
        results.append(probe(world.cli, server, public, *alice, "-v", env=env))
        results.append(probe(world.cli, server, public, *alice, env={"PASSWORD": "wrong-5b1c9e"}))
        assert len(world.upstream.log) == before
        log = server.log
    ok, message = step(untrusting, "tls")
    assert (ok, untrusting["clients"]) == (False, [])
    assert "--ca-file" in message

    assert step(nobody, "credentials")[0]
    assert {fault[:4] for fault in faults(nobody)} == {
        *((kind, secret, "resolve", 504) for kind in ("containerd", "podman")),
        *((kind, name, "ping", 401) for kind in ("docker", "path") for name in (secret, public)),
    }
    assert any("or it is private: --username" in fault[4] for fault in faults(nobody))

    assert known["ok"]
    assert "TLSv1.3, the certificate is valid for" in step(known, "tls")[1]
    assert step(known, "credentials") == (True, "accepted for alice")
    assert listed["ok"]
    assert secret in json.dumps(listed)

    ok, message = step(wrong, "credentials")
    assert not ok
    assert "not accepted for alice (401): check the name and the password" in message
    assert results[1].code == 1
    assert "check the name and the password" in results[1].stdout
    for secret_word in (PASSWORDS["alice"], "wrong-5b1c9e"):
        assert secret_word not in log
    assert_no_secret(world.cli, ["wrong-5b1c9e", PASSWORDS["alice"]], *results)


@pytest.mark.real("skopeo")
def test_skopeo_goes_on_without_credentials_as_the_probe_says(world: World) -> None:
    config = with_users(world)
    world.sync(config)
    with world.serving(config) as server:
        document = asked(world.cli, server, f"docker.io/{OPEN}:1")
        source = f"docker://{server.address}/docker.io/{OPEN}:1"
        command = ["skopeo", "inspect", "--raw", "--tls-verify=false", source]
        done = subprocess.run(
            command, capture_output=True, env=world.cli.environment(), timeout=60, check=False
        )
    assert sent(document, "podman", f"docker.io/{OPEN}:1")[0] == ("ping", "GET", "/v2/", 401)
    assert {fault[0] for fault in faults(document)} == {"docker", "path"}
    assert (done.returncode, done.stdout) == (0, world.open.raw), done.stderr


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_password_from_a_file(cli: CommandLine, ending: str) -> None:
    password, file = "with space at the end ", cli.home / "password"
    users = write_users(cli.home / "htpasswd", {"alice": password})
    file.write_text(f"{password}{ending}", newline="")
    config = configure(
        cli, {"docker.io": {"endpoint": "http://127.0.0.1:1"}}, htpasswd_file=str(users)
    )
    words = ["--username", "alice", "--password-file", str(file)]
    with running(cli, config) as server:
        document = asked(cli, server, *words)
    assert step(document, "credentials") == (True, "accepted for alice")


@pytest.mark.real("root", "ip")
def test_no_password_goes_in_the_clear_over_a_network(cli: CommandLine, tmp_path: Path) -> None:
    """Not even to a server that asks for it; to this machine it may, whatever its name."""
    heard: list[bytes] = []

    class Greedy(Listener):
        def handle(self, line: socket.socket) -> None:
            with line:
                data = line.recv(65536)
                heard.append(data)
                if data:
                    line.sendall(
                        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n"
                        b'WWW-Authenticate: Basic realm="prefetch"\r\nConnection: close\r\n\r\n'
                    )

    def live(hosts: Hosts) -> None:
        hosts.write({"cache.test": [PRIVATE], "here.test": ["127.0.0.1"]})
        words = ["app:1", "--any-registry", "--username", "alice", "--password-env", "PASSWORD"]
        env = {"PASSWORD": "pw-77aa01"}
        with Greedy("0.0.0.0", 0) as far:
            documents = [
                asked(cli, f"http://{name}:{far.port}", *words, env=env)
                for name in (PRIVATE, "cache.test")
            ]
            sent_far = len(heard)
            asked(cli, f"http://here.test:{far.port}", *words, env=env)
        for document in documents:
            ok, message = step(document, "credentials")
            assert not ok
            assert "is plain HTTP, and anybody on the way could read them" in message
        assert sent_far > 10
        assert not [data for data in heard[:sent_far] if b"authorization:" in data.lower()]
        assert [data for data in heard[sent_far:] if b"authorization: basic" in data.lower()]

    on_an_island(tmp_path, live)


# What is not a cache


def test_a_registry_is_asked_for_nothing_that_it_might_count(cli: CommandLine) -> None:
    with UpstreamThread() as upstream:
        upstream.content.put("library/app", manifest("app"), "1")
        document = asked(cli, upstream.url, APP)
        assert {each.path for each in upstream.log.requests} == {"/v2/"}
    assert (document["ok"], document["clients"]) == (False, [])
    assert "names bearer: a cache asks for Basic" in step(document, "api")[1]


@pytest.mark.real("docker-registry")
async def test_a_real_registry_is_none_of_ours(
    cli: CommandLine, docker_registry: DockerRegistryFactory
) -> None:
    registry = await docker_registry()
    refused = await cli("probe", "--cache-url", registry.url, "-o", "json", APP)
    anyhow = await cli("probe", "--cache-url", registry.url, "-o", "json", "--any-registry")
    assert (refused.code, refused.json["clients"]) == (1, [])
    ok, message = step(refused.json, "ready")
    assert not ok
    assert "/readyz is 404" in message
    assert (anyhow.code, anyhow.json["ok"]) == (0, True)
    assert step(anyhow.json, "catalog")[1].startswith("the cache lists no image")

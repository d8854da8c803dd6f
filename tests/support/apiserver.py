"""A Kubernetes API server of a test's own, over an etcd of its own, on loopback.

Nothing else of a cluster runs. No controller makes pods of a Deployment, or the service accounts of
a namespace; nothing is scheduled, and no node comes by itself. Its certificates are a test's own.
`kube-apiserver` and `kubectl` have been built (`support.gotools`), and `etcd` is on PATH.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import shutil
import ssl
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import aiohttp
import trustme
import yaml

from support.apicalls import Answer, accepted, ask, create_all
from support.gotools import path_of
from support.http import bearer
from support.manifests import Object, manifest, role, service_account
from support.processes import Result, finish, free_port

ADMIN = "admin"
_MASTERS = "system:masters"
_SERVICE_ACCOUNT = "system:serviceaccount:"
# The server makes them a moment after it is ready.
_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_STARTING_SECONDS = 90.0
_STOPPING_SECONDS = 30.0
_GRANTING_SECONDS = 30.0
_POLL_SECONDS = 0.1
_LOG_TAIL = 2000


class ApiServer:
    """The server, asked over HTTP or by `kubectl`; any event loop may ask it.

    Whoever is not said to ask is `ADMIN`, who may do anything.
    """

    def __init__(
        self,
        directory: Path,
        authority: trustme.CA,
        tokens: Mapping[str, str],
        port: int,
        store: str,
    ) -> None:
        self._store = store
        self.url = f"https://127.0.0.1:{port}"
        self.ca_file = directory / "ca.pem"
        self._directory = directory
        self._authority = authority
        self._tokens = tokens
        self._trust = ssl.create_default_context(cafile=self.ca_file)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Of etcd and the server."""
        return tuple(process.pid for process in self._processes.values())

    def log(self, name: str = "kube-apiserver") -> str:
        """The server's or `etcd`'s, until they are stopped."""
        return (self._directory / f"{name}.log").read_text()

    async def ask(
        self, method: str, path: str, body: Object | None = None, *, token: str | None = None
    ) -> Answer:
        """One request of the admin, or of whom `token` belongs to; a PATCH merges."""
        async with self._session(token) as session:
            return await ask(session, method, path, body)

    async def create(self, objects: Iterable[Object], *, at_once: int = 32) -> list[Object]:
        """Create them all, with their `status` where they have one; in order, as answered.

        ExceptionGroup of RuntimeErrors, with what the server said, where it refuses one.
        """
        async with self._session(connections=at_once) as session:
            return await create_all(session, list(objects), at_once)

    async def namespaces(self, *names: str) -> None:
        """Create namespaces, each with the service account without which no pod is let in."""
        await self.create(manifest("v1", "Namespace", name) for name in names)
        await self.create(service_account(name, "default") for name in names)

    async def allow(
        self,
        user: str,
        verbs: Sequence[str],
        resources: Sequence[str],
        *,
        api_group: str = "",
        namespace: str | None = None,
    ) -> None:
        """Let a user do `verbs` to `resources`, everywhere or in a namespace; heeded on return."""
        name = f"allowed-{secrets.token_hex(4)}"
        await self.create(
            role(name, user, verbs, resources, api_group=api_group, namespace=namespace)
        )
        wish = (user, verbs[0], resources[0])
        async with asyncio.timeout(_GRANTING_SECONDS):
            while not await self.may(*wish, api_group=api_group, namespace=namespace):
                await asyncio.sleep(_POLL_SECONDS)

    async def may(
        self,
        user: str,
        verb: str,
        resource: str,
        *,
        api_group: str = "",
        namespace: str | None = None,
    ) -> bool:
        """Whether a user may do it, everywhere or in one namespace."""
        kind, _, part = resource.partition("/")
        wish = {"verb": verb, "group": api_group, "resource": kind, "subresource": part}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {**wish, "namespace": namespace or ""}},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = accepted(await self.ask("POST", path, review))
        return bool(answer["status"]["allowed"])

    async def token(self, namespace: str, service_account: str, seconds: int = 3600) -> str:
        """A token of a service account, by TokenRequest; Kubernetes gives none for under 600 s."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        return str(accepted(await self.ask("POST", path, request))["status"]["token"])

    async def kubeconfig(
        self,
        path: Path,
        user: str = ADMIN,
        *,
        certificate: bool = False,
        namespace: str | None = None,
    ) -> Path:
        """Write a kubeconfig, and return its path; its only context is called as the user is.

        The user, with a token, is the admin, one of those whom the server was started with, or
        `system:serviceaccount:<namespace>:<name>`, for an hour. With a client certificate it is
        any, and in no group unless it is the admin.
        """
        shown = self._certified(user) if certificate else {"token": await self._token_of(user)}
        place = {"server": self.url, "certificate-authority-data": _encoded(self.ca_file)}
        context = {"cluster": "test", "user": user}
        if namespace is not None:
            context["namespace"] = namespace
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": user,
            "clusters": [{"name": "test", "cluster": place}],
            "users": [{"name": user, "user": shown}],
            "contexts": [{"name": user, "context": context}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    async def kubectl(
        self, *words: str | Path, stdin: str = "", kubeconfig: Path | None = None
    ) -> Result:
        """Any command of `kubectl`, to its end; the admin's unless another kubeconfig is given."""
        shown = kubeconfig or self._directory / "kubeconfig"
        process = await asyncio.create_subprocess_exec(
            path_of("kubectl"),
            *("--kubeconfig", shown, *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
        )
        return await finish(process, stdin=stdin)

    async def forget(self) -> None:
        """Drop the history, as etcd does every few minutes: lists that are under way expire."""
        async with aiohttp.ClientSession(self._store) as session:
            put = {"key": base64.b64encode(b"later").decode()}
            later = accepted(await ask(session, "POST", "/v3/kv/put", put))
            compaction = {"revision": later["header"]["revision"], "physical": True}
            accepted(await ask(session, "POST", "/v3/kv/compaction", compaction))

    def run(self, *command: str | Path) -> None:
        """Start a program that ends when this does; it logs to a file that is called as it is."""
        name = Path(command[0]).name
        with (self._directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment(), cwd=self._directory
            )
        self._processes[name] = process

    async def ready(self) -> None:
        """Wait until it takes pods; RuntimeError with its log if it ends before, or hangs."""
        try:
            async with asyncio.timeout(_STARTING_SECONDS):
                while not await self._answers():
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise RuntimeError(f"the API server hangs: {self.log()[-_LOG_TAIL:]}") from None
        await self.create(service_account(name, "default") for name in _NAMESPACES)
        await self.kubeconfig(self._directory / "kubeconfig")

    async def stop(self) -> None:
        """End the server, then etcd, and remove what they wrote."""
        for process in reversed(self._processes.values()):
            await asyncio.to_thread(_end, process)
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _answers(self) -> bool:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {self.log(name)[-_LOG_TAIL:]}")
        paths = ("/readyz", *(f"/api/v1/namespaces/{name}" for name in _NAMESPACES))
        try:
            answers = [await self.ask("GET", path) for path in paths]
        except aiohttp.ClientError:
            return False
        return all(answer.status == 200 for answer in answers)

    async def _token_of(self, user: str) -> str:
        if not user.startswith(_SERVICE_ACCOUNT):
            return self._tokens[user]
        namespace, name = user.removeprefix(_SERVICE_ACCOUNT).split(":")
        return await self.token(namespace, name)

    def _certified(self, user: str) -> Mapping[str, str]:
        """A certificate's common name is the user, its organization is the group."""
        group = _MASTERS if user == ADMIN else None
        # Go refuses a certificate without any alternative name that says that it has some.
        pair = self._authority.issue_cert("localhost", common_name=user, organization_name=group)
        chain = b"".join(part.bytes() for part in pair.cert_chain_pems)
        return {
            "client-certificate-data": base64.b64encode(chain).decode(),
            "client-key-data": base64.b64encode(pair.private_key_pem.bytes()).decode(),
        }

    def _session(self, token: str | None = None, connections: int = 1) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            self.url,
            headers=bearer(token or self._tokens[ADMIN]),
            connector=aiohttp.TCPConnector(ssl=self._trust, limit=connections),
        )

    def _environment(self) -> Mapping[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self._directory)}


async def start_api_server(
    directory: Path,
    *,
    users: Mapping[str, Sequence[str]] | None = None,
    flags: Iterable[str] = (),
) -> ApiServer:
    """Start etcd and the server with all they write in `directory`; wait until it takes pods.

    `users` maps the names of those who get a token, besides the admin, to their groups; `flags`
    are further ones of the server's.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True)
    groups = {**(users or {}), ADMIN: (_MASTERS,)}
    tokens = {name: secrets.token_hex(16) for name in groups}
    authority = trustme.CA()
    _write_files(directory, authority, groups, tokens)
    port, store = free_port(), f"http://127.0.0.1:{free_port()}"
    server = ApiServer(directory, authority, tokens, port, store)
    try:
        server.run("etcd", *_etcd_flags(directory, store))
        server.run(path_of("kube-apiserver"), *_server_flags(directory, store, port), *flags)
        await server.ready()
    except BaseException:
        await server.stop()
        raise
    return server


def _write_files(
    directory: Path,
    authority: trustme.CA,
    groups: Mapping[str, Sequence[str]],
    tokens: Mapping[str, str],
) -> None:
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    pair = authority.issue_cert("127.0.0.1", "localhost")
    for number, part in enumerate(pair.cert_chain_pems):
        part.write_to_path(str(directory / "server.pem"), append=number > 0)
    pair.private_key_pem.write_to_path(str(directory / "server.key"))
    signing = authority.issue_cert("service-accounts")
    signing.private_key_pem.write_to_path(str(directory / "signing.key"))
    lines = [f'{tokens[name]},{name},{name},"{",".join(groups[name])}"\n' for name in groups]
    (directory / "tokens.csv").write_text("".join(lines))


def _etcd_flags(directory: Path, url: str) -> list[str | Path]:
    return [
        *("--data-dir", directory / "etcd", "--unsafe-no-fsync"),
        *("--logger", "zap", "--log-level", "warn"),
        *("--listen-client-urls", url, "--advertise-client-urls", url),
        *("--listen-peer-urls", "http://127.0.0.1:0"),
    ]


def _server_flags(directory: Path, store: str, port: int) -> list[str | Path]:
    """RBAC, and the usual admission: pods get a priority and a service account's token."""
    key = directory / "signing.key"
    return [
        *("--etcd-servers", store, "--secure-port", str(port)),
        *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
        *("--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/24"),
        *("--cert-dir", directory, "--client-ca-file", directory / "ca.pem"),
        *("--tls-cert-file", directory / "server.pem"),
        *("--tls-private-key-file", directory / "server.key"),
        *("--token-auth-file", directory / "tokens.csv"),
        *("--service-account-issuer", "https://kubernetes.default.svc"),
        *("--service-account-key-file", key, "--service-account-signing-key-file", key),
        *("--authorization-mode", "RBAC", "--allow-privileged"),
        # It would taint each new node until a controller finds it ready.
        *("--disable-admission-plugins", "TaintNodesByCondition"),
    ]


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOPPING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

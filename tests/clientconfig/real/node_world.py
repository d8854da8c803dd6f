"""The island of this folder's tests: registries, a cache of theirs, and a node."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefetch.demo.images import image
from prefetch.demo.tokens import Account
from support.authority import Authority
from support.cache import Cache, ServeFactory, write_users
from support.island import METADATA, PRIVATE, Hosts
from support.node import Node
from support.processes import CommandLine
from support.registries import REGISTRIES, Registries

# One a registry; the cache has them.
WARM = ("docker.io/library/app:1.0", "quay.io/quay/app:1.0", "ghcr.io/ghcr/app:1.0")
# The cache does not have it.
COLD = "quay.io/cold/app:1.0"
# Only who has an account at ghcr.io sees it; the cache has it.
SECRET = "ghcr.io/corp/secret:1.0"

CACHE = "https://cache.example:5000"
PLAIN_CACHE = "http://cache.example:5000"
# Its name is known; nobody listens there.
DEAD_CACHE = "https://dead.example:5000"

# The node's account with the cache.
USER, PASSWORD = "node", "of-the-node"
_ACCOUNT, _ACCOUNTS_PASSWORD = "somebody", "of-somebody"
# For ghcr.io; the cache has it, too.
REGISTRY_LOGIN = f"{_ACCOUNT}:{_ACCOUNTS_PASSWORD}"


class World:
    """A node, a cache at `cache.example`, and docker.io, quay.io and ghcr.io.

    `images` are those of the registries, by reference. `private` is who signed the cache's
    certificate: nobody on the node knows it.
    """

    def __init__(
        self, cli: CommandLine, directory: Path, hosts: Hosts, serve: ServeFactory
    ) -> None:
        self.directory = directory
        self.private = Authority(directory / "private")
        self.registries = Registries(
            Authority(directory / "public"), {_ACCOUNT: Account(password=_ACCOUNTS_PASSWORD)}
        )
        self.images = {reference: image(reference) for reference in (*WARM, COLD, SECRET)}
        self.node = Node(directory / "node", hosts, self.registries.ca_file)
        self._cli = cli
        self._serve = serve
        self._config = directory / "prefetch.yaml"
        self._certificate = self.private.issue("cache.example", PRIVATE)
        hosts.write(
            {**self.registries.hosts, "cache.example": [PRIVATE], "dead.example": [METADATA]}
        )

    async def begin(self) -> None:
        """Start the registries, and sync all that is to be warm."""
        await self.registries.start()
        for reference, made in self.images.items():
            readers = [_ACCOUNT] if reference == SECRET else None
            self.registries.put(reference, made, readers=readers)
        self._write_config()
        words = [word for each in self.images if each != COLD for word in ("--image", each)]
        synced = await self._cli("--config", self._config, "sync", *words)
        assert synced.code == 0, synced.stdout + synced.stderr
        self.registries.forget()

    async def open_cache(
        self, *, tls: bool = False, users: Mapping[str, str] | None = None
    ) -> Cache:
        """Start the cache, at `PLAIN_CACHE`, or at `CACHE` over TLS."""
        serve: dict[str, Any] = {}
        if tls:
            serve["tls"] = {
                "cert_file": str(self._certificate.cert_file),
                "key_file": str(self._certificate.key_file),
            }
        if users is not None:
            serve["htpasswd_file"] = str(write_users(self.directory / "htpasswd", users))
        self._write_config(**serve)
        trust = self.private.trust() if tls else None
        return await self._serve(config=self._config, listen=f"{PRIVATE}:5000", trust=trust)

    async def configure(self, target: str, *options: str | Path) -> None:
        """Let the node have what `prefetch client-config` writes for a target."""
        await self.node.configure(self._cli, target, *options, config=self._config)

    def login(self, password: str) -> tuple[str | Path, ...]:
        """The options by which the node logs in to the cache."""
        path = self.directory / "password-at-the-cache"
        path.write_text(password)
        return ("--username", USER, "--password-file", path)

    def registry_logins(self) -> Path:
        """A Docker config with `REGISTRY_LOGIN`."""
        path = self.directory / "config.json"
        auth = base64.b64encode(REGISTRY_LOGIN.encode()).decode()
        path.write_text(json.dumps({"auths": {"ghcr.io": {"auth": auth}}}))
        return path

    def _write_config(self, **serve: Any) -> None:
        password = self.directory / "password-at-ghcr.io"
        password.write_text(_ACCOUNTS_PASSWORD)
        registries: dict[str, dict[str, str]] = {
            name: {"ca_file": str(self.registries.ca_file)} for name in REGISTRIES
        }
        registries["ghcr.io"] |= {"username": _ACCOUNT, "password_file": str(password)}
        # No tag is looked at again while a test lasts.
        settings = {"tag_ttl": "1h", **serve}
        document = {"platforms": ["all"], "registries": registries, "serve": settings}
        self._config.write_text(json.dumps(document))

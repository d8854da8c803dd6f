"""What a node is to do, in no system's words yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prefetch.clientconfig.endpoints import Endpoint
from prefetch.credentials.credential import IdentityToken, Login
from prefetch.errors import UsageError


@dataclass(frozen=True, slots=True)
class Mirror:
    """A registry, and where its images are pulled instead, in order."""

    registry: str
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Tls:
    """How a host is trusted: files on the node, PEM. `cert_file` and `key_file` go together."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    skip_verify: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Mirrors, and what is known of their hosts and of the registries behind them.

    `logins` and `tls` are by host, as in the endpoints' URLs; `registry_logins` are shown to the
    registries themselves. With `fallback` a registry is asked when no mirror has what is wanted.
    `rewrites` are pairs of a regular expression over repositories and what takes its place.
    `tree` is the directory in which the files will lie on this machine, if that is known.
    """

    mirrors: tuple[Mirror, ...]
    fallback: bool = True
    logins: Mapping[str, Login] = field(default_factory=dict)
    registry_logins: Mapping[str, Login] = field(default_factory=dict)
    tls: Mapping[str, Tls] = field(default_factory=dict)
    rewrites: tuple[tuple[str, str], ...] = ()
    tree: str | None = None

    @property
    def registries(self) -> tuple[str, ...]:
        """The registries that have mirrors."""
        return tuple(mirror.registry for mirror in self.mirrors)

    def mirror(self, registry: str) -> Mirror | None:
        """The registry's mirror, if it has one."""
        return next((each for each in self.mirrors if each.registry == registry), None)

    def hosts(self) -> Iterator[Endpoint]:
        """One endpoint a host, in order of first mention; the registries themselves left out."""
        seen: set[str] = set()
        for mirror in self.mirrors:
            for endpoint in mirror.endpoints:
                if endpoint.host not in seen and not endpoint.is_registry(mirror.registry):
                    seen.add(endpoint.host)
                    yield endpoint

    def tls_of(self, endpoint: Endpoint) -> Tls:
        """How an endpoint is trusted; nothing special over plain HTTP."""
        return self.tls.get(endpoint.host, Tls()) if endpoint.secure else Tls()

    def unverified(self, endpoint: Endpoint) -> bool:
        """Whether nothing proves who answers: plain HTTP, or a certificate that is not checked."""
        return not endpoint.secure or self.tls_of(endpoint).skip_verify


_WHY = {"rewrites": "only k3s and rke2 have it"}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a system can be told; `why` has the reasons for what it cannot, by field."""

    no_fallback: bool = True
    login: bool = True
    identity_token: bool = True
    client_certificate: bool = True
    paths: bool = True
    rewrites: bool = False
    why: Mapping[str, str] = field(default_factory=dict)

    def check(self, plan: Plan, target: str) -> None:
        """Raise UsageError for what the plan asks and the system cannot do."""
        asked = {
            "no_fallback": (not plan.fallback, "--no-fallback cannot be had"),
            "login": (bool(plan.logins), "credentials for a mirror cannot be written"),
            "identity_token": (
                any(isinstance(login, IdentityToken) for login in plan.logins.values()),
                "an identity token cannot be written",
            ),
            "client_certificate": (
                any(tls.cert_file for tls in plan.tls.values()),
                "a client certificate cannot be written",
            ),
            "rewrites": (bool(plan.rewrites), "--rewrite cannot be had"),
            "paths": (
                any(not e.plain for m in plan.mirrors for e in m.endpoints),
                "a mirror's URL must have no path",
            ),
        }
        for ability, (wanted, message) in asked.items():
            if wanted and not getattr(self, ability):
                raise UsageError(f"{target}: {message}", hint={**_WHY, **self.why}.get(ability))

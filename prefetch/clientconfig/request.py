"""From a command's options to a plan."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from prefetch.clientconfig.endpoints import Endpoint, parse_endpoint
from prefetch.clientconfig.plan import Mirror, Plan, Tls
from prefetch.credentials.authfile import AuthFile
from prefetch.credentials.credential import Login
from prefetch.errors import InvalidReference, UsageError
from prefetch.oci.registries import is_loopback

_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options, as they were given.

    `mirrors` are `REGISTRY=URL`, the TLS files `PATH` or `HOST=PATH`, rewrites `REGEX=REPLACEMENT`.
    `registries` are those to mirror; none: the configured ones, where `cache_urls` are given.
    """

    cache_urls: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    fallback: bool = True
    ca_files: tuple[str, ...] = ()
    cert_files: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    skip_verify: bool = False
    rewrites: tuple[str, ...] = ()


def plan_of(
    wishes: Wishes,
    *,
    configured: Collection[str],
    any_registry: bool,
    login: Login | None,
    auth_file: AuthFile | None,
) -> Plan:
    """The plan; `configured` are the registries that `serve` asks, `login` is for its caches.

    Raises UsageError.
    """
    mirrors = _mirrors(wishes, configured, any_registry=any_registry)
    plan = Plan(
        mirrors,
        fallback=wishes.fallback,
        rewrites=_rewrites(wishes.rewrites),
    )
    _check_itself(plan)
    plan = replace(plan, tls=_tls(wishes, plan), logins=_logins(plan, login, auth_file))
    return replace(plan, registry_logins=_registry_logins(plan, auth_file))


def _mirrors(
    wishes: Wishes, configured: Collection[str], *, any_registry: bool
) -> tuple[Mirror, ...]:
    caches = tuple(parse_endpoint(url, "--cache-url", cache=True) for url in wishes.cache_urls)
    named: dict[str, tuple[Endpoint, ...]] = {}
    for text in wishes.mirrors:
        registry, equals, url = text.partition("=")
        if not equals or "@" in registry or "/" in registry:  # a URL, perhaps with a password
            raise UsageError(
                "--mirror: expected REGISTRY=URL, as in quay.io=https://mirror.example"
            )
        registry = registry_name(registry, "--mirror")
        found = parse_endpoint(url, f"--mirror {registry}", cache=False)
        named[registry] = (*named.get(registry, ()), found)
    wanted = [registry_name(name, "--registry") for name in wishes.registries]
    if not caches and not named:
        raise UsageError("where is the cache?", hint="give --cache-url https://cache.example:5000")
    for name in wanted:
        if name not in named and not caches:
            raise UsageError(f"--registry {name}: no --mirror and no --cache-url is given for it")
        if name not in named and name not in configured and not any_registry:
            raise UsageError(
                f"--registry {name}: the cache does not ask it",
                hint=f"configured are {', '.join(configured)}; others go under `registries`",
            )
    if not wanted and caches:
        wanted = list(configured)
    names = dict.fromkeys((*wanted, *named))
    return tuple(Mirror(name, named.get(name) or caches) for name in names)


def registry_name(name: str, what: str) -> str:
    """A registry's name as it is compared; `what` names the option. Raises UsageError."""
    if "@" in name or "/" in name:  # perhaps a URL with a password, which is not shown
        raise UsageError(f"{what}: expected a registry's name such as quay.io or localhost:5000")
    try:
        is_loopback(name)  # raises for what can be no host and port
    except InvalidReference as error:
        raise UsageError(f"{what}: {error}") from None
    return name.lower()


def _check_itself(plan: Plan) -> None:
    """A registry may be its own last mirror, where it is a fallback."""
    for mirror in plan.mirrors:
        own = [each for each in mirror.endpoints if each.is_registry(mirror.registry)]
        if own and not plan.fallback:
            raise UsageError(
                f"--no-fallback: {own[0].url} is {mirror.registry} itself",
                hint="leave that --mirror out",
            )
        if own and len(own) == len(mirror.endpoints):
            raise UsageError(
                f"--mirror {mirror.registry}: {own[0].url} is {mirror.registry} itself",
                hint="give a mirror before it, or leave it out",
            )


def _rewrites(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for text in texts:
        pattern, replacement = _rewrite(text)
        if pattern in found:
            raise UsageError(f"--rewrite: {pattern[:80]!a} is given twice")
        found[pattern] = replacement
    return tuple(found.items())


def _rewrite(text: str) -> tuple[str, str]:
    pattern, equals, replacement = text.rpartition("=")
    if not equals or not pattern:
        raise UsageError(f"--rewrite: expected REGEX=REPLACEMENT, got {text[:80]!a}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--rewrite: {pattern[:80]!a} is no regular expression: {error}") from None
    return pattern, replacement


def _tls(wishes: Wishes, plan: Plan) -> dict[str, Tls]:
    """By host: what is given without one is for every host that is asked over TLS."""
    secure = [endpoint.host for endpoint in plan.hosts() if endpoint.secure]
    given = any((wishes.ca_files, wishes.cert_files, wishes.key_files, wishes.skip_verify))
    if given and not secure and not _of_hosts(wishes):
        raise UsageError("TLS options are given, but no cache is asked over https://")
    known = {*secure, *plan.registries}
    files = {
        option: _by_host(getattr(wishes, f"{option}s"), f"--{option.replace('_', '-')}", secure)
        for option in ("ca_file", "cert_file", "key_file")
    }
    hosts = dict.fromkeys((*secure, *(host for by_host in files.values() for host in by_host)))
    found: dict[str, Tls] = {}
    for host in hosts:
        if host not in known:
            raise UsageError(f"TLS files are given for {host}, which is asked for nothing over TLS")
        tls = Tls(
            **{option: by_host.get(host) for option, by_host in files.items()},
            skip_verify=wishes.skip_verify and host in secure,
        )
        if (tls.cert_file is None) != (tls.key_file is None):
            raise UsageError(f"{host}: --cert-file and --key-file go together")
        if tls != Tls():
            found[host] = tls
    return found


def _of_hosts(wishes: Wishes) -> bool:
    return any(
        _host_of(each)[0] for each in (*wishes.ca_files, *wishes.cert_files, *wishes.key_files)
    )


def _host_of(value: str) -> tuple[str, str]:
    """`HOST=PATH` as a pair; for a path alone, which may have `=` in it, the host is empty."""
    host, equals, path = value.partition("=")
    return (host, path) if equals and "/" not in host else ("", value)


def _by_host(values: Sequence[str], option: str, hosts: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        host, path = _host_of(value)
        if value and not host and not value.startswith("="):
            found |= dict.fromkeys((each for each in hosts if each not in found), value)
        elif not _HOST.fullmatch(host) or not path:
            raise UsageError(f"{option}: expected PATH or HOST=PATH")
        else:
            found[host.lower()] = path
    return found


def _logins(plan: Plan, login: Login | None, auth_file: AuthFile | None) -> dict[str, Login]:
    found: dict[str, Login] = {}
    endpoints = list(plan.hosts())
    if auth_file is not None:
        for endpoint in endpoints:
            entry = auth_file.login(endpoint.host, None)
            if entry is not None:
                found[endpoint.host] = entry
    if login is not None:
        caches = [endpoint for endpoint in endpoints if endpoint.cache]
        if not caches and len(endpoints) > 1:
            raise UsageError(
                "credentials are given for one host, and there are several mirrors",
                hint="give an --auth-file with an entry for each",
            )
        found |= {endpoint.host: login for endpoint in caches or endpoints}
    return found


def _registry_logins(plan: Plan, auth_file: AuthFile | None) -> Mapping[str, Login]:
    if auth_file is None:
        return {}
    entries = {name: auth_file.login(name, None) for name in plan.registries}
    return {name: entry for name, entry in entries.items() if entry is not None}


def unused_entries(plan: Plan, auth_file: AuthFile) -> list[str]:
    """The auth file's keys that nothing in the plan has a use for."""
    used = {*plan.logins, *plan.registry_logins}
    return [key for key in auth_file.logins if key not in used]

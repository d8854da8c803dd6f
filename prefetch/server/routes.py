"""From a request's path to what it asks for: three shapes of path, checked before anything else.

    /v2/<repository>/…?ns=<registry>     containerd, K3s, RKE2, BuildKit
    /v2/<registry>/<repository>/…        Podman, CRI-O, RKE
    /<registry>/v2/<repository>/…        Docker or containerd, given an address with a path

With `ns` the path is all repository, but for a first part that says the same registry again, as
BuildKit does for a mirror with a path. Neither `ns` nor a registry's name means docker.io, as in
references. Paths are decoded once; what then still holds a `%`, a dot segment or anything else
that no repository, tag or digest has is refused (distribution-spec, "Pulling manifests").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from prefetch.errors import InvalidReference
from prefetch.oci.distribution import (
    Endpoint,
    EndpointKind,
    ErrorCode,
    parse_endpoint,
)
from prefetch.oci.reference import DEFAULT_REGISTRY, Digest, Repository, is_tag
from prefetch.oci.registries import HUB_HOSTS, is_loopback
from prefetch.server.refusals import Refusal, invalid, no_registry

_MAX_PATH = 1024
_MAX_QUERY = 1024
_MAX_FIELDS = 16
_REGISTRY = re.compile(r"(?:[a-z0-9.-]{1,253}|\[[0-9a-f:]{2,39}\])(?::[0-9]{1,5})?")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


@dataclass(frozen=True, slots=True)
class Target:
    """What a request asks for.

    `repository` is None for the ping and the catalog, `registry` for those that name none.
    `argument` is a tag or digest that has been checked; `digest` is it when it is one. `name` is
    the repository as the path has it, which tag lists repeat.
    """

    kind: EndpointKind
    registry: str | None = None
    repository: Repository | None = None
    name: str = ""
    argument: str = ""
    digest: Digest | None = None
    parameters: tuple[tuple[str, str], ...] = ()

    def parameter(self, name: str) -> str | None:
        """A query parameter's first value; None when it was not given."""
        return next((value for key, value in self.parameters if key == name), None)


def origin_form(target: str) -> str:
    """A request line's target as a path and query; whom an absolute form names does not matter.

    A server must accept that form (RFC 9112, section 3.2.2), but nothing is sent on for it.
    """
    if target.startswith("/"):
        return target
    absolute = _AUTHORITY.match(target)
    return target if absolute is None else target[absolute.end() :]


def route(raw: str) -> Target:
    """The target of a path and query, as they were sent.

    Raises Refusal: 400 for what makes no sense, 404 for what cannot be a registry.
    """
    raw_path, _, query = raw.partition("?")
    if len(raw_path) > _MAX_PATH or len(query) > _MAX_QUERY:
        raise invalid(ErrorCode.NAME_INVALID, "the path is too long")
    path = unquote(raw_path, errors="replace")
    parameters = _parameters(query)
    named, rest = _registry_before(path)
    endpoint = parse_endpoint(rest)
    if endpoint is None:
        raise Refusal(404, ErrorCode.UNSUPPORTED, "no such endpoint", cause="not_found")
    registry = _one_registry([named, *(_asked(v) for k, v in parameters if k == "ns")])
    if endpoint.kind in (EndpointKind.PING, EndpointKind.CATALOG):
        return Target(endpoint.kind, registry, parameters=parameters)
    repository = _repository(endpoint, registry)
    argument, digest = _argument(endpoint)
    return Target(
        endpoint.kind,
        repository.registry,
        repository,
        endpoint.name,
        argument,
        digest,
        parameters,
    )


def _parameters(query: str) -> tuple[tuple[str, str], ...]:
    try:
        found = parse_qsl(
            query, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="replace"
        )
    except ValueError:
        raise invalid(ErrorCode.UNSUPPORTED, "the query has too many fields") from None
    return tuple(found)


def _registry_before(path: str) -> tuple[str | None, str]:
    """`/<registry>/v2/…` as the registry and `/v2/…`."""
    if path.startswith("/v2/") or path == "/v2":
        return None, path
    first, slash, rest = path[1:].partition("/")
    if not slash or not (rest.startswith("v2/") or rest == "v2"):
        return None, path
    return _asked(first), f"/{rest}"


def _asked(text: str) -> str:
    """A registry's name from a path or `ns`, normalised; 404 for what no registry is called."""
    if not text.isascii():
        # Some letters have one of ASCII's for their small one, which would make them look-alikes.
        raise no_registry()
    name = text.lower()
    if name in HUB_HOSTS:
        return DEFAULT_REGISTRY
    try:
        is_loopback(name)  # raises for what can be no host and port
    except InvalidReference:
        raise no_registry() from None
    if not _REGISTRY.fullmatch(name):
        raise no_registry()
    return name


def _one_registry(named: list[str | None]) -> str | None:
    registries = {name for name in named if name is not None}
    if len(registries) > 1:
        raise invalid(ErrorCode.NAME_INVALID, "the request names several registries")
    return next(iter(registries), None)


def _repository(endpoint: Endpoint, registry: str | None) -> Repository:
    """The repository; its registry is in front of its name where `registry` is None."""
    name = endpoint.name
    first, slash, rest = name.partition("/")
    if slash and registry is None and _names_registry(first):
        registry, name = _asked(first), rest
    elif slash and registry is not None and _is_called(registry, first):
        name = rest
    registry = registry or DEFAULT_REGISTRY
    try:
        found = Repository.parse(f"{registry}/{name}")
    except InvalidReference:
        raise invalid(ErrorCode.NAME_INVALID, "the repository's name is not valid") from None
    if found.registry != registry:
        raise no_registry()
    return found


def _names_registry(part: str) -> bool:
    """Whether a path's first part is a registry, as in references, but whatever its letters."""
    return "." in part or ":" in part or part.lower() == "localhost"


def _is_called(registry: str, part: str) -> bool:
    """Whether a path's first part says the registry once more."""
    names = HUB_HOSTS if registry == DEFAULT_REGISTRY else {registry}
    return part.isascii() and part.lower() in names


def _argument(endpoint: Endpoint) -> tuple[str, Digest | None]:
    """The tag or digest, and the digest if it is one."""
    if endpoint.kind is EndpointKind.TAGS:
        return "", None
    text = endpoint.argument
    if endpoint.kind is EndpointKind.MANIFEST and ":" not in text:
        if not is_tag(text):
            raise invalid(ErrorCode.TAG_INVALID, "the tag is not valid")
        return text, None
    try:
        return text, Digest.parse(text)
    except InvalidReference:
        raise invalid(ErrorCode.DIGEST_INVALID, "the digest is not valid") from None

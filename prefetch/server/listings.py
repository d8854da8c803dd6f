"""Tags, repositories and referrers: what the cache has, for those who may see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from aiohttp import web

from prefetch.oci.distribution import EndpointKind, ErrorCode
from prefetch.oci.model import OCI_INDEX, Document, Manifest
from prefetch.oci.reference import Digest, Repository
from prefetch.server.answers import document, page
from prefetch.server.library import Library
from prefetch.server.permits import Permits
from prefetch.server.refusals import invalid, unknown
from prefetch.server.routes import Target

_MOST_REFERRERS = 1000


class Listings:
    """Answers from the cache alone: no upstream is asked, and none is paid."""

    def __init__(self, library: Library, permits: Permits) -> None:
        self._library = library
        self._permits = permits

    async def tags(self, target: Target, path: str, user: str) -> web.Response:
        """The tags of a repository that are cached, sorted (distribution-spec, "Listing Tags")."""
        repository = await self._visible(target, user)
        records = await self._library.references(repository)
        tagged = [record for record in records.values() if record.tag and record.digest]
        here = await self._library.store.present({Digest.parse(r.digest or "") for r in tagged})
        tags = sorted(r.tag or "" for r in tagged if Digest.parse(r.digest or "") in here)
        if not tags:
            raise unknown(EndpointKind.TAGS)
        chosen, more = _page(tags, target)
        return document({"name": target.name, "tags": list(chosen)}, **_link(target, path, more))

    async def catalog(self, target: Target, path: str, user: str) -> web.Response:
        """The cached repositories, sorted: of one registry, or of all with the registry's name."""
        names = []
        for repository in await self._library.repositories():
            if target.registry not in (None, repository.registry):
                continue
            if await self._permits.may_see(repository, user):
                names.append(str(repository) if target.registry is None else repository.path)
        chosen, more = _page(sorted(names), target)
        return document({"repositories": list(chosen)}, **_link(target, path, more))

    async def referrers(self, target: Target, user: str) -> web.Response:
        """Every stored manifest whose subject is the digest (distribution-spec, "Listing
        Referrers"); those that the upstream has besides are not known here.
        """
        repository = await self._visible(target, user)
        wanted = target.parameter("artifactType") or None
        found = []
        known = await self._library.referrers(_digest(target))
        here = await self._library.linked_among(repository, known)
        # Whatever others refer to it with takes no place from the repository's own.
        for text in [text for text in known if text in here][:_MOST_REFERRERS]:
            held = await self._library.document(Digest.parse(text))
            if held is not None:
                found.append(_referrer(held.document))
        if wanted is not None:
            found = [each for each in found if each.get("artifactType") == wanted]
        headers = {"OCI_Filters_Applied": "artifactType"} if wanted is not None else {}
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        return document(index, OCI_INDEX, **headers)

    async def _visible(self, target: Target, user: str) -> Repository:
        """The repository, if anything of it is cached that the user may see."""
        repository = target.repository
        if repository is None or not await self._library.references(repository):
            raise unknown(target.kind)
        if not await self._permits.may_see(repository, user):
            raise unknown(target.kind)
        return repository


def _digest(target: Target) -> Digest:
    if target.digest is None:
        raise invalid(ErrorCode.DIGEST_INVALID, "the digest is not valid")
    return target.digest


def _page(names: Sequence[str], target: Target) -> tuple[Sequence[str], str | None]:
    try:
        return page(names, target.parameter("n"), target.parameter("last"))
    except ValueError:
        raise invalid(ErrorCode.UNSUPPORTED, "n is not a number of results") from None


def _link(target: Target, path: str, last: str | None) -> dict[str, str]:
    """The Link header to the next page, relative, by the path that was asked for."""
    if last is None:
        return {}
    kept = "".join(
        f"&{key}={quote(value, safe='')}" for key, value in target.parameters if key == "ns"
    )
    n = target.parameter("n") or ""
    return {"Link": f'<{path}?n={n}&last={quote(last, safe="")}{kept}>; rel="next"'}


def _referrer(found: Document) -> dict[str, Any]:
    """Its descriptor; an image's artifact type is its config's media type."""
    kind = found.artifact_type or None
    if kind is None and isinstance(found, Manifest):
        kind = found.config.media_type
    descriptor: dict[str, Any] = {
        "mediaType": found.media_type,
        "digest": str(found.digest),
        "size": len(found.raw),
    }
    if kind is not None:
        descriptor["artifactType"] = kind
    if found.annotations:
        descriptor["annotations"] = dict(found.annotations)
    return descriptor

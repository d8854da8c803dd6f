"""One registry, as one identity: resolve, pull, fetch, list (distribution-spec, "Pull").

Only manifest GETs are counted; HEADs, blobs, tags and tokens are free.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar

from yarl import URL

from prefetch.clock import Clock
from prefetch.credentials.credential import Login
from prefetch.errors import NotFound, PrefetchError, PullLimitReached, ServerFault, Unauthorized
from prefetch.events import Emit
from prefetch.oci.distribution import blob_path, tags_path
from prefetch.oci.model import Descriptor, Document
from prefetch.oci.reference import DEFAULT_TAG, Digest, Reference, Repository
from prefetch.oci.registries import known_registry
from prefetch.ratelimit.headers import Observation, parse_observation
from prefetch.remote.auth import Authenticator
from prefetch.remote.blobs import (
    BLOB_STATUSES,
    BlobStream,
    LeastRate,
    open_at,
    open_foreign,
    stream,
)
from prefetch.remote.connections import broken
from prefetch.remote.faults import header_digest
from prefetch.remote.manifests import NO_HEAD, Manifests, as_digest, named
from prefetch.remote.metering import Meter
from prefetch.remote.pages import PAGE_LIMIT, all_tags
from prefetch.remote.settings import RegistrySettings, TransportSettings
from prefetch.remote.transport import Answer, Transport
from prefetch.remote.wire import Request, Wire, refuse_page
from prefetch.state.ledger import Ledger
from prefetch.state.meters import ANONYMOUS, Hold, MeterKey, MeterPolicy

T = TypeVar("T")

_PAGE_SIZE: Final = 1000
_MEDIA_TYPE = re.compile(r"\s*([\w.+-]{1,127}/[\w.+-]{1,127})\s*(?:;.*)?", re.ASCII)
_SIZE = re.compile("[0-9]{1,19}")
_UNTOLD = "token"
_NO_SUCH_TAG: Final = "check the repository and the tag; some registries hide private ones so"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a HEAD tells of a tag.

    `digest` is None where the registry does not say: only a (counted) GET finds it out.
    `media_type` is without parameters, empty if unknown; `size` is in bytes.
    """

    digest: Digest | None
    media_type: str
    size: int | None


class RegistryClient:
    """A registry, its settings and one login.

    All methods raise Unauthorized, NotFound, ServerFault, ForbiddenAddress, other RegistryErrors
    and NetworkError, after what may help has been tried; BudgetExhausted when the registry says
    that the pull limit is reached.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        login: Login | None,
        transport: Transport,
        *,
        ledger: Ledger,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self.settings = settings
        self.meter = MeterKey(settings.name, _identity(login))
        self.policy = MeterPolicy(settings.reserve, settings.limit)
        self._endpoint = URL(settings.endpoint)
        self._base = settings.endpoint.rstrip("/")
        self._transport = transport
        self._clock = clock
        self._meter = Meter(ledger, self.meter, self.policy, clock)
        self._wire = Wire(settings.name, transport, clock)
        self._auth = self._authenticator(login)
        self._anonymous = self._auth if login is None else self._authenticator(None)
        self._manifests = Manifests(
            self._base, self._wire, self._auth, self._meter, clock=clock, emit=emit
        )

    @classmethod
    async def open(
        cls,
        settings: RegistrySettings,
        login: Login | None,
        *,
        ledger: Ledger,
        data_dir: Path,
        clock: Clock,
        emit: Emit,
        transport: TransportSettings | None = None,
    ) -> RegistryClient:
        """Make ready for requests; sends none. Raises ConfigError for unusable certificates."""
        opened = await Transport.open(
            settings,
            transport or TransportSettings(),
            ledger=ledger,
            data_dir=data_dir,
            clock=clock,
            emit=emit,
        )
        return cls(settings, login, opened, ledger=ledger, clock=clock, emit=emit)

    @property
    def identity(self) -> str:
        """`anonymous`, or the account's name."""
        return self.meter.identity

    @property
    def pulls(self) -> int:
        """Manifest GETs sent so far, each attempt counted."""
        return self._manifests.pulls

    @property
    def requests(self) -> int:
        """All requests sent so far, tokens and redirects included."""
        return self._transport.requests

    async def close(self) -> None:
        """Close all connections; requests under way fail."""
        await self._auth.close()
        await self._anonymous.close()
        await self._transport.close()

    async def prepare(self, repositories: Iterable[Repository]) -> None:
        """Ask tokens for several repositories together.

        A repository that is refused shows when it is asked for; a login that is, at once.
        """
        paths = [repository.path for repository in repositories]
        await self._wire.run(lambda: self._auth.prepare(paths))

    async def resolve(self, repository: Repository, reference: str) -> Resolved:
        """What a tag or digest is now: one HEAD, which is free."""
        try:
            answer = await self._run(lambda: self._manifests.head(repository, reference))
        except NotFound as error:
            error.hint = error.hint or _NO_SUCH_TAG
            raise
        if answer.status in NO_HEAD:
            return Resolved(None, "", None)
        subject = named(repository, reference)
        refuse_page(subject, answer)
        asked = as_digest(reference)
        media_type = _MEDIA_TYPE.fullmatch(answer.headers.get("Content-Type", ""))
        return Resolved(
            asked or header_digest(answer.headers, subject, answer.url),
            media_type[1].lower() if media_type else "",
            answer.response.content_length or None,
        )

    async def observe(self, reference: Reference) -> None:
        """Read the meter from a HEAD of a reference; the ledger takes what it says."""
        await self._run(lambda: self._manifests.head(reference.repository, reference.target))

    async def probe(self) -> Observation | None:
        """Read the meter from the registry's own probe image; None where it has none."""
        known = known_registry(self.settings.name)
        if known.probe_repository is None:
            return None
        repository = Repository(known.name, known.probe_repository)
        tag = known.probe_tag or DEFAULT_TAG
        answer = await self._run(lambda: self._manifests.head(repository, tag))
        return parse_observation(answer.headers, self._clock.now())

    async def manifest(
        self,
        repository: Repository,
        reference: str,
        *,
        hold: Hold | None,
        on_pull: Callable[[], None] | None = None,
    ) -> Document:
        """A manifest or index by tag or digest, verified. Each attempt costs a pull.

        The pull is taken from `hold` if there is one; `on_pull` is called for each. Raises
        BudgetExhausted before anything is sent, InvalidManifest, and DigestMismatch after a
        second attempt.
        """
        return await self._run(
            lambda: self._manifests.pull(repository, reference, hold=hold, on_pull=on_pull)
        )

    @asynccontextmanager
    async def open_blob(
        self, repository: Repository, descriptor: Descriptor, offset: int = 0
    ) -> AsyncIterator[BlobStream]:
        """A blob's bytes from `offset` on, or from 0 where the registry ignores ranges.

        Only authorisation and throttling are tried again here: whoever writes the bytes resumes,
        after faults of opening as after broken streams. Raises SizeMismatch, too. A request slot
        is held until the context ends.
        """
        async with self._transport.turn(download=True):
            answer, start = await self._run(
                lambda: self._open(repository, descriptor, offset), attempts=1
            )
            try:
                least = LeastRate(self._transport.timeouts.least_rate, self._clock)
                yield stream(answer, descriptor, start, least)
            finally:
                answer.close()

    async def blob_size(self, repository: Repository, digest: Digest) -> int | None:
        """How many bytes a blob has in a repository, by one HEAD; None where there is none.

        Raises ServerFault where the registry does not tell.
        """
        request = self._blob_request("HEAD", repository, digest, {})
        try:
            answer = await self._run(lambda: self._free(self._auth, request))
        except NotFound:
            return None
        size = answer.headers.get("Content-Length", "")
        if not _SIZE.fullmatch(size):
            raise ServerFault(f"{repository}@{digest}: the registry does not tell its size")
        return int(size)

    async def tags(self, repository: Repository) -> list[str]:
        """All tags of a repository, in the registry's order; free."""
        first = URL(self._base + tags_path(repository.path, page_size=_PAGE_SIZE))
        subject = f"the tags of {repository}"

        async def fetch(url: URL) -> tuple[bytes, str | None]:
            headers = {"Accept": "application/json"}
            request = Request("GET", url, repository.path, subject, headers)
            return await self._run(lambda: self._page(request))

        return await all_tags(first, fetch, subject)

    async def visible_anonymously(self, repository: Repository, digest: Digest) -> bool | None:
        """Whether anybody may see a manifest: a HEAD without credentials.

        None where the registry gave no clear answer.
        """
        request = self._manifests.request("HEAD", repository, str(digest))
        # A registry that knows no HEAD has not shown anything to anybody.
        request = replace(request, accept=(HTTPStatus.OK,))
        try:
            # Not `_run`: what another meter says must not be taken for ours.
            await self._wire.run(lambda: self._free(self._anonymous, request))
        except (Unauthorized, NotFound):
            return False
        except PrefetchError:
            return None
        return True

    async def _run(self, work: Callable[[], Awaitable[T]], *, attempts: int | None = None) -> T:
        try:
            return await self._wire.run(work, attempts=attempts)
        except PullLimitReached as error:
            raise await self._meter.exhausted(error) from error

    async def _free(self, auth: Authenticator, request: Request) -> Answer:
        """A HEAD, of which there is no more than its headers."""
        async with self._transport.turn():
            answer = await self._wire.ask(auth, request)
            answer.close()
            refuse_page(request.subject, answer)
            return answer

    async def _page(self, request: Request) -> tuple[bytes, str | None]:
        """A page's body and its Link header."""
        async with self._transport.turn():
            try:
                async with asyncio.timeout(self._transport.timeouts.document_timeout):
                    answer = await self._wire.ask(self._auth, request)
                    try:
                        refuse_page(request.subject, answer)
                        return await answer.read(PAGE_LIMIT), answer.headers.get("Link")
                    finally:
                        answer.close()
            except TimeoutError as error:
                raise broken(error, request.url) from None

    async def _open(
        self, repository: Repository, descriptor: Descriptor, offset: int
    ) -> tuple[Answer, int]:
        """A blob's answer and the offset at which its body begins."""

        async def get(headers: Mapping[str, str]) -> Answer:
            request = self._blob_request("GET", repository, descriptor.digest, headers)
            return await self._wire.ask(self._auth, request)

        try:
            return await open_at(get, descriptor, offset)
        except NotFound:
            if not descriptor.urls:
                raise
        return await open_foreign(self._transport, descriptor, offset)

    def _blob_request(
        self, method: str, repository: Repository, digest: Digest, headers: Mapping[str, str]
    ) -> Request:
        url = URL(self._base + blob_path(repository.path, digest), encoded=True)
        subject = named(repository, str(digest))
        return Request(method, url, repository.path, subject, headers, BLOB_STATUSES)

    def _authenticator(self, login: Login | None) -> Authenticator:
        return Authenticator(
            self.settings.name,
            self._endpoint,
            login,
            guard=self._transport.guard,
            send=self._wire.document,
            clock=self._clock,
        )


def _identity(login: Login | None) -> str:
    if login is None:
        return ANONYMOUS
    return login.username or _UNTOLD

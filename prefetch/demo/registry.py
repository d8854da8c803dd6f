"""The honest answers: what a registry without faults says, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlencode

from prefetch.clock import Clock
from prefetch.demo.answers import Answer
from prefetch.demo.content import Content
from prefetch.demo.images import OCI_INDEX, descriptor
from prefetch.demo.misbehaviour import pull_limit_answer
from prefetch.demo.ratelimits import ANONYMOUS, PullLimits
from prefetch.demo.requests import Kind, Request
from prefetch.demo.settings import UpstreamSettings

_TWO_AUTHS = "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism</Message></Error>"
_LINK_EXPIRED = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


class RegistryApi:
    """The distribution API, read-only, and the CDN behind it.

    `cdn_origin` (`http://localhost:port`) is set once the CDN listens.
    """

    def __init__(
        self, settings: UpstreamSettings, content: Content, limits: PullLimits, clock: Clock
    ) -> None:
        self.cdn_origin = ""
        self._settings = settings
        self._content = content
        self._limits = limits
        self._clock = clock
        self._handlers: dict[Kind, Callable[[Request], Answer]] = {
            "ping": lambda _: Answer.json({}),
            "manifest": self._manifest,
            "blob": self._blob,
            "tags": self._tags,
            "referrers": self._referrers,
            "cdn": self._cdn,
        }

    def answer(self, record: Request) -> Answer:
        """Answer a request whose identity is known; what it costs is noted in its record."""
        handler = self._handlers.get(record.kind)
        if handler is None:
            return Answer.error(404, "UNSUPPORTED", "no such path")
        if record.method not in {"GET", "HEAD"}:
            return Answer.error(405, "UNSUPPORTED", "this registry is read-only")
        return handler(record)

    def _manifest(self, record: Request) -> Answer:
        """A GET that finds something costs a pull; every answer tells what is left."""
        image = self._content.manifest(record.repository, record.reference)
        if image is None:
            return Answer.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        headers = {"Content-Type": image.media_type, "Docker-Content-Digest": image.digest}
        answer = Answer(200, headers, image.content)
        if self._limits.exempt(record.repository):
            return answer
        meter = self._limits.meter(record.identity or ANONYMOUS, record.address)
        if meter is None:
            record.counted = record.method == "GET"
            return answer
        if record.method == "GET" or self._settings.heads_counted:
            record.counted = meter.take()
            if not record.counted:
                answer = pull_limit_answer(record.identity)
        record.remaining = meter.remaining()
        answer.headers |= meter.headers()
        return answer

    def _blob(self, record: Request) -> Answer:
        """The bytes themselves, or with a CDN a link to them."""
        blob = self._content.blob(record.repository, record.reference)
        if blob is None:
            return Answer.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if not self._settings.cdn or record.method == "HEAD":
            return Answer.blob(blob, record.range)
        expires = self._clock.monotonic() + self._settings.link_lifetime
        link = (
            f"/cdn/{quote(record.repository)}/{record.reference}?{urlencode({'expires': expires})}"
        )
        return Answer(307, {"Location": self.cdn_origin + link})

    def _cdn(self, record: Request) -> Answer:
        """Storage behind signed links: a second authentication is refused, as S3 does."""
        if record.authorization:
            return Answer.text(400, _TWO_AUTHS, "application/xml")
        expires = record.parameter("expires", "0")
        blob = self._content.blob(record.repository, record.reference)
        if blob is None or not _later(expires, self._clock.monotonic()):
            return Answer.text(403, _LINK_EXPIRED, "application/xml")
        return Answer.blob(blob, record.range)

    def _tags(self, record: Request) -> Answer:
        """One page (distribution-spec, "Listing Tags"), with a link to the next."""
        tags = self._content.tags(record.repository)
        if tags is None or record.reference != "list":
            return Answer.error(404, "NAME_UNKNOWN", "repository name not known to registry")
        last, asked = record.parameter("last"), record.parameter("n")
        size = self._settings.page_size
        if asked.isdecimal():
            size = min(size, int(asked))
        rest = [tag for tag in tags if tag > last]
        answer = Answer.json({"name": record.repository, "tags": rest[:size]})
        if len(rest) > size > 0:
            query = urlencode({"last": rest[size - 1], "n": size})
            answer.headers["Link"] = f'<{record.path}?{query}>; rel="next"'
        return answer

    def _referrers(self, record: Request) -> Answer:
        """An index of what refers to a digest, where the API exists at all."""
        if not self._settings.referrers:
            return Answer.error(404, "NOT_FOUND", "page not found")
        found = self._content.referrers(record.repository, record.reference)
        wanted = record.parameter("artifactType") or None
        answer = Answer.json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [
                    descriptor(item) for item in found if wanted in (None, item.artifact_type)
                ],
            }
        )
        answer.headers["Content-Type"] = OCI_INDEX
        if wanted is not None:
            answer.headers["OCI-Filters-Applied"] = "artifactType"
        return answer


def _later(moment: str, now: float) -> bool:
    """Whether a link's `expires` lies ahead; nonsense does not."""
    try:
        return float(moment) > now
    except ValueError:
        return False

"""What each fault does: some refuse in place of the honest answer, the others spoil it."""

from __future__ import annotations

import dataclasses
import email.utils
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

from prefetch.clock import Clock
from prefetch.demo.answers import Answer
from prefetch.demo.blobs import Blob
from prefetch.demo.content import Content
from prefetch.demo.faults import Fault
from prefetch.demo.images import OCI_MANIFEST
from prefetch.demo.ratelimits import ANONYMOUS
from prefetch.demo.requests import Request
from prefetch.demo.tokens import Doorkeeper

_MIB = 1 << 20
_HUGE_MIB = 200
_RATE_HEADERS = ("ratelimit-", "docker-ratelimit-")
_PAGE = "<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>"
_EXPIRED_LINK = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault has to do with: its order, the request, and the upstream's parts."""

    fault: Fault
    request: Request
    content: Content
    doorkeeper: Doorkeeper
    clock: Clock


def pull_limit_answer(identity: str | None) -> Answer:
    """Docker Hub's 429 for a meter that is empty, in its own words."""
    who = "unauthenticated " if identity in (None, ANONYMOUS) else ""
    return Answer.error(
        429,
        "TOOMANYREQUESTS",
        f"You have reached your {who}pull rate limit. You may increase the limit by "
        "authenticating and upgrading: https://www.docker.com/increase-rate-limit",
    )


def throttle_answer(retry_after: str | None, text: str = "") -> Answer:
    """A 429 for too many requests, as Docker Hub's abuse limit answers it."""
    answer = Answer.text(429, text or "Too Many Requests (HAP429)\n")
    if retry_after is not None:
        answer.headers["Retry-After"] = retry_after
    return answer


def _throttle(scene: Scene) -> Answer:
    """429; come back after `seconds`, written as `retry_after` says; `text` is the body."""
    seconds, moment = scene.fault.seconds, scene.clock.now()
    moment += timedelta(seconds=seconds)
    forms = {
        "seconds": str(max(1, round(seconds))),
        "date": email.utils.format_datetime(moment, usegmt=True),
        "epoch": str(round(moment.timestamp())),
        "duration": f"{seconds * 1000:.3f}ms",
        "none": None,
    }
    return throttle_answer(forms[scene.fault.retry_after], scene.fault.text)


def _pull_limit(scene: Scene) -> Answer:
    """The pull limit's 429, whatever the meter says."""
    return pull_limit_answer(scene.request.identity)


def _secondary_limit(scene: Scene) -> Answer:
    """403, GitHub's way to say slow down."""
    return Answer.error(
        403, "DENIED", scene.fault.text or "You have exceeded a secondary rate limit"
    )


def _expired_token(scene: Scene) -> Answer:
    """401: no token that was issued is good any more."""
    scene.doorkeeper.revoke()
    return scene.doorkeeper.challenge(scene.request.repository, "invalid_token")


def _bad_realm(scene: Scene) -> Answer:
    """401 that sends the client to the realm `text` for its token."""
    return scene.doorkeeper.challenge(scene.request.repository, realm=scene.fault.text)


def _link_expired(_: Scene) -> Answer:
    """The CDN's 403 for a link that is too old."""
    return Answer.text(403, _EXPIRED_LINK, "application/xml")


def _server_error(scene: Scene) -> Answer:
    """`status` (500, 502, 503 …) with the plain body `text`."""
    return Answer.text(scene.fault.status, scene.fault.text or "upstream connect error\n")


def _html(scene: Scene) -> Answer:
    """200 and a web page, as a captive portal answers."""
    return Answer.text(200, scene.fault.text or _PAGE, "text/html")


def _not_allowed(_: Scene) -> Answer:
    """405."""
    return Answer.error(405, "UNSUPPORTED", "The operation is unsupported.")


def _not_found(scene: Scene) -> Answer:
    """404, though it is there."""
    code = "BLOB_UNKNOWN" if scene.request.kind in {"blob", "cdn"} else "MANIFEST_UNKNOWN"
    return Answer.error(404, code, "not found")


def _redirect(scene: Scene) -> Answer:
    """307 to the location `text`."""
    return Answer(307, {"Location": scene.fault.text})


def _redirect_loop(scene: Scene) -> Answer:
    """307 to itself."""
    return Answer(307, {"Location": scene.request.path})


def _huge_manifest(_: Scene) -> Answer:
    """A manifest of 200 MiB, made while it is sent."""
    spaces = Blob.repeated(b'{"schemaVersion":2,"padding":"', b" " * _MIB, _HUGE_MIB, b'"}')
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": spaces.digest}
    return Answer(200, headers, spaces)


def _reset(_: Scene) -> Answer:
    """The connection is closed without an answer."""
    return Answer(reset=True)


def _headers(answer: Answer, scene: Scene) -> None:
    """`headers` are set, or removed where their value is null."""
    for name, value in scene.fault.headers.items():
        _set_header(answer, name, value)


def _no_rate_headers(answer: Answer, _: Scene) -> None:
    """Nothing is said about limits."""
    for name in _rate_headers(answer):
        del answer.headers[name]


def _blank_rate_headers(answer: Answer, _: Scene) -> None:
    """The limit's headers lack their number: `;w=21600`."""
    for name in _rate_headers(answer):
        if name.lower() != "docker-ratelimit-source":
            answer.headers[name] = ";" + answer.headers[name].partition(";")[2]


def _no_digest(answer: Answer, _: Scene) -> None:
    """No Docker-Content-Digest."""
    _set_header(answer, "Docker-Content-Digest", None)


def _wrong_digest(answer: Answer, scene: Scene) -> None:
    """Another Docker-Content-Digest: `text`, else a well-formed one that is not true."""
    digest = scene.fault.text or "sha256:" + "0" * 64
    _set_header(answer, "Docker-Content-Digest", digest)


def _no_length(answer: Answer, _: Scene) -> None:
    """No Content-Length; a body comes chunked."""
    answer.sized = False


def _wrong_type(answer: Answer, scene: Scene) -> None:
    """The Content-Type `text`."""
    _set_header(answer, "Content-Type", scene.fault.text)


def _ignored_range(answer: Answer, _: Scene) -> None:
    """200 and the whole body, whatever range was asked for."""
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        answer.status, answer.start, answer.end = 200, 0, None
        _set_header(answer, "Content-Range", None)


def _wrong_range(answer: Answer, _: Scene) -> None:
    """206 with a part that begins a byte earlier than was asked for, and says so."""
    if answer.status == HTTPStatus.PARTIAL_CONTENT and answer.start > 0:
        answer.start -= 1
        whole = f"bytes {answer.start}-{answer.stop - 1}/{answer.body.size}"
        _set_header(answer, "Content-Range", whole)


def _cut(answer: Answer, scene: Scene) -> None:
    """The connection is closed after `at` bytes of the body."""
    answer.cut_at = _offset(answer, scene.fault)


def _cut_and_expire(answer: Answer, scene: Scene) -> None:
    """As `cut`, and no token that was issued is good any more."""
    answer.cut_at = _offset(answer, scene.fault)
    scene.doorkeeper.revoke()


def _stall(answer: Answer, scene: Scene) -> None:
    """After `at` bytes nothing comes for `seconds`."""
    answer.stall_at = _offset(answer, scene.fault)
    answer.stall_seconds = scene.fault.seconds


def _truncated(answer: Answer, scene: Scene) -> None:
    """The body ends after `at` bytes, and Content-Length agrees."""
    answer.end = answer.start + _offset(answer, scene.fault)


def _overlong(answer: Answer, _: Scene) -> None:
    """A byte too many, and Content-Length agrees."""
    body = answer.body
    answer.body = dataclasses.replace(body, tail=body.tail + b"!", size=body.size + 1)
    answer.end = None if answer.end is None else answer.end + 1


def _corrupt(answer: Answer, scene: Scene) -> None:
    """The byte at `at` is another one."""
    answer.corrupt_at = _offset(answer, scene.fault)


def _slow(answer: Answer, scene: Scene) -> None:
    """The body comes at `bytes_per_second`."""
    answer.bytes_per_second = scene.fault.bytes_per_second


def _gzip(answer: Answer, _: Scene) -> None:
    """Content-Encoding: gzip, whether or not it was accepted; for small bodies."""
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(answer.body.read(answer.start, answer.end)) + packer.flush()
    answer.body, answer.start, answer.end = Blob.of(packed), 0, None
    _set_header(answer, "Content-Encoding", "gzip")


def _tag_moves(_: Answer, scene: Scene) -> None:
    """After this answer the tag points to the digest `text`."""
    scene.content.move(scene.request.repository, scene.request.reference, scene.fault.text)


REFUSALS: dict[str, Callable[[Scene], Answer]] = {
    "pull-limit": _pull_limit,
    "throttle": _throttle,
    "secondary-limit": _secondary_limit,
    "expired-token": _expired_token,
    "bad-realm": _bad_realm,
    "link-expired": _link_expired,
    "server-error": _server_error,
    "html": _html,
    "not-allowed": _not_allowed,
    "not-found": _not_found,
    "redirect": _redirect,
    "redirect-loop": _redirect_loop,
    "huge-manifest": _huge_manifest,
    "reset": _reset,
}

EDITS: dict[str, Callable[[Answer, Scene], None]] = {
    "headers": _headers,
    "no-rate-headers": _no_rate_headers,
    "blank-rate-headers": _blank_rate_headers,
    "no-digest": _no_digest,
    "wrong-digest": _wrong_digest,
    "no-length": _no_length,
    "wrong-type": _wrong_type,
    "ignored-range": _ignored_range,
    "wrong-range": _wrong_range,
    "cut": _cut,
    "cut-and-expire": _cut_and_expire,
    "stall": _stall,
    "truncated": _truncated,
    "overlong": _overlong,
    "corrupt": _corrupt,
    "slow": _slow,
    "gzip": _gzip,
    "tag-moves": _tag_moves,
}

# The others strike only requests that got past the challenge, so that the first request of
# a client does not use them up.
BEFORE_ENTRY = frozenset({"bad-realm"})


def _offset(answer: Answer, fault: Fault) -> int:
    """Where a fault strikes in the body that is sent: at most at its last byte."""
    length = answer.stop - answer.start
    return min(length // 2 if fault.at is None else fault.at, max(0, length - 1))


def _rate_headers(answer: Answer) -> list[str]:
    return [name for name in answer.headers if name.lower().startswith(_RATE_HEADERS)]


def _set_header(answer: Answer, name: str, value: str | None) -> None:
    """Set a header whatever its case; None removes it."""
    for present in [each for each in answer.headers if each.lower() == name.lower()]:
        del answer.headers[present]
    if value is not None:
        answer.headers[name] = value

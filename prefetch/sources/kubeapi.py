"""A live cluster's API: read page by page, and nothing else.

Connecting is left to kubernetes-asyncio, an extra that is imported when it is used: kubeconfigs
with contexts, exec plugins and client certificates, and in a pod the service account's token, which
is read again as the kubelet renews it. Answers are taken as they come: turning thousands of pods
into the library's models would take most of the time and the memory.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from prefetch.errors import NetworkError, PrefetchError, UsageError

PAGE: Final = 500
"""Objects that are asked for at a time (kubernetes.io, "Retrieving large results sets")."""

_MOST_PAGES: Final = 10_000
_OK: Final = 200
_GONE: Final = 410
_RESTARTS: Final = 3
_TIMEOUT: Final = 30.0
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_ATTEMPTS: Final = 4
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0
_DIGITS: Final = 6
_PAGE_LIMIT: Final = 128 << 20
_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"
_SHOWN: Final = 300


class Refused(PrefetchError):
    """The API server does not let us, or has no such kind; `status` is HTTP's.

    `retry_after` is when it may, in seconds, if it says so.
    """

    code = "CLUSTER_REFUSED"

    def __init__(self, message: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def is_busy(self) -> bool:
        """Whether it may do in a moment what it has refused."""
        return self.status in _BUSY


@dataclass(frozen=True, slots=True)
class Connection:
    """Which cluster: a kubeconfig and a context in it; neither: the pod's own, or the default."""

    kubeconfig: Path | None = None
    context: str | None = None


class KubeApi:
    """An open API. Use `open_api`, and `close` in the end."""

    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self.where = where

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def objects(
        self, path: str, parameters: Mapping[str, str] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The items of a list, page by page; begun anew where the list has expired (410 Gone).

        What was given before is given again then. Raises Refused and NetworkError.
        """
        restarts = 0
        token = ""
        for _ in range(_MOST_PAGES):
            try:
                page = await self._page(path, {**(parameters or {}), "continue": token})
            except Refused as refused:
                if refused.status != _GONE or restarts >= _RESTARTS:
                    raise
                restarts, token = restarts + 1, ""
                continue
            for item in page["items"] or ():
                if not isinstance(item, dict):
                    raise Refused("an entry of the list is no object", _OK)
                yield item
            metadata = page.get("metadata")
            following = metadata.get("continue") if isinstance(metadata, dict) else None
            if not following:
                return
            if following == token:
                break
            token = following
        raise Refused("the list does not end", _OK)

    async def object(self, path: str) -> dict[str, Any]:
        """One object. Raises Refused and NetworkError."""
        return await self._get(path, [])

    async def _page(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        query = [("limit", str(PAGE)), *((k, v) for k, v in parameters.items() if v)]
        document = await self._get(path, query)
        named = str(document.get("kind")).endswith("List")
        if not named or not isinstance(document.get("items", ""), list | None):
            raise Refused("the answer is no list", _OK)
        return document

    async def _get(self, path: str, query: list[tuple[str, str]]) -> dict[str, Any]:
        """An answer's document; asked for again where the server is busy, as client-go does."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Refused) and error.is_busy),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=_pause,
            reraise=True,
        )
        return await retrying(self._asked, path, query)

    async def _asked(self, path: str, query: list[tuple[str, str]]) -> dict[str, Any]:
        try:
            answer = await self._client.call_api(
                path,
                "GET",
                query_params=query,
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=_TIMEOUT,
                _return_http_data_only=True,
            )
            body = await _content(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise NetworkError(f"{self.where}: {_escaped(reason)}") from None
        document = _document(body)
        if answer.status != _OK:
            message = document.get("message")
            words = message if isinstance(message, str) else f"HTTP {answer.status}"
            after = answer.headers.get("Retry-After", "")
            raise Refused(
                _escaped(words),
                answer.status,
                float(after) if after.isdecimal() and len(after) < _DIGITS else None,
            )
        return document


def _escaped(words: str) -> str:
    """What somebody else says, cut and safe to print."""
    return ascii(words[:_SHOWN])[1:-1]


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: what the server says, within bounds."""
    error = None if state.outcome is None else state.outcome.exception()
    told = error.retry_after if isinstance(error, Refused) else None
    return min(_FIRST_PAUSE * 2**state.attempt_number if told is None else told, _LONGEST_PAUSE)


async def _content(answer: aiohttp.ClientResponse) -> bytes | None:
    """The body; None if it is larger than it may be, unpacked."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > _PAGE_LIMIT:
            answer.close()
            return None
    return bytes(body)


async def open_api(connection: Connection) -> KubeApi:
    """Connect to the cluster that is meant.

    Raises UsageError where the extra is not installed, or no configuration can be used.
    """
    try:
        from kubernetes_asyncio import client, config
    except ImportError:
        raise UsageError(
            "reading a cluster needs the extra `cluster`",
            hint="pip install 'oci-prefetch[cluster]', or kubectl get pods -A -o json | … -",
        ) from None
    settings = client.Configuration()
    own = connection.kubeconfig is None and connection.context is None
    in_cluster = own and _IN_CLUSTER in os.environ
    if not in_cluster:
        _check_files(connection)
    with _hearing() as heard:
        try:
            if in_cluster:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            else:
                file = None if connection.kubeconfig is None else str(connection.kubeconfig)
                await config.load_kube_config(
                    config_file=file,
                    context=connection.context,
                    client_configuration=settings,
                    persist_config=False,
                )
        except Exception as error:  # noqa: BLE001 - plugins and files fail in ways of their own
            raise _unusable(str(error) or type(error).__name__) from None
    if heard.words:
        raise _unusable(heard.words[0])
    settings.retries = 0
    settings.api_key = {name: _header(text) for name, text in settings.api_key.items()}
    opened = client.ApiClient(settings)
    opened.rest_client.pool_manager = _Straight(  # type: ignore[assignment]
        opened.rest_client.pool_manager
    )
    return KubeApi(opened, str(settings.host))


class _Straight:
    """A session that goes where it is sent: an API server's redirects would lead anywhere."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, **words: Any) -> aiohttp.ClientResponse:
        """One request, as the library wants it."""
        return await self._session.request(**words, allow_redirects=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


class _Heard(logging.Handler):
    """What the library says in its log while it loads: why a plugin has failed, for one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it: it goes to no terminal as it is."""
        self.words.append(record.getMessage())


@contextmanager
def _hearing() -> Iterator[_Heard]:
    heard, logger = _Heard(), logging.getLogger("kubernetes_asyncio")
    logger.addHandler(heard)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)


def _unusable(words: str) -> UsageError:
    first = next(iter(words.splitlines()), "")
    return UsageError(
        f"the cluster's configuration cannot be used: {_escaped(first)}",
        hint="kubectl --kubeconfig FILE --context NAME get pods tells whether it works",
    )


def _header(text: str) -> str:
    """A token, without the end of its file's last line. Raises UsageError."""
    bare = text.strip()
    if not bare.isascii() or not bare.isprintable():
        raise _unusable("the token has characters that no header can carry")
    return bare


def _check_files(connection: Connection) -> None:
    """The library goes on without a file that is not there, and fails with other words."""
    named = connection.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [Path(each).expanduser() for each in str(named).split(os.pathsep) if each]
    if not any(file.is_file() for file in files):
        raise UsageError(
            f"no kubeconfig: {', '.join(map(str, files))}: no such file",
            hint="name one with --kubeconfig, or run it in a pod",
        )


def _document(body: bytes | None) -> dict[str, Any]:
    try:
        found = None if body is None else json.loads(body)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"items": "none"}

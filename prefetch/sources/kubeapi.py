"""A live cluster's API: read page by page, and nothing else.

Connecting is left to kubernetes-asyncio, an extra that is imported when it is used: kubeconfigs
with contexts, exec plugins and client certificates, and in a pod the service account's token, which
is read again as the kubelet renews it. Answers are taken as they come: turning thousands of pods
into the library's models would take most of the time and the memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from prefetch.errors import NetworkError, PrefetchError, UsageError

PAGE: Final = 500
"""Objects that are asked for at a time (kubernetes.io, "Retrieving large results sets")."""

_OK: Final = 200
_GONE: Final = 410
_RESTARTS: Final = 3
_TIMEOUT: Final = 30.0
_PAGE_LIMIT: Final = 256 << 20
_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"
_SHOWN: Final = 300


class Refused(PrefetchError):
    """The API server does not let us, or has no such kind; `status` is HTTP's."""

    code = "CLUSTER_REFUSED"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


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
        while True:
            try:
                page = await self._page(path, {**(parameters or {}), "continue": token})
            except Refused as refused:
                if refused.status != _GONE or restarts >= _RESTARTS:
                    raise
                restarts, token = restarts + 1, ""
                continue
            for item in page.get("items") or ():
                if isinstance(item, dict):
                    yield item
            metadata = page.get("metadata")
            token = metadata.get("continue") or "" if isinstance(metadata, dict) else ""
            if not token:
                return

    async def object(self, path: str) -> dict[str, Any]:
        """One object. Raises Refused and NetworkError."""
        return await self._get(path, [])

    async def _page(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        query = [("limit", str(PAGE)), *((k, v) for k, v in parameters.items() if v)]
        document = await self._get(path, query)
        if not isinstance(document.get("items", ()), list | tuple | None):
            raise Refused("the answer is no list", _OK)
        return document

    async def _get(self, path: str, query: list[tuple[str, str]]) -> dict[str, Any]:
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
            body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise NetworkError(f"{self.where}: {reason[:_SHOWN]}") from None
        document = _document(body)
        if answer.status != _OK:
            message = document.get("message")
            words = message if isinstance(message, str) else f"HTTP {answer.status}"
            raise Refused(ascii(words[:_SHOWN])[1:-1], answer.status)
        return document


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
        words = str(error).splitlines() or [type(error).__name__]
        raise UsageError(
            f"the cluster's configuration cannot be used: {ascii(words[0][:_SHOWN])[1:-1]}",
            hint="kubectl --kubeconfig FILE --context NAME get pods tells whether it works",
        ) from None
    settings.retries = 0
    return KubeApi(client.ApiClient(settings), str(settings.host))


def _check_files(connection: Connection) -> None:
    """The library goes on without a file that is not there, and fails with other words."""
    named = connection.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [Path(each).expanduser() for each in str(named).split(os.pathsep) if each]
    if not any(file.is_file() for file in files):
        raise UsageError(
            f"no kubeconfig: {', '.join(map(str, files))}: no such file",
            hint="name one with --kubeconfig, or run it in a pod",
        )


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body) if len(body) <= _PAGE_LIMIT else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"items": "none"}

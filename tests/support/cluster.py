"""A cluster's API whose answers are made to order; a real one is `support.apiserver`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from prefetch.oci.platform import Platform
from prefetch.sources.kubeapi import Connection

ARM, AMD = Platform.parse("linux/arm64"), Platform.parse("linux/amd64")


def pod(name: str, *images: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"containers": [{"image": each} for each in images], **spec},
    }


def workload(name: str, image: str, *, owned: bool = False) -> dict[str, Any]:
    owners = [{"kind": "Deployment", "controller": True}] if owned else []
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": name, "ownerReferences": owners},
        "spec": {"replicas": 0, "template": {"spec": {"containers": [{"image": image}]}}},
    }


def node(architecture: str) -> dict[str, Any]:
    info = {"operatingSystem": "linux", "architecture": architecture}
    return {"metadata": {"name": architecture}, "status": {"nodeInfo": info}}


@dataclass
class Api:
    """Lists and single objects by path; `refused` are statuses by path, `expired` is how often a
    list has expired.
    """

    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    expired: int = 0
    page: int = 2
    asked: list[str] = field(default_factory=list)
    raw: bytes | None = None

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(str(request.rel_url))
        path = request.path
        if self.raw is not None:
            return web.Response(body=self.raw)
        if path in self.refused:
            return self._status(self.refused[path], f"no {path}\x1b[31m")
        if path in self.objects:
            return web.json_response(self.objects[path])
        if path not in self.lists:
            return self._status(404, "the server could not find the requested resource")
        start = int(request.query.get("continue") or 0)
        if start and self.expired:
            self.expired -= 1
            return self._status(410, "The provided continue parameter is too old")
        items = self.lists[path]
        rest = str(start + self.page) if start + self.page < len(items) else ""
        found = items[start : start + self.page]
        answer = {"kind": "List", "items": found, "metadata": {"continue": rest}}
        return web.json_response(answer)

    def _status(self, code: int, message: str) -> web.Response:
        return web.json_response({"kind": "Status", "message": message}, status=code)


@pytest.fixture
def api() -> Api:
    empty = {
        f"/apis/apps/v1/{kind}": []
        for kind in ("deployments", "statefulsets", "daemonsets", "replicasets")
    }
    return Api(
        {
            "/api/v1/pods": [],
            "/api/v1/nodes": [node("amd64")],
            "/api/v1/replicationcontrollers": [],
            "/api/v1/serviceaccounts": [],
            "/apis/batch/v1/cronjobs": [],
            "/apis/batch/v1/jobs": [],
            **empty,
        }
    )


@pytest.fixture
async def connection(api: Api, tmp_path: Path) -> AsyncIterator[Connection]:
    application = web.Application()
    application.router.add_get("/{path:.*}", api.answer)
    async with TestServer(application, host="127.0.0.1") as server:
        yield Connection(kubeconfig(tmp_path, str(server.make_url("/")).rstrip("/")))


def kubeconfig(directory: Path, url: str) -> Path:
    path = directory / "kubeconfig"
    named = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": "token-77c1"}}],
    }
    path.write_text(json.dumps(named))
    return path

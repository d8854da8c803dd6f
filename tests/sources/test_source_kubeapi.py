"""An API server that is busy, endless, or leads astray; and configurations with traps."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from prefetch.errors import UsageError
from prefetch.sources import kubeapi
from prefetch.sources.kubeapi import Connection, KubeApi, Refused, open_api
from support.cluster import kubeconfig

PODS = "/api/v1/pods"
LIST = {"kind": "PodList", "items": [{"metadata": {"name": "a"}}]}


class Server:
    """Answers what `answers` says, one after the other, then the last again."""

    def __init__(self) -> None:
        self.answers: list[web.Response] = []
        self.asked: list[web.Request] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        made = self.answers[min(len(self.asked), len(self.answers)) - 1]
        return web.Response(body=made.body, status=made.status, headers=made.headers)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/{path:.*}", server.answer)
    async with TestServer(application, host="127.0.0.1") as running:
        yield str(running.make_url("/")).rstrip("/")


@pytest.fixture
async def api(url: str, tmp_path: Path) -> AsyncIterator[KubeApi]:
    opened = await open_api(Connection(kubeconfig(tmp_path, url)))
    yield opened
    await opened.close()


async def names(api: KubeApi) -> list[str]:
    return [each["metadata"]["name"] async for each in api.objects(PODS)]


def busy(status: int, **headers: str) -> web.Response:
    return web.json_response({"kind": "Status", "message": "busy"}, status=status, headers=headers)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_server_is_asked_again(server: Server, api: KubeApi, status: int) -> None:
    server.answers = [busy(status, **{"Retry-After": "0"}), web.json_response(LIST)]
    assert await names(api) == ["a"]
    server.answers = [busy(status, **{"Retry-After": "0"})]
    server.asked.clear()
    with pytest.raises(Refused, match="busy"):
        await names(api)
    assert len(server.asked) == 4


async def test_what_is_refused_for_good_is_not_asked_again(server: Server, api: KubeApi) -> None:
    server.answers = [busy(403)]
    with pytest.raises(Refused):
        await names(api)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(server: Server, api: KubeApi, url: str, status: int) -> None:
    elsewhere = {"Location": f"{url.replace('127.0.0.1', 'localhost')}/other"}
    server.answers = [web.Response(status=status, headers=elsewhere), web.json_response(LIST)]
    with pytest.raises(Refused, match=f"HTTP {status}"):
        await names(api)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "Status", "status": "Failure"},
        {"kind": "Table", "rows": []},
        {"kind": "PodList"},
        {"kind": "PodList", "items": {}},
        {"kind": "PodList", "items": ["garbage"]},
        {"kind": "PodList", "items": [None]},
    ],
)
async def test_what_is_no_list_is_not_an_empty_one(
    server: Server, api: KubeApi, document: dict[str, Any]
) -> None:
    server.answers = [web.json_response(document)]
    with pytest.raises(Refused, match=r"no list|no object"):
        await names(api)


async def test_an_empty_list_may_be_null(server: Server, api: KubeApi) -> None:
    server.answers = [web.json_response({"kind": "PodList", "items": None})]
    assert await names(api) == []


async def test_a_list_that_does_not_end(
    server: Server, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [web.json_response({**LIST, "metadata": {"continue": "same"}})]
    with pytest.raises(Refused, match="does not end"):
        await names(api)
    assert len(server.asked) == 2
    monkeypatch.setattr(kubeapi, "_MOST_PAGES", 5)
    server.asked.clear()
    pages = [{**LIST, "metadata": {"continue": str(number)}} for number in range(9)]
    server.answers = [web.json_response(page) for page in pages]
    with pytest.raises(Refused, match="does not end"):
        await names(api)
    assert len(server.asked) == 5


async def test_a_body_is_bounded_as_it_is_unpacked(
    server: Server, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeapi, "_PAGE_LIMIT", 1 << 20)
    body = gzip.compress(b" " * (8 << 20) + json.dumps(LIST).encode())
    server.answers = [web.Response(body=body, headers={"Content-Encoding": "gzip"})]
    with pytest.raises(Refused, match="no list"):
        await names(api)


def with_user(tmp_path: Path, url: str, user: dict[str, Any]) -> Connection:
    path = kubeconfig(tmp_path, url)
    config = json.loads(path.read_text())
    config["users"][0]["user"] = user
    path.write_text(json.dumps(config))
    return Connection(path)


async def test_the_end_of_a_token_files_line_is_no_part_of_it(
    server: Server, url: str, tmp_path: Path
) -> None:
    server.answers = [web.json_response(LIST)]
    (tmp_path / "token").write_text("token-77c1\n")
    api = await open_api(with_user(tmp_path, url, {"tokenFile": str(tmp_path / "token")}))
    assert await names(api) == ["a"]
    await api.close()
    assert server.asked[0].headers["Authorization"] == "Bearer token-77c1"


async def test_a_token_that_no_header_can_carry(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no header can carry") as caught:
        await open_api(with_user(tmp_path, url, {"token": "token\n77c1"}))
    assert "77c1" not in str(caught.value)


async def test_what_a_plugin_says_is_told_escaped_and_goes_nowhere_else(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "import sys; sys.stderr.write('\\x1b]0;pwned\\x07 log in first'); sys.exit(1)"
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", script],
    }
    with pytest.raises(UsageError, match="log in first") as caught:
        await open_api(with_user(tmp_path, url, {"exec": plugin}))
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")

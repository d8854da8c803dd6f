"""Proxies from the environment."""

from __future__ import annotations

import pytest
from aiohttp import web
from remote_support import Connect, Serve, found
from yarl import URL

from prefetch.errors import ForbiddenAddress
from prefetch.oci.reference import Repository
from prefetch.remote.proxies import Proxies

BOTH = {"http": "http://proxy.lan:3128", "https": "http://proxy.lan:3129"}


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://registry.example", None),
        (BOTH, "https://registry.example", "http://proxy.lan:3129"),
        (BOTH, "http://registry.example", "http://proxy.lan:3128"),
        ({"all": "proxy.lan:1"}, "https://registry.example", "http://proxy.lan:1"),
        ({**BOTH, "no": "example"}, "https://registry.example", None),
        ({**BOTH, "no": ".example, other"}, "https://registry.example", None),
        ({**BOTH, "no": "registry.example:5000"}, "https://registry.example:5000", None),
        ({**BOTH, "no": "gistry.example"}, "https://registry.example", "http://proxy.lan:3129"),
        ({**BOTH, "no": "*"}, "https://registry.example", None),
        ({**BOTH, "no": "10.0.0.0/8"}, "https://10.1.2.3", None),
        ({**BOTH, "no": "10.0.0.0/8,x/y"}, "https://11.1.2.3", "http://proxy.lan:3129"),
        (BOTH, "https://localhost:5000", None),
        (BOTH, "http://127.0.0.1:5000", None),
        (BOTH, "http://[::1]:5000", None),
    ],
)
def test_which_proxy(environment: dict[str, str], url: str, proxy: str | None) -> None:
    found_proxy = Proxies(environment).find(URL(url))
    assert (None if found_proxy is None else str(found_proxy.url)) == (proxy and str(URL(proxy)))


def test_its_password_is_sent_to_it_and_shown_nowhere() -> None:
    proxy = Proxies({"https": "http://me:hush@proxy.lan:1"}).find(URL("https://registry.example"))
    assert proxy is not None
    assert proxy.headers["Proxy-Authorization"] == "Basic bWU6aHVzaA=="
    assert "hush" not in repr(proxy)
    assert "bWU6" not in repr(proxy)


async def test_requests_go_by_the_proxy(
    connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proxy(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({}) if request.path == "/v2/" else found()

    server = await serve(proxy)
    monkeypatch.setenv("http_proxy", server.url.replace("http://", "http://me:hush@"))
    client = (await connect("http://registry.invalid")).client
    await client.resolve(Repository("registry.invalid", "team/app"), "latest")
    assert server.seen[-1].headers["Host"] == "registry.invalid"
    assert server.seen[-1].headers["Proxy-Authorization"] == "Basic bWU6aHVzaA=="


async def test_by_a_proxy_addresses_are_checked_by_their_spelling(
    connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proxy(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        raise web.HTTPTemporaryRedirect("http://10.0.0.1/inside")

    server = await serve(proxy)
    monkeypatch.setenv("http_proxy", server.url)
    client = (await connect("http://registry.invalid")).client
    with pytest.raises(ForbiddenAddress, match="private address"):
        await client.resolve(Repository("registry.invalid", "team/app"), "latest")
    assert not any("10.0.0.1" in each.headers["Host"] for each in server.seen)

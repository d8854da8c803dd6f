"""Tag lists, in pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiohttp import web
from remote_support import Connect, Serve, put_image

from prefetch.errors import NotFound, ServerFault
from prefetch.oci.reference import Repository
from support.factories import UpstreamFactory


async def test_all_pages_are_followed(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream(page_size=10)
    tags = tuple(f"1.{n:03}" for n in range(95))
    repository, _ = put_image(registry, tags=tags, same_content=True)
    for tag in tags:
        assert registry.content.manifest(repository.path, tag)
    client = (await connect(registry.url)).client
    assert await client.tags(repository) == sorted(tags)
    assert registry.log.counts(kind="tags") == 10
    assert registry.log.pulls == 0


async def test_a_repository_that_is_not_there(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    client = (await connect(registry.url)).client
    with pytest.raises(NotFound, match=r"the tags of .*NAME_UNKNOWN"):
        await client.tags(Repository(registry.address, "team/none"))


async def list_of(connect: Connect, serve: Serve, page: Callable[[str], web.Response]) -> list[str]:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({}) if request.path == "/v2/" else page(request.query_string)

    server = await serve(answer)
    client = (await connect(server.url)).client
    return await client.tags(Repository(client.settings.name, "team/app"))


@pytest.mark.parametrize(
    ("body", "tags"),
    [
        ('{"name": "team/app", "tags": null}', []),
        ('{"tags": []}', []),
        ("{}", []),
        ('{"tags": ["a", "a", "b"]}', ["a", "b"]),
        ('{"tags": ["ok", "../../x", "", 5, null, "-x", "a\\nb", "' + "y" * 129 + '"]}', ["ok"]),
    ],
)
async def test_pages(connect: Connect, serve: Serve, body: str, tags: list[str]) -> None:
    assert await list_of(connect, serve, lambda _: web.Response(text=body)) == tags


@pytest.mark.parametrize(
    "body", ["", "[]", "null", '{"tags": {"a": 1}}', '{"tags": "x"}', "[" * 9999]
)
async def test_what_is_no_page(connect: Connect, serve: Serve, body: str) -> None:
    with pytest.raises(ServerFault, match="sent no tag list"):
        await list_of(connect, serve, lambda _: web.Response(text=body))


@pytest.mark.parametrize(
    "link",
    [
        "<http://evil.example/v2/team/app/tags/list>; rel=next",
        "<//evil.example/x>; rel=next",
        "<file:///etc/passwd>; rel=next",
        "<http://[>; rel=next",
    ],
)
async def test_pages_stay_with_the_registry(connect: Connect, serve: Serve, link: str) -> None:
    with pytest.raises(ServerFault, match="goes on at another host"):
        await list_of(
            connect, serve, lambda _: web.json_response({"tags": ["a"]}, headers={"Link": link})
        )


async def test_pages_that_lead_back(connect: Connect, serve: Serve) -> None:
    links = {"": "?last=b", "n=1000": "?last=a", "last=a": "?last=b", "last=b": "?last=a"}

    def page(query: str) -> web.Response:
        link = {"Link": f'<{links[query]}>; rel="next"'}
        return web.json_response({"tags": [query or "a"]}, headers=link)

    with pytest.raises(ServerFault, match="leads back to itself"):
        await list_of(connect, serve, page)

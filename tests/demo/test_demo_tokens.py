"""Tokens and the CDN behave as Docker Hub's do."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from prefetch.demo.images import image, manifest
from prefetch.demo.tokens import Account
from prefetch.demo.upstream import Upstream
from support.clock import ManualClock
from support.factories import UpstreamFactory
from support.http import basic, bearer

ALICE = {"alice": Account(password="s3cret", refresh_token="r3fresh")}


async def token(
    session: aiohttp.ClientSession, running: Upstream, *scopes: str, **options: Any
) -> Any:
    params = [("service", "registry.demo"), *(("scope", scope) for scope in scopes)]
    answer = await session.get(running.doorkeeper.realm, params=params, **options)
    return await answer.json()


async def test_a_token_opens_its_repositories_until_it_expires(
    upstream: UpstreamFactory, session: aiohttp.ClientSession, clock: ManualClock
) -> None:
    running = await upstream(token_lifetime=30, token_port=True, clock=clock)
    for name in ("one", "two", "three"):
        running.content.put(name, manifest(name), "1")
    issued = await token(session, running, "repository:one:pull", "repository:two:pull")

    async def status(name: str) -> tuple[int, str]:
        url = f"{running.url}/v2/{name}/manifests/1"
        answer = await session.head(url, headers=bearer(issued["token"]))
        return answer.status, answer.headers.get("WWW-Authenticate", "")

    assert issued["expires_in"] == 30
    assert issued["issued_at"] == "2026-01-01T00:00:00Z"
    assert [(await status(name))[0] for name in ("one", "two")] == [200, 200]
    refused, challenge = await status("three")
    assert refused == 401
    assert 'scope="repository:three:pull"' in challenge
    assert 'error="insufficient_scope"' in challenge
    clock.advance(30)
    assert 'error="invalid_token"' in (await status("one"))[1]


async def test_a_service_may_refuse_several_scopes_and_leave_out_the_lifetime(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    running = await upstream(
        several_scopes=False, reported_lifetime=0, token_fields=("access_token",)
    )
    assert set(await token(session, running, "repository:a:pull")) == {"access_token"}
    refused = await token(session, running, "repository:a:pull", "repository:b:pull")
    assert refused["errors"][0]["code"] == "UNSUPPORTED"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"grant_type": "password", "username": "alice", "password": "s3cret"}, 200),
        ({"grant_type": "password", "username": "alice", "password": "no"}, 401),
        ({"grant_type": "refresh_token", "refresh_token": "r3fresh"}, 200),
        ({"grant_type": "refresh_token", "refresh_token": "no"}, 401),
    ],
)
async def test_oauth2_grants(
    upstream: UpstreamFactory,
    session: aiohttp.ClientSession,
    form: dict[str, str],
    status: int,
) -> None:
    running = await upstream(accounts=ALICE)
    scope = {"scope": "repository:app:pull", "service": "registry.demo", "client_id": "test"}
    answer = await session.post(running.doorkeeper.realm, data={**form, **scope})
    assert answer.status == status


async def test_private_content_is_its_readers_alone(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    running = await upstream(accounts=ALICE)
    running.content.put("corp/app", manifest("app"), "1", readers=["alice"])
    url = f"{running.url}/v2/corp/app/manifests/1"
    scope = "repository:corp/app:pull"

    anonymous = await token(session, running, scope)
    alice = await token(session, running, scope, headers=basic("alice", "s3cret"))

    assert (await session.head(url, headers=bearer(anonymous["token"]))).status == 401
    assert (await session.head(url, headers=bearer(alice["token"]))).status == 200
    assert running.log.requests[-1].identity == "alice"
    assert running.log.requests[-1].authorization == "Bearer"


async def test_the_cdn_refuses_authorization_and_old_links(
    upstream: UpstreamFactory, session: aiohttp.ClientSession, clock: ManualClock
) -> None:
    running = await upstream(auth="none", link_lifetime=10, clock=clock)
    made = running.content.put("app", image("app"), "1")
    digest, blob = next(iter(made.all_blobs().items()))
    redirect = await session.get(f"{running.url}/v2/app/blobs/{digest}", allow_redirects=False)
    link = redirect.headers["Location"]

    part = await session.get(link, headers={"Range": "bytes=10-19"})
    both = await session.get(link, headers={"Authorization": "Bearer x"})
    beyond = await session.get(link, headers={"Range": f"bytes={blob.size}-"})
    clock.advance(11)
    late = await session.get(link)

    assert redirect.status == 307
    assert link.startswith("http://localhost:")
    assert (part.status, await part.read()) == (206, blob.read(10, 20))
    assert part.headers["Content-Range"] == f"bytes 10-19/{blob.size}"
    assert (both.status, beyond.status, late.status) == (400, 416, 403)

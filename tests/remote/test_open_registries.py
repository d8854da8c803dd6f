"""Logins at registries that ask for none: shown at once, to nobody else, and never left out."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from remote_support import SOME_DIGEST, Connect, Seen, Serve, challenge, found, layer_of, put_image

from prefetch.credentials.credential import Credential, IdentityToken, Login, Secret
from prefetch.errors import ForbiddenAddress, Misrouted, RegistryError, Unauthorized
from prefetch.oci.model import OCI_INDEX
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.registry import RegistryClient
from support.factories import UpstreamFactory
from support.http import basic

ALICE = Credential("alice", Secret("correct horse"))
LOGIN = basic("alice", "correct horse")["Authorization"]
MANIFEST = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
)


def team(client: RegistryClient, name: str = "app") -> Repository:
    return Repository(client.settings.name, f"team/{name}")


def welcome(request: web.BaseRequest) -> web.StreamResponse:
    """200, as a HEAD of a manifest or anything else is answered."""
    return found() if request.method == "HEAD" else web.json_response({})


def logins(seen: list[Seen]) -> list[str | None]:
    return [each.headers.get("Authorization") for each in seen]


async def test_every_request_carries_the_login(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream(auth="none")
    repository, image = put_image(registry)
    client = (await connect(registry.url, ALICE)).client
    await client.resolve(repository, "latest")
    await client.manifest(repository, image.digest, hold=None)
    async with client.open_blob(repository, layer_of(image)) as blob:
        async for _ in blob.chunks:
            pass
    assert client.identity == "alice"
    question, proof, *others = [each for each in registry.log if each.kind != "cdn"]
    assert (question.kind, question.authorization) == ("ping", None)
    assert (proof.kind, proof.authorization) == ("ping", "Basic")
    assert len(others) >= 3
    assert {each.authorization for each in others} == {"Basic"}
    storage = registry.log.select(kind="cdn")
    assert storage
    assert not any(each.has_authorization for each in storage)


async def test_nobody_is_logged_in_without_a_login(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(auth="none")
    repository, image = put_image(registry)
    client = (await connect(registry.url, ALICE)).client
    await client.resolve(repository, "latest")
    asked = len(registry.log)
    assert await client.visible_anonymously(repository, Digest.parse(image.digest)) is True
    stranger = (await connect(registry.url)).client
    await stranger.resolve(repository, "latest")
    assert registry.log.counts(kind="ping") == 2 + 1 + 1
    assert not any(each.has_authorization for each in registry.log.requests[asked:])


@pytest.mark.parametrize("status", [200, 401, 403, 404])
async def test_whatever_the_door_says_if_it_asks_for_nothing(
    connect: Connect, serve: Serve, status: int
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization") == LOGIN:
            return welcome(request)
        return web.Response(status=status if request.path == "/v2/" else 500)

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    assert (await client.resolve(team(client), "latest")).digest is not None
    assert logins(server.seen) == [None, LOGIN, LOGIN]


@pytest.mark.parametrize("words", [None, 'Basic realm="r"'])
async def test_a_login_refused_at_an_open_door_is_not_repeated_and_never_anonymous(
    connect: Connect, serve: Serve, words: str | None
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return welcome(request)
        return web.Response(status=401, headers={"WWW-Authenticate": words} if words else {})

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    for name in ("one", "two", "three"):
        with pytest.raises(Unauthorized, match=r"refuses the login of 'alice'.*anonymously"):
            await client.resolve(team(client, name), "latest")
        with pytest.raises(Unauthorized, match="refuses the login of 'alice'"):
            await client.manifest(team(client, name), "latest", hold=None)
    assert server.paths() == ["GET /v2/", "GET /v2/"]
    assert client.pulls == 0


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("login", [ALICE, IdentityToken(Secret("refresh-me"), "alice")])
async def test_a_bearer_challenge_that_comes_late_is_answered_with_tokens(
    connect: Connect, serve: Serve, login: Login, status: int
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": request.query.get("scope", "traded")[:20]})
        given = request.headers.get("Authorization", "")
        if request.path == "/v2/" or given.startswith("Bearer "):
            return welcome(request)
        refusal = challenge(server)
        refusal.set_status(status)
        return refusal

    server = await serve(answer)
    client = (await connect(server.url, login)).client
    for name in ("one", "two"):
        assert (await client.resolve(team(client, name), "latest")).digest is not None
    heads = [each for each in server.seen if each.method == "HEAD"]
    assert [each.headers["Authorization"][:6] for each in heads] == ["Basic ", "Bearer", "Bearer"]
    tokens = [each for each in server.seen if each.path == "/token"]
    assert len(tokens) == 2
    for each in tokens:
        assert (each.headers.get("Authorization") == LOGIN) or b"refresh-me" in each.body


async def test_a_pull_that_meets_a_late_challenge_is_sent_again_once(
    connect: Connect, serve: Serve
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "granted"})
        if request.path == "/v2/" or request.method == "HEAD":
            return welcome(request)
        if request.headers.get("Authorization") == "Bearer granted":
            return web.Response(body=MANIFEST, content_type=OCI_INDEX)
        return challenge(server)

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    document = await client.manifest(team(client), "latest", hold=None)
    assert document.raw == MANIFEST
    pulls = [each for each in server.seen if each.path.endswith("/manifests/latest")]
    gets = logins([each for each in pulls if each.method == "GET"])
    assert gets == [LOGIN, "Bearer granted"]
    assert client.pulls == 2


async def test_a_token_that_a_pull_was_sent_back_for_and_that_does_not_help_is_the_end(
    connect: Connect, serve: Serve
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "useless"})
        if request.path == "/v2/":
            return web.json_response({})
        if request.method == "HEAD" and "/open/" in request.path:
            # A reading of the meter, so that the other repository's first request is its pull.
            limits = {"ratelimit-limit": "100;w=60", "ratelimit-remaining": "90;w=60"}
            return web.Response(headers={"Docker-Content-Digest": SOME_DIGEST, **limits})
        return challenge(server)

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    await client.resolve(Repository(client.settings.name, "open/app"), "latest")
    with pytest.raises(Unauthorized):
        await client.manifest(team(client), SOME_DIGEST, hold=None)
    sent = [each for each in server.seen if each.path.startswith("/v2/team/app/")]
    assert [each.method for each in sent] == ["GET", "GET"]
    assert logins(sent) == [LOGIN, "Bearer useless"]
    assert server.paths().count("GET /token") == 1


async def test_a_door_that_opens_to_nobody_and_wants_tokens_of_alice(
    connect: Connect, serve: Serve
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "granted"})
        given = request.headers.get("Authorization")
        if given == "Bearer granted":
            return welcome(request)
        return web.json_response({}) if given is None else challenge(server)

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    assert (await client.resolve(team(client), "latest")).digest is not None
    assert logins(server.seen) == [None, LOGIN, LOGIN, "Bearer granted"]


@pytest.mark.parametrize(
    ("realm", "error"),
    [("http://169.254.169.254/token", ForbiddenAddress), ("/token", RegistryError)],
)
async def test_a_late_challenge_sends_no_login_where_none_may_go(
    connect: Connect, serve: Serve, realm: str, error: type[Exception]
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        words = f'Bearer realm="{realm}"'
        return web.Response(status=401, headers={"WWW-Authenticate": words})

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    with pytest.raises(error) as caught:
        await client.resolve(team(client), "latest")
    assert "correct horse" not in str(caught.value)
    assert set(server.paths()) == {"GET /v2/", "HEAD /v2/team/app/manifests/latest"}


@pytest.mark.parametrize("path", ["/v2/", "/v2/team/app/manifests/latest"])
async def test_the_login_goes_to_no_other_origin(connect: Connect, serve: Serve, path: str) -> None:
    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        return welcome(request)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == path:
            raise web.HTTPTemporaryRedirect(f"{other.url}{request.path}")
        return welcome(request)

    other = await serve(elsewhere)
    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    assert (await client.resolve(team(client), "latest")).digest is not None
    assert logins(server.seen) == [None, LOGIN, LOGIN]
    assert other.seen
    assert set(logins(other.seen)) == {None}


async def test_what_another_origin_says_of_the_login_does_not_count(
    connect: Connect, serve: Serve
) -> None:
    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        return challenge(other)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            raise web.HTTPTemporaryRedirect(f"{other.url}/v2/")
        return welcome(request)

    other = await serve(elsewhere)
    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    assert (await client.resolve(team(client), "latest")).digest is not None
    assert other.paths() == ["GET /v2/", "GET /v2/"]
    assert set(logins(other.seen)) == {None}
    assert logins(server.seen) == [None, LOGIN, LOGIN]


async def test_a_web_page_is_shown_no_login(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        page = "<!DOCTYPE html><title>Sign in to the network</title>"
        return web.Response(text=page, content_type="text/html")

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    with pytest.raises(Misrouted, match="does not look like a registry"):
        await client.resolve(team(client), "latest")
    assert logins(server.seen) == [None]


async def test_repositories_that_are_forbidden_do_not_end_the_login(
    connect: Connect, serve: Serve
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        forbidden = "/secret" in request.path
        return web.Response(status=403) if forbidden else welcome(request)

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    for n in range(5):
        with pytest.raises(Unauthorized, match="answered 403"):
            await client.resolve(team(client, f"secret{n}"), "latest")
    assert (await client.resolve(team(client), "latest")).digest is not None
    assert logins(server.seen)[1:] == [LOGIN] * 7


async def test_an_echoed_login_is_struck_out(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        if given is None:
            return web.json_response({})
        errors: list[dict[str, Any]] = [{"code": "UNAUTHORIZED", "message": f"no: {given}"}]
        return web.json_response({"errors": errors}, status=401)

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    with pytest.raises(Unauthorized, match=r"no: Basic \*\*\*") as caught:
        await client.resolve(team(client), "latest")
    assert LOGIN.removeprefix("Basic ") not in repr(caught.value)

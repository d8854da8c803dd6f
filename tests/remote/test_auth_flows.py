"""Tokens and logins against an upstream that counts them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from remote_support import Connect, Serve, challenge, found

from prefetch.credentials.credential import Credential, IdentityToken, Secret
from prefetch.demo.settings import ImageOrder
from prefetch.demo.tokens import Account
from prefetch.demo.upstream import Upstream
from prefetch.errors import ForbiddenAddress, RegistryError, ServerFault, Unauthorized
from prefetch.oci.reference import Repository
from support.clock import ManualClock
from support.factories import UpstreamFactory

ALICE = Credential("alice", Secret("correct horse"))
ACCOUNTS = {"alice": Account(password="correct horse", refresh_token="refresh-me")}


def images(upstream: Upstream, count: int = 1, **order: Any) -> list[Repository]:
    made = ImageOrder(repository="team/app{n}", count=count, layers=1, **order).fill(
        upstream.content
    )
    return [Repository(upstream.address, repository) for repository, _, _ in made]


async def test_one_ping_and_one_token_serve_many_requests(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    (repository,) = images(registry)
    client = (await connect(registry.url)).client
    await asyncio.gather(*(client.resolve(repository, "latest") for _ in range(10)))
    assert registry.log.counts(kind="ping") == 1
    assert registry.log.counts(kind="token") == 1
    (token,) = registry.log.select(kind="token")
    assert token.parameter("scope") == "repository:team/app0:pull"
    assert token.parameter("service") == "registry.demo"
    assert token.authorization is None


async def test_twenty_repositories_share_a_token(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repositories = images(registry, 50)
    client = (await connect(registry.url)).client
    await client.prepare([*repositories, *repositories])
    for repository in repositories:
        await client.resolve(repository, "latest")
    assert registry.log.counts(kind="token") == 3
    assert registry.log.counts(status=401) == 1  # the ping


async def test_a_service_without_several_scopes_is_asked_one_by_one(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(several_scopes=False)
    repositories = images(registry, 45)
    client = (await connect(registry.url)).client
    await client.prepare(repositories)
    for repository in repositories:
        await client.resolve(repository, "latest")
    assert registry.log.counts(kind="token") == 46
    assert registry.log.counts(kind="manifest", status=401) == 0


async def test_one_private_repository_does_not_end_the_sharing(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(accounts=ACCOUNTS)
    private = images(registry, readers=("alice",))
    public = [
        Repository(registry.address, name)
        for name, _, _ in ImageOrder(repository="open/app{n}", count=40).fill(registry.content)
    ]
    client = (await connect(registry.url)).client
    await client.prepare([*private, *public[:19]])
    with pytest.raises(Unauthorized) as caught:
        await client.resolve(private[0], "latest")
    assert "it does not exist, or it takes credentials" in str(caught.value)
    await client.prepare(public)
    for repository in public:
        await client.resolve(repository, "latest")
    assert registry.log.counts(kind="token") == 2 + 2


async def test_a_service_that_grants_only_the_first_scope(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": request.query["scope"].split(":")[1]})
        allowed = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.path.startswith(f"/v2/{allowed}/") and allowed:
            return found()
        return challenge(server)

    server = await serve(answer)
    client = (await connect(server.url)).client
    repositories = [Repository(client.settings.name, f"team/app{n}") for n in range(60)]
    await client.prepare(repositories[:20])
    for repository in repositories[:3]:
        await client.resolve(repository, "latest")
    tokens = server.paths().count("GET /token")
    await client.prepare(repositories[20:])
    assert server.paths().count("GET /token") == tokens
    for repository in repositories[20:]:
        await client.resolve(repository, "latest")
    assert server.paths().count("GET /token") == tokens + 40


async def test_a_token_is_renewed_before_it_expires(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock
) -> None:
    registry = await upstream(clock=clock, token_lifetime=300)
    repositories = images(registry, 5)
    client = (await connect(registry.url, clock=clock)).client
    await client.prepare(repositories)
    for _ in range(4):
        for repository in repositories:
            await client.resolve(repository, "latest")
        clock.advance(280)
    assert registry.log.counts(kind="token") == 4  # for all five together each time
    assert registry.log.counts(kind="manifest", status=401) == 0


@pytest.mark.parametrize("reported", [0, 3600])
async def test_a_token_that_expires_sooner_than_it_said_is_renewed(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock, reported: int
) -> None:
    registry = await upstream(clock=clock, token_lifetime=30, reported_lifetime=reported)
    (repository,) = images(registry)
    client = (await connect(registry.url, clock=clock)).client
    await client.resolve(repository, "latest")
    clock.advance(40)
    assert (await client.resolve(repository, "latest")).digest
    assert registry.log.counts(kind="manifest", status=401) == 1
    assert registry.log.counts(kind="token") == 2


async def test_a_revoked_token_is_renewed_in_mid_run(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    (repository,) = images(registry)
    client = (await connect(registry.url)).client
    digest = (await client.resolve(repository, "latest")).digest
    registry.doorkeeper.revoke()
    await client.manifest(repository, str(digest), hold=None)
    assert client.pulls == 2
    assert registry.log.pulls == 1


@pytest.mark.parametrize("fields", [("token",), ("access_token",)])
async def test_either_field_of_a_token_answer(
    upstream: UpstreamFactory, connect: Connect, fields: tuple[str, ...]
) -> None:
    registry = await upstream(token_fields=fields, reported_lifetime=0)
    (repository,) = images(registry)
    client = (await connect(registry.url)).client
    assert (await client.resolve(repository, "latest")).digest


async def test_a_login_sees_what_is_private(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream(accounts=ACCOUNTS)
    (repository,) = images(registry, readers=("alice",))
    client = (await connect(registry.url, ALICE)).client
    mine = await client.resolve(repository, "latest")
    assert client.identity == "alice"
    assert registry.log.select(kind="manifest")[0].identity == "alice"
    assert mine.digest is not None
    assert await client.visible_anonymously(repository, mine.digest) is False
    (public,) = (
        Repository(registry.address, name)
        for name, _, _ in ImageOrder(repository="open/app").fill(registry.content)
    )
    seen = await client.resolve(public, "latest")
    assert seen.digest is not None
    assert await client.visible_anonymously(public, seen.digest) is True


@pytest.mark.parametrize("auth", ["token", "basic"])
async def test_a_login_that_fails_is_not_repeated_and_never_anonymous(
    upstream: UpstreamFactory, connect: Connect, auth: str
) -> None:
    registry = await upstream(auth=auth, accounts=ACCOUNTS, anonymous=auth == "token")
    repositories = images(registry, 30)
    login = Credential("alice", Secret("wrong password"))
    client = (await connect(registry.url, login)).client
    with pytest.raises(Unauthorized, match=r"refuses the login of 'alice'"):
        await client.prepare(repositories)
    asked = len(registry.log)
    for repository in repositories:
        with pytest.raises(Unauthorized, match=r"127\.0\.0\.1:\d+ refuses the login of 'alice'"):
            await client.resolve(repository, "latest")
    assert len(registry.log) == asked
    assert asked == 2  # the ping, and one failed login
    assert registry.log.counts(kind="manifest") == 0


async def test_403_from_the_token_service_is_a_failed_login_at_the_third_time(
    connect: Connect, serve: Serve
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"error": "HTTP Basic: Access denied"}, status=403)
        return challenge(server)

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    for n in range(10):
        with pytest.raises(Unauthorized, match="Access denied"):
            await client.resolve(Repository(client.settings.name, f"team/app{n}"), "latest")
    assert server.paths().count("GET /token") == 3


async def test_an_identity_token_is_traded_by_post(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(accounts=ACCOUNTS)
    repositories = images(registry, 3, readers=("alice",))
    client = (await connect(registry.url, IdentityToken(Secret("refresh-me"), "alice"))).client
    await client.prepare(repositories)
    for repository in repositories:
        await client.resolve(repository, "latest")
    assert registry.log.counts(kind="token", method="POST") == 1
    assert registry.log.counts(kind="token", method="GET") == 0


async def test_the_token_user_name_means_an_identity_token(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(accounts=ACCOUNTS)
    (repository,) = images(registry, readers=("alice",))
    login = Credential("<token>", Secret("refresh-me"))
    client = (await connect(registry.url, login)).client
    await client.resolve(repository, "latest")
    assert registry.log.counts(kind="token", method="POST") == 1


@pytest.mark.parametrize("status", [404, 405])
async def test_where_post_is_unknown_get_takes_its_place(
    connect: Connect, serve: Serve, status: int
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/token":
            authorised = request.headers.get("Authorization") == "Bearer granted"
            return found() if authorised else challenge(server)
        if request.method == "POST":
            return web.Response(status=status)
        return web.json_response({"token": "granted"})

    server = await serve(answer)
    client = (await connect(server.url, IdentityToken(Secret("refresh-me")))).client
    for n in range(2):
        await client.resolve(Repository(client.settings.name, f"team/app{n}"), "latest")
    assert server.paths().count("POST /token") == 1
    assert server.paths().count("GET /token") == 2
    post = next(each for each in server.seen if each.method == "POST")
    assert b"grant_type=refresh_token" in post.body
    assert b"scope=repository%3Ateam%2Fapp0%3Apull" in post.body


async def test_the_advertised_scope_is_not_believed(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "granted"})
        if request.headers.get("Authorization"):
            return found()
        return challenge(server, 'scope="repository:user/image:pull"')

    server = await serve(answer)
    client = (await connect(server.url)).client
    await client.resolve(Repository(client.settings.name, "team/app"), "latest")
    (token,) = [each for each in server.seen if each.path == "/token"]
    assert "user/image" not in token.query
    assert "team/app" in token.query


@pytest.mark.parametrize(
    ("realm", "error"),
    [
        ("http://auth.example/token", ForbiddenAddress),
        ("http://169.254.169.254/token", ForbiddenAddress),
        ("https://169.254.169.254/token", ForbiddenAddress),
        ("https://user:pw@auth.example/token", ForbiddenAddress),
        ("ftp://auth.example/token", ForbiddenAddress),
        ("file:///etc/passwd", RegistryError),
        ("", RegistryError),
        ("/token", RegistryError),
        ("https://[", RegistryError),
        ("http://" + "a" * 5000, (ForbiddenAddress, RegistryError)),
    ],
)
async def test_a_realm_that_credentials_may_not_go_to(
    upstream: UpstreamFactory, connect: Connect, realm: str, error: Any
) -> None:
    registry = await upstream(accounts=ACCOUNTS)
    (repository,) = images(registry)
    registry.doorkeeper.realm = realm
    client = (await connect(registry.url, ALICE)).client
    with pytest.raises(error) as caught:
        await client.resolve(repository, "latest")
    assert registry.log.counts(kind="token") == 0
    assert "correct horse" not in str(caught.value)


async def test_any_port_and_spelling_of_the_registrys_own_host_may_be_the_realm(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(token_port=True)
    (repository,) = images(registry)
    registry.doorkeeper.realm = registry.doorkeeper.realm.replace("127.0.0.1", "localhost")
    client = (await connect(registry.url)).client
    assert (await client.resolve(repository, "latest")).digest


async def test_a_redirects_target_may_not_challenge(connect: Connect, serve: Serve) -> None:
    async def steal(request: web.BaseRequest) -> web.StreamResponse:
        return challenge(thief)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        raise web.HTTPTemporaryRedirect(f"{thief.url}{request.path}")

    thief = await serve(steal)
    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    with pytest.raises(Unauthorized):
        await client.resolve(Repository(client.settings.name, "team/app"), "latest")
    assert not any("Authorization" in each.headers for each in thief.seen)
    assert "GET /token" not in thief.paths()


async def test_a_registry_that_asks_for_something_else(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": "Negotiate"})

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(Unauthorized, match="asks for negotiate authentication"):
        await client.resolve(Repository(client.settings.name, "team/app"), "latest")


async def test_a_registry_that_challenges_only_late(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        if request.path == "/token":
            return web.json_response({"token": "granted"})
        if request.headers.get("Authorization") == "Bearer granted":
            return found()
        return challenge(server)

    server = await serve(answer)
    client = (await connect(server.url)).client
    resolved = await client.resolve(Repository(client.settings.name, "team/app"), "latest")
    assert resolved.digest is not None


async def test_basic_that_is_asked_for_only_late_is_given_up_after_three_refusals(
    connect: Connect, serve: Serve
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})

    server = await serve(answer)
    client = (await connect(server.url, ALICE)).client
    for n in range(10):
        with pytest.raises(Unauthorized):
            await client.resolve(Repository(client.settings.name, f"team/app{n}"), "latest")
    logins = [each for each in server.seen if "Authorization" in each.headers]
    assert len(logins) == 1 + 3  # one at the open door, three in vain
    with pytest.raises(Unauthorized, match="refuses the login of 'alice' for every request"):
        await client.prepare([])


async def test_basic_without_a_login_is_refused_with_the_reason(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(auth="basic", anonymous=False, accounts=ACCOUNTS)
    (repository,) = images(registry)
    client = (await connect(registry.url)).client
    with pytest.raises(Unauthorized, match="none are configured"):
        await client.resolve(repository, "latest")


async def test_basic_logs_in_once(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream(auth="basic", anonymous=False, accounts=ACCOUNTS)
    repositories = images(registry, 3)
    client = (await connect(registry.url, ALICE)).client
    for repository in repositories:
        await client.resolve(repository, "latest")
    assert registry.log.counts(kind="ping") == 2
    assert all(each.identity == "alice" for each in registry.log.select(kind="manifest"))


async def test_a_token_service_out_of_order_costs_no_pull(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    (repository,) = images(registry)
    registry.faults.add("server-error", kind="token", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(ServerFault, match="a token for"):
        await client.manifest(repository, "latest", hold=None)
    assert client.pulls == 0
    assert registry.log.counts(kind="token") == 5


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"token": "a b"}', "{" * 50_000])
async def test_a_token_service_that_makes_no_sense(
    connect: Connect, serve: Serve, body: str
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=body) if request.path == "/token" else challenge(server)

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(ServerFault, match="token service 127"):
        await client.resolve(Repository(client.settings.name, "team/app"), "latest")

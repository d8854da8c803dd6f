"""Tokens that expire, logins that fail, scopes that are odd, and who may see what."""

from __future__ import annotations

from prefetch.demo.images import manifest
from prefetch.demo.tokens import Account
from prefetch.demo.upstream import Upstream
from support.evidence import assert_blobs_sound, assert_no_crash, assert_no_secret
from support.factories import UpstreamFactory
from support.processes import CommandLine, Result
from support.scenarios import ALICE, PASSWORD, TAG, part_of, sync_all, usual

ACCOUNTS = {"alice": Account(password=PASSWORD)}


def put(registry: Upstream, *names: str, readers: tuple[str, ...] | None = None) -> list[str]:
    for name in names:
        registry.content.put(name, manifest(name), TAG, readers=readers)
    return list(names)


def check(cli: CommandLine, registry: Upstream, *results: Result) -> None:
    assert_blobs_sound(cli.cache)
    assert_no_crash(*results)
    assert_no_secret(cli, [PASSWORD, *registry.doorkeeper.issued], *results)
    # Storage refuses a second authentication, and must not get the first one either.
    assert not any(each.has_authorization for each in registry.log if each.kind == "cdn")


async def test_token_expires_in_mid_run(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """From one request to the next, no token is good any more that was handed out."""
    registry = await upstream()
    names = put(registry, *"abcdef")
    registry.faults.add("expired-token", kind="manifest", method="GET", nth=3)
    again = {"changes": "what a token is refused for is sent again, and each attempt is a pull"}
    result = await sync_all(cli, registry, names, max_concurrency=2, judged=again)
    assert (result.code, result.json["totals"]["synced"]) == (0, 6), result.stdout
    assert registry.faults.struck("expired-token") == 1
    assert registry.log.counts(kind="manifest", status=401) > 1
    check(cli, registry, result)


async def test_token_expires_in_mid_blob(cli: CommandLine, upstream: UpstreamFactory) -> None:
    registry = await upstream()
    made = registry.content.put("app", usual("app"), TAG)
    layer = part_of(made, "layer")
    registry.faults.add("cut-and-expire", kind="cdn", reference=layer, at=9_000)
    result = await sync_all(cli, registry, ["app"])
    assert (result.code, result.json["totals"]["synced"]) == (0, 1), result.stdout
    assert registry.log.select(kind="blob", reference=layer, status=401)
    assert registry.log.select(kind="cdn", reference=layer)[-1].range == "bytes=9000-"
    check(cli, registry, result)


async def test_wrong_password(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """It fails by name, once, and nobody becomes anonymous."""
    registry = await upstream(accounts={"alice": Account(password="another one")})
    result = await sync_all(cli, registry, put(registry, *"abcdefgh"), **ALICE)
    assert (result.code, result.json["totals"]["failed"]) == (1, 8)
    for found in result.json["images"]:
        error = found["error"]
        assert (error["code"], error["http_status"]) == ("UNAUTHORIZED", 401), error
        for word in (registry.address, "alice", "check the credentials"):
            assert word in error["message"], error
    assert not registry.log.counts(kind="manifest", method="GET")
    assert not any(each.identity == "anonymous" for each in registry.log)
    assert registry.log.counts(kind="token") <= 2
    check(cli, registry, result)


async def test_wrong_password_over_basic(cli: CommandLine, upstream: UpstreamFactory) -> None:
    accounts = {"alice": Account(password="another one")}
    registry = await upstream(auth="basic", anonymous=False, accounts=accounts)
    result = await sync_all(cli, registry, put(registry, *"abcd"), **ALICE)
    assert (result.code, result.json["totals"]["failed"]) == (1, 4)
    assert "'alice'" in result.json["images"][0]["error"]["message"]
    assert {each.kind for each in registry.log} == {"ping"}
    assert len(registry.log) <= 4
    check(cli, registry, result)


async def test_private_and_public(cli: CommandLine, upstream: UpstreamFactory) -> None:
    registry = await upstream(accounts=ACCOUNTS)
    names = [*put(registry, "corp/app", readers=("alice",)), *put(registry, "app")]
    result = await sync_all(cli, registry, names, **ALICE)
    assert result.code == 0, result.stdout
    assert [each["visibility"] for each in result.json["images"]] == ["private", "public"]
    assert {each["identity"] for each in result.json["budgets"]} == {"alice"}
    # No users are configured for `serve`: nobody would see the one that is private.
    assert "1 of the images are private" in result.stderr
    check(cli, registry, result)


async def test_private_without_credentials(cli: CommandLine, upstream: UpstreamFactory) -> None:
    registry = await upstream(accounts=ACCOUNTS)
    names = [*put(registry, "corp/app", readers=("alice",)), *put(registry, "app")]
    result = await sync_all(cli, registry, names)
    private, public = result.json["images"]
    assert (result.code, private["outcome"], public["outcome"]) == (1, "failed", "synced")
    assert private["error"]["http_status"] == 401
    assert "it takes credentials, and none are configured" in private["error"]["message"]
    check(cli, registry, result)


async def test_tokens_for_several_refused(cli: CommandLine, upstream: UpstreamFactory) -> None:
    registry = await upstream(several_scopes=False)
    result = await sync_all(cli, registry, put(registry, *"abcdef"))
    assert (result.code, result.json["totals"]["synced"]) == (0, 6), result.stdout
    check(cli, registry, result)


async def test_placeholder_scope(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """A scope that the ping advertises for nobody's repository is not asked for."""
    registry = await upstream(token_fields=("token",), reported_lifetime=0)
    words = f'{registry.doorkeeper.realm}",scope="repository:user/image:pull'
    registry.faults.add("bad-realm", kind="ping", text=words, count=None)
    result = await sync_all(cli, registry, put(registry, "app"))
    assert (result.code, result.json["totals"]["synced"]) == (0, 1), result.stdout
    assert not any("user/image" in each.query for each in registry.log)
    check(cli, registry, result)


async def test_a_registry_that_asks_nobody(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """The account's meter pays, so the account is who asks, from the first pull on."""
    registry = await upstream(auth="none")
    result = await sync_all(cli, registry, put(registry, "one", "two"), **ALICE)
    assert (result.code, result.json["totals"]["synced"]) == (0, 2), result.stdout
    assert {each["identity"] for each in result.json["budgets"]} == {"alice"}
    pulls = registry.log.select(kind="manifest", method="GET")
    assert len(pulls) == 2
    assert all(each.authorization == "Basic" for each in pulls)
    check(cli, registry, result)


async def test_fresh_token_is_revoked(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """Before its first use: nobody notices, and no pull is spent on it."""
    registry = await upstream()
    names = put(registry, "app")
    registry.faults.add("expired-token", kind="manifest", method="HEAD")
    result = await sync_all(cli, registry, names)
    assert (result.code, result.json["totals"]["synced"]) == (0, 1), result.stdout
    assert registry.faults.struck("expired-token") == 1
    assert result.json["totals"]["pulls"] == registry.log.pulls == 1
    check(cli, registry, result)

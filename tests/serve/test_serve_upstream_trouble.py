"""Warm images whatever is the matter with the upstream: what is answered, how soon, and why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tag_serving import (
    Mute,
    Reply,
    ask,
    ask_many,
    asked,
    configure,
    manifest_path,
    metrics,
    parts_of,
    put_image,
    running,
    sync,
    unresolvable,
    until,
)

from prefetch.demo.images import Image
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.cache import Cache
from support.processes import CommandLine, free_port

TTL, WAIT = 1.0, 0.6
BURST = 60
DOWN = "the upstream cannot be reached"
SLOW = "the upstream has not answered yet"
THROTTLED = "the upstream throttles"
FAILED = "the upstream could not be asked"

Trouble = Callable[[Upstream], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Case:
    """A trouble, what the answers say of it, and the most requests that a burst may cost."""

    name: str
    trouble: Trouble
    says: tuple[str, ...]
    costs: int = 12
    heals: bool = True

    @property
    def registry(self) -> str:
        return f"{self.name}.test"

    def __str__(self) -> str:
        return self.name


@dataclass
class Story:
    """What a client met: before, while there is trouble, and when it has passed."""

    image: Image
    before: Reply
    tag: list[Reply] = field(default_factory=list)
    other_tag: list[Reply] = field(default_factory=list)
    exact: list[tuple[str, Reply]] = field(default_factory=list)
    burst: Sequence[Reply] = ()
    cost: int = 0
    pulls: int = 0
    recovered_after: float | None = None


def fault(name: str, **details: object) -> Trouble:
    @asynccontextmanager
    async def trouble(upstream: Upstream) -> AsyncIterator[None]:
        upstream.faults.add(name, **{"count": None, **details})
        yield
        upstream.faults.clear()

    return trouble


@asynccontextmanager
async def gone(upstream: Upstream) -> AsyncIterator[None]:
    await upstream.close()
    yield
    await upstream.start()


@asynccontextmanager
async def mute(upstream: Upstream) -> AsyncIterator[None]:
    await upstream.close()
    async with Mute(upstream.port):
        yield
    await upstream.start()


@asynccontextmanager
async def deleted(upstream: Upstream) -> AsyncIterator[None]:
    held = upstream.content.repositories.pop("app")
    yield
    upstream.content.repositories["app"] = held


@asynccontextmanager
async def forbidden(upstream: Upstream) -> AsyncIterator[None]:
    upstream.doorkeeper.revoke()
    upstream.content.repositories["app"].readers = frozenset({"somebody else"})
    yield
    upstream.content.repositories["app"].readers = None


def bad_tokens(name: str, **details: object) -> Trouble:
    @asynccontextmanager
    async def trouble(upstream: Upstream) -> AsyncIterator[None]:
        upstream.doorkeeper.revoke()
        upstream.faults.add(name, kind="token", count=None, **details)
        yield
        upstream.faults.clear()

    return trouble


CASES = [
    Case("refused", gone, (DOWN,)),
    Case("mute", mute, (SLOW, DOWN)),
    Case("error-500", fault("server-error", status=500, kind="manifest"), (DOWN,)),
    Case("error-503", fault("server-error", kind="manifest"), (DOWN,)),
    Case("resets", fault("reset", kind="manifest"), (DOWN,)),
    Case("pages", fault("html"), (DOWN,)),
    Case("circles", fault("redirect-loop", kind="manifest"), (DOWN,), costs=40),
    Case("throttled", fault("throttle", seconds=2), (THROTTLED,)),
    Case("throttled-without-end", fault("throttle", retry_after="none"), (THROTTLED,)),
    # The answer to a HEAD has no body that could say which limit it was.
    Case("pull-limit", fault("pull-limit", kind="manifest"), (THROTTLED,)),
    Case("tokens-fail", bad_tokens("server-error", status=500), (DOWN,)),
    Case("tokens-page", bad_tokens("html"), (DOWN,)),
    Case("tokens-refused", bad_tokens("not-found"), (DOWN, FAILED)),
    Case("bad-realm", fault("bad-realm", text="http://169.254.169.254/token"), (FAILED,)),
    Case("deleted", deleted, (FAILED,)),
    Case("forbidden", forbidden, (FAILED,)),
    Case("no-digest", fault("no-digest", kind="manifest"), (FAILED,)),
    Case("no-head", fault("not-allowed", kind="manifest", method="HEAD"), (FAILED,)),
]
UNRESOLVABLE = Case("unresolvable", fault("html"), (DOWN, SLOW), heals=False)
ALL = [*CASES, UNRESOLVABLE]


@dataclass(frozen=True)
class Ward:
    stories: Mapping[str, Story]
    metrics: Mapping[str, float]
    log: str


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    """All troubles at once, each with a registry of its own, behind one server."""
    return asyncio.run(run_all(tmp_path_factory.mktemp("trouble")))


async def run_all(directory: Path) -> Ward:
    cli = CommandLine(directory / "home", directory / "data")
    cli.home.mkdir()
    async with AsyncExitStack() as stack:
        upstreams = {}
        for case in ALL:
            settings = UpstreamSettings(limit=1000, port=free_port(), token_lifetime=5)
            upstreams[case.registry] = await stack.enter_async_context(Upstream(settings))
        images = {
            case.registry: put_image(upstreams[case.registry], "app", "1", "2") for case in ALL
        }
        endpoints = {name: upstream.url for name, upstream in upstreams.items()}
        waits = {"tag_ttl": f"{TTL}s", "tag_wait": f"{WAIT}s", "negative_ttl": "2s"}
        config = configure(directory / "prefetch.yaml", endpoints, **waits)
        references = [f"{case.registry}/app:{tag}" for case in ALL for tag in ("1", "2")]
        await sync(cli, config, *references)
        endpoints[UNRESOLVABLE.registry] = f"http://{unresolvable()}"
        configure(config, endpoints, **waits)
        async with running(cli, config) as cache:
            told = await asyncio.gather(
                *(
                    tell(cache, case, upstreams[case.registry], images[case.registry])
                    for case in ALL
                )
            )
            counted = await metrics(cache)
        return Ward({s.name: t for s, t in zip(ALL, told, strict=True)}, counted, cache.log)


async def tell(cache: Cache, case: Case, upstream: Upstream, image: Image) -> Story:
    name = f"{case.registry}/app"
    one, two = manifest_path(name, "1"), manifest_path(name, "2")
    story = Story(image, await ask(cache, one))
    async with case.trouble(upstream):
        await asyncio.sleep(1.2 * TTL)
        upstream.log.reset()
        story.tag = [await ask(cache, one) for _ in range(4)]
        story.other_tag = [await ask(cache, two) for _ in range(3)]
        story.exact = [(digest, await ask(cache, path)) for path, digest in parts_of(name, image)]
        story.burst = await ask_many(cache, [one, two] * (BURST // 2), lines=4)
        story.cost, story.pulls = len(upstream.log), upstream.log.pulls
    if case.heals:

        async def fresh() -> bool:
            answer = await ask(cache, one)
            assert (answer.status, answer.body) == (200, image.raw)
            return not answer.warning and asked(upstream) > 0

        upstream.log.reset()
        with suppress(AssertionError):
            story.recovered_after = await until(fresh, seconds=20)
    return story


@pytest.fixture(params=ALL, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def story(ward: Ward, case: Case) -> Story:
    return ward.stories[case.name]


def test_what_is_warm_is_served(story: Story, case: Case) -> None:
    assert not case.heals or not story.before.warning
    for reply in [*story.tag, *story.other_tag, *story.burst]:
        assert (reply.status, reply.body) == (200, story.image.raw)
        assert reply.digest == story.image.digest
    for digest, reply in story.exact:
        assert (reply.status, reply.digest) == (200, digest)


def test_the_answer_says_what_is_the_matter(story: Story, case: Case) -> None:
    replies = [*story.tag, *story.other_tag, *story.burst]
    # Who throttles is asked more slowly from then on: a question may have to wait for its turn.
    waits_for_turn = THROTTLED in case.says
    said = [r.warning for r in replies if not (waits_for_turn and SLOW in r.warning)]
    assert len(said) > len(replies) / 2
    for warning in said:
        assert any(words in warning for words in case.says), warning
    for reply in replies:
        assert reply.warning.startswith('299 - "prefetch: as of ')
        assert int(reply.headers["age"]) >= int(TTL)
    # What a digest names cannot be out of date.
    assert not any(reply.warning for _, reply in story.exact)


def test_nobody_waits_longer_than_he_must(story: Story, case: Case) -> None:
    """`tag_wait` once a tag at the very most; then, that the upstream is in trouble is known."""
    for replies in (story.tag, story.other_tag):
        assert replies[0].seconds < WAIT + 1
        assert max(reply.seconds for reply in replies[1:]) < WAIT
    assert max(reply.seconds for _, reply in story.exact) < WAIT
    assert sum(reply.seconds for reply in story.burst) / BURST < WAIT / 4


def test_an_upstream_that_hangs_is_waited_for_once_a_tag(ward: Ward) -> None:
    for replies in (ward.stories["mute"].tag, ward.stories["mute"].other_tag):
        assert replies[0].seconds >= 0.9 * WAIT
        assert SLOW in replies[0].warning


def test_an_upstream_in_trouble_is_not_flooded(story: Story, case: Case) -> None:
    """Some seventy requests for two tags, and a handful of questions."""
    assert story.cost <= case.costs
    assert story.pulls == 0


def test_it_is_noticed_when_the_trouble_has_passed(story: Story, case: Case) -> None:
    if case.heals:
        assert story.recovered_after is not None


def test_the_metrics_tell(ward: Ward) -> None:
    for reason in ("down", "slow", "throttled", "failed"):
        assert ward.metrics[f'prefetch_stale_answers_total{{reason="{reason}"}}'] > 0
    assert ward.metrics["prefetch_stale_answer_age_seconds_count"] >= len(ALL) * BURST
    assert ward.metrics['prefetch_errors_total{cause="internal"}'] == 0


def test_the_log_tells_once_of_each(ward: Ward) -> None:
    lines = [line for line in ward.log.splitlines() if "repository=refused.test/app" in line]
    assert sum("upstream is down" in line for line in lines) == 1
    assert sum("upstream answers again" in line for line in lines) == 1

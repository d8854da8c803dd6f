"""Who may see a repository is found out, forgotten, and changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from api_serving import Server, shapes, until
from private_serving import (
    NOWHERE,
    OPEN,
    SECRET,
    World,
    assert_all,
    assert_invisible,
    assert_public,
    open_world,
    probes,
)

from support.processes import CommandLine


@pytest.fixture
def world(cli: CommandLine) -> Iterator[World]:
    with open_world(cli) as opened:
        yield opened


def assert_invisible_or_down(world: World, server: Server) -> None:
    for method, path, headers in probes(world, SECRET):
        answer = server.ask(path, headers, method=method)
        assert answer.status in (404, 503, 504), path
        assert answer["Docker-Content-Digest"] is None


def test_visibility_that_was_lost_counts_as_private(world: World) -> None:
    world.sync()
    world.database("DELETE FROM repository_visibility")
    world.upstream.faults.add("reset", count=None)
    with world.serving() as server:
        assert_invisible_or_down(world, server)


def test_what_becomes_public_is_soon_seen_by_all(world: World) -> None:
    world.sync()
    config = world.configure(negative_ttl="200ms")
    with world.serving(config) as server:
        assert server.ask(f"/v2/{SECRET}/manifests/1").status == 404
        world.upstream.content.repositories[SECRET].readers = None
        world.upstream.doorkeeper.revoke()  # a token that shows nothing is kept while it is good
        until(lambda: server.ask(f"/v2/{SECRET}/manifests/1").status == 200)
        assert_all(world, server, {})


def test_what_becomes_private_is_seen_for_a_day_at_most(world: World) -> None:
    world.upstream.content.repositories[SECRET].readers = None
    world.sync()
    world.upstream.content.repositories[SECRET].readers = frozenset(["ci"])
    with world.serving() as server:
        assert_all(world, server, {})
    last_seen_a_day_ago(world)
    with world.serving() as server:
        until(lambda: server.ask(f"/v2/{SECRET}/manifests/1").status == 404)
        assert_invisible(world, server, {404, 504})
        assert_public(world, server)


def test_who_wants_only_what_is_cached_has_nobody_asked_again(world: World) -> None:
    world.upstream.content.repositories[SECRET].readers = None
    world.sync()
    last_seen_a_day_ago(world)
    asked = len(world.upstream.log.requests)
    with world.serving() as server:
        for _ in range(3):
            answer = server.ask(f"/v2/{SECRET}/manifests/1", {"Cache-Control": "only-if-cached"})
            assert answer.status == 200
            time.sleep(0.2)
    assert len(world.upstream.log.requests) == asked


def last_seen_a_day_ago(world: World) -> None:
    world.database(
        "UPDATE repository_visibility SET checked_at = ? WHERE repository = ?",
        time.time() - 25 * 3600,
        SECRET,
    )


def test_asking_for_what_does_not_exist_makes_nothing_private(world: World) -> None:
    """Nobody sees what does not exist; that says nothing of what does."""
    config = world.configure(negative_ttl="100ms")
    with world.serving(config) as server:
        for kind in ("manifests", "blobs"):
            for path in shapes("docker.io", OPEN, f"{kind}/{NOWHERE}"):
                assert server.ask(path).status == 404
            assert server.ask(f"/v2/{OPEN}/{kind}/{world.own_blobs[0]}").status == 404
        assert server.ask(f"/v2/{OPEN}/manifests/none").status == 404
        assert world.visibility(OPEN) is None
        assert_public(world, server)


def test_who_asks_for_nonsense_takes_nothing_from_others(world: World) -> None:
    """Many ask at once for what is there, and for what is not, of a repository yet unknown."""
    world.upstream.faults.add("stall", kind="token", at=0, seconds=0.3, count=None)
    with world.serving() as server:
        answers: list[tuple[str, int]] = []

        def ask(tag: str) -> None:
            answers.append((tag, server.ask(f"/v2/{OPEN}/manifests/{tag}").status))

        tags = ["none", "1"] * 10 + [f"none{number}" for number in range(10)]
        threads = [threading.Thread(target=ask, args=(tag,)) for tag in tags]
        threads[0].start()
        until(lambda: world.upstream.log.counts(kind="token"))
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers) == {(tag, 200 if tag == "1" else 404) for tag in tags}


def test_nobody_floods_the_upstream_by_asking_for_what_is_private(world: World) -> None:
    world.sync()
    with world.serving() as server:
        world.upstream.log.reset()
        for _ in range(50):
            for rest in ("manifests/1", f"blobs/{world.own_blobs[0]}", "tags/list"):
                assert server.ask(f"/v2/{SECRET}/{rest}").status == 404
        assert len(world.upstream.log) < 15, world.upstream.log.summary()
        assert world.upstream.log.pulls == 0

"""What a pull asks the registries: nothing if it is warm, all if the cache is stopped, or never."""

from __future__ import annotations

import asyncio

import pytest
from node_world import CACHE, COLD, DEAD_CACHE, PLAIN_CACHE, WARM, World
from systems import EVERYWHERE, System

pytestmark = pytest.mark.real("root", "ip")


@EVERYWHERE
async def test_what_is_warm_costs_the_registries_nothing(world: World, system: System) -> None:
    await world.open_cache()
    await system.configure("--cache-url", PLAIN_CACHE)

    for reference in WARM:
        pulled = await system.pull(reference)
        assert pulled.code == 0, pulled.stderr
        assert await system.has(reference, world.images[reference])

    assert world.registries.visits == 0


@EVERYWHERE
async def test_with_the_cache_stopped_the_registries_serve(world: World, system: System) -> None:
    cache = await world.open_cache()
    await system.configure("--cache-url", PLAIN_CACHE)
    await cache.stop()

    for reference in WARM:
        pulled = await system.pull(reference)
        assert pulled.code == 0, pulled.stderr
        assert await system.has(reference, world.images[reference])
        assert "GET blob" in world.registries.asked(reference)


@EVERYWHERE
async def test_without_fallback_the_node_asks_no_registry(world: World, system: System) -> None:
    cache = await world.open_cache()
    await system.configure("--cache-url", PLAIN_CACHE, "--no-fallback")

    # What the cache does not have it fetches itself.
    pulled = await system.pull(COLD)
    assert pulled.code == 0, pulled.stderr
    assert await system.has(COLD, world.images[COLD])

    await cache.stop()
    world.registries.forget()
    refused = await asyncio.gather(*(system.pull(reference) for reference in WARM))
    assert all(each.code for each in refused)
    assert world.registries.visits == 0


@EVERYWHERE
@pytest.mark.parametrize("fallback", ["--fallback", "--no-fallback"])
async def test_the_second_cache_serves_when_the_first_is_dead(
    world: World, system: System, fallback: str
) -> None:
    await world.open_cache(tls=True)
    await system.configure(
        *("--cache-url", DEAD_CACHE, "--cache-url", CACHE, fallback),
        *("--ca-file", world.private.ca_file),
    )

    pulled = await system.pull(WARM[0])

    assert pulled.code == 0, pulled.stderr
    assert await system.has(WARM[0], world.images[WARM[0]])
    assert world.registries.visits == 0

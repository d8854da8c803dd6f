"""Whom a node believes, and who it says it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_world import (
    CACHE,
    PASSWORD,
    REGISTRY_LOGIN,
    SECRET,
    USER,
    WARM,
    World,
)
from systems import EVERYWHERE, System

pytestmark = pytest.mark.real("root", "ip")


@EVERYWHERE
@pytest.mark.parametrize("trust", ["--ca-file", "--insecure-skip-verify"])
async def test_a_private_authority(world: World, system: System, trust: str) -> None:
    await world.open_cache(tls=True)
    value = [world.private.ca_file] if trust == "--ca-file" else []
    await system.configure("--cache-url", CACHE, trust, *value)
    await world.registries.stop()

    pulled = await system.pull(WARM[0])

    assert pulled.code == 0, pulled.stderr
    assert await system.has(WARM[0], world.images[WARM[0]])


@EVERYWHERE
async def test_a_cache_that_nobody_knows_is_not_believed(world: World, system: System) -> None:
    await world.open_cache(tls=True)
    await system.configure("--cache-url", CACHE)

    pulled = await system.pull(WARM[0])

    assert pulled.code == 0, pulled.stderr
    assert "GET blob" in world.registries.asked(WARM[0])


@EVERYWHERE
async def test_a_login_opens_what_is_private(world: World, system: System) -> None:
    await world.open_cache(tls=True, users={USER: PASSWORD})
    await system.configure(*_cache(world), *world.login(PASSWORD))

    for reference in (SECRET, WARM[0]):
        pulled = await system.pull(reference)
        assert pulled.code == 0, pulled.stderr
        assert await system.has(reference, world.images[reference])

    # The cache may have asked whether it is still private, which is free.
    assert world.registries.pulls == 0


# Kubelet's containerd shows its login only to who asks for one. So the cache has to ask here, too,
# although it cannot learn from the registry whether an image is still private.
@EVERYWHERE
async def test_a_login_opens_what_is_private_with_the_registries_stopped(
    world: World, system: System
) -> None:
    await world.open_cache(tls=True, users={USER: PASSWORD})
    await system.configure(*_cache(world), *world.login(PASSWORD))
    await world.registries.stop()

    pulled = await system.pull(SECRET)

    assert pulled.code == 0, pulled.stderr
    assert await system.has(SECRET, world.images[SECRET])


@EVERYWHERE
async def test_with_a_wrong_password_the_registry_serves(world: World, system: System) -> None:
    cache = await world.open_cache(tls=True, users={USER: PASSWORD})
    await system.configure(
        *_cache(world), *world.login("wrong"), "--auth-file", world.registry_logins()
    )

    pulled = await system.pull(SECRET, login=REGISTRY_LOGIN)

    assert pulled.code == 0, pulled.stderr
    assert await system.has(SECRET, world.images[SECRET])
    assert "GET blob" in world.registries.asked(SECRET)
    assert "status=401" in cache.log


def _cache(world: World) -> tuple[str | Path, ...]:
    return ("--cache-url", CACHE, "--ca-file", world.private.ca_file)

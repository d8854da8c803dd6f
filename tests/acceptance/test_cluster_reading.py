"""What of a cluster is read when it is asked for, and what becomes of it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prefetch.demo.images import Image, image
from prefetch.demo.tokens import Account
from prefetch.demo.upstream import Upstream
from support.cluster import Api, api, connection, pod
from support.factories import UpstreamFactory
from support.processes import CommandLine, Result
from support.scenarios import PASSWORD, PLATFORM

__all__ = ["api", "connection"]

GONE = f"sha256:{'0' * 64}"


@dataclass(frozen=True, slots=True)
class World:
    """A cluster's API, and a registry with `library/app:1` in it."""

    cli: CommandLine
    api: Api
    kubeconfig: Path
    upstream: Upstream
    made: Image

    @property
    def app(self) -> str:
        return f"{self.upstream.address}/library/app:1"

    async def __call__(self, command: str, *words: str) -> Result:
        return await self.cli(
            *(command, "--cluster", "--kubeconfig", self.kubeconfig, "--platform", PLATFORM),
            *(*words, "-o", "json"),
        )


@pytest.fixture
async def world(cli: CommandLine, api: Api, connection: Any, upstream: UpstreamFactory) -> World:
    running = await upstream(accounts={"alice": Account(password=PASSWORD)})
    made = running.content.put("library/app", image("app"), "1")
    return World(cli, api, connection.kubeconfig, running, made)


def outcomes(result: Result) -> dict[str, str]:
    return {each["reference"].rpartition("/")[2]: each["outcome"] for each in result.json["images"]}


async def test_a_digest_that_is_gone_is_a_warning(world: World) -> None:
    running = pod("web", world.app)
    repository = f"{world.upstream.address}/library/app"
    ids = [f"{repository}@{world.made.digest}", f"{repository}@{GONE}"]
    running["status"] = {"containerStatuses": [{"imageID": each} for each in ids]}
    world.api.lists["/api/v1/pods"] = [running]

    planned = await world("plan", "--running-digests")
    assert planned.code == 0, planned.stderr
    assert [(each["action"], each["optional"]) for each in planned.json["images"]] == [
        ("sync", False),
        ("sync", True),
        ("missing", True),
    ]
    cold = await world("check", "--running-digests")
    assert (cold.code, cold.json["images"][2]["absent"]) == (1, False)

    synced = await world("sync", "--running-digests")
    assert synced.code == 0, synced.stderr
    assert synced.json["outcome"] == "complete"
    assert list(outcomes(synced).values()) == ["synced", "synced", "absent"]
    assert synced.json["totals"]["absent"] == 1
    assert synced.json["images"][2]["error"]["http_status"] == 404

    warm = await world("check", "--running-digests")
    assert warm.code == 0, warm.stderr
    assert [each["absent"] for each in warm.json["images"]] == [False, False, True]
    fresh = await world("check", "--running-digests", "--fresh")
    assert fresh.code == 0, fresh.stderr
    assert fresh.json["images"][2]["absent"]
    # One that a list names is another matter.
    named = await world("check", "--running-digests", "--image", f"{repository}@{GONE}")
    assert named.code == 1
    again = await world("sync", "--running-digests", "--image", f"{repository}@{GONE}")
    assert (again.code, again.json["outcome"]) == (1, "failed")


async def test_what_nodes_hold_and_is_not_for_us_is_a_warning(world: World) -> None:
    world.upstream.content.put("corp/hidden", image("hidden"), "1", readers=("alice",))
    hidden = f"{world.upstream.address}/corp/hidden:1"
    world.api.lists["/api/v1/nodes"][0]["status"]["images"] = [
        {"names": [world.app]},
        {"names": [hidden]},
    ]
    world.api.lists["/api/v1/pods"] = []
    synced = await world("sync", "--node-images")
    assert synced.code == 0, synced.stderr
    assert outcomes(synced) == {"app:1": "synced", "hidden:1": "absent"}
    assert (await world("check", "--node-images")).code == 0
    # It is there now, for whom it may concern, and has to be here.
    world.upstream.content.repositories["corp/hidden"].readers = None
    assert (await world("check", "--node-images")).code == 0
    fresh = await world("check", "--node-images", "--fresh")
    assert fresh.code == 1
    [cold] = [each for each in fresh.json["images"] if not each["warm"]]
    assert (cold["reference"], cold["absent"]) == (hidden, False)


async def test_what_is_absent_alone_proves_nothing(world: World) -> None:
    gone = f"{world.upstream.address}/library/gone:1"
    world.api.lists["/api/v1/nodes"][0]["status"]["images"] = [{"names": [gone]}]
    assert (await world("sync", "--node-images")).code == 0
    checked = await world("check", "--node-images")
    assert (checked.code, checked.json["warm"]) == (1, False)


async def test_an_answer_that_does_not_come_is_in_the_document(world: World) -> None:
    nowhere = json.loads(world.kubeconfig.read_text())
    nowhere["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    world.kubeconfig.write_text(json.dumps(nowhere))
    for command in ("check", "sync", "plan"):
        done = await world(command, "--image", world.app)
        assert done.code == 1
        assert "127.0.0.1:1" in done.json["errors"][0]["message"]
        assert done.json["images"][0]["reference"] == world.app


def secret(*registries: str, user: str = "alice") -> dict[str, Any]:
    auth = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
    held = json.dumps({"auths": {each: {"auth": auth} for each in registries}})
    return {"data": {".dockerconfigjson": base64.b64encode(held.encode()).decode()}}


async def test_pull_secrets_open_their_pods_repositories_and_nothing_else(world: World) -> None:
    for name in ("own", "others"):
        world.upstream.content.put(f"corp/{name}", image(name), "1", readers=("alice",))
    own, others = (f"{world.upstream.address}/corp/{name}:1" for name in ("own", "others"))
    world.api.lists["/api/v1/pods"] = [
        pod("a", own, imagePullSecrets=[{"name": "reg"}]),
        pod("b", others, world.app),
    ]
    world.api.objects["/api/v1/namespaces/shop/secrets/reg"] = secret(world.upstream.address)

    without = await world("sync")
    assert outcomes(without) == {"own:1": "failed", "others:1": "failed", "app:1": "synced"}
    allowed = await world("sync", "--use-pull-secrets")
    assert outcomes(allowed) == {"own:1": "synced", "others:1": "failed", "app:1": "unchanged"}
    meters = {each["identity"] for each in allowed.json["budgets"]}
    assert meters == {"anonymous", "alice"}
    [kept] = [each for each in allowed.json["images"] if each["outcome"] == "synced"]
    assert kept["visibility"] == "private"

    told = allowed.stdout + allowed.stderr
    files = [path.read_bytes() for path in world.cli.data_dir.rglob("*") if path.is_file()]
    assert PASSWORD not in told
    assert not any(PASSWORD.encode() in content for content in files)


async def test_a_secret_that_is_refused_takes_nothing_from_others(world: World) -> None:
    """Whoever runs more pods with a wrong one would decide for all."""
    world.upstream.content.put("corp/app", image("private"), "1", readers=("alice",))
    app = f"{world.upstream.address}/corp/app:1"
    world.api.lists["/api/v1/pods"] = [
        *(pod(f"evil{n}", app, imagePullSecrets=[{"name": "wrong"}]) for n in range(3)),
        pod("good", app, imagePullSecrets=[{"name": "right"}]),
    ]
    secrets = "/api/v1/namespaces/shop/secrets"
    world.api.objects[f"{secrets}/wrong"] = secret(world.upstream.address, user="bob")
    world.api.objects[f"{secrets}/right"] = secret(world.upstream.address)
    synced = await world("sync", "--use-pull-secrets")
    assert synced.code == 0, synced.stdout
    assert synced.json["budgets"][-1]["identity"] == "alice"


async def test_options_of_a_cluster_need_one(cli: CommandLine) -> None:
    for option in ("--node-images", "--namespace=shop", "--use-pull-secrets"):
        done = await cli("sync", "--image", "app", option)
        assert done.code == 2
        assert f"{option.partition('=')[0]} goes with --cluster" in done.stderr

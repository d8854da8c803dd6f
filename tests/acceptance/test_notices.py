"""Notices of real runs, to real receivers and programs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from prefetch.credentials.credential import Secret
from prefetch.sync.webhooks import sign
from support.evidence import assert_no_crash, assert_no_secret
from support.factories import UpstreamProcessFactory
from support.processes import CommandLine, Result, UpstreamProcess, finish
from support.receiver import Received, Receiver, Reply

APP = {"repository": "app{n}", "single": True, "layers": 1, "tags": ["v1.0.0"]}
SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMy"
HASTY = 4.0


def hook(receiver: Receiver, **more: Any) -> dict[str, Any]:
    return {"name": "ops", "url": f"{receiver.url}/hook", "secret_env": "HOOK_SECRET", **more}


def write_config(
    directory: Path, upstream: UpstreamProcess, *hooks: Mapping[str, Any], **registry: Any
) -> Path:
    path = directory / "prefetch.yaml"
    registries = {upstream.address: {"reserve": 0, **registry}}
    # YAML has JSON within it.
    path.write_text(json.dumps({"registries": registries, "notify": hooks}))
    return path


class Syncing:
    """`await syncing("app0:v1.0.0", …)`: `prefetch sync` of these, with the configuration."""

    def __init__(self, cli: CommandLine, upstream: UpstreamProcess, config: Path) -> None:
        self.cli, self.upstream, self.config = cli, upstream, config

    async def __call__(self, *references: str, env: Mapping[str, str] | None = None) -> Result:
        result = await self.cli(
            *self.words(*references),
            env={"HOOK_SECRET": SECRET, **(env or {})},
            changes="hooks are looked at here, and faults are meant for the sync",
        )
        assert_no_crash(result)
        return result

    def words(self, *references: str) -> list[str | Path]:
        images = [word for name in references for word in ("--image", self.name(name))]
        platform = ("--platform", "linux/amd64")
        return ["--config", self.config, "sync", *platform, *images, "-o", "json"]

    def name(self, reference: str) -> str:
        return f"{self.upstream.address}/{reference}"

    async def waiting(self) -> list[dict[str, Any]]:
        listed = await self.cli("--config", self.config, "notify", "--list", "-o", "json")
        assert listed.code == 0, listed.stderr
        return list(listed.json)


def assert_signed(got: Received) -> dict[str, Any]:
    """It is signed, and of the contract's shape; returns the document."""
    headers, document = got.headers, got.json
    timestamp = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == sign(
        Secret(SECRET), headers["webhook-id"], timestamp, got.body
    )
    assert document["id"] == headers["webhook-id"]
    assert list(document) == ["id", "event", "at", "run_id", "entry", "registry", "text", "facts"]
    assert document["text"].endswith(".")
    assert "\n" not in document["text"]
    return document


async def test_a_run_that_fails_is_told_once_until_it_is_well(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[APP])
    async with Receiver() as receiver:
        config = write_config(tmp_path, upstream, hook(receiver))
        syncing = Syncing(cli, upstream, config)
        failed = await syncing("app0:v1.0.0", "app0:none")
        assert failed.code == 1
        document = assert_signed(await receiver.wait_for("run_failed"))
        assert document["run_id"] == failed.json["run_id"]
        assert (document["entry"], document["registry"]) == (None, None)
        assert document["text"].startswith(
            f"A sync failed: 1 of 2 images, {syncing.name('app0:none')}: "
        )
        facts = document["facts"]
        assert facts["outcome"] == "failed"
        assert [image["reference"] for image in facts["images"]] == [syncing.name("app0:none")]
        assert (facts["totals"]["synced"], facts["totals"]["failed"]) == (1, 1)
        assert (facts["totals"]["pulls"], facts["errors"], facts["message"]) == (1, 0, None)

        await syncing("app0:v1.0.0", "app0:none")
        assert receiver.events == ["run_failed"]
        upstream.ask("images", [{**APP, "tags": ["none"]}])
        assert (await syncing("app0:v1.0.0", "app0:none")).code == 0
        assert receiver.events == ["run_failed"]
    assert await syncing.waiting() == []


async def test_a_run_that_is_put_off(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 2}, images=[{**APP, "count": 3}])
    async with Receiver() as receiver:
        config = write_config(tmp_path, upstream, hook(receiver))
        names = [f"app{number}:v1.0.0" for number in range(3)]
        result = await Syncing(cli, upstream, config)(*names)
        assert result.code == 75
        document = assert_signed(await receiver.wait_for("run_deferred"))
        await Syncing(cli, upstream, config)(*names)
    (deferred,) = [each for each in result.json["images"] if each["outcome"] == "deferred"]
    assert document["facts"]["retry_at"] == deferred["retry_at"]
    assert document["facts"]["images"][0]["reference"] == deferred["reference"]
    assert document["text"] == (
        "A sync has put off 1 of 3 images for want of budget, the first until about "
        f"{deferred['retry_at']}."
    )
    assert receiver.events.count("run_deferred") == 1


async def test_a_registry_that_throttles(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    fault = {"name": "throttle", "kind": "manifest", "count": 2, "seconds": 1}
    upstream = await upstream_process(settings={"limit": None}, images=[APP], faults=[fault])
    async with Receiver() as receiver:
        config = write_config(
            tmp_path, upstream, hook(receiver, events=["registry_throttled", "run_failed"])
        )
        assert (await Syncing(cli, upstream, config)("app0:v1.0.0")).code == 0
        document = assert_signed(await receiver.wait_for("registry_throttled"))
    assert document["registry"] == upstream.address
    assert document["facts"]["until"] in document["text"]
    assert receiver.events == ["registry_throttled"]


async def test_others_who_will_reach_the_reserve(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    settings = {"limit": 100, "window": 60}
    upstream = await upstream_process(settings=settings, images=[APP], burn=4.0)
    async with Receiver() as receiver:
        config = write_config(
            tmp_path, upstream, hook(receiver, events=["reserve_threatened"]), reserve=20
        )
        syncing = Syncing(cli, upstream, config)
        # How fast others are is seen from one reading to the next.
        for _ in range(40):
            await syncing("app0:v1.0.0")
            if receiver.events:
                break
            await asyncio.sleep(0.5)
        document = assert_signed(await receiver.wait_for("reserve_threatened"))
        await syncing("app0:v1.0.0")
    assert receiver.events == ["reserve_threatened"]
    facts = document["facts"]
    assert document["registry"] == upstream.address
    assert (facts["identity"], facts["limit"], facts["reserve"]) == ("anonymous", 100, 20)
    assert facts["foreign_burn_per_hour"] > 80 * 60 / 4
    assert facts["used_up_at"] > document["at"] or facts["available"] == 0


async def test_an_immutable_tag_that_has_moved_stays_what_it_was(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    both = {"repository": "app", "layers": 1, "tags": ["v1.0.0", "v2.0.0"]}
    upstream = await upstream_process(settings={"limit": None}, images=[both])
    first, other = (each["digest"] for each in upstream.ask("images"))
    async with Receiver() as receiver:
        config = write_config(
            tmp_path, upstream, hook(receiver), immutable_tags=[r"v\d+\.\d+\.\d+"]
        )
        syncing = Syncing(cli, upstream, config)
        assert (await syncing("app:v1.0.0")).json["images"][0]["digest"] == first
        upstream.ask("tag", {"repository": "app", "tag": "v1.0.0", "digest": other})
        assert (await syncing("app:v1.0.0")).json["images"][0]["outcome"] == "unchanged"
        assert receiver.events == []
        # Another platform is wanted: the tag is asked for, and the rest of the same image fetched.
        words = ("sync", "--image", syncing.name("app:v1.0.0"), "--platform", "all", "-o", "json")
        wider = await cli("--config", config, *words, env={"HOOK_SECRET": SECRET})
        (image,) = wider.json["images"]
        assert (image["outcome"], image["digest"]) == ("synced", first)
        assert image["platforms"] == ["linux/amd64", "linux/arm64"]
        document = assert_signed(await receiver.wait_for("immutable_tag_moved"))
    assert receiver.events == ["immutable_tag_moved"]
    assert document["registry"] == upstream.address
    assert document["facts"] == {
        "reference": syncing.name("app:v1.0.0"),
        "recorded": first,
        "found": other,
        "kept": True,
    }


async def test_a_run_that_cannot_come_to_its_end(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[APP])
    async with Receiver() as receiver:
        config = write_config(tmp_path, upstream, hook(receiver))
        syncing = Syncing(cli, upstream, config)
        await syncing("app0:v1.0.0")
        index = cli.cache / "index.json"
        index.unlink()
        index.mkdir()
        upstream.ask("images", [{**APP, "tags": ["v2.0.0"]}])
        assert (await syncing("app0:v2.0.0")).code == 1
        document = assert_signed(await receiver.wait_for("run_failed"))
    assert document["run_id"] is not None
    assert document["facts"]["message"] in document["text"]
    assert "index.json" in document["facts"]["message"]


# ── delivery ────────────────────────────────────────────────────────────────────────────────────


async def test_a_receiver_that_is_down_is_told_by_the_next_run(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path, free_port: int
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[APP])
    async with Receiver(port=free_port) as receiver:
        config = write_config(tmp_path, upstream, hook(receiver))
    syncing = Syncing(cli, upstream, config)
    assert (await syncing("app0:none")).code == 1
    (left,) = await syncing.waiting()
    assert (left["hook"], left["event"], left["attempts"]) == ("ops", "run_failed", 1)
    assert left["error"].startswith(f"cannot reach 127.0.0.1:{free_port}: ")
    await asyncio.sleep(2)
    async with Receiver(port=free_port) as receiver:
        assert (await syncing("app0:v1.0.0")).code == 0
        got = await receiver.wait_for("run_failed")
        assert got.headers["webhook-id"] == left["id"]
        assert_signed(got)
    assert await syncing.waiting() == []


async def test_a_receiver_that_hangs_holds_up_no_run_beyond_the_bound(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[APP])
    async with Receiver(Reply(seconds=60)) as receiver:
        without = write_config(tmp_path, upstream)
        began = time.monotonic()
        await Syncing(cli, upstream, without)("app0:none")
        usual = time.monotonic() - began
        config = write_config(tmp_path, upstream, hook(receiver, timeout="50s"))
        syncing = Syncing(cli, upstream, config)
        began = time.monotonic()
        failed = await syncing("app0:none")
        took = time.monotonic() - began
    assert failed.code == 1
    assert failed.json["totals"]["seconds"] < usual
    assert took < usual + 5.0 + HASTY
    (left,) = await syncing.waiting()
    assert (left["attempts"], left["error"]) == (1, "the run ended before it was taken")


async def test_what_a_killed_run_had_to_say_is_delivered_by_the_next(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[APP])
    async with Receiver(Reply(seconds=30), Reply()) as receiver:
        config = write_config(tmp_path, upstream, hook(receiver))
        syncing = Syncing(cli, upstream, config)
        words = ("--config", config, "sync", "--image", syncing.name("app0:none"))
        running = await cli.start(*words, env={"HOOK_SECRET": SECRET})
        first = await receiver.wait_for("run_failed")
        running.send_signal(signal.SIGKILL)
        await running.communicate()
        assert (await syncing("app0:v1.0.0")).code == 0
        second = await receiver.wait_for("run_failed", 2)
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
    assert await syncing.waiting() == []


async def interrupted(syncing: Syncing, receiver: Receiver | None = None) -> float:
    """Seconds from SIGTERM to the end of a sync that is fetching, and telling a receiver."""
    words = ("sync", "--image", syncing.name("app0:v1.0.0"), "-v")
    environment = {"HOOK_SECRET": SECRET}
    running = await syncing.cli.start("--config", syncing.config, *words, env=environment)
    assert running.stderr is not None
    async with asyncio.timeout(30):
        while b"image started" not in await running.stderr.readline():
            pass
    if receiver is not None:
        await receiver.wait_for("run_failed", 2)
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    await running.communicate()
    assert running.returncode == 143
    return time.monotonic() - began


async def test_told_to_end_a_run_does_not_wait_for_receivers(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    slow = {"name": "slow", "kind": "cdn", "count": None, "bytes_per_second": 1000}
    big = {**APP, "layer_size": 1 << 20}
    upstream = await upstream_process(settings={"limit": None}, images=[big], faults=[slow])
    without = write_config(tmp_path, upstream)
    usual = await interrupted(Syncing(cli, upstream, without))
    async with Receiver(Reply(seconds=60)) as receiver:
        config = write_config(tmp_path, upstream, hook(receiver))
        syncing = Syncing(cli, upstream, config)
        await syncing("app0:none")
        # What waits from before is being sent when the signal comes.
        assert await interrupted(syncing, receiver) < usual + 5.0
    assert receiver.events == ["run_failed", "run_failed"]


async def test_no_secret_is_anywhere(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path, free_port: int
) -> None:
    accounts = {"alice": {"password": "hush-registry"}}
    settings = {"limit": None, "accounts": accounts}
    upstream = await upstream_process(settings=settings, images=[APP])
    environment = {
        "HUB": "hush-registry",
        "HOOK_SECRET": SECRET,
        "HOOK_TOKEN": "hush-header",
        "GONE_URL": f"http://u:hush-user@127.0.0.1:{free_port}/hush-path?hush-query",
    }
    async with Receiver(Reply(500, text="hush-answer")) as receiver:
        address = receiver.url.removeprefix("http://")
        hooks: list[dict[str, Any]] = [
            {
                "name": "ops",
                "url": f"http://ann:hush-user@{address}/hush-path?key=hush-query",
                "secret_env": "HOOK_SECRET",
                "headers_env": {"X-Token": "HOOK_TOKEN"},
            },
            {"name": "gone", "url_env": "GONE_URL"},
            {"name": "program", "exec": [sys.executable, "-c", "import os; print(os.environ)"]},
        ]
        config = write_config(tmp_path, upstream, *hooks, username="alice", password_env="HUB")
        words = ("--config", config, "sync", "--image", f"{upstream.address}/app0:none")
        failed = await cli(*words, "-vv", env=environment)
        assert failed.code == 1
        tested = await cli("--config", config, "notify", "--test", env=environment)
        assert tested.code == 1
        listed = await cli("--config", config, "notify", "--list", env=environment)
        assert receiver.received[0].path == "/hush-path?key=hush-query"
        assert receiver.received[0].headers["X-Token"] == "hush-header"
        assert all("hush" not in got.body and SECRET not in got.body for got in receiver.received)
    assert "HUB" not in failed.stderr
    assert "PREFETCH_NOTICE_ID" in failed.stderr  # what the program has printed
    assert_no_crash(failed, tested, listed)
    assert_no_secret(cli, ["hush", SECRET], failed, tested, listed)


# ── prefetch notify ─────────────────────────────────────────────────────────────────────────────


async def test_hooks_are_tried_out(cli: CommandLine, tmp_path: Path) -> None:
    async with Receiver() as receiver, Receiver(Reply(404)) as gone:
        hooks = [
            {"name": "ops", "url": receiver.url, "events": ["run_failed"]},
            {"name": "gone", "url": gone.url},
            {"name": "program", "exec": [sys.executable, "-c", "print('hello')"]},
        ]
        config = tmp_path / "prefetch.yaml"
        config.write_text(json.dumps({"notify": hooks}))
        everything = await cli("--config", config, "notify", "--test", "-o", "json")
        assert everything.code == 1, everything.stderr
        good = await cli("--config", config, "notify", "--test", "ops", "program")
        assert good.code == 0, good.stderr
        assert receiver.events == [*gone.events, "test"] == ["test", "test"]
    shown = [(each["hook"], each["delivered"], each["message"]) for each in everything.json]
    assert shown == [
        ("ops", True, "answered 204"),
        ("gone", False, "answered 404"),
        ("program", True, "exit status 0"),
    ]
    assert everything.json[2]["output"] == "hello"
    assert [line.split()[:2] for line in good.stdout.splitlines()[1:]] == [
        ["ops", "delivered"],
        ["program", "delivered"],
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["notify"], "one of --test and --list is required"),
        (["notify", "--test", "--list"], "one of --test and --list is required"),
        (["notify", "--list", "ops"], "NAME goes with --test"),
        (["notify", "--test", "none"], "there is no hook 'none'; there are ops"),
    ],
)
async def test_what_cannot_be_asked_for(
    cli: CommandLine, tmp_path: Path, words: list[str], said: str
) -> None:
    config = tmp_path / "prefetch.yaml"
    config.write_text(json.dumps({"notify": [{"name": "ops", "exec": ["true"]}]}))
    result = await cli("--config", config, *words)
    assert (result.code, result.stdout) == (2, "")
    assert said in result.stderr


async def test_without_hooks_there_is_nothing_to_try(cli: CommandLine) -> None:
    result = await cli("notify", "--test")
    assert (result.code, result.stdout) == (2, "")
    assert "there is no notify and no configuration file" in result.stderr
    listed = await cli("notify", "--list", "-o", "json")
    assert (listed.code, listed.json) == (0, [])


@pytest.mark.parametrize("missing", [False, True])
async def test_a_signal_ends_the_waiting_for_hooks_and_nothing_else(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path, missing: bool
) -> None:
    """The run is over when they are waited for: its outcome and its status stay what they are."""
    upstream = await upstream_process(settings={"limit": 1}, images=[{**APP, "count": 2}])
    async with Receiver(Reply(seconds=30)) as receiver:
        config = write_config(tmp_path, upstream, hook(receiver))
        words = Syncing(cli, upstream, config).words(
            "app0:v1.0.0", "app0:none" if missing else "app1:v1.0.0"
        )
        process = await cli.start(*words, env={"HOOK_SECRET": SECRET})
        await receiver.wait_for("run_failed" if missing else "run_deferred")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        ended = await finish(process)
        assert time.monotonic() - began < 3  # of the five
    outcome, status = ("failed", 1) if missing else ("deferred", 75)
    assert (ended.code, ended.json["outcome"]) == (status, outcome), ended.stderr

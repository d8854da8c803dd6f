"""What `prefetch schedule` tells its hooks, while it goes on and after it was killed."""

from __future__ import annotations

import signal
from pathlib import Path

from scheduling import NEVER_SOON, Start, write_schedule

from support.factories import UpstreamProcessFactory
from support.receiver import Receiver, Reply

ENTRY = {"name": "nightly", "cron": NEVER_SOON, "timezone": "UTC"}
FOUR = {"repository": "app{n}", "count": 4, "single": True, "layers": 1}


async def test_entries_that_fail_or_are_put_off_are_told_while_it_goes_on(
    upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 3, "window": 600}, images=[FOUR])
    lacking = {**ENTRY, "name": "lacking", "sources": ["none.txt"]}
    async with Receiver(Reply(500), Reply()) as receiver:
        hooks = [{"name": "ops", "url": receiver.url}]
        config = write_schedule(tmp_path, upstream, lacking, ENTRY, notify=hooks)
        running = await start(config)
        failed = (await running.wait_for("sync failed", entry="lacking"))[0]
        deferred = (await running.wait_for("sync ended", entry="nightly"))[0]
        await running.wait_for("notice delivered", 2, hook="ops")
        await running.wait_for("notice not taken", hook="ops", reason="answered 500")
        assert await running.end() == 0
    # The first attempt was refused; what is told in the end is each of the two once.
    told = {each.json["event"]: each.json for each in receiver.received[1:]}
    assert len(receiver.received) == 3
    assert told["run_failed"]["entry"] == "lacking"
    assert told["run_failed"]["run_id"] == failed["run"]
    assert told["run_failed"]["text"].startswith("The scheduled sync lacking failed: no such file")
    assert told["run_deferred"]["entry"] == "nightly"
    assert told["run_deferred"]["run_id"] == deferred["run"]
    assert told["run_deferred"]["facts"]["totals"]["deferred"] == deferred["deferred"] == 1


async def test_hooks_are_read_again_and_what_waits_survives_a_kill(
    upstream_process: UpstreamProcessFactory, start: Start, tmp_path: Path, free_port: int
) -> None:
    upstream = await upstream_process(settings={"limit": None}, images=[FOUR])
    lacking = {**ENTRY, "sources": ["none.txt"]}
    gone = f"http://127.0.0.1:{free_port}/"
    config = write_schedule(tmp_path, upstream, lacking, notify=[{"name": "ops", "url": gone}])
    running = await start(config)
    await running.wait_for("notice not taken", hook="ops")
    await running.end(signal.SIGKILL)

    again = await start(config)
    await again.wait_for("notice not taken", hook="ops")
    async with Receiver() as receiver:
        config.write_text(config.read_text().replace(gone, receiver.url))
        again.process.send_signal(signal.SIGHUP)
        await again.wait_for("configuration reloaded")
        got = await receiver.wait_for("run_failed")
        await again.wait_for("notice delivered", hook="ops")
        assert got.json["entry"] == "nightly"
        assert await again.end() == 0
    assert receiver.events == ["run_failed"]

"""What a manifest claims does not make another repository's private content its own."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from prefetch.demo.images import image, index, manifest
from prefetch.demo.tokens import Account
from support.factories import UpstreamFactory
from support.processes import CommandLine
from support.scenarios import ALICE, PASSWORD, PLATFORM, configure


def linked(cli: CommandLine, repository: str) -> set[str]:
    with closing(sqlite3.connect(cli.data_dir / "prefetch.db")) as database:
        rows = database.execute("SELECT digest FROM links WHERE repository = ?", [repository])
        return {row[0] for row in rows}


async def test_content_that_is_private_elsewhere_is_asked_for(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    registry = await upstream(accounts={"alice": Account(password=PASSWORD)})
    secret = image("secret", layers=1)
    blobs = set(secret.child(PLATFORM).all_blobs())
    registry.content.put("corp/app", secret, "1", readers=("alice",))
    registry.content.put("sibling/app", secret, "1")
    # The same documents, in a repository that has none of the blobs they name.
    registry.content.put("claims/app", secret, "1")
    registry.content.repositories["claims/app"].blobs.clear()
    config = configure(cli, registry, **ALICE)
    for name in ("corp/app", "claims/app", "sibling/app"):
        result = await cli(
            *("--config", config, "sync", "-o", "json", "--platform", PLATFORM),
            *("--image", f"{registry.address}/{name}:1"),
            env={"ALICE_PASSWORD": PASSWORD},
        )
        assert result.code == 0, result.stderr
    assert blobs <= linked(cli, "corp/app")
    assert blobs <= linked(cli, "sibling/app")
    assert not blobs & linked(cli, "claims/app")
    # The documents themselves it has, and the registry says so.
    assert secret.digest in linked(cli, "claims/app")
    assert secret.child(PLATFORM).digest in linked(cli, "claims/app")
    (cli.data_dir / "prefetch.db").unlink()
    rebuilt = await cli("--config", config, "db", "rebuild")
    assert rebuilt.code == 0, rebuilt.stderr
    # What is public must not come to hold what is private for having named it.
    assert blobs <= linked(cli, "corp/app")
    assert not blobs & linked(cli, "claims/app")


async def test_what_one_image_pays_for_another_may_not_be_shown_for_it(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """An index names a private image's manifest, and comes first in the same run."""
    registry = await upstream(accounts={"alice": Account(password=PASSWORD)})
    secret = manifest("secret", platform=PLATFORM)
    registry.content.put("corp/app", secret, "1", readers=("alice",))
    registry.content.put("claims/app", index([secret]), "1")
    del registry.content.repositories["claims/app"].manifests[secret.digest]
    result = await cli(
        *("--config", configure(cli, registry, **ALICE), "sync", "-", "-o", "json"),
        *("--platform", PLATFORM),
        stdin=f"{registry.address}/claims/app:1 priority=9\n{registry.address}/corp/app:1\n",
        env={"ALICE_PASSWORD": PASSWORD},
    )
    assert [each["pulls"] for each in result.json["images"]] == [1, 1]
    assert result.json["images"][1]["outcome"] == "synced"
    assert secret.digest in linked(cli, "corp/app")
    assert secret.digest not in linked(cli, "claims/app")

"""Opening, sharing and losing the database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from prefetch.clock import SystemClock
from prefetch.errors import StateDamaged, StateError, StateLocked
from prefetch.state.database import State
from prefetch.state.ledger import Ledger, MeterKey, MeterPolicy
from prefetch.state.models import SCHEMA_REVISION, metadata
from prefetch.state.schema import downgrade, upgrade
from prefetch.state.sqlite import sqlite_engine


def url(path: Path) -> str:
    return f"sqlite:///{path}"


async def opened(path: Path, busy_seconds: float = 0.2) -> State:
    return await State.open(
        url(path), data_dir=path.parent, clock=SystemClock(), busy_seconds=busy_seconds
    )


def test_models_and_migrations_agree(tmp_path: Path) -> None:
    upgrade(tmp_path / "p.db")
    engine = sqlite_engine(tmp_path / "p.db")
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == SCHEMA_REVISION
    engine.dispose()


def test_upgrade_and_downgrade_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "p.db"

    def schema() -> list[tuple[str, str]]:
        with sqlite3.connect(path) as connection:
            rows = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name")
            found = rows.fetchall()
        connection.close()
        return found

    upgrade(url(path))
    first = schema()
    downgrade(url(path), "base")
    assert {name for name, _ in schema() if not name.startswith("sqlite_")} == {"alembic_version"}
    upgrade(url(path))
    assert schema() == first


async def test_a_new_database_is_made_without_asking(tmp_path: Path) -> None:
    state = await opened(tmp_path / "deep" / "down" / "p.db")
    assert await state.references.list() == []
    mode = await state.read(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar())
    keys = await state.read(lambda c: c.exec_driver_sql("PRAGMA foreign_keys").scalar())
    assert (mode, keys) == ("wal", 1)
    await state.close()


async def test_a_new_database_is_what_the_migrations_make(tmp_path: Path) -> None:
    def contents(path: Path) -> tuple[set[tuple[str, str, str]], list[tuple[object, ...]]]:
        with contextlib.closing(sqlite3.connect(path)) as database:
            tables = database.execute("SELECT type, name, sql FROM sqlite_master WHERE sql <> ''")
            plain = {
                (kind, name, " ".join(sorted(sql.replace(",", " ").split())))
                for kind, name, sql in tables
            }
            counters = "SELECT * FROM ledger_sequence, generation, alembic_version"
            return plain, database.execute(counters).fetchall()

    migrated, made = tmp_path / "migrated.db", tmp_path / "made.db"
    upgrade(migrated)
    state = await State.open(f"sqlite:///{made}", data_dir=tmp_path, clock=SystemClock())
    await state.close()
    assert contents(made) == contents(migrated)
    upgrade(made)


# An image of the first schema, as its version wrote it, with a hold of a process that is gone.
FIRST_SCHEMA = """
INSERT INTO image_references VALUES ('docker.io/library/a:1', 'docker.io', 'library/a', '1',
    'sha256:1', 'index', 'all', 1, 0, 1.5, 1.5, 1.5, NULL, NULL);
INSERT INTO manifests VALUES ('sha256:1', 'index', 900), ('sha256:2', 'manifest', 500);
INSERT INTO children VALUES
    ('sha256:1', 0, 'sha256:2', 'manifest', 'manifest', 500, 'linux/amd64'),
    ('sha256:2', 0, 'sha256:3', 'config', 'config', 70, NULL);
INSERT INTO links VALUES ('docker.io', 'library/a', 'sha256:1', 'unknown');
INSERT INTO meters (id, registry, identity, heads, head_samples, head_cost)
    VALUES (1, 'docker.io', 'anonymous', 0, 0, 0);
INSERT INTO holds VALUES (1, 1, '00000000000000000000000000000000', 'image', 3);
UPDATE ledger_sequence SET value = 41;
"""
KEPT = ("image_references", "children", "links", "meters", "holds", "ledger_sequence")


async def test_a_database_of_the_first_schema_is_brought_up_with_all_it_holds(
    tmp_path: Path,
) -> None:
    path = tmp_path / "p.db"

    def rows() -> dict[str, list[tuple[object, ...]]]:
        with contextlib.closing(sqlite3.connect(path)) as database:
            found = {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in KEPT}
            # What later schemas add is at the end.
            found["image_references"] = [row[:14] for row in found["image_references"]]
            known = database.execute("SELECT digest, media_type, size FROM manifests").fetchall()
            return found | {"manifests": known}

    upgrade(path, "0001")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(FIRST_SCHEMA)
    before = rows()
    assert all(before.values())
    with pytest.raises(StateError, match="has schema 0001, this prefetch needs 0006") as caught:
        await opened(path)
    assert caught.value.hint == "run `prefetch db upgrade`"
    assert rows() == before

    upgrade(path)

    assert rows() == before
    state = await opened(path)
    trees = await state.manifests.trees(["sha256:1"])
    assert [trees[key].children[0].digest for key in ("sha256:1", "sha256:2")] == [
        "sha256:2",
        "sha256:3",
    ]
    assert {record.subject for record in trees.values()} == {None}
    assert await state.generation() == 0
    learned = replace(trees["sha256:2"], subject="sha256:9")
    await state.manifests.save_many([learned])
    assert await state.manifests.referrers("sha256:9") == ["sha256:2"]
    ledger = await Ledger.open(state, directory=state.locks, clock=state.clock)
    assert await ledger.hold_named(MeterKey("docker.io"), "image", MeterPolicy()) is None
    await ledger.close()
    await state.close()

    before = rows()
    downgrade(path, "0001")
    assert rows() == before


async def test_many_may_make_it_at_once(tmp_path: Path) -> None:
    states = await asyncio.gather(*(opened(tmp_path / "p.db", 15.0) for _ in range(4)))
    for state in states:
        assert await state.references.list() == []
        await state.close()


async def test_one_killed_while_made_is_made_again(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "p.db")
    engine.connect().close()
    engine.dispose()
    assert (tmp_path / "p.db").stat().st_size > 0
    state = await opened(tmp_path / "p.db")
    assert await state.runs.list() == []
    await state.close()


async def test_work_is_one_transaction(state: State) -> None:
    def work(connection: object) -> None:
        connection.execute(text("DELETE FROM ledger_sequence"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await state.run(work)
    count = await state.read(
        lambda c: c.execute(text("SELECT count(*) FROM ledger_sequence")).scalar()
    )
    assert count == 1


async def test_locked_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    state = await opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(
        StateLocked, match=r"has been locked by another process for 0\.2 s"
    ) as caught:
        await state.run(lambda _: None)
    assert str(path) in str(caught.value)
    assert await state.references.list() == []
    other.execute("ROLLBACK")
    other.close()
    await state.run(lambda _: None)
    await state.close()


async def test_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "p.db").write_bytes(b"<html>nothing here</html>" * 1000)
    with pytest.raises(StateDamaged, match="db rebuild"):
        await opened(tmp_path / "p.db")


async def test_some_other_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "p.db") as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(StateDamaged, match="lacks tables"):
        await opened(tmp_path / "p.db")


async def test_damaged_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    await (await opened(path)).close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))

    async def use() -> None:
        state = await opened(path)
        try:
            await state.references.list()
        finally:
            await state.close()

    with pytest.raises(StateDamaged, match="db rebuild"):
        await use()


async def test_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot use the state in"):
        await opened(tmp_path / "file" / "p.db")


async def test_path_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "p.db" / "x").mkdir(parents=True)
    with pytest.raises(StateError, match="cannot write the database"):
        await opened(tmp_path / "p.db")


async def test_read_only_database(state: State) -> None:
    await state.read(lambda c: c.exec_driver_sql("PRAGMA query_only = ON"))
    with pytest.raises(StateError, match="cannot write the database"):
        await state.run(lambda c: c.exec_driver_sql("DELETE FROM runs"))


async def test_full_disk(state: State) -> None:
    await state.read(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1"))
    columns = "id, command, started_at, images, pulls, bytes_fetched"
    grow = f"INSERT INTO runs ({columns}) VALUES ('a', hex(zeroblob(1000000)), 0, 0, 0, 0)"
    with pytest.raises(StateError, match="no space left for the database"):
        await state.run(lambda c: c.exec_driver_sql(grow))
    assert await state.runs.list() == []


@pytest.mark.parametrize(
    ("revision", "hint"), [("0000", "prefetch db upgrade"), ("9999", "newer than this prefetch")]
)
async def test_another_schema(tmp_path: Path, revision: str, hint: str) -> None:
    path = tmp_path / "p.db"
    await (await opened(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()
    with pytest.raises(StateError, match=hint):
        await opened(path)


@pytest.mark.parametrize(
    "bad", ["mysql://user:secret@host/db", "sqlite://", "nonsense", "sqlite:///:memory:"]
)
async def test_state_urls_that_name_no_file(tmp_path: Path, bad: str) -> None:
    with pytest.raises(StateError) as caught:
        await State.open(bad, data_dir=tmp_path, clock=SystemClock())
    assert "secret" not in str(caught.value)


async def test_opening_an_existing_one_imports_little(tmp_path: Path) -> None:
    await (await opened(tmp_path / "p.db")).close()
    script = f"""
import asyncio, sys
from pathlib import Path
from prefetch.clock import SystemClock
from prefetch.state.database import State
from prefetch.state.ledger import Ledger

async def main():
    path = Path({str(tmp_path)!r})
    state = await State.open(f"sqlite:///{{path}}/p.db", data_dir=path, clock=SystemClock())
    ledger = await Ledger.open(state, directory=state.locks, clock=state.clock)
    await state.references.get_many(["docker.io/library/nginx:1"])
    await ledger.close()
    await state.close()

asyncio.run(main())
print([name for name in ("alembic", "sqlalchemy.orm", "mako") if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
    assert not (tmp_path / "locks").exists()

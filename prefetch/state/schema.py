"""The schema's history: Alembic's migrations, run to make a database or to move it.

Imported only where that is done: Alembic is slow to import, and a run that finds its database in
order does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from prefetch.errors import StateError
from prefetch.state.sqlite import database_path, sqlite_engine, translate


def migrations_directory() -> Path:
    """Where the migrations are: inside an installed package, else beside it in the source tree."""
    package = Path(str(files("prefetch")))
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def upgrade(target: str | Path, revision: str = "head") -> None:
    """Bring the database (a URL, or its file) up to `revision`. Raises StateError."""
    _migrate(target, lambda config: command.upgrade(config, revision))


def downgrade(target: str | Path, revision: str) -> None:
    """Take the database back to `revision` (`base`: no tables). Raises StateError."""
    _migrate(target, lambda config: command.downgrade(config, revision))


def _migrate(target: str | Path, work: Callable[[Config], None]) -> None:
    path = target if isinstance(target, Path) else database_path(target)
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    engine = sqlite_engine(path)
    try:
        # One transaction for all of it: a migration that fails changes nothing.
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            work(config)
    except CommandError as error:
        raise StateError(f"the database {path} cannot be migrated: {error}") from error
    except DBAPIError as error:
        raise translate(error.orig or error, path) from error
    finally:
        engine.dispose()

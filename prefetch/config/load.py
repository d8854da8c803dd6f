"""Finds `prefetch.yaml`, reads it, and builds the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prefetch.config.settings import ANY, Settings, default_data_dir, xdg_home
from prefetch.errors import ConfigError, SourceError
from prefetch.oci.platform import Platform

if TYPE_CHECKING:
    from pydantic import ValidationError

    from prefetch.sources.yamltree import Plain

FILE_NAME: Final = "prefetch.yaml"
MAX_SIZE: Final = 1 << 20
"""Bytes of a configuration file that are read at most."""

_SQLITE = re.compile(r"(sqlite(?:\+[a-z0-9]+)?:///)(.+)")


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of a file, or the defaults.

    `path` is the file that was asked for; None searches ./prefetch.yaml,
    $XDG_CONFIG_HOME/prefetch/prefetch.yaml and /etc/prefetch/prefetch.yaml. Raises ConfigError,
    one line: the file, the key's path, what was expected.
    """
    found = path if path is not None else find(environ)
    if found is None:
        return Settings(data_dir=default_data_dir(environ))
    return _settings(found, _content(found), environ)


def find(environ: Mapping[str, str]) -> Path | None:
    """The first configuration file in the order of search, None if there is none."""
    config = xdg_home(environ, "XDG_CONFIG_HOME", ".config")
    places = (Path(), config / "prefetch", Path("/etc/prefetch"))
    return next((place / FILE_NAME for place in places if (place / FILE_NAME).is_file()), None)


def _content(path: Path) -> Plain:
    from prefetch.sources.yamltree import plain, read

    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise ConfigError(f"{path}: larger than {MAX_SIZE} bytes")
        return plain(read(data.decode("utf-8-sig"), str(path)))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None
    except SourceError as error:
        raise ConfigError(str(error)) from None


def _settings(path: Path, content: Plain, environ: Mapping[str, str]) -> Settings:
    from pydantic import ValidationError

    from prefetch.config.schema import FileModel, build_sources

    try:
        model = FileModel.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error)}") from None
    base = path.parent
    defaults = Settings(data_dir=default_data_dir(environ))
    built = {name: entry.build(name, base) for name, entry in model.registries.items()}
    accounts = {name: entry.account(base) for name, entry in model.registries.items()}
    return Settings(
        path=path,
        data_dir=base / model.data_dir if model.data_dir else defaults.data_dir,
        state_url=_absolute(model.state_url, base),
        platforms=model.platforms or (Platform.host(),),
        any_registry=built.pop(ANY, None),
        registries={**defaults.registries, **built},
        accounts={name: account for name, account in accounts.items() if account is not None},
        sources=build_sources(model.sources, base),
        cluster=model.cluster.build(),
        kinds=tuple(entry.build() for entry in model.custom_resources),
        serve=model.serve.build(base),
        schedule=tuple(entry.build(base) for entry in model.schedule),
        notify=tuple(hook.build(base) for hook in model.notify),
    )


def _absolute(url: str | None, base: Path) -> str | None:
    """A relative SQLite path starts from the file's directory, as every path in it does."""
    match = _SQLITE.fullmatch(url or "")
    return f"{match[1]}{(base / match[2]).absolute()}" if match else url


def _first(error: ValidationError) -> str:
    """The first of a file's errors, as `key.path: what was expected`."""
    from prefetch.config.values import shown

    first = error.errors(include_url=False)[0]
    context = first.get("ctx", {})
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        message = "a value is required"
    elif first["type"] not in ("key", "shape", "value_error"):
        message = f"{_ours(message)}, got {shown(first['input'])}"
    path = ".".join(
        str(part)
        for part in (*first["loc"], context.get("key", ""))
        if part != "" and not str(part).startswith("<") and part != "[key]"
    )
    if not path.isprintable():
        path = ascii(path)[1:-1]
    return f"{path}: {message}" if path else message


def _ours(message: str) -> str:
    """pydantic's words for a wrong type or bound, in ours."""
    words = (("Input should be", "expected"), (" valid ", " "), ("dictionary", "mapping"))
    for theirs, ours in words:
        message = message.replace(theirs, ours)
    return message

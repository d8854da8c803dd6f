"""The grammars of single values. Each raises ValueError with what was expected."""

from __future__ import annotations

import re
import warnings
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from prefetch.config.settings import ANY
from prefetch.errors import InvalidReference
from prefetch.oci.reference import Repository
from prefetch.oci.registries import known_registry
from prefetch.ratelimit.pace import Pace
from prefetch.scheduler.crontab import Crontab
from prefetch.server.settings import Listen

MAX_SECONDS: Final = 10 * 366 * 86400.0
MAX_PORT: Final = 65535

_SHOWN: Final = 60
_LONGEST_NAME: Final = 100
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PROBE = "library/any"
_LISTEN = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_ACCESS_PATTERN = re.compile(r"[a-z0-9._:/*?\[\]-]{1,512}")
_WILDCARDS = frozenset("*?")
_REGISTRY_MARKS = _WILDCARDS | frozenset(".:")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OUR_HEADERS = frozenset({"content-type", "content-length", "host", "transfer-encoding"})
_STATE_URL = re.compile(r"(?:sqlite|postgresql)(?:\+[a-z0-9]+)?://\S*")


def kind(value: object) -> str:
    """What a value is, without showing it."""
    if value is None or value == "":
        return "nothing"
    names = {bool: "true or false", int: "a number", float: "a number", dict: "a mapping"}
    return names.get(type(value), "a list" if isinstance(value, list) else "text")


def shown(value: object) -> str:
    """A value for an error message: short, on one line."""
    if value is None or isinstance(value, dict | list):
        return kind(value)
    text = ascii(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def duration(value: object) -> float:
    """Seconds from `90s`, `5m`, `1h30m`, `200ms`, or a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and _DURATION.fullmatch(value):
        parts = _DURATION_PART.findall(value)
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    else:
        raise ValueError(f"expected a duration such as 90s, 5m or 6h, got {shown(value)}")
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"expected a duration from 0 to ten years, got {shown(value)}")
    return seconds


def interval(value: object) -> float:
    """Seconds, at least one, between the beginnings of two runs."""
    seconds = duration(value)
    if seconds < 1:
        raise ValueError(f"expected a duration of at least 1s, got {shown(value)}")
    return seconds


def source(text: str) -> str:
    """A source's path; `-` is for the command line, which alone has a standard input."""
    if text == "-":
        raise ValueError("expected a file's path, not -: standard input is for the command line")
    return text


def registry_name(text: str) -> str:
    """A registry as references name it, `host[:port]`; or `*`."""
    if text == ANY:
        return text
    try:
        name = known_registry(Repository.parse(f"{text}/{_PROBE}").registry).name
    except InvalidReference:
        name = None
    if name == text:
        return text
    advice = f"write {name}" if name is not None and "/" not in text and "." in text else ""
    raise ValueError(advice or "expected a registry's name such as quay.io or localhost:5000")


def alternate(text: str) -> str:
    """A registry, or a path in one, that holds copies: `public.ecr.aws/docker`."""
    try:
        repository = Repository.parse(f"{text}/{_PROBE}")
    except InvalidReference:
        repository = None
    if repository is None or not f"{repository}/".startswith(f"{text}/"):
        raise ValueError(f"expected a registry, or a path in one, got {shown(text)}")
    return text


def endpoint(text: str) -> str:
    """A registry's URL: http or https, a host, perhaps a port and a path; nothing else."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(f"expected an http:// or https:// URL, got {shown(text)}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not belong in a URL (use username and password_env)")
    if not valid or parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise ValueError(f"expected an http:// or https:// URL, got {shown(text)}")
    return text.rstrip("/")


def webhook(text: str) -> str:
    """A webhook's URL, which may hold secrets: it is not shown."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not text.isprintable() or " " in text:
        raise ValueError("expected an http:// or https:// URL")
    return text


def header(text: str) -> str:
    """The name of an HTTP header of one's own (RFC 9110, section 5.6.2, "token")."""
    if not _HEADER.fullmatch(text):
        raise ValueError(f"expected a header's name such as Authorization, got {shown(text)}")
    if text.lower().startswith("webhook-") or text.lower() in _OUR_HEADERS:
        raise ValueError(f"{text} is set by prefetch itself")
    return text


def listen(text: str) -> Listen:
    """`HOST:PORT`, with IPv6 addresses in brackets."""
    match = _LISTEN.fullmatch(text)
    if match is None or int(match[2]) > MAX_PORT:
        raise ValueError(f"expected HOST:PORT, got {shown(text)}")
    return Listen(match[1].strip("[]"), int(match[2]))


def access_pattern(text: str) -> str:
    """A pattern for `<registry>/<repository>`, such as `ghcr.io/corp/*`.

    What could never match is refused: it would silently let nobody in.
    """
    registry, slash, _ = text.partition("/")
    if "**" in text:
        raise ValueError(f"expected a pattern without **, got {shown(text)}")
    if not _ACCESS_PATTERN.fullmatch(text) or not (slash or text.endswith("*")):
        raise ValueError(f"expected a pattern such as ghcr.io/corp/*, got {shown(text)}")
    if registry != "localhost" and not _REGISTRY_MARKS & set(registry):
        raise ValueError(f"expected the registry first, got {shown(text)}")
    if not _WILDCARDS & set(text):
        _canonical(text)
    return text


def _canonical(text: str) -> None:
    """Refuse a repository that has another name in references."""
    try:
        repository = str(Repository.parse(text))
    except InvalidReference:
        raise ValueError(f"expected a repository or a pattern, got {shown(text)}") from None
    if repository != text:
        raise ValueError(f"write {repository}")


def variable(text: str) -> str:
    """The name of an environment variable."""
    if not _VARIABLE.fullmatch(text):
        # Not shown: whoever mistook the name for the password has a secret here.
        raise ValueError("expected the name of an environment variable")
    return text


def state_url(text: str) -> str:
    """An SQLAlchemy URL of a database that the state can live in."""
    if not _STATE_URL.fullmatch(text):
        raise ValueError("expected sqlite:///PATH or postgresql://HOST/NAME")
    return text


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"expected a regular expression, got {shown(text)}: {error}") from None


def cron(text: str) -> str:
    """Five fields as in crontab(5): `0 3 * * mon-fri`."""
    Crontab.parse(text)
    return text


def pace(text: str) -> Pace:
    """How pulls are spent."""
    if text not in tuple(Pace):
        raise ValueError(f"expected smooth or burst, got {shown(text)}")
    return Pace(text)


def entry_name(text: str) -> str:
    """What an entry of the schedule is called, in logs, tables and metrics."""
    if not text.isprintable() or len(text) > _LONGEST_NAME:
        raise ValueError(
            f"expected at most {_LONGEST_NAME} printable characters, got {shown(text)}"
        )
    return text


def timezone(text: str) -> str:
    """The name of a time zone that this machine knows: `Europe/Berlin`."""
    try:
        ZoneInfo(text)
    except (LookupError, ValueError, OSError):
        raise ValueError(
            f"expected a time zone that is known here, such as Europe/Berlin, got {shown(text)}"
        ) from None
    return text

"""Who is told of what happens: webhooks and programs, as the configuration has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from prefetch.credentials.credential import Secret
from prefetch.credentials.keychain import read_secret_file
from prefetch.errors import CredentialError

EventName: TypeAlias = Literal[
    "run_failed",
    "run_deferred",
    "deadline_missed",
    "reserve_threatened",
    "immutable_tag_moved",
    "registry_throttled",
]
"""What there are notices of; each has its schema in docs/contract.md."""

EVENTS: Final[tuple[EventName, ...]] = get_args(EventName)

TEST_EVENT: Final = "test"
"""The event of a notice that `prefetch notify --test` sends."""

DEFAULT_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret is: a text, the environment variable or the file that holds it.

    Variables and files are read at each use: secrets are changed.
    """

    text: Secret | None = None
    env: str | None = None
    file: Path | None = None

    def read(self, environ: Mapping[str, str], what: str) -> Secret:
        """The secret, less newlines at its end; blocks. Raises CredentialError, naming `what`."""
        if self.text is not None:
            return self.text
        if self.env is not None:
            where, found = f"the environment variable {self.env}", environ.get(self.env, "")
        else:
            path = self.file or Path()
            where, found = str(path), _decoded(read_secret_file(path) or b"", path, what)
        if not found.strip():
            raise CredentialError(f"{what} is missing: {where} is empty")
        return Secret(found.rstrip("\r\n"))


def _decoded(data: bytes, path: Path, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CredentialError(f"{path}: {what} is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that notices are posted to, signed with `secret` where there is one.

    `headers` are more headers, each with the variable that holds its value; `timeout`, in seconds,
    bounds an attempt; `ca_file` (PEM) is trusted besides the system's authorities.
    """

    name: str
    url: SecretSource
    events: tuple[EventName, ...] = EVENTS
    secret: SecretSource | None = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float = DEFAULT_TIMEOUT
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ExecHook:
    """A program that is given a notice on standard input; no shell is involved."""

    name: str
    argv: tuple[str, ...]
    events: tuple[EventName, ...] = EVENTS
    timeout: float = DEFAULT_TIMEOUT


Hook: TypeAlias = Webhook | ExecHook


@dataclass(frozen=True, slots=True)
class Message:
    """A notice as it goes out: `body` is its JSON document, `text` the sentence in it."""

    id: str
    event: str
    body: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of sending a message: taken, or `said` why not, in a few words without secrets.

    `again` says whether it may be sent again, `wait` (seconds) for how long the hook wants to be
    left alone, `output` what a program has printed, the start of it.
    """

    taken: bool
    said: str
    again: bool = True
    wait: float | None = None
    output: str | None = None

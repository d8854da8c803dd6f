"""The shape of `notify` in `prefetch.yaml`: who is told of what happens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from prefetch.config import values
from prefetch.config.shape import SECRETS, Duration, File, Strict, Text, path_at, text_of
from prefetch.credentials.credential import Secret
from prefetch.sync.hooks import (
    DEFAULT_TIMEOUT,
    EVENTS,
    EventName,
    ExecHook,
    Hook,
    SecretSource,
    Webhook,
)

Variable = Annotated[str, text_of("a variable's name", values.variable)]
_OF_WEBHOOKS = ("secret_env", "secret_file", "headers_env", "ca_file")


class HookModel(Strict):
    """A webhook, or a program."""

    name: Annotated[str, text_of("a name", values.entry_name)]
    url: Annotated[str, text_of("a URL", values.webhook)] | None = None
    url_env: Variable | None = None
    url_file: File | None = None
    exec: Annotated[list[Text], Field(min_length=1)] | None = None
    events: Annotated[list[EventName], Field(min_length=1)] = list(EVENTS)
    secret_env: Variable | None = None
    secret_file: File | None = None
    headers_env: dict[Annotated[str, text_of("a header", values.header)], Variable] = {}
    timeout: Annotated[Duration, Field(gt=0)] = DEFAULT_TIMEOUT
    ca_file: File | None = None

    @classmethod
    def _advice(cls, key: str) -> str:
        if key in SECRETS:
            return "secrets do not belong in this file (use secret_env or secret_file)"
        return super()._advice(key)

    @model_validator(mode="after")
    def _one_way(self) -> HookModel:
        ways = (self.url, self.url_env, self.url_file, self.exec)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("one of url, url_env, url_file and exec is required")
        stray = next((key for key in _OF_WEBHOOKS if getattr(self, key)), None)
        if self.exec is not None and stray is not None:
            raise ValueError(f"{stray} does not go with exec")
        if self.secret_env and self.secret_file:
            raise ValueError("secret_env and secret_file exclude each other")
        return self

    def build(self, base: Path) -> Hook:
        if self.exec is not None:
            program, *arguments = self.exec
            # A name alone is looked up in PATH.
            program = str(base.absolute() / program) if "/" in program else program
            return ExecHook(self.name, (program, *arguments), tuple(self.events), self.timeout)
        text = None if self.url is None else Secret(self.url)
        signed = self.secret_env is not None or self.secret_file is not None
        secret = SecretSource(env=self.secret_env, file=path_at(self.secret_file, base))
        return Webhook(
            name=self.name,
            url=SecretSource(text, self.url_env, path_at(self.url_file, base)),
            events=tuple(self.events),
            secret=secret if signed else None,
            headers=tuple(self.headers_env.items()),
            timeout=self.timeout,
            ca_file=path_at(self.ca_file, base),
        )

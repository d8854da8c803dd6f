"""The shape of `prefetch.yaml`, checked by pydantic. Loaded only when there is a file.

Each model has a `build` that makes the settings; `base` is the file's directory, which relative
paths start from.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from prefetch.config import values
from prefetch.config.notify import HookModel
from prefetch.config.settings import (
    ANY,
    DEFAULT_LEAD,
    ClusterReading,
    ClusterSource,
    ScheduleEntry,
    SourceSpec,
)
from prefetch.config.shape import SECRETS, Duration, File, Strict, Text, path_at, text_of
from prefetch.credentials.keychain import Account
from prefetch.errors import PrefetchError
from prefetch.oci.platform import PlatformSet
from prefetch.oci.registries import endpoint_for
from prefetch.ratelimit.budget import DEFAULT_RESERVE, Reserve
from prefetch.ratelimit.pace import Pace
from prefetch.remote.settings import Alternate, RegistrySettings
from prefetch.server.settings import Access, Listen, ServeSettings, Tls
from prefetch.sources.kinds import CustomKind
from prefetch.sources.selector import parse_platforms


def _reserve(value: Any) -> Reserve:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return Reserve.parse(str(value))
        except PrefetchError:
            pass
    raise ValueError(f"expected a number or a percentage, got {values.shown(value)}")


def _platforms(value: Any) -> PlatformSet:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not words or not all(isinstance(w, str) for w in words):
        raise ValueError(f"expected a list of platforms, got {values.shown(value)}")
    try:
        return parse_platforms(words)
    except PrefetchError as error:
        raise ValueError(str(error)) from None


def _source_kind(value: Any) -> str:
    return "<mapping>" if isinstance(value, dict) else "<file>"


def _alternate_kind(value: Any) -> str:
    return "<mapping>" if isinstance(value, dict) else "<registry>"


AlternateName: TypeAlias = Annotated[Alternate, text_of("a registry", values.alternate)]
SourceFile: TypeAlias = Annotated[str, text_of("a file's path", values.source)]
CronLine: TypeAlias = Annotated[str, text_of("five fields as in crontab", values.cron)]
PaceWord: TypeAlias = Annotated[Pace, text_of("smooth or burst", values.pace)]
Platforms: TypeAlias = Annotated[Any, BeforeValidator(_platforms)]


class LimitModel(Strict):
    """A limit for a registry that reports none: pulls in a window of seconds."""

    pulls: Annotated[int, Field(ge=1, le=10**9)]
    window: Annotated[Duration, Field(gt=0)]


class AlternateModel(Strict):
    """An alternate, with what it may hear."""

    registry: AlternateName
    private: bool = False


AlternateItem: TypeAlias = Annotated[
    Annotated[AlternateName, Tag("<registry>")] | Annotated[AlternateModel, Tag("<mapping>")],
    Discriminator(_alternate_kind),
]


class RegistryModel(Strict):
    """One registry."""

    endpoint: Annotated[str, text_of("a URL", values.endpoint)] | None = None
    username: Text | None = None
    password_env: Annotated[str, text_of("a variable's name", values.variable)] | None = None
    password_file: File | None = None
    ca_file: File | None = None
    cert_file: File | None = None
    key_file: File | None = None
    reserve: Annotated[Reserve, BeforeValidator(_reserve)] = DEFAULT_RESERVE
    limit: LimitModel | None = None
    pace: PaceWord = Pace.BURST
    requests_per_second: Annotated[float, Field(gt=0, le=10**6, allow_inf_nan=False)] | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    idle_timeout: Annotated[Duration, Field(gt=0)] = 30.0
    alternates: list[AlternateItem] = []
    immutable_tags: list[
        Annotated[re.Pattern[str], text_of("a regular expression", values.pattern)]
    ] = []

    @classmethod
    def _advice(cls, key: str) -> str:
        if key in SECRETS:
            return "secrets do not belong in this file (use password_env or password_file)"
        return super()._advice(key)

    @model_validator(mode="after")
    def _pairs(self) -> RegistryModel:
        if self.password_env and self.password_file:
            raise ValueError("password_env and password_file exclude each other")
        if (self.password_env or self.password_file) and not self.username:
            raise ValueError("a password needs a username")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self

    def build(self, name: str, base: Path) -> RegistrySettings:
        return RegistrySettings(
            name=name,
            endpoint=self.endpoint or ("" if name == ANY else endpoint_for(name)),
            ca_file=path_at(self.ca_file, base),
            cert_file=path_at(self.cert_file, base),
            key_file=path_at(self.key_file, base),
            reserve=self.reserve,
            limit=(self.limit.pulls, self.limit.window) if self.limit else None,
            pace=self.pace,
            requests_per_second=self.requests_per_second,
            max_concurrency=self.max_concurrency,
            idle_timeout=self.idle_timeout,
            alternates=tuple(_alternate(each) for each in self.alternates),
            immutable_tags=tuple(self.immutable_tags),
        )

    def account(self, base: Path) -> Account | None:
        if self.username is None:
            return None
        return Account(self.username, self.password_env, path_at(self.password_file, base))


class ClusterModel(Strict):
    """Which part of a live cluster."""

    namespaces: list[Text] = []
    selector: str = ""
    platforms: Literal["nodes"] | Platforms = "nodes"


class ClusterSourceModel(Strict):
    """A source that is a live cluster."""

    cluster: ClusterModel


class ClusterReadingModel(Strict):
    """What of live clusters is read besides what is always."""

    use_pull_secrets: bool = False
    running_digests: bool = False
    node_images: bool = False

    def build(self) -> ClusterReading:
        return ClusterReading(self.use_pull_secrets, self.running_digests, self.node_images)


class CustomKindModel(Strict):
    """A custom resource, and where its objects name images."""

    api_version: Text
    kind: Text
    resource: Text | None = None
    images: Annotated[list[Text], Field(min_length=1)]

    @model_validator(mode="after")
    def _makes_sense(self) -> CustomKindModel:
        self.build()
        return self

    def build(self) -> CustomKind:
        resource = self.resource or f"{self.kind.lower()}s"
        return CustomKind(self.api_version, self.kind, resource, tuple(self.images))


SourceModel: TypeAlias = Annotated[
    Annotated[SourceFile, Tag("<file>")] | Annotated[ClusterSourceModel, Tag("<mapping>")],
    Discriminator(_source_kind),
]


class TlsModel(Strict):
    """A certificate and its key."""

    cert_file: File
    key_file: File


class AccessModel(Strict):
    """Who sees which private repositories."""

    users: list[Text]
    repositories: list[Annotated[str, text_of("a pattern", values.access_pattern)]]


class ServeModel(Strict):
    """The embedded registry."""

    listen: Annotated[Listen, text_of("HOST:PORT", values.listen)] = ServeSettings().listen
    tls: TlsModel | None = None
    htpasswd_file: File | None = None
    access: list[AccessModel] | None = None
    tag_ttl: Duration = ServeSettings().tag_ttl
    tag_wait: Duration = ServeSettings().tag_wait
    negative_ttl: Duration = ServeSettings().negative_ttl
    workers: Annotated[int, Field(ge=1, le=256)] = ServeSettings().workers
    reserve_for_sync: bool = ServeSettings().reserve_for_sync
    drain: Duration = ServeSettings().drain
    client_timeout: Annotated[Duration, Field(gt=0)] = ServeSettings().client_timeout
    misses_per_second: Annotated[float, Field(ge=1, le=10**6, allow_inf_nan=False)] = (
        ServeSettings().misses_per_second
    )
    max_fetches: Annotated[int, Field(ge=1, le=4096)] = ServeSettings().max_fetches

    def build(self, base: Path) -> ServeSettings:
        tls, access = self.tls, self.access
        return ServeSettings(
            listen=self.listen,
            tls=Tls(base / tls.cert_file, base / tls.key_file) if tls else None,
            htpasswd_file=path_at(self.htpasswd_file, base),
            access=None
            if access is None
            else tuple(Access(tuple(rule.users), tuple(rule.repositories)) for rule in access),
            tag_ttl=self.tag_ttl,
            tag_wait=self.tag_wait,
            negative_ttl=self.negative_ttl,
            workers=self.workers,
            reserve_for_sync=self.reserve_for_sync,
            drain=self.drain,
            client_timeout=self.client_timeout,
            misses_per_second=self.misses_per_second,
            max_fetches=self.max_fetches,
        )


class ScheduleModel(Strict):
    """A timed sync."""

    name: Annotated[str, text_of("a name", values.entry_name)]
    cron: CronLine | None = None
    every: Annotated[float, BeforeValidator(values.interval)] | None = None
    by: CronLine | None = None
    lead: Annotated[float, BeforeValidator(values.interval)] | None = None
    sources: list[SourceModel] = []
    platforms: Platforms = None
    jitter: Duration = 0.0
    timezone: Annotated[str, text_of("a time zone's name", values.timezone)] | None = None
    pace: PaceWord | None = None

    @model_validator(mode="after")
    def _one_rhythm(self) -> ScheduleModel:
        if self.cron is not None and self.every is not None:
            raise ValueError("expected one of cron and every, got both")
        if self.cron is None and self.every is None and self.by is None:
            raise ValueError("expected cron, every or by, got none of them")
        if self.cron is None and self.by is None and self.timezone is not None:
            raise ValueError("timezone goes with cron and by, not with every")
        return self

    @model_validator(mode="after")
    def _deadline(self) -> ScheduleModel:
        ahead = self.by is not None and self.cron is None and self.every is None
        if self.lead is not None and not ahead:
            raise ValueError("lead goes with by alone: cron and every say when it begins")
        if self.by is not None and self.pace is not None:
            raise ValueError("pace goes without by: what has a deadline spends what it may")
        if ahead and self.jitter >= (self.lead or DEFAULT_LEAD):
            raise ValueError("jitter must be less than lead")
        return self

    def build(self, base: Path) -> ScheduleEntry:
        return ScheduleEntry(
            self.name,
            cron=self.cron,
            sources=build_sources(self.sources, base),
            jitter=self.jitter,
            timezone=self.timezone,
            every=self.every,
            by=self.by,
            lead=self.lead or DEFAULT_LEAD,
            platforms=self.platforms,
            pace=self.pace,
        )


class FileModel(Strict):
    """The whole file."""

    data_dir: File | None = None
    state_url: Annotated[str, text_of("a database URL", values.state_url)] | None = None
    platforms: Platforms = None
    registries: dict[
        Annotated[str, text_of("a registry's name", values.registry_name)], RegistryModel
    ] = {}
    sources: list[SourceModel] = []
    cluster: ClusterReadingModel = ClusterReadingModel()
    custom_resources: list[CustomKindModel] = []
    serve: ServeModel = ServeModel()
    schedule: list[ScheduleModel] = []
    notify: list[HookModel] = []

    @model_validator(mode="after")
    def _any_registry(self) -> FileModel:
        every = self.registries.get(ANY)
        if every is not None and (every.endpoint or every.username):
            raise ValueError("registries.*: an endpoint and a username belong to one registry")
        return self

    @model_validator(mode="after")
    def _others(self) -> FileModel:
        for name, model in self.registries.items():
            for place, item in enumerate(model.alternates):
                if self._is_itself(name, _alternate(item)):
                    where = f"registries.{name}.alternates.{place}"
                    raise ValueError(f"{where}: a registry is no alternate of itself")
        return self

    def _is_itself(self, name: str, alternate: Alternate) -> bool:
        """Whether an alternate is the registry, under whatever name."""
        if alternate.registry == name:
            return True
        if name == ANY or alternate.prefix:
            return False
        return self._endpoint(alternate.registry) == self._endpoint(name)

    def _endpoint(self, name: str) -> str:
        model = self.registries.get(name)
        return ((model.endpoint if model else None) or endpoint_for(name)).rstrip("/")

    @model_validator(mode="after")
    def _names_once(self) -> FileModel:
        for key, named in (("schedule", self.schedule), ("notify", self.notify)):
            names = [each.name for each in named]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{key}: the name {values.shown(twice)} is used twice")
        return self

    @model_validator(mode="after")
    def _something_to_sync(self) -> FileModel:
        idle = next((i for i, entry in enumerate(self.schedule) if not entry.sources), None)
        if idle is not None and not self.sources:
            raise ValueError(f"schedule.{idle}.sources: a value is required without `sources`")
        return self


def build_sources(sources: list[Any], base: Path) -> tuple[SourceSpec, ...]:
    """The settings of a `sources` list."""
    return tuple(
        base / source
        if isinstance(source, str)
        else ClusterSource(
            tuple(source.cluster.namespaces), source.cluster.selector, source.cluster.platforms
        )
        for source in sources
    )


def _alternate(item: Alternate | AlternateModel) -> Alternate:
    if isinstance(item, Alternate):
        return item
    return replace(item.registry, private=item.private)

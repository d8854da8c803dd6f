"""prefetch.yaml: what it means, where it is found, and how mistakes in it are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.config import values
from prefetch.config.load import load
from prefetch.config.settings import (
    ClusterSource,
    ScheduleEntry,
    Settings,
    default_data_dir,
)
from prefetch.credentials.keychain import Account
from prefetch.errors import ConfigError
from prefetch.oci.platform import ALL, Platform
from prefetch.oci.registries import DEFAULT_REGISTRIES
from prefetch.ratelimit.budget import Reserve
from prefetch.ratelimit.pace import Pace
from prefetch.remote.settings import Alternate, RegistrySettings
from prefetch.server.settings import Access, Listen, ServeSettings, Tls

WHOLE = r"""
data_dir: /var/lib/prefetch
state_url: sqlite:////var/lib/prefetch/prefetch.db
platforms: [linux/amd64]
registries:
  docker.io:
    endpoint: https://registry-1.docker.io
    username: alice
    password_env: HUB_TOKEN
    ca_file: /etc/ssl/corp.pem
    reserve: 25%
    limit: {pulls: 100, window: 6h}
    pace: smooth
    requests_per_second: 20
    max_concurrency: 4
    alternates:
      - public.ecr.aws/docker
      - mirror.gcr.io
      - {registry: localhost:5000/hub, private: true}
    immutable_tags: ['v\d+\.\d+\.\d+']
sources:
  - images.txt
  - cluster: {namespaces: [], selector: "", platforms: nodes}
serve:
  listen: 127.0.0.1:5000
  tls: {cert_file: tls/cert.pem, key_file: tls/key.pem}
  htpasswd_file: htpasswd
  access: [{users: [ci], repositories: ['ghcr.io/corp/*']}]
  tag_ttl: 5m
  tag_wait: 200ms
  negative_ttl: 90s
  workers: 2
  reserve_for_sync: true
  drain: 1m
  client_timeout: 20s
  misses_per_second: 7.5
  max_fetches: 16
schedule:
  - {name: nightly, cron: "0 3 * * *", sources: [images.txt], jitter: 5m, timezone: Europe/Berlin}
  - {name: slowly, cron: "0 8 * * *", sources: [images.txt], pace: smooth}
  - {name: often, every: 1h30m, platforms: [linux/arm64, all]}
  - {name: arm, every: 3600, platforms: linux/arm64}
  - {name: drain, by: "0 2 * * sat", lead: 12h, timezone: Europe/Berlin, jitter: 5m}
  - {name: weekend, by: "0 2 * * sat"}
  - {name: daily, every: 1d, by: "0 2 * * sat", timezone: UTC, jitter: 1d}
"""


def load_text(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "prefetch.yaml"
    path.write_text(text)
    return load(path, {"HOME": str(tmp_path)})


def fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    message = str(caught.value)
    prefix = f"{tmp_path}/"
    assert message.startswith(f"{prefix}prefetch.yaml")
    assert message.isprintable()
    return message.removeprefix(prefix)


def test_the_whole_contract(tmp_path: Path) -> None:
    built = load_text(tmp_path, WHOLE)
    assert built.data_dir == Path("/var/lib/prefetch")
    assert built.database_url == "sqlite:////var/lib/prefetch/prefetch.db"
    assert built.platforms == (Platform("linux", "amd64"),)
    hub = built.registries["docker.io"]
    assert hub.endpoint == "https://registry-1.docker.io"
    assert hub.ca_file == Path("/etc/ssl/corp.pem")
    assert hub.reserve == Reserve.parse("25%")
    assert hub.limit == (100, 21600.0)
    assert hub.pace is Pace.SMOOTH
    assert (hub.requests_per_second, hub.max_concurrency) == (20, 4)
    assert hub.alternates == (
        Alternate("public.ecr.aws", "docker"),
        Alternate("mirror.gcr.io"),
        Alternate("localhost:5000", "hub", private=True),
    )
    assert [pattern.pattern for pattern in hub.immutable_tags] == [r"v\d+\.\d+\.\d+"]
    assert built.accounts == {"docker.io": Account("alice", password_env="HUB_TOKEN")}
    assert built.sources == (tmp_path / "images.txt", ClusterSource())
    assert built.serve == ServeSettings(
        listen=Listen("127.0.0.1", 5000),
        tls=Tls(tmp_path / "tls/cert.pem", tmp_path / "tls/key.pem"),
        htpasswd_file=tmp_path / "htpasswd",
        access=(Access(("ci",), ("ghcr.io/corp/*",)),),
        tag_ttl=300.0,
        tag_wait=0.2,
        negative_ttl=90.0,
        workers=2,
        reserve_for_sync=True,
        drain=60.0,
        client_timeout=20.0,
        misses_per_second=7.5,
        max_fetches=16,
    )
    assert built.schedule == (
        ScheduleEntry("nightly", "0 3 * * *", (tmp_path / "images.txt",), 300.0, "Europe/Berlin"),
        ScheduleEntry("slowly", "0 8 * * *", (tmp_path / "images.txt",), pace=Pace.SMOOTH),
        ScheduleEntry("often", every=5400.0, platforms=ALL),
        ScheduleEntry("arm", every=3600.0, platforms=(Platform("linux", "arm64"),)),
        ScheduleEntry(
            "drain", jitter=300.0, timezone="Europe/Berlin", by="0 2 * * sat", lead=43200.0
        ),
        ScheduleEntry("weekend", by="0 2 * * sat", lead=86400.0),
        ScheduleEntry("daily", jitter=86400.0, timezone="UTC", every=86400.0, by="0 2 * * sat"),
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "serve:\nregistries:\nsources:\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    built = load_text(tmp_path, text)
    assert built.platforms == (Platform.host(),)
    assert set(built.registries) == set(DEFAULT_REGISTRIES)
    assert built.registries["quay.io"] == RegistrySettings.default("quay.io")
    assert built.serve == ServeSettings()
    assert built.database_url == f"sqlite:///{built.data_dir}/prefetch.db"


def test_registries_add_to_the_defaults(tmp_path: Path) -> None:
    built = load_text(tmp_path, "registries: {'localhost:5000': , harbor.corp: {reserve: 0}}")
    assert set(built.registries) == {*DEFAULT_REGISTRIES, "localhost:5000", "harbor.corp"}
    assert built.registry("localhost:5000").endpoint == "http://localhost:5000"
    assert built.registry("harbor.corp").reserve == Reserve.parse("0")
    assert built.registry("other.corp") == RegistrySettings.default("other.corp")
    assert built.any_registry is None


def test_a_star_stands_for_every_other_registry(tmp_path: Path) -> None:
    built = load_text(tmp_path, "registries: {'*': {reserve: 7}, quay.io: {}}")
    other = built.registry("other.corp")
    assert (other.name, other.endpoint) == ("other.corp", "https://other.corp")
    assert other.reserve == Reserve.parse("7")
    assert built.registry("quay.io").reserve == RegistrySettings.default("quay.io").reserve
    assert "*" not in built.registries


def test_which_registries_are_served(tmp_path: Path) -> None:
    built = load_text(tmp_path, "registries: {'localhost:5000': {}}")
    for registry in (*DEFAULT_REGISTRIES, "localhost:5000"):
        assert built.serves(registry)
        assert built.named(registry)
    assert not built.serves("other.corp")
    opened = load_text(tmp_path, "registries: {'*': {}, 'localhost:5000': {}}")
    assert opened.serves("other.corp")
    assert not opened.named("other.corp")
    assert opened.named("localhost:5000")
    assert opened.named("docker.io")
    assert not opened.named("*")
    aside = load_text(
        tmp_path,
        "registries: {'*': {alternates: [a.corp/x]}, quay.io: {alternates: [b.corp, ghcr.io]}}",
    )
    assert aside.serves("other.corp")
    # Whom we may ask on our own account is nobody's registry.
    assert not aside.serves("a.corp")
    assert not aside.serves("b.corp")
    assert aside.serves("ghcr.io")


def test_relative_paths_start_from_the_file(tmp_path: Path) -> None:
    built = load_text(
        tmp_path,
        "data_dir: data\nstate_url: sqlite:///state.db\n"
        "registries: {quay.io: {username: a, password_file: pw, ca_file: ca.pem}}",
    )
    assert built.data_dir == tmp_path / "data"
    assert built.state_url == f"sqlite:///{tmp_path}/state.db"
    assert built.accounts["quay.io"].password_file == tmp_path / "pw"
    assert built.registries["quay.io"].ca_file == tmp_path / "ca.pem"


def test_a_database_url_is_not_shown(tmp_path: Path) -> None:
    built = load_text(tmp_path, "state_url: postgresql+psycopg://u:hunter2@db/prefetch")
    assert built.database_url.endswith("@db/prefetch")
    assert "hunter2" not in repr(built)


def test_all_platforms(tmp_path: Path) -> None:
    assert load_text(tmp_path, "platforms: [all]").platforms is ALL
    assert load_text(tmp_path, "platforms: all").platforms is ALL
    cluster = "sources: [{cluster: {platforms: [linux/arm64]}}]"
    (source,) = load_text(tmp_path, cluster).sources
    assert source == ClusterSource(platforms=(Platform("linux", "arm64"),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reserve: 1", ": reserve: unknown key (did you mean serve?)"),
        ("- a", ": expected a mapping, got a list"),
        ("a: [", ":2: not valid YAML"),
        ("data_dir: a\ndata_dir: b", ":2: duplicate key 'data_dir'"),
        ("data_dir: 5", ": data_dir: expected a file's path, got a number"),
        ("data_dir: ''", ": data_dir: expected a file's path, got nothing"),
        ('data_dir: "a\\0b"', ": data_dir: expected a file's path, got text"),
        ("state_url: mysql://x:hunter2@y/z", ": state_url: expected sqlite:///PATH or"),
        ("platforms: []", ": platforms: expected a list of platforms"),
        ("platforms: [a/b/c/d]", ": platforms: 'a/b/c/d' is not a platform"),
        ("platforms: {a: b}", ": platforms: expected a list of platforms, got a mapping"),
        ("registries: []", ": registries: expected a"),
        ("registries: {docker.io: [x]}", ": registries.docker.io: expected a mapping, got a list"),
        ("registries: {index.docker.io: {}}", ": registries.index.docker.io: write docker.io"),
        ("registries: {'https://a': {}}", ": registries.https://a: expected a registry's name"),
        ("registries: {'*': {username: a}}", ": registries.*: an endpoint and a username"),
        ("registries: {a.io: {reserv: 1}}", ": registries.a.io.reserv: unknown key (did you mean"),
        (
            "registries: {docker.io: {reserve: lots}}",
            ": registries.docker.io.reserve: expected a number or a percentage, got 'lots'",
        ),
        ("registries: {a.io: {reserve: -1}}", "reserve: expected a number or a percentage, got -1"),
        ("registries: {a.io: {reserve: true}}", "reserve: expected a number or a percentage"),
        ("registries: {a.io: {reserve: 101%}}", "reserve: expected a number or a percentage"),
        (
            "registries: {a.io: {password: hunter2}}",
            ": registries.a.io.password: secrets do not belong in this file (use password_env or"
            " password_file)",
        ),
        ("registries: {a.io: {password_env: hunter2!}}", "expected the name of an environment"),
        ("registries: {a.io: {password_env: A}}", ": registries.a.io: a password needs a username"),
        (
            "registries: {a.io: {username: a, password_env: A, password_file: b}}",
            ": registries.a.io: password_env and password_file exclude each other",
        ),
        ("registries: {a.io: {cert_file: a}}", "cert_file and key_file go together"),
        ("registries: {a.io: {endpoint: a.io}}", "endpoint: expected an http:// or https:// URL"),
        ("registries: {a.io: {endpoint: 'ftp://a'}}", "endpoint: expected an http:// or https://"),
        ("registries: {a.io: {endpoint: 'https://a:b'}}", "endpoint: expected an http:// or"),
        ("registries: {a.io: {endpoint: 'https://a?b=c'}}", "endpoint: expected an http:// or"),
        ("registries: {a.io: {endpoint: 'https://u:hunter2@a'}}", "credentials do not belong in"),
        ("registries: {a.io: {limit: 100}}", "limit: expected a mapping, got a number"),
        ("registries: {a.io: {limit: {pulls: 1}}}", "limit.window: a value is required"),
        ("registries: {a.io: {limit: {pulls: 0, window: 1}}}", "limit.pulls: expected"),
        ("registries: {a.io: {limit: {pulls: 1, window: 0s}}}", "limit.window: expected"),
        ("registries: {a.io: {limit: {pulls: 1, window: 6 hours}}}", "expected a duration such as"),
        (
            "registries: {a.io: {requests_per_second: fast}}",
            "per_second: expected a number, got",
        ),
        ("registries: {a.io: {pace: fast}}", "pace: expected smooth or burst, got 'fast'"),
        ("registries: {a.io: {pace: 5}}", "pace: expected smooth or burst, got a number"),
        ("registries: {a.io: {requests_per_second: 0}}", "requests_per_second: expected"),
        ("registries: {a.io: {max_concurrency: 1.5}}", "max_concurrency: expected"),
        ("registries: {a.io: {max_concurrency: '8'}}", "max_concurrency: expected"),
        ("registries: {a.io: {alternates: ['a b']}}", "alternates.0: expected a registry, or a"),
        ("registries: {a.io: {alternates: [https://a]}}", "alternates.0: expected a registry, or"),
        ("registries: {a.io: {alternates: [b.io, a.io/x]}}", "a.io.alternates.1: a registry is no"),
        (
            "registries: {docker.io: {alternates: [b.io, registry-1.docker.io]}}",
            "docker.io.alternates.1: a registry is no alternate of itself",
        ),
        (
            "registries: {a.io: {endpoint: 'http://127.0.0.1:5/', alternates: ['127.0.0.1:5']}}",
            "a.io.alternates.0: a registry is no alternate of itself",
        ),
        ("registries: {a.io: {alternates: [{private: true}]}}", "alternates.0.registry: a value"),
        ("registries: {a.io: {alternates: [{registry: b.c, x: 1}]}}", "alternates.0.x: unknown"),
        ("registries: {a.io: {alternates: [[b.io]]}}", "alternates.0: expected a registry, got a"),
        ("registries: {a.io: {immutable_tags: ['(']}}", "immutable_tags.0: expected a regular"),
        ("sources: images.txt", ": sources: expected a list, got 'images.txt'"),
        ("sources: [{clutser: {}}]", ": sources.0.clutser: unknown key (did you mean cluster?)"),
        (
            "sources: [{cluster: {namespaces: a}}]",
            "sources.0.cluster.namespaces: expected a",
        ),
        ("sources: [1]", ": sources.0: expected a file's path, got a number"),
        ("serve: {listen: 5000}", ": serve.listen: expected HOST:PORT, got a number"),
        ("serve: {listen: 'a:99999'}", ": serve.listen: expected HOST:PORT, got 'a:99999'"),
        ("serve: {tls: {cert_file: a}}", ": serve.tls.key_file: a value is required"),
        ("serve: {tag_ttl: -1}", ": serve.tag_ttl: expected a duration from 0"),
        ("serve: {access: [{users: ci}]}", ": serve.access.0.users: expected a list, got 'ci'"),
        *(
            (f"serve: {{access: [{{users: [a], repositories: ['{text}']}}]}}", message)
            for text, message in [
                ("corp/*", ": serve.access.0.repositories.0: expected the registry first, got"),
                ("ghcr.io/**", "expected a pattern without **, got 'ghcr.io/**'"),
                ("ghcr.io", "expected a pattern such as ghcr.io/corp/*, got 'ghcr.io'"),
                ("ghcr.io/Corp/*", "expected a pattern such as ghcr.io/corp/*, got"),
                ("ghcr.io/a b", "expected a pattern such as ghcr.io/corp/*, got"),
                ("docker.io/nginx", ": write docker.io/library/nginx"),
                ("ghcr.io/a//b", "expected a repository or a pattern, got 'ghcr.io/a//b'"),
            ]
        ),
        ("serve: {workers: 0}", ": serve.workers: expected"),
        ("serve: {workers: '2'}", ": serve.workers: expected"),
        ("serve: {reserve_for_sync: 1}", ": serve.reserve_for_sync: expected"),
        ("serve: {drain: soon}", ": serve.drain: expected a duration"),
        ("serve: {client_timeout: 0s}", ": serve.client_timeout: expected"),
        ("serve: {misses_per_second: 0.5}", ": serve.misses_per_second: expected"),
        ("serve: {misses_per_second: .inf}", ": serve.misses_per_second: expected"),
        ("serve: {max_fetches: 0}", ": serve.max_fetches: expected"),
        ("schedule: [{name: a}]", ": schedule.0: expected cron, every or by, got none of them"),
        (
            "schedule: [{name: a, cron: 0 3 * * *, every: 6h}]",
            ": schedule.0: expected one of cron and every, got both",
        ),
        (
            "schedule: [{name: a, every: 6h, timezone: UTC}]",
            ": schedule.0: timezone goes with cron and by, not with every",
        ),
        *(
            (f"schedule: [{{name: a, {keys}}}]", f": schedule.0{message}")
            for keys, message in [
                ("by: sat 02:00", ".by: expected five fields as in crontab, got 'sat 02:00'"),
                ("by: 0 2 30 2 *", ".by: expected a day that comes, got '0 2 30 2 *'"),
                ("by: 0 2 * * sat, lead: 0s", ".lead: expected a duration of at least 1s"),
                ("by: 0 2 * * sat, jitter: 1d", ": jitter must be less than lead"),
                ("by: 0 2 * * sat, lead: 1h, jitter: 1h", ": jitter must be less than lead"),
                ("cron: 0 3 * * *, lead: 1h", ": lead goes with by alone"),
                ("by: 0 2 * * sat, cron: 0 3 * * *, lead: 1h", ": lead goes with by alone"),
                ("by: 0 2 * * sat, every: 6h, lead: 1h", ": lead goes with by alone"),
                ("by: 0 2 * * sat, pace: smooth", ": pace goes without by"),
            ]
        ),
        *(
            (
                f"schedule: [{{name: a, every: {every}}}]",
                f"schedule.0.every: expected a duration {expected}",
            )
            for every, expected in [
                ("0s", "of at least 1s, got '0s'"),
                ("900ms", "of at least 1s, got '900ms'"),
                ("daily", "such as 90s, 5m or 6h, got 'daily'"),
                ("[]", "such as 90s, 5m or 6h, got a list"),
            ]
        ),
        (
            "schedule: [{name: a, every: 6h, platforms: []}]",
            ": schedule.0.platforms: expected a list of platforms",
        ),
        (
            "sources: ['-']",
            ": sources.0: expected a file's path, not -: standard input is for the command line",
        ),
        (
            "schedule: [{name: a, every: 6h, sources: ['-']}]",
            ": schedule.0.sources.0: expected a file's path, not -: standard",
        ),
        (
            "schedule: [{name: a, cron: daily}]",
            "schedule.0.cron: expected five fields as in",
        ),
        *(
            (
                f"schedule: [{{name: {name}, cron: 0 3 * * *}}]",
                "schedule.0.name: expected at most 100 printable characters",
            )
            for name in ("a" * 101, r'"\e[31m"', r'"a\nb"')
        ),
        (
            "schedule: [{name: a, cron: 0 3 30 2 *}]",
            "schedule.0.cron: expected a day that comes, got '0 3 30 2 *'",
        ),
        *(
            (
                f"schedule: [{{name: a, cron: 0 3 * * *, timezone: {zone}}}]",
                "schedule.0.timezone: expected a time zone",
            )
            for zone in ("CEST5", "Europe", "../UTC", "''", "'a b'", "3")
        ),
        (
            "schedule: [{name: a, cron: 0 3 * * *, sources: [b]}, {name: c, cron: 0 4 * * *}]",
            ": schedule.1.sources: a value is required without `sources`",
        ),
        ("schedule: [{name: a, cron: 99 * * * *}]", "expected a minute from 0 to 59, got '99'"),
        (
            "schedule: [{name: a, cron: 0 3 * * *}, {name: a, cron: 0 4 * * *}]",
            ": schedule: the name 'a' is used twice",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    told = fault(tmp_path, text)
    assert message in told
    assert "hunter2" not in told


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "prefetch.yaml"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(path, {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})
    path.write_bytes(b"data_dir: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path, {})
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="larger than"):
        load(path, {})
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="nested deeper"):
        load(path, {})


def test_the_order_of_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, config = tmp_path / "here", tmp_path / "home/.config/prefetch"
    here.mkdir()
    config.mkdir(parents=True)
    monkeypatch.chdir(here)
    environ = {"HOME": str(tmp_path / "home")}
    (config / "prefetch.yaml").write_text("sources: [a.txt]")
    assert load(None, environ).sources == (config / "a.txt",)
    (here / "prefetch.yaml").write_text("sources: [b.txt]")
    assert load(None, environ).sources == (Path("b.txt"),)
    assert load(config / "prefetch.yaml", environ).sources == (config / "a.txt",)
    moved = {"XDG_CONFIG_HOME": str(tmp_path / "elsewhere")}
    (here / "prefetch.yaml").unlink()
    assert load(None, moved).path in (None, Path("/etc/prefetch/prefetch.yaml"))


def test_the_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir({"HOME": "/root"}) == Path("/var/lib/prefetch")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_data_dir({"HOME": "/home/a"}) == Path("/home/a/.local/share/prefetch")
    assert default_data_dir({"XDG_DATA_HOME": "/data"}) == Path("/data/prefetch")


def test_without_a_file_neither_pydantic_nor_yaml_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; from prefetch.config.load import load; load(None, {'HOME': sys.argv[1]});"
        "sys.exit('pydantic' in sys.modules or 'yaml' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run(command, cwd=tmp_path, env=environ, check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("90s", 90), ("5m", 300), ("6h", 21600), ("200ms", 0.2), ("1h30m", 5400)),
        *(("1.5h", 5400), ("2d", 172800), (60, 60), (0.5, 0.5), (0, 0)),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert values.duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "5", "5 m", "m", "-5m", "1e9s", True, None, "99999999d", []])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        values.duration(value)


@pytest.mark.parametrize(
    "text",
    ["0 3 * * *", "*/5 0-6 1,15 jan-mar mon-fri", "0 0 * * 0", "0 0 31 12 7"],
)
def test_crontab_fields(text: str) -> None:
    assert values.cron(text) == text


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "5-1 * * * *", "* * 0 * *", "* * * foo *", "*/0 * * * *"]
)
def test_what_is_no_crontab(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        values.cron(text)


def test_addresses_to_listen_on() -> None:
    assert values.listen("[::1]:5000") == Listen("::1", 5000)
    assert str(Listen("::1", 5000)) == "[::1]:5000"
    assert str(values.listen("localhost:0")) == "localhost:0"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "*",
            "*/corp/*",
            "ghcr.io/corp/*",
            "ghcr.io*",
            "ghcr.io/corp/app",
            "docker.io/library/nginx",
        ),
        *("localhost/app", "localhost:5000/*", "[::1]:5000/corp/*", "docker.io/lib?ary/n*x"),
    ],
)
def test_patterns_of_repositories(text: str) -> None:
    assert values.access_pattern(text) == text


def load_or_refuse(path: Path) -> str:
    try:
        return str(load(path, {"HOME": "/"}).path)
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (".\tdata_dir: x\n", r".\tdata_dir: unknown key"),
        ('registries: {"a\\eb": {nope: 1}}\n', r"registries.a\x1bb"),
        ('"data\\ndir": x\n', r"data\ndir: unknown key"),
    ],
)
def test_a_key_cannot_write_to_the_terminal(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "prefetch.yaml"
    path.write_text(text)
    error = load_or_refuse(path)
    assert error.startswith(f"{path}: {told}")
    assert error.isprintable()


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60), line=st.sampled_from(WHOLE.splitlines(keepends=True)))
def test_any_file_is_settings_or_a_config_error(
    data: bytes, line: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(WHOLE.encode().replace(line.encode(), data, 1))
    told = load_or_refuse(path)
    assert told.startswith(str(path))
    assert told.isprintable()

"""Options of `serve` that stand before the configuration: they are how a deployment composes."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefetch.app.requests import Place
from prefetch.app.serve import ServeRequest, serve_settings
from support.authority import Authority, Certificate
from support.cache import ServeFactory
from support.processes import CommandLine


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def certificate(authority: Authority) -> Certificate:
    return authority.issue("127.0.0.1")


def scheduled(path: Path) -> Path:
    path.write_text("schedule: [{name: hourly, cron: '17 * * * *', sources: [images.txt]}]\n")
    return path


async def test_tls_needs_no_configuration(
    serve: ServeFactory, authority: Authority, certificate: Certificate
) -> None:
    files = ("--tls-cert-file", certificate.cert_file, "--tls-key-file", certificate.key_file)
    cache = await serve(*files, trust=authority.trust())
    assert cache.scheme == "https"


async def test_options_stand_before_the_configured_certificate(
    serve: ServeFactory, authority: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    config = tmp_path / "prefetch.yaml"
    config.write_text("serve: {tls: {cert_file: gone.pem, key_file: gone.key}}\n")
    files = ("--tls-cert-file", certificate.cert_file, "--tls-key-file", certificate.key_file)
    cache = await serve(*files, config=config, trust=authority.trust())
    assert cache.get("/healthz")[0] == 200


async def test_half_a_certificate_is_a_mistake(cli: CommandLine, certificate: Certificate) -> None:
    variables = {"PREFETCH_SERVE_TLS_CERT_FILE": str(certificate.cert_file)}
    refused = await cli("serve", "--listen", "127.0.0.1:0", env=variables)
    assert refused.code == 2
    assert "--tls-cert-file and --tls-key-file go together" in refused.stderr


async def test_a_certificate_that_is_not_there_is_told_before_it_serves(cli: CommandLine) -> None:
    files = ("--tls-cert-file", "gone.pem", "--tls-key-file", "gone.key")
    refused = await cli("serve", "--listen", "127.0.0.1:0", *files)
    assert (refused.code, "gone.pem" in refused.stderr) == (2, True)


def test_the_schedule_can_be_left_to_others(tmp_path: Path) -> None:
    place = Place(config=scheduled(tmp_path / "prefetch.yaml"))
    assert [each.name for each in serve_settings(ServeRequest(place)).schedule] == ["hourly"]
    assert serve_settings(ServeRequest(place, no_schedule=True)).schedule == ()


async def test_the_environment_can_say_so(cli: CommandLine, tmp_path: Path) -> None:
    """A word that is neither yes nor no is refused: so the variable was read."""
    config = scheduled(tmp_path / "prefetch.yaml")
    variables = {"PREFETCH_SERVE_NO_SCHEDULE": "perhaps"}
    refused = await cli("--config", config, "serve", env=variables)
    assert refused.code == 2
    assert "perhaps" in refused.stderr

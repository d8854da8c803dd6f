"""What `prefetch probe` refuses before it asks anybody, in one line and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from prefetch.cli import main
from support.processes import CommandLine

PASSWORD = "pw-5b1c9e"
HERE = ["--cache-url", "http://127.0.0.1:1"]
USER = ["--username", "alice"]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CliRunner()


def refused(runner: CliRunner, *words: str, env: dict[str, str] | None = None) -> str:
    """The one line that it says."""
    result: Result = runner.invoke(main, ["probe", *words], env=env)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("prefetch: ")
    assert line.isprintable()
    assert PASSWORD not in line
    return line


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("cache.example:5000", "no scheme"),
        ("ftp://cache.example", "not a URL"),
        ("http://", "not a URL"),
        ("http://cache.example:5000/docker.io", "no path"),
        ("https://cache.example/v2/x", "no path"),
        ("https://cache.example?ns=docker.io", "more than a host"),
        ("https://cache.example#x", "more than a host"),
        ("https://cache.example:0", "more than a host"),
        ("https://cache.example:99999", "not a URL"),
        ("https://-_:x", "not a URL"),
        ("https://ca\x1bche", "not a URL"),
        (f"https://alice:{PASSWORD}@cache.example", "credentials do not belong in a URL"),
        (f"https://alice:{PASSWORD}/x@cache.example", "credentials do not belong in a URL"),
        (f"https:/alice:{PASSWORD}@cache.example", "credentials do not belong in a URL"),
        (f"alice:{PASSWORD}@cache.example", "credentials do not belong in a URL"),
    ],
)
def test_addresses_that_are_none(runner: CliRunner, url: str, words: str) -> None:
    line = refused(runner, "--cache-url", url)
    assert "--cache-url: " in line
    assert words in line


def test_an_address_is_needed(runner: CliRunner) -> None:
    result = runner.invoke(main, ["probe"])
    assert result.exit_code == 2
    assert "--cache-url" in result.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http://[::1]:1"])
def test_addresses_that_are_asked(runner: CliRunner, url: str) -> None:
    result = runner.invoke(main, ["probe", "nginx"], env={"PREFETCH_CACHE_URL": url})
    assert result.exit_code == 1
    assert "cannot reach" in result.stdout
    assert result.stdout.endswith(f"{url.rstrip('/')}: no image was asked for\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*USER], "--username needs either --password-env or --password-file"),
        ([*USER, "--password-env", "P", "--password-file", "f"], "--username needs either"),
        (["--password-env", "P"], "a password needs --username"),
        (["--username", "", "--password-env", "P"], "is not empty and has no colon"),
        (["--username", "a:b", "--password-env", "P"], "is not empty and has no colon"),
        ([*USER, "--password-env", "ABSENT"], "--password-env: the environment has no ABSENT"),
        ([*USER, "--password-env", "EMPTY"], "the password is missing: $EMPTY is empty"),
        ([*USER, "--password-env", "LINES"], "the password in $LINES has control characters"),
        ([*USER, "--password-file", "absent"], "cannot read absent: No such file or directory"),
        ([*USER, "--password-file", "newline"], "the password is missing: newline is empty"),
        ([*USER, "--password-file", "latin"], "--password-file: latin is not UTF-8"),
        ([*USER, "--password-file", "huge"], "huge is larger than"),
        ([*USER, "--password-file", "lines"], "the password in lines has control characters"),
        (["--timeout", "0"], "--timeout: expected more than nothing"),
        (["--timeout", "soon"], "--timeout: expected a duration"),
        (["--cert-file", "c"], "--cert-file and --key-file go together"),
        (["--key-file", "k"], "--cert-file and --key-file go together"),
    ],
)
def test_options_that_do_not_fit(runner: CliRunner, words: list[str], said: str) -> None:
    Path("newline").write_text("\n")
    Path("latin").write_bytes(b"p\xe4ss")
    Path("huge").write_bytes(b"x" * (2 << 20))
    Path("lines").write_text(f"{PASSWORD}\n\n")
    env = {"EMPTY": "\n", "P": PASSWORD, "LINES": f"{PASSWORD}\nmore"}
    assert said in refused(runner, *HERE, *words, env=env)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ca-file", "absent"], "--ca-file: cannot use absent: No such file"),
        (["--ca-file", "text"], "--ca-file: cannot use text: "),
        (["--ca-file", "empty"], "--ca-file: cannot use empty: "),
        (["--cert-file", "text", "--key-file", "text"], "--cert-file and --key-file: cannot use"),
        (["--cert-file", "absent", "--key-file", "text"], "cannot use absent: No such file"),
    ],
)
def test_certificates_that_cannot_be_used(runner: CliRunner, words: list[str], said: str) -> None:
    Path("text").write_text(PASSWORD)
    Path("empty").write_text("")
    assert said in refused(runner, "--cache-url", "https://127.0.0.1:1", *words)


async def test_a_nodes_configuration_is_judged_and_nobody_asked(cli: CommandLine) -> None:
    cache = ("--cache-url", "https://cache.example:5000")
    tree = cli.home / "tree"
    written = await cli(
        *("client-config", "k3s", *cache, "--registry", "docker.io", "--registry", "quay.io"),
        *("--out", tree),
    )
    assert written.code == 0, written.stderr
    node = ("--target", "k3s", "--config", tree / "etc/rancher/k3s/registries.yaml")

    shown = await cli("probe", *cache, *node)
    rows = [line.split(maxsplit=2) for line in shown.stdout.splitlines()]
    assert shown.code == 0, shown.stderr
    assert rows[0] == ["REGISTRY", "PULLS", "FROM"]
    assert ["docker.io", "fallback", "cache.example:5000, then docker.io itself"] in rows
    assert ["ghcr.io", "bypass", "ghcr.io itself"] in rows
    assert max(map(len, shown.stdout.splitlines())) <= 80

    for registry, code in (("Quay.IO", 0), ("ghcr.io", 1)):
        told = await cli("probe", *cache, *node, "--registry", registry, "-o", "json")
        assert told.code == code, told.stderr
        assert told.json["ok"] is (code == 0)
        assert [each["registry"] for each in told.json["registries"]] == [registry.lower()]
    assert told.json["registries"][0] == {
        "registry": "ghcr.io",
        "pulls": "bypass",
        "mirrors": [],
        "itself": True,
        "notes": [],
    }


async def test_a_mirror_without_the_registrys_name_fails(cli: CommandLine) -> None:
    conf = cli.home / "registries.conf"
    conf.write_text(
        '[[registry]]\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "c:5000"\n'
    )
    node = ("--target", "podman", "--config", conf, "--cache-url", "http://c:5000")
    done = await cli("probe", *node)
    assert done.code == 1
    assert "it takes it for docker.io" in done.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--target", "k3s"], "--target goes with --config FILE"),
        (["--target", "k8s", "--config", "x"], "k8s: its configuration is not read (known are k3s"),
        (["--target", "k3s", "--config", "none"], "none: No such file"),
        (["--registry", "quay.io"], "--registry goes with --target"),
        (
            ["--target", "k3s", "--config", "/dev/null", "--registry", "u:p@x"],
            "expected a registry",
        ),
        (["--ca-file", ""], "--ca-file: an empty path names nothing"),
        (["--cache-url", "http://d"], "one --cache-url at a time"),
    ],
)
async def test_what_cannot_be_judged(cli: CommandLine, words: list[str], complaint: str) -> None:
    done = await cli("probe", "--cache-url", "http://c:5000", *words)
    assert (done.code, done.stdout) == (2, "")
    assert complaint in done.stderr

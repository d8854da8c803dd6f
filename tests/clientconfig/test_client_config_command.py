"""`prefetch client-config` as a command: what goes where, and what is refused before it writes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import yaml

from prefetch.clientconfig.targets import TARGETS
from support.processes import CommandLine

CACHE = ("--cache-url", "https://cache.example:5000")


async def test_one_file_goes_to_stdout_and_nothing_else(cli: CommandLine) -> None:
    done = await cli("client-config", "k3s", *CACHE, "--registry", "quay.io")
    assert done.code == 0, done.stderr
    assert yaml.safe_load(done.stdout) == {
        "mirrors": {"quay.io": {"endpoint": ["https://cache.example:5000"]}}
    }
    assert "spends this node's own pulls" in done.stderr
    assert "restart: systemctl restart k3s" in done.stderr
    quiet = await cli("client-config", "k3s", *CACHE, "--registry", "quay.io", "-q")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")


async def test_the_registries_of_the_configuration_are_mirrored(
    cli: CommandLine, tmp_path: Path
) -> None:
    config = tmp_path / "prefetch.yaml"
    config.write_text("registries: {registry.corp.example: {}}\n")
    done = await cli("--config", config, "client-config", "k3s", *CACHE)
    assert {"docker.io", "ghcr.io", "registry.corp.example"} <= set(
        yaml.safe_load(done.stdout)["mirrors"]
    )
    assert (await cli("client-config", "k3s", *CACHE, "--registry", "x.example")).code == 2
    config.write_text("registries: {'*': {}}\n")
    done = await cli("--config", config, "client-config", "k3s", *CACHE, "--registry", "x.example")
    assert done.code == 0, done.stderr


async def test_a_tree_is_written_with_its_permissions_and_not_overwritten(
    cli: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("wonder:land\n")
    words = ("client-config", "k3s", *CACHE, "--username", "alice")
    words += ("--password-file", str(tmp_path / "password"), "--no-fallback")
    words += ("--out", str(tmp_path / "tree"))
    written = tmp_path / "tree/etc/rancher/k3s/registries.yaml"
    beside = tmp_path / "tree/etc/rancher/k3s/config.yaml.d/50-prefetch.yaml"

    first = await cli(*words)
    assert first.code == 0, first.stderr
    assert first.stdout.splitlines() == [str(written), str(beside)]
    assert "wonder" not in first.stdout + first.stderr
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(beside.stat().st_mode) == 0o644
    assert "wonder:land" in written.read_text()

    again = await cli(*words)
    assert again.code == 0, "the same content is no other content"

    beside.write_text("mine: true\n")
    written.unlink()
    refused = await cli(*words)
    assert (refused.code, refused.stdout) == (2, "")
    assert f"{beside}: there already" in refused.stderr
    assert not written.exists()
    assert beside.read_text() == "mine: true\n"

    forced = await cli(*words, "--force")
    assert forced.code == 0, forced.stderr
    assert "disable-default-registry-endpoint: true" in beside.read_text()
    assert [path.name for path in beside.parent.iterdir()] == [beside.name]


async def test_several_files_go_to_stdout_under_their_names(cli: CommandLine) -> None:
    done = await cli("client-config", "rke", *CACHE, "--registry", "docker.io")
    assert "### /cluster.yml\n" in done.stdout
    assert "\n### /etc/docker/daemon.json\n{" in done.stdout


async def test_json_has_each_file_with_its_mode(cli: CommandLine, tmp_path: Path) -> None:
    done = await cli("client-config", "containerd", *CACHE, "--registry", "ghcr.io", "-o", "json")
    document = json.loads(done.stdout)
    assert done.stderr == ""
    assert set(document) == {"target", "files", "restart", "notes"}
    [file] = document["files"]
    assert file["path"] == "/etc/containerd/certs.d/ghcr.io/hosts.toml"
    assert (file["mode"], file["written_to"]) == ("0644", None)
    assert 'server = "https://ghcr.io"' in file["content"]
    out = ("--out", str(tmp_path / "x"))
    done = await cli(
        "client-config", "containerd", *CACHE, "--registry", "ghcr.io", "-o", "json", *out
    )
    [file] = json.loads(done.stdout)["files"]
    assert Path(file["written_to"]).read_text() == file["content"]


async def test_merge_prints_and_writes_back_only_when_told(
    cli: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"log-driver": "journald"}')
    path.chmod(0o600)
    words = ("client-config", "docker", *CACHE, "--registry", "docker.io", "--merge", str(path))
    printed = await cli(*words)
    assert json.loads(printed.stdout) == {
        "log-driver": "journald",
        "registry-mirrors": ["https://cache.example:5000"],
    }
    assert path.read_text() == '{"log-driver": "journald"}'
    written = await cli(*words, "--force")
    assert written.code == 0, written.stderr
    assert written.stdout == f"{path}\n"
    assert path.read_text() == printed.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o600, 0o644, 0o660])
async def test_merge_lets_nobody_read_who_could_not(
    cli: CommandLine, tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "registries.yaml"
    path.write_text("mirrors: {}\n")
    path.chmod(mode)
    before = path.stat()
    done = await cli("client-config", "k3s", *CACHE, "--merge", path, "--force")
    assert done.code == 0, done.stderr
    after = path.stat()
    assert stat.S_IMODE(after.st_mode) == mode
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


async def test_nothing_is_written_where_something_is_in_the_way(
    cli: CommandLine, tmp_path: Path
) -> None:
    there = tmp_path / "tree/etc/containerd/certs.d/gcr.io"
    there.parent.mkdir(parents=True)
    there.write_text("x")
    done = await cli("client-config", "containerd", *CACHE, "--out", tmp_path / "tree", "--force")
    assert done.code == 2
    assert f"{there}: this is no directory" in done.stderr
    assert list(there.parent.iterdir()) == [there]


async def test_merge_writes_through_a_link(cli: CommandLine, tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "registries.yaml"
    real.write_text("mirrors: {}\n")
    link.symlink_to(real)
    done = await cli("client-config", "k3s", *CACHE, "--merge", link, "--force")
    assert done.code == 0, done.stderr
    assert link.is_symlink()
    assert "cache.example" in real.read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["k8s", *CACHE], "'k8s' is no target (known are k3s, rke2"),
        (["k3s"], "where is the cache?"),
        (["k3s", "--cache-url", "cache.example"], "has no scheme"),
        (["docker", "--mirror", "docker.io=https://m.example/hub"], "must have no path"),
        (["k3s", *CACHE, "--password", "hunter2"], "a password on the command line"),
        (["k3s", *CACHE, "--username", "a"], "--username needs either"),
        (["k3s", *CACHE, "--password-env", "X"], "a password needs --username"),
        (["k3s", *CACHE, "--username", "a", "--password-env", "X"], "the environment has no X"),
        (
            ["k3s", *CACHE, "--username", "a", "--password-file", "none"],
            "cannot read none: No such file",
        ),
        (["k3s", *CACHE, "--username", "a:b", "--password-file", "password"], "has no colon"),
        (["k3s", *CACHE, "--auth-file", "none"], "none: No such file"),
        (["k3s", *CACHE, "--auth-file", "password"], "password: not valid JSON"),
        (["k3s", *CACHE, "--auth-file", "list.json"], "list.json: the file is not a JSON object"),
        (["k3s", *CACHE, "--identity-token-file", "empty"], "expected one line with a token"),
        (["k3s", *CACHE, "--registry", "dockr.io"], "the cache does not ask it"),
        (["podman", *CACHE, "--ca-file", "none.pem"], "none.pem: No such file"),
        (["podman", *CACHE, "--ca-file", "password"], "password: this is no PEM file"),
        (["talos", *CACHE, "--merge", "empty"], "talos: its files cannot be merged"),
        (["k3s", *CACHE, "--merge", "empty", "--out", "x"], "--merge and --out: one of them"),
        (["k3s", *CACHE, "--rewrite", "a{99999999999999999999}=x"], "no regular expression"),
        (["k3s", *CACHE, "--rewrite", "(" * 3000 + ")" * 3000 + "=x"], "no regular expression"),
        (["k3s", "--mirror", "https://u:hunter2@m.example"], "expected REGISTRY=URL"),
        (["k3s", "--mirror", "https://u:hunter2==@m.example"], "expected REGISTRY=URL"),
        (["k3s", *CACHE, "--registry", "https://u:hunter2@m"], "expected a registry's name"),
        (["k3s", "--cache-url", "https://u:hunter2%40c:5000"], "--cache-url"),
        (["k3s", "--cache-url", "https://u:hunter2/c:5000"], "--cache-url"),
        (["k3s", "--cache-url", "https://c:5000?token=hunter2"], "--cache-url"),
        (["k3s", *CACHE, "--ca-file", "u:hunter2@h=/x"], "expected PATH or HOST=PATH"),
        (["buildkit", *CACHE, "--no-fallback"], "--no-fallback cannot be had"),
        (["k3s", *CACHE, "--out", ""], "--out: an empty path names nothing"),
        (["k3s", *CACHE, "--merge", ""], "--merge: an empty path names nothing"),
        (["k3s", *CACHE, "--auth-file", ""], "--auth-file: an empty path names nothing"),
        (["k3s", *CACHE, "--ca-file", ""], "--ca-file: expected PATH or HOST=PATH"),
        (["k3s", *CACHE, "--merge", "pipe"], "pipe: not a regular file"),
        (["podman", *CACHE, "--ca-file", "pipe"], "pipe: not a regular file"),
    ],
)
async def test_bad_input_is_one_line_and_writes_nothing(
    cli: CommandLine, words: list[str], complaint: str
) -> None:
    for name, text in {"password": "hunter2", "empty": "", "list.json": "[]"}.items():
        (cli.home / name).write_text(text)
    os.mkfifo(cli.home / "pipe")
    before = sorted(cli.home.rglob("*"))
    done = await cli("client-config", *words)
    assert (done.code, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stderr.strip().count("\n") == 0 or done.stderr.startswith("Usage:")
    assert sorted(cli.home.rglob("*")) == before


@pytest.mark.parametrize(
    ("environment", "words", "fallback"),
    [
        ({"NO_FALLBACK": "1"}, (), False),
        ({"CLIENT_CONFIG_NO_FALLBACK": "true"}, (), False),
        ({"NO_FALLBACK": "0"}, (), True),
        ({"FALLBACK": "0"}, (), False),
        ({"NO_FALLBACK": "1"}, ("--fallback",), True),
        ({"CLIENT_CONFIG_FALLBACK": "1", "NO_FALLBACK": "1"}, (), True),
        ({"FALLBACK": "1", "CLIENT_CONFIG_NO_FALLBACK": "1"}, (), False),
    ],
)
async def test_a_flags_opposite_is_read_from_the_environment(
    cli: CommandLine, environment: dict[str, str], words: tuple[str, ...], fallback: bool
) -> None:
    variables = {f"PREFETCH_{name}": value for name, value in environment.items()}
    done = await cli("client-config", "k3s", *CACHE, *words, env=variables)
    assert done.code == 0, done.stderr
    assert ("disable-default-registry-endpoint" not in done.stdout) is fallback


async def test_a_key_with_a_password_is_not_shown(cli: CommandLine) -> None:
    auth = cli.home / "auth.json"
    entry = {"username": "a", "password": "b"}
    auth.write_text(json.dumps({"auths": {"https://u:hunter2@elsewhere": entry}}))
    done = await cli("client-config", "k3s", *CACHE, "--auth-file", auth)
    assert done.code == 0
    assert "nothing here asks …@elsewhere" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


async def test_the_list_names_every_target(cli: CommandLine) -> None:
    done = await cli("client-config", "--list")
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == [t.name for t in TARGETS]
    assert max(map(len, lines)) <= 80
    listed = json.loads((await cli("client-config", "--list", "-o", "json")).stdout)
    assert [row["target"] for row in listed] == [target.name for target in TARGETS]
    assert set(listed[0]) == {"target", "title", "files", "restart"}

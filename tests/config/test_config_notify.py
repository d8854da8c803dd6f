"""`notify` in `prefetch.yaml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefetch.config.load import load
from prefetch.config.settings import Settings
from prefetch.credentials.credential import Secret
from prefetch.errors import ConfigError
from prefetch.sync.hooks import EVENTS, ExecHook, SecretSource, Webhook


def load_text(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "prefetch.yaml"
    path.write_text(text)
    return load(path, {"HOME": str(tmp_path)})


def test_hooks(tmp_path: Path) -> None:
    built = load_text(
        tmp_path,
        """
notify:
  - name: ops
    url: https://ann:hunter2@hooks.example.com/x?key=1
    events: [run_failed, deadline_missed]
    secret_file: secrets/ops
    headers_env: {Authorization: HOOK_TOKEN}
    timeout: 3s
    ca_file: /etc/ssl/corp.pem
  - {name: chat, url_env: CHAT_URL}
  - {name: other, url_file: other.url, secret_env: OTHER}
  - {name: pager, exec: [bin/page, --team, registry]}
  - {name: log, exec: [logger]}
""",
    )
    assert built.notify == (
        Webhook(
            "ops",
            SecretSource(Secret("https://ann:hunter2@hooks.example.com/x?key=1")),
            ("run_failed", "deadline_missed"),
            SecretSource(file=tmp_path / "secrets/ops"),
            (("Authorization", "HOOK_TOKEN"),),
            3.0,
            Path("/etc/ssl/corp.pem"),
        ),
        Webhook("chat", SecretSource(env="CHAT_URL"), EVENTS),
        Webhook(
            "other",
            SecretSource(file=tmp_path / "other.url"),
            secret=SecretSource(env="OTHER"),
            timeout=10.0,
        ),
        ExecHook("pager", (f"{tmp_path}/bin/page", "--team", "registry")),
        ExecHook("log", ("logger",)),
    )
    assert "hunter2" not in repr(built)
    assert "key=1" not in repr(built)


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("{url: https://a}", "notify.0.name: a value is required"),
        ("{name: a}", "notify.0: one of url, url_env, url_file and exec is required"),
        ("{name: a, url: https://a, exec: [b]}", "one of url, url_env, url_file and exec is"),
        ("{name: a, exec: []}", "notify.0.exec: "),
        ("{name: a, exec: page}", "notify.0.exec: expected a list, got 'page'"),
        ("{name: a, url: 'ftp://hunter2'}", "notify.0.url: expected an http:// or https:// URL"),
        ("{name: a, url: 'http://[hunter2'}", "notify.0.url: expected an http:// or https:// URL"),
        ("{name: a, url: 'http://a/hunter2 b'}", "notify.0.url: expected an http:// or https://"),
        ("{name: a, url: [hunter2]}", "notify.0.url: expected a URL, got a list"),
        ("{name: a, url: https://a, events: [all]}", "notify.0.events.0: expected 'run_failed'"),
        ("{name: a, url: https://a, events: []}", "notify.0.events: "),
        (
            "{name: a, url: https://a, secret: hunter2}",
            "notify.0.secret: secrets do not belong in this file (use secret_env or secret_file)",
        ),
        ("{name: a, url: https://a, secret_env: hunter-2}", "expected the name of an environment"),
        (
            "{name: a, url: https://a, secret_env: A, secret_file: b}",
            "notify.0: secret_env and secret_file exclude each other",
        ),
        ("{name: a, exec: [b], secret_env: A}", "notify.0: secret_env does not go with exec"),
        ("{name: a, exec: [b], ca_file: c}", "notify.0: ca_file does not go with exec"),
        (
            "{name: a, url: https://a, headers_env: {Authorization: Bearer hunter2}}",
            "notify.0.headers_env.Authorization: expected the name of an environment variable",
        ),
        ("{name: a, url: https://a, headers_env: {'a b': C}}", "expected a header's name such as"),
        ("{name: a, url: https://a, headers_env: {Webhook-Id: C}}", "is set by prefetch itself"),
        ("{name: a, url: https://a, headers_env: {host: C}}", "host is set by prefetch itself"),
        ("{name: a, url: https://a, timeout: 0s}", "notify.0.timeout: expected"),
        ("{name: a, url: https://a, retries: 3}", "notify.0.retries: unknown key"),
    ],
)
def test_mistakes_are_told_in_one_line_without_secrets(
    tmp_path: Path, hook: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, f"notify: [{hook}]")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)


def test_a_name_is_for_one_hook(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="notify: the name 'a' is used twice"):
        load_text(tmp_path, "notify: [{name: a, exec: [b]}, {name: a, url: https://c}]")

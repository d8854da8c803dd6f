"""Webhooks: signed, posted once, and judged by what was answered."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prefetch.credentials.credential import Secret
from prefetch.errors import CredentialError
from prefetch.sync.hooks import Attempt, Message, SecretSource, Webhook
from prefetch.sync.webhooks import post, sign
from support.authority import Authority
from support.clock import ManualClock
from support.http import basic
from support.receiver import Receiver, Reply

MESSAGE = Message("msg_1", "run_failed", '{"text": "a sync failed: übel"}')
KEY = base64.b64encode(bytes(range(32))).decode()
NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def sent(
    url: str, environ: Mapping[str, str] | None = None, *, timeout: float = 5.0, **more: object
) -> Attempt:
    hook = Webhook("ops", SecretSource(Secret(url)), timeout=timeout, **more)  # type: ignore[arg-type]
    return await post(hook, MESSAGE, environ=environ or {}, clock=ManualClock(NOW))


def test_the_signature_is_that_of_the_specifications_libraries() -> None:
    # The vector that the libraries of Standard Webhooks are tested with.
    signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    told = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}')
    assert sign(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), *told) == signature


@pytest.mark.real("openssl")
@pytest.mark.parametrize(("secret", "key"), [(f"whsec_{KEY}", bytes(range(32))), ("hü!", b"")])
def test_openssl_comes_to_the_same_signature(secret: str, key: bytes) -> None:
    signed = f"msg_1.1767225600.{MESSAGE.body}".encode()
    word = f"hexkey:{(key or secret.encode()).hex()}"
    command = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", word, "-binary"]
    digest = subprocess.run(command, input=signed, capture_output=True, check=True).stdout
    expected = f"v1,{base64.b64encode(digest).decode()}"
    assert sign(Secret(secret), "msg_1", 1767225600, MESSAGE.body) == expected


@pytest.mark.parametrize("secret", ["whsec_", "whsec_no base64", "whsec_abc"])
def test_a_secret_that_is_none_is_named_without_showing_it(secret: str) -> None:
    with pytest.raises(CredentialError) as caught:
        sign(Secret(secret), "msg_1", 0, "{}")
    assert secret not in str(caught.value).replace("begins with whsec_", "")


async def test_what_is_sent(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"whsec_{KEY}\n")
    async with Receiver() as receiver:
        url = receiver.url.replace("//", "//ann:p%40ss@") + "/hook?token=t#fragment"
        attempt = await sent(
            url,
            {"TEAM_TOKEN": "Bearer team"},
            secret=SecretSource(file=tmp_path / "secret"),
            headers=(("X-Team", "TEAM_TOKEN"),),
        )
    assert attempt == Attempt(taken=True, said="answered 204")
    (got,) = receiver.received
    assert (got.path, got.body) == ("/hook?token=t", MESSAGE.body)
    assert got.headers["Authorization"] == basic("ann", "p@ss")["Authorization"]
    assert got.headers["Content-Type"] == "application/json"
    assert got.headers["X-Team"] == "Bearer team"
    assert got.headers["webhook-id"] == "msg_1"
    assert got.headers["webhook-timestamp"] == "1767225600"
    signature = sign(Secret(f"whsec_{KEY}"), "msg_1", 1767225600, MESSAGE.body)
    assert got.headers["webhook-signature"] == signature
    assert got.headers["User-Agent"].startswith("prefetch/")
    assert not any(name.startswith("Docker-") for name in got.headers)


async def test_without_a_secret_nothing_is_signed() -> None:
    async with Receiver() as receiver:
        assert (await sent(receiver.url)).taken
    assert "webhook-signature" not in receiver.received[0].headers


@pytest.mark.parametrize(
    ("reply", "attempt"),
    [
        (Reply(200, text="x" * 100_000), Attempt(taken=True, said="answered 200")),
        (Reply(500), Attempt(taken=False, said="answered 500")),
        (Reply(503, (("Retry-After", "7"),)), Attempt(taken=False, said="answered 503", wait=7.0)),
        (Reply(429, (("Retry-After", "9"),)), Attempt(taken=False, said="answered 429", wait=9.0)),
        (
            Reply(429, (("Retry-After", "Thu, 01 Jan 2026 00:00:30 GMT"),)),
            Attempt(taken=False, said="answered 429", wait=30.0),
        ),
        (Reply(408), Attempt(taken=False, said="answered 408")),
        (Reply(404), Attempt(taken=False, said="answered 404", again=False)),
        (Reply(410), Attempt(taken=False, said="answered 410", again=False)),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Reply) else "",
)
async def test_answers(reply: Reply, attempt: Attempt) -> None:
    async with Receiver(reply) as receiver:
        assert await sent(receiver.url) == attempt
    assert len(receiver.received) == 1


async def test_redirects_are_not_followed() -> None:
    async with Receiver() as elsewhere:
        to = ("Location", f"{elsewhere.url}/elsewhere")
        async with Receiver(Reply(307, (to,))) as receiver:
            attempt = await sent(receiver.url)
    assert (attempt.taken, attempt.again) == (False, False)
    assert attempt.said == "answered 307, a redirect, which is not followed"
    assert elsewhere.received == []


async def test_one_that_hangs_is_broken_off(free_port: int) -> None:
    began = asyncio.get_running_loop().time()
    async with Receiver(Reply(seconds=30)) as receiver:
        attempt = await sent(f"{receiver.url}/secret-path", timeout=0.3)
    assert asyncio.get_running_loop().time() - began < 5
    said = f"127.0.0.1:{receiver.port} did not answer in time"
    assert attempt == Attempt(taken=False, said=said)
    attempt = await sent(f"http://ann:secret@127.0.0.1:{free_port}/secret-path?secret")
    assert (attempt.taken, attempt.again) == (False, True)
    assert attempt.said.startswith(f"cannot reach 127.0.0.1:{free_port}: ")
    assert "secret" not in attempt.said


async def test_it_goes_by_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//ann:pass@"))
        attempt = await sent("http://hooks.example.test/hook")
    assert attempt.taken
    (got,) = proxy.received
    assert got.headers["Host"] == "hooks.example.test"
    assert got.headers["Proxy-Authorization"] == basic("ann", "pass")["Authorization"]


async def test_tls_is_checked_against_the_hooks_own_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with Receiver(tls=authority.issue("127.0.0.1").context()) as receiver:
        stranger = await sent(receiver.url)
        known = await sent(receiver.url, ca_file=authority.ca_file)
        (tmp_path / "none.pem").write_text("nothing")
        broken = await sent(receiver.url, ca_file=tmp_path / "none.pem")
    assert "is not trusted" in stranger.said
    assert known.taken
    assert broken.said.startswith("notify.ops.ca_file: cannot use ")
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("source", "environ", "said"),
    [
        (SecretSource(env="HOOK"), {}, "the URL of notify.ops is missing"),
        (SecretSource(env="HOOK"), {"HOOK": "hush://x"}, "is not an http:// or https:// URL"),
        (SecretSource(env="HOOK"), {"HOOK": "http://[hush"}, "is not an http:// or https:// URL"),
        (SecretSource(file=Path("/nonexistent/x")), {}, "/nonexistent/x: no such file"),
    ],
)
async def test_what_cannot_be_read_is_named_and_tried_again(
    source: SecretSource, environ: Mapping[str, str], said: str
) -> None:
    attempt = await post(Webhook("ops", source), MESSAGE, environ=environ, clock=ManualClock(NOW))
    assert (attempt.taken, attempt.again) == (False, True)
    assert said in attempt.said
    assert "hush" not in attempt.said

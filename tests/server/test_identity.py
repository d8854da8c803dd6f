"""Users from an htpasswd file: who is let in, what it costs, and what is never told."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import bcrypt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefetch.errors import ConfigError
from prefetch.server.identity import (
    MAX_FILE,
    MAX_HEADER,
    MAX_WAITING,
    NOBODY,
    REFUSED,
    Htpasswd,
    Identity,
    read_users,
)
from support.clock import ManualClock


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(cost)).decode()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class Checked:
    """Counts the calls of bcrypt.checkpw; holds them up while `gate` is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.settings: list[bytes] = []
        self.threads: set[str] = set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._real = bcrypt.checkpw
        monkeypatch.setattr(bcrypt, "checkpw", self)

    def __call__(self, password: bytes, stored: bytes) -> bool:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.settings.append(stored[:7])
            self.threads.add(threading.current_thread().name)
        assert self.gate.wait(60)
        right = self._real(password, stored)
        with self._lock:
            self.at_once -= 1
        return right

    @property
    def count(self) -> int:
        return len(self.settings)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Checked:
    return Checked(monkeypatch)


class Users:
    """An htpasswd file and what reads it."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path = path
        self.clock = clock
        self.warnings: list[str] = []
        self.write(ci="sesame", ops="tulip")
        self.htpasswd = Htpasswd(path, clock=clock, warn=self.warnings.append)

    def write(self, **passwords: str) -> None:
        self.replace("".join(f"{name}:{hashed(word)}\n" for name, word in passwords.items()))

    def replace(self, text: str) -> None:
        new = self.path.with_name("new")
        new.write_text(text)
        new.rename(self.path)

    async def ask(self, name: str, password: str) -> Identity:
        return await self.htpasswd.authenticate(basic(name, password))


@pytest.fixture
async def users(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Users]:
    made = Users(tmp_path / "htpasswd", clock)
    yield made
    await made.htpasswd.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_who_is_who(users: Users) -> None:
    assert users.htpasswd.users == {"ci", "ops"}
    assert await users.ask("ci", "sesame") == Identity("ci")
    assert await users.ask("ops", "tulip") == Identity("ops")
    for name, password in [
        *(("ci", "tulip"), ("ci", ""), ("", "sesame"), ("CI", "sesame"), ("eve", "sesame")),
        *(("ci ", "sesame"), ("ci", "sesame "), ("anonymous", "sesame"), ("*", "sesame")),
    ]:
        assert await users.ask(name, password) == REFUSED
    assert Identity("anonymous", failed=True) == REFUSED


async def test_names_and_passwords_are_utf8(users: Users) -> None:
    users.write(jürgen="schlüssel:mit:punkten")
    users.clock.advance(1)
    assert await users.ask("jürgen", "schlüssel:mit:punkten") == Identity("jürgen")
    latin = base64.b64encode("jürgen:schlüssel:mit:punkten".encode("latin-1")).decode()
    assert await users.htpasswd.authenticate(f"Basic {latin}") == NOBODY


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Basic Og==",
        "Basic !!!",
        "Basic Y2k6c2VzYW1",
        "Basic Y2k=",
        "Basic Y2k6\nc2VzYW1l",
        "Basic \udcff\ud800",
        "Bearer Y2k6c2VzYW1l",
        "Y2k6c2VzYW1l",
        basic("ci", "sesame\0"),
        basic("ci", "sesame\n"),
        basic("ci", "x" * MAX_HEADER),
    ],
)
async def test_what_is_nobody_costs_nothing(
    users: Users, checked: Checked, header: str | None
) -> None:
    assert await users.htpasswd.authenticate(header) == NOBODY == Identity("anonymous")
    assert checked.count == 0


@pytest.mark.parametrize("header", ["basic Y2k6c2VzYW1l", "BASIC  Y2k6c2VzYW1l "])
async def test_how_else_basic_may_be_written(users: Users, header: str) -> None:
    assert await users.htpasswd.authenticate(header) == Identity("ci")


async def test_bcrypt_in_each_of_its_spellings(users: Users) -> None:
    stored = hashed("sesame").removeprefix("$2b$")
    for spelling in ("$2a$", "$2b$", "$2y$"):
        users.replace(f"# people\n\n  \nci:{spelling}{stored}\r\n# more\n")
        users.clock.advance(1)
        assert await users.ask("ci", "sesame") == Identity("ci")
        assert await users.ask("ci", "Sesame") == REFUSED
    assert users.warnings == []


async def test_long_passwords_count_as_far_as_bcrypt_reads(users: Users) -> None:
    users.write(ci="x" * 100)
    users.clock.advance(1)
    assert await users.ask("ci", "x" * 100) == Identity("ci")
    assert await users.ask("ci", "x" * 72) == Identity("ci")
    assert await users.ask("ci", "x" * 71) == REFUSED


@pytest.mark.real("htpasswd")
async def test_a_file_that_htpasswd_wrote(users: Users) -> None:
    command = ["htpasswd", "-bB", "-C", "4", users.path, "new", "pässword"]
    subprocess.run(command, check=True, capture_output=True)
    users.clock.advance(1)
    assert await users.ask("new", "pässword") == Identity("new")
    assert await users.ask("ci", "sesame") == Identity("ci")
    subprocess.run(["htpasswd", "-D", users.path, "ci"], check=True, capture_output=True)
    users.clock.advance(1)
    assert await users.ask("ci", "sesame") == REFUSED


STORED = "$2y$04$" + "S" * 21 + "." + "h" * 31


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("ci:hunter2", ":2: the password of the user 'ci' is no bcrypt hash of cost 4 to 17 (make"),
        ("ci:$apr1$hunter2$AAAAAAAAAAAAAAAAAAAAA/", ":2: the password of the user 'ci' is no"),
        ("ci:{SHA}hunter2", ":2: the password of the user 'ci' is no bcrypt"),
        (f"ci:{STORED.replace('$04', '$18')}", ":2: the password of the user 'ci' is no"),
        (f"ci:{STORED}:hunter2", ":2: the password of the user 'ci' is no bcrypt"),
        ("ci:", ":2: the password of the user 'ci' is no bcrypt"),
        ("hunter2", ":2: expected a user's name, a colon and a bcrypt hash"),
        (":hunter2", ":2: expected a user's name"),
        ("c\x1bi:hunter2", ":2: expected a user's name"),
        (f"anonymous:{STORED}", ":2: no user can be called 'anonymous'"),
        (f"*:{STORED}", ":2: no user can be called '*'"),
        (f"eve:{STORED}", ":2: the user 'eve' is there twice"),
        ("#" * MAX_FILE, f": larger than {MAX_FILE} bytes"),
        ("\udcff", ": not UTF-8"),
    ],
)
def test_what_a_file_may_not_hold(tmp_path: Path, entry: str, message: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_bytes(f"eve:{STORED}\n{entry}\n".encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        Htpasswd(path, clock=ManualClock(), warn=print)
    told = str(caught.value)
    assert told.startswith(f"{path}{message}")
    assert "hunter2" not in told
    assert "$2y$" not in told
    assert told.isprintable()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^serve\.htpasswd_file: cannot read .*: No such file"):
        read_users(tmp_path / "htpasswd")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_users(tmp_path)


async def test_a_changed_file_is_read_again(users: Users) -> None:
    assert await users.ask("ci", "sesame") == Identity("ci")
    users.write(ci="changed", new="comer")
    users.clock.advance(0.9)
    assert await users.ask("ci", "sesame") == Identity("ci")
    users.clock.advance(0.1)
    assert await users.ask("ci", "sesame") == REFUSED
    assert await users.ask("ci", "changed") == Identity("ci")
    assert await users.ask("new", "comer") == Identity("new")
    assert await users.ask("ops", "tulip") == REFUSED
    assert users.htpasswd.users == {"ci", "new"}


async def test_a_change_of_the_same_size_in_place_is_seen(users: Users) -> None:
    before = users.path.stat()
    users.path.write_text(users.path.read_text().replace("ops:", "new:"))
    os.utime(users.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    users.clock.advance(1)
    assert await users.ask("new", "tulip") == Identity("new")
    assert users.path.stat().st_ino == before.st_ino


async def test_a_broken_file_keeps_the_users_and_is_told_of_once(users: Users) -> None:
    users.replace("ci:hunter2\n")
    for _ in range(3):
        users.clock.advance(400)
        assert await users.ask("ci", "sesame") == Identity("ci")
    (line,) = users.warnings
    assert line.startswith(f"the users stay as they were: {users.path}:1: the password of")
    assert "hunter2" not in line
    users.path.unlink()
    for _ in range(3):
        users.clock.advance(400)
        assert await users.ask("ci", "sesame") == Identity("ci")
    assert users.warnings[1:] == [
        f"the users stay as they were: serve.htpasswd_file: cannot read {users.path}:"
        " No such file or directory"
    ]
    users.write(new="comer")
    users.clock.advance(1)
    assert await users.ask("ci", "sesame") == REFUSED
    assert await users.ask("new", "comer") == Identity("new")
    assert len(users.warnings) == 2


async def test_a_file_that_is_being_written_is_left_for_the_next_look(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path) -> dict[str, bytes]:
        monkeypatch.undo()
        users.write(ci="changed")
        raise ConfigError("half a line")

    monkeypatch.setattr("prefetch.server.identity.read_users", half)
    users.replace("ci:$2y$")
    users.clock.advance(1)
    assert await users.ask("ci", "sesame") == Identity("ci")
    assert users.warnings == []
    users.clock.advance(1)
    assert await users.ask("ci", "changed") == Identity("ci")


async def test_answers_are_remembered_for_a_while(users: Users, checked: Checked) -> None:
    for _ in range(3):
        await users.ask("ci", "sesame")
        await users.ask("ci", "wrong")
    assert checked.count == 2
    users.clock.advance(9.9)
    assert await users.ask("ci", "wrong") == REFUSED
    assert checked.count == 2
    users.clock.advance(0.2)
    assert await users.ask("ci", "wrong") == REFUSED
    assert await users.ask("ci", "sesame") == Identity("ci")
    assert checked.count == 3
    users.clock.advance(289)
    await users.ask("ci", "sesame")
    assert checked.count == 3
    users.clock.advance(1)
    assert await users.ask("ci", "sesame") == Identity("ci")
    assert checked.count == 4


async def test_wrong_passwords_do_not_push_out_the_right_ones(
    users: Users, checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefetch.server.identity._MOST_REMEMBERED", 10)
    await users.ask("ci", "sesame")
    for number in range(30):
        await users.ask("ci", f"wrong {number}")
    assert checked.count == 31
    await users.ask("ci", "sesame")
    await users.ask("ci", "wrong 29")
    assert checked.count == 31
    await users.ask("ci", "wrong 0")
    assert checked.count == 32


async def test_equal_checks_are_one(users: Users, checked: Checked) -> None:
    checked.gate.clear()
    asking = [asyncio.create_task(users.ask("ci", "sesame")) for _ in range(100)]
    await until(lambda: checked.count == 1)
    asking[0].cancel()
    checked.gate.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [Identity("ci")] * 99
    assert checked.count == 1


async def test_checks_from_before_a_change_are_not_joined(users: Users, checked: Checked) -> None:
    checked.gate.clear()
    before = asyncio.create_task(users.ask("ci", "sesame"))
    await until(lambda: checked.count == 1)
    users.write(ops="tulip")
    users.clock.advance(1)
    after = asyncio.create_task(users.ask("ci", "sesame"))
    await until(lambda: checked.count == 2)
    checked.gate.set()
    assert await before == Identity("ci")
    assert await after == REFUSED
    assert await users.ask("ci", "sesame") == REFUSED


async def test_checks_run_on_two_threads_of_their_own(users: Users, checked: Checked) -> None:
    checked.gate.clear()
    asking = [asyncio.create_task(users.ask("ci", f"wrong {n}")) for n in range(20)]
    await until(lambda: checked.count == 2)
    await asyncio.sleep(0.05)  # the loop runs on; no third check begins
    assert checked.most_at_once == 2
    checked.gate.set()
    assert await asyncio.gather(*asking) == [REFUSED] * 20
    assert checked.most_at_once == 2
    assert all(name.startswith("htpasswd") for name in checked.threads)


async def test_too_many_waiting_are_refused_at_once(users: Users, checked: Checked) -> None:
    assert await users.ask("ops", "tulip") == Identity("ops")
    checked.gate.clear()
    asking = [asyncio.create_task(users.ask("ci", f"wrong {n}")) for n in range(MAX_WAITING + 2)]
    await until(lambda: checked.count == 3)
    assert await asyncio.wait_for(users.ask("ci", "sesame"), 5) == REFUSED
    assert await users.ask("ops", "tulip") == Identity("ops")
    joined = asyncio.create_task(users.ask("ci", "wrong 0"))
    await asyncio.sleep(0)
    checked.gate.set()
    assert await asyncio.gather(*asking, joined) == [REFUSED] * (MAX_WAITING + 3)
    # That it was refused for want of room is not remembered.
    assert await users.ask("ci", "sesame") == Identity("ci")


async def test_unknown_names_cost_what_known_ones_do(users: Users, checked: Checked) -> None:
    users.replace(f"ci:{hashed('sesame', 5)}\nops:{hashed('tulip', 6)}\n")
    users.clock.advance(1)
    for number in range(2):
        await users.ask("ci", f"wrong {number}")
        await users.ask("ops", f"wrong {number}")
    assert sorted(checked.settings) == [b"$2b$05$"] * 2 + [b"$2b$06$"] * 2
    costs = set()
    for name in map(str, range(30)):
        checked.settings.clear()
        for password in ("a", "b"):
            assert await users.ask(name, password) == REFUSED
        first, second = checked.settings
        assert first == second
        costs.add(first)
    assert costs == {b"$2b$05$", b"$2b$06$"}


async def test_unknown_names_are_refused_whatever_the_hash_says(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: True)
    assert await users.ask("eve", "sesame") == REFUSED
    assert await users.ask("ci", "anything") == Identity("ci")


async def test_nobody_gets_in_by_an_empty_file(users: Users) -> None:
    users.replace("# nobody\n")
    users.clock.advance(1)
    assert await users.ask("ci", "sesame") == REFUSED
    assert users.htpasswd.users == frozenset()


async def test_nothing_that_was_sent_is_shown_or_kept(
    users: Users, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    secrets = ("sesame", "wrong-secret", basic("ci", "sesame")[6:], basic("ci", "wrong-secret")[6:])
    await users.ask("ci", "sesame")
    await users.ask("ci", "wrong-secret")
    users.replace("ci:hunter2")
    users.clock.advance(1)
    await users.ask("ci", "sesame")
    kept = vars(users.htpasswd) | vars(users.htpasswd._checks)
    told = [repr(users.htpasswd), repr(kept), caplog.text, *capfd.readouterr(), *users.warnings]
    for secret in secrets:
        assert all(secret not in text for text in told)


async def test_closing_refuses_everybody_and_ends_the_threads(
    tmp_path: Path, clock: ManualClock, checked: Checked
) -> None:
    users = Users(tmp_path / "htpasswd", clock)
    checked.gate.clear()
    asking = [asyncio.create_task(users.ask("ci", f"wrong {n}")) for n in range(10)]
    await until(lambda: checked.count == 2)
    closing = asyncio.create_task(users.htpasswd.close())
    await asyncio.sleep(0.01)
    checked.gate.set()
    await closing
    assert await asyncio.gather(*asking) == [REFUSED] * 10
    assert checked.count == 2
    assert await users.ask("ci", "sesame") == REFUSED
    assert not [t for t in threading.enumerate() if t.name.startswith("htpasswd")]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    header=st.one_of(
        st.text(st.characters(codec=None), max_size=60),
        st.binary(max_size=30).map(lambda data: f"Basic {base64.b64encode(data).decode()}"),
    )
)
def test_any_header_is_somebody_or_nobody(
    header: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "htpasswd"
    if not path.exists():
        path.write_text(f"ci:{hashed('sesame')}\n")

    async def ask() -> Identity:
        htpasswd = Htpasswd(path, clock=ManualClock(), warn=print)
        try:
            return await htpasswd.authenticate(header)
        finally:
            await htpasswd.close()

    assert asyncio.run(ask()).name == "anonymous"
